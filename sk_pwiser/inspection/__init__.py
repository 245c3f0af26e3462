"""Pictures of fitted estimators. They need matplotlib, the extra "plot".

Displays work as those of scikit-learn: ``from_estimator`` or ``from_predictions``
computes and draws, and ``plot`` draws again, for example on other axes. A task has the
same colour in all of them.
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
