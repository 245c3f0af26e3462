"""The weight of the pairwise term, which follows the rates of the tasks or a trial."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from sk_pwiser._settings import AUTO_WEIGHT, Settings
from sk_pwiser._utils import _components
from sk_pwiser.losses import LOSSES, MultiTaskLoss

# The parameter of the estimator that losses with a pairwise term take.
WEIGHT = "pwiser_weight"

# The weight of the pairwise term by default, where conversions are frequent: in this
# share of the impressions, or more.
SMALL_WEIGHT = 0.1
FREQUENT = 0.01

# Below, it is in inverse proportion to their share, up to this limit: with few
# conversions the pairs add what the few labels lack; elsewhere a larger weight costs a
# little.
LARGE_WEIGHT = 0.3

# The values with which the user leaves the weight to `fit`.
UNSET_WEIGHTS = (None, AUTO_WEIGHT)


class WeightTrial(NamedTuple):
    """What a fit has found out about the weight of the pairwise term."""

    weight: float | None  # None if the rates decide
    reason: str


def default_weight(rates: Iterable[float]) -> float:
    """Return the default weight of the pairwise term at the rates of ranked tasks."""
    rarest = min((*rates, FREQUENT))
    return min(LARGE_WEIGHT, SMALL_WEIGHT * FREQUENT / max(rarest, 1e-9))


def takes_weight(loss: Any) -> bool:
    """Return whether a loss has the weight of a pairwise term."""
    return WEIGHT in loss.estimator_parameters


def weight_of(loss: Any) -> float | None:
    """Return the weight of the pairwise term of a loss, None if it has none."""
    # A user's loss may keep its weight under another name.
    if not takes_weight(loss) or not hasattr(loss, WEIGHT):
        return None
    return float(getattr(loss, WEIGHT))


def follows_rates(settings: Settings, trial: WeightTrial | None) -> bool:
    """Return whether the weight follows the rates of the rows, also in updates."""
    if settings.pwiser_weight == AUTO_WEIGHT:
        return trial is None or trial.weight is None
    return settings.pwiser_weight is None


def unset_weight(
    settings: Settings, trial: WeightTrial | None, rates: Iterable[float]
) -> float:
    """Return the weight that the user leaves to `fit`, at the rates of ranked tasks."""
    if settings.pwiser_weight == AUTO_WEIGHT and trial is not None:
        weight = trial.weight
        if weight is not None:
            return weight
    return default_weight(rates)


def describe_weight(settings: Settings, trial: WeightTrial | None, loss: Any) -> str:
    """Say why a loss has its weight."""
    if not takes_weight(loss):
        return "The loss has no pairwise term."
    if settings.pwiser_weight == AUTO_WEIGHT and trial is not None:
        return trial.reason
    if follows_rates(settings, trial):
        return "The weight follows the share of rows with the event."
    return "The weight is the one given."


def loss_choice(
    settings: Settings, weight: float = SMALL_WEIGHT
) -> tuple[_components.Choice, dict[str, Any]]:
    """Return the loss and its arguments, with `weight` if the user has set none."""
    registry: Any = LOSSES, MultiTaskLoss, "loss", settings.loss
    names = _components.resolve(registry).estimator_parameters
    arguments = {name: getattr(settings, name) for name in names}
    if WEIGHT in arguments and arguments[WEIGHT] in UNSET_WEIGHTS:
        arguments[WEIGHT] = weight
    return registry, arguments
