"""Weightings, which combine the tasks' losses or gradients.

`WEIGHTINGS` maps the names accepted by `MultiTaskCTRCVRClassifier(weighting=...)` to
classes.
:class:`SessionCriticWeights` is not a weighting: it computes weights per row and task,
which are passed to `fit` as `sample_weight`.
"""

from sk_pwiser._row_weights import SessionCriticWeights
from sk_pwiser.weighting._dwa import DynamicWeightAverage
from sk_pwiser.weighting._ema import ExponentialMovingAverage
from sk_pwiser.weighting._fixed import Equal, Fixed
from sk_pwiser.weighting._gradcraft import GradCraft
from sk_pwiser.weighting._gradient import GradientWeighting
from sk_pwiser.weighting._gradient import depends_on as depends_on
from sk_pwiser.weighting._gradnorm import GradNorm
from sk_pwiser.weighting._metabalance import MetaBalance
from sk_pwiser.weighting._nash import Nash
from sk_pwiser.weighting._task_weighting import TaskWeighting
from sk_pwiser.weighting._torchjd import TorchJD
from sk_pwiser.weighting._torchjd import as_weighting as as_weighting
from sk_pwiser.weighting._uncertainty import Uncertainty

WEIGHTINGS: dict[str, type[TaskWeighting]] = {
    "dwa": DynamicWeightAverage,
    "ema": ExponentialMovingAverage,
    "equal": Equal,
    "fixed": Fixed,
    "gradcraft": GradCraft,
    "gradnorm": GradNorm,
    "metabalance": MetaBalance,
    "nash": Nash,
    "torchjd": TorchJD,
    "uncertainty": Uncertainty,
}

__all__ = [
    "WEIGHTINGS",
    "DynamicWeightAverage",
    "Equal",
    "ExponentialMovingAverage",
    "Fixed",
    "GradCraft",
    "GradNorm",
    "GradientWeighting",
    "MetaBalance",
    "Nash",
    "SessionCriticWeights",
    "TaskWeighting",
    "TorchJD",
    "Uncertainty",
]
