"""Weightings: how the losses of the tasks become the one that is minimised.

`WEIGHTINGS` maps the names that `MultiTaskCTRCVRClassifier(weighting=...)` takes to
classes.
"""

from sk_pwiser.weighting._base import TaskWeighting
from sk_pwiser.weighting._fixed import Equal, Fixed
from sk_pwiser.weighting._gradient import GradientWeighting

WEIGHTINGS: dict[str, type[TaskWeighting]] = {
    "equal": Equal,
    "fixed": Fixed,
}

__all__ = ["WEIGHTINGS", "Equal", "Fixed", "GradientWeighting", "TaskWeighting"]
