"""Pictures of fitted estimators. They need matplotlib, the extra "plot".

Displays work as those of scikit-learn: ``from_estimator`` or ``from_predictions``
computes and draws, and ``plot`` draws again, for example on other axes. A task has the
same colour in all of them.
"""

from sk_pwiser.inspection._calibration import TaskCalibrationDisplay
from sk_pwiser.inspection._funnel_scores import FunnelScoreDisplay
from sk_pwiser.inspection._history import TrainingHistoryDisplay
from sk_pwiser.inspection._precision_recall import TaskPrecisionRecallDisplay
from sk_pwiser.inspection._roc import TaskRocCurveDisplay
from sk_pwiser.inspection._task_weights import plot_task_weights
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
