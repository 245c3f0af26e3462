"""Weightings, which combine the tasks' losses or gradients.

`WEIGHTINGS` maps the names accepted by `MultiTaskCTRCVRClassifier(weighting=...)` to
classes.
:class:`SessionCriticWeights` is not a weighting: it computes weights per row and task,
which are passed to `fit` as `sample_weight`.
"""

from typing import Any

from sk_pwiser._utils._components import RemovedNameError
from sk_pwiser.weighting._base import GradientWeighting, TaskWeighting
from sk_pwiser.weighting._dependencies import depends_on as depends_on
from sk_pwiser.weighting._dwa import DynamicWeightAverage
from sk_pwiser.weighting._ema import ExponentialMovingAverage
from sk_pwiser.weighting._equal import Equal
from sk_pwiser.weighting._fixed import Fixed
from sk_pwiser.weighting._nash import Nash
from sk_pwiser.weighting._session_critic import SessionCriticWeights
from sk_pwiser.weighting._torchjd import TorchJD
from sk_pwiser.weighting._uncertainty import Uncertainty

WEIGHTINGS: dict[str, type[TaskWeighting]] = {
    "dwa": DynamicWeightAverage,
    "ema": ExponentialMovingAverage,
    "equal": Equal,
    "fixed": Fixed,
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
    "GradientWeighting",
    "Nash",
    "SessionCriticWeights",
    "TaskWeighting",
    "TorchJD",
    "Uncertainty",
]


# Weightings of earlier versions, and an aggregator of TorchJD with the same aim.
REMOVED = {"gradcraft": "PCGrad", "gradnorm": "IMTLG", "metabalance": "IMTLG"}


def check_not_removed(choice: Any) -> None:
    """Raise if a name is that of a weighting that earlier versions had."""
    if isinstance(choice, str) and choice in REMOVED:
        raise RemovedNameError(
            f"weighting={choice!r} was removed. Use 'equal', or a method of TorchJD: "
            "weighting='torchjd', weighting_params={'aggregator': "
            f"{REMOVED[choice]!r}}}."
        )


def as_weighting(
    choice: Any, params: dict[str, Any] | None
) -> tuple[Any, dict[str, Any] | None]:
    """Replace a class or instance of TorchJD by `TorchJD` and its parameters.

    Everything else is returned unchanged.
    """
    kind = choice if isinstance(choice, type) else type(choice)
    if any(base.__module__.partition(".")[0] == "torchjd" for base in kind.__mro__):
        return TorchJD, {**(params or {}), "aggregator": choice}
    return choice, params
