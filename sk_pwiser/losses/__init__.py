"""Losses, which compute one value per task from a batch of logits and labels.

`LOSSES` maps the names accepted by `MultiTaskCTRCVRClassifier(loss=...)` to classes.
"""

from sk_pwiser.losses._base import MultiTaskLoss
from sk_pwiser.losses._bce import BCE
from sk_pwiser.losses._combined_pair import CombinedPair
from sk_pwiser.losses._focal import Focal
from sk_pwiser.losses._jrc import JRC
from sk_pwiser.losses._monotonicity import funnel_monotonicity_penalty
from sk_pwiser.losses._pwiser import PWiseR, pwiser_loss
from sk_pwiser.losses._value_losses import VALUE_LOSSES, ValueLoss

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
    "VALUE_LOSSES",
    "CombinedPair",
    "Focal",
    "MultiTaskLoss",
    "PWiseR",
    "ValueLoss",
    "funnel_monotonicity_penalty",
    "pwiser_loss",
]
