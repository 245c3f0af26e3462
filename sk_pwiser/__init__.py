"""Multi-task models of clicks and conversions, as scikit-learn estimators.

The estimator and the folders are imported on first use: those that need no torch, such
as `history` and `metrics`, are imported without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sk_pwiser._version import __version__

if TYPE_CHECKING:
    from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
    from sk_pwiser._estimator._task_view import TaskView
    from sk_pwiser._estimator._value_view import ValueView
    from sk_pwiser._utils._threads import num_threads

__all__ = [
    "MultiTaskCTRCVRClassifier",
    "TaskView",
    "ValueView",
    "__version__",
    "num_threads",
]

# The files of the names in `__all__`.
_FILES = {
    "MultiTaskCTRCVRClassifier": "sk_pwiser._estimator._classifier",
    "TaskView": "sk_pwiser._estimator._task_view",
    "ValueView": "sk_pwiser._estimator._value_view",
    "num_threads": "sk_pwiser._utils._threads",
}
# `import sk_pwiser` suffices for `sk_pwiser.metrics`, too.
_FOLDERS = {
    "calibration",
    "callbacks",
    "datasets",
    "delayed_feedback",
    "distributed",
    "export",
    "history",
    "inspection",
    "linear_model",
    "losses",
    "metrics",
    "model_selection",
    "networks",
    "transfer",
    "weighting",
}


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return import_module(f"sk_pwiser.{name}")
    if name not in _FILES:
        raise AttributeError(f"module 'sk_pwiser' has no attribute {name!r}")
    value = getattr(import_module(_FILES[name]), name)
    globals()[name] = value  # later reads no longer come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_FOLDERS})
