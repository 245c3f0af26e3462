"""What the user holds: the classifier, its parameters and its predictions."""

from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
from sk_pwiser._estimator._task_view import TaskView

__all__ = ["MultiTaskCTRCVRClassifier", "TaskView"]
