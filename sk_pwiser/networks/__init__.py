"""Multi-task networks: from codes and numeric inputs to one logit a task.

A network reads a batch of category codes and numeric inputs and returns a
:class:`NetworkOutput`; it never sees labels. `NETWORKS` maps the names that
`MultiTaskCTRCVRClassifier(network=...)` takes to classes.
"""

from sk_pwiser.networks._base import (
    Correction,
    MultiTaskNetwork,
    NetworkOutput,
    NetworkSpec,
)
from sk_pwiser.networks._mmoe import MMoE
from sk_pwiser.networks._shared_bottom import SharedBottom
from sk_pwiser.networks._single_task import SingleTask

NETWORKS: dict[str, type[MultiTaskNetwork]] = {
    "mmoe": MMoE,
    "shared_bottom": SharedBottom,
    "single_task": SingleTask,
}

__all__ = [
    "NETWORKS",
    "Correction",
    "MMoE",
    "MultiTaskNetwork",
    "NetworkOutput",
    "NetworkSpec",
    "SharedBottom",
    "SingleTask",
]
