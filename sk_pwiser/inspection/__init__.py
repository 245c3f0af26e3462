"""A look at impressions before a fit, and plots of fitted estimators.

:func:`describe_impressions` shows rates, leaks, drift, and how columns would be read,
:func:`task_importances` computes the importance of the columns of a fitted estimator,
and :func:`explain_rows` what each column contributes to the prediction of a row.

The displays require matplotlib, the extra "plot". They have the interface of
scikit-learn's displays: ``from_estimator`` or ``from_predictions`` computes and draws
the curves, and ``plot`` draws them again. A task has the same colour in all of them.
"""

from sk_pwiser.inspection._combination_rates import CombinationDisplay
from sk_pwiser.inspection._funnel_scores import FunnelScoreDisplay
from sk_pwiser.inspection._importance import TaskImportanceDisplay, task_importances
from sk_pwiser.inspection._impressions import (
    ImpressionsDescription,
    describe_impressions,
)
from sk_pwiser.inspection._row_explanations import (
    RowExplanationDisplay,
    RowExplanations,
    explain_rows,
)
from sk_pwiser.inspection._task_curves import (
    TaskCalibrationDisplay,
    TaskPrecisionRecallDisplay,
    TaskRocCurveDisplay,
)
from sk_pwiser.inspection._training_curves import (
    TrainingHistoryDisplay,
    WeightSearchDisplay,
)
from sk_pwiser.inspection._value_curves import ValueDecileDisplay, ValueGainDisplay

__all__ = [
    "CombinationDisplay",
    "FunnelScoreDisplay",
    "ImpressionsDescription",
    "RowExplanationDisplay",
    "RowExplanations",
    "TaskCalibrationDisplay",
    "TaskImportanceDisplay",
    "TaskPrecisionRecallDisplay",
    "TaskRocCurveDisplay",
    "TrainingHistoryDisplay",
    "ValueDecileDisplay",
    "ValueGainDisplay",
    "WeightSearchDisplay",
    "describe_impressions",
    "explain_rows",
    "task_importances",
]
