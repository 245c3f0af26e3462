"""Losses: a batch of logits and labels becomes one loss per task.

`LOSSES` maps the names that `MultiTaskCTRCVRClassifier(loss=...)` takes to classes.
"""

from sk_pwiser.losses._base import MultiTaskLoss
from sk_pwiser.losses._bce import BCE
from sk_pwiser.losses._combined_pair import CombinedPair
from sk_pwiser.losses._focal import Focal
from sk_pwiser.losses._jrc import JRC
from sk_pwiser.losses._monotonicity import funnel_monotonicity_penalty
from sk_pwiser.losses._pwiser import PWiseR
from sk_pwiser.losses._pwiser_loss import pwiser_loss

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
