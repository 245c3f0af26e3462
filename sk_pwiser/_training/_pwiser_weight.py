"""The default weight of the pairwise term, which follows the rates of the tasks."""

from collections.abc import Iterable
from typing import Any

from sk_pwiser._settings import Settings
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


def default_weight(rates: Iterable[float]) -> float:
    """Return the default weight of the pairwise term at the rates of ranked tasks."""
    rarest = min((*rates, FREQUENT))
    return min(LARGE_WEIGHT, SMALL_WEIGHT * FREQUENT / max(rarest, 1e-9))


def loss_choice(
    settings: Settings, weight: float = SMALL_WEIGHT
) -> tuple[_components.Choice, dict[str, Any]]:
    """Return the loss and its arguments, with `weight` if the user has set none."""
    registry: Any = LOSSES, MultiTaskLoss, "loss", settings.loss
    names = _components.resolve(registry).estimator_parameters
    arguments = {name: getattr(settings, name) for name in names}
    if WEIGHT in arguments and arguments[WEIGHT] is None:
        arguments[WEIGHT] = weight
    return registry, arguments
