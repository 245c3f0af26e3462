"""Multi-task networks: from codes and numeric inputs to one logit per task.

A network reads a batch of category codes and numeric inputs and returns a
:class:`NetworkOutput`; it never sees labels. `NETWORKS` maps the names that
`MultiTaskCTRCVRClassifier(network=...)` accepts to classes.
"""

from sk_pwiser.networks._aitm import AITM
from sk_pwiser.networks._base import Labels, MultiTaskNetwork, NetworkOutput
from sk_pwiser.networks._base import random_inputs as random_inputs
from sk_pwiser.networks._ctcl import CTCL
from sk_pwiser.networks._dcmt import DCMT
from sk_pwiser.networks._ddpo import DDPO
from sk_pwiser.networks._escm2 import ESCM2
from sk_pwiser.networks._esmm import ESMM
from sk_pwiser.networks._fdn import FDN
from sk_pwiser.networks._metaheac import MetaHeac
from sk_pwiser.networks._mmoe import MMoE
from sk_pwiser.networks._numeric_inputs import numeric_widths
from sk_pwiser.networks._omoe import OMoE
from sk_pwiser.networks._ple import PLE
from sk_pwiser.networks._shared_bottom import SharedBottom
from sk_pwiser.networks._single_task import SingleTask
from sk_pwiser.networks._spec import (
    INTERACTIONS,
    SHARED_PARAMS,
    TASK_SPACES,
    Bags,
    BagSpec,
    NetworkSpec,
    VectorSpec,
)
from sk_pwiser.networks._stem import STEM
from sk_pwiser.networks._task_space import chain_logits, full_log_logits

NETWORKS: dict[str, type[MultiTaskNetwork]] = {
    "aitm": AITM,
    "ctcl": CTCL,
    "dcmt": DCMT,
    "ddpo": DDPO,
    "escm2": ESCM2,
    "esmm": ESMM,
    "fdn": FDN,
    "metaheac": MetaHeac,
    "mmoe": MMoE,
    "omoe": OMoE,
    "ple": PLE,
    "shared_bottom": SharedBottom,
    "single_task": SingleTask,
    "stem": STEM,
}

__all__ = [
    "AITM",
    "CTCL",
    "DCMT",
    "DDPO",
    "ESCM2",
    "ESMM",
    "FDN",
    "INTERACTIONS",
    "NETWORKS",
    "PLE",
    "SHARED_PARAMS",
    "STEM",
    "TASK_SPACES",
    "BagSpec",
    "Bags",
    "Labels",
    "MMoE",
    "MetaHeac",
    "MultiTaskNetwork",
    "NetworkOutput",
    "NetworkSpec",
    "OMoE",
    "SharedBottom",
    "SingleTask",
    "VectorSpec",
    "chain_logits",
    "full_log_logits",
    "numeric_widths",
]
