"""Multi-task models of clicks and conversions, as scikit-learn estimators."""

from sk_pwiser._estimator import MultiTaskCTRCVRClassifier, TaskView, num_threads
from sk_pwiser._version import __version__

__all__ = ["MultiTaskCTRCVRClassifier", "TaskView", "__version__", "num_threads"]
