"""Losses: from a batch of logits and labels to one loss a task.

`LOSSES` maps the names that `MultiTaskCTRCVRClassifier(loss=...)` takes to classes.
"""

from sk_pwiser.losses._base import MultiTaskLoss
from sk_pwiser.losses._bce import BCE
from sk_pwiser.losses._calibrator import funnel_calibrator
from sk_pwiser.losses._combined_pair import CombinedPair
from sk_pwiser.losses._entire_space import entire_space_loss
from sk_pwiser.losses._focal import Focal
from sk_pwiser.losses._jrc import JRC
from sk_pwiser.losses._pwiser import PWiseR
from sk_pwiser.losses._pwiser_term import pwiser_loss

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
    "entire_space_loss",
    "funnel_calibrator",
    "pwiser_loss",
]
