"""Plots of fitted estimators. They require matplotlib, the extra "plot".

The displays have the interface of scikit-learn's displays: ``from_estimator`` or
``from_predictions`` computes and draws the curves, and ``plot`` draws them again, for
example on other axes. Each task has the same colour in all displays.
"""

from sk_pwiser.inspection._calibration_curves import TaskCalibrationDisplay
from sk_pwiser.inspection._funnel_scores import FunnelScoreDisplay
from sk_pwiser.inspection._ranking_curves import (
    TaskPrecisionRecallDisplay,
    TaskRocCurveDisplay,
)
from sk_pwiser.inspection._training_history import (
    TrainingHistoryDisplay,
    plot_task_weights,
)
from sk_pwiser.inspection._weight_search import WeightSearchDisplay

__all__ = [
    "FunnelScoreDisplay",
    "TaskCalibrationDisplay",
    "TaskPrecisionRecallDisplay",
    "TaskRocCurveDisplay",
    "TrainingHistoryDisplay",
    "WeightSearchDisplay",
    "plot_task_weights",
]
