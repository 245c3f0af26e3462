"""Losses, which compute one value per task from a batch of logits and labels.

`LOSSES` maps the names accepted by `MultiTaskCTRCVRClassifier(loss=...)` to classes.
"""

from sk_pwiser.losses._losses import (
    BCE,
    Focal,
    MultiTaskLoss,
    PWiseR,
    funnel_monotonicity_penalty,
    pwiser_loss,
)
from sk_pwiser.losses._ranking import JRC, CombinedPair

LOSSES: dict[str, type[MultiTaskLoss]] = {
    "bce": BCE,
    "combined_pair": CombinedPair,
    "focal": Focal,
    "jrc": JRC,
    "pwiser": PWiseR,
}

__all__ = [
    "BCE",
    "JRC",
    "LOSSES",
    "CombinedPair",
    "Focal",
    "MultiTaskLoss",
    "PWiseR",
    "funnel_monotonicity_penalty",
    "pwiser_loss",
]
