"""Multi-task networks: from codes and numeric inputs to one logit per task.

A network reads a batch of category codes and numeric inputs and returns a
:class:`NetworkOutput`; it never sees labels. `NETWORKS` maps the names that
`MultiTaskCTRCVRClassifier(network=...)` accepts to classes.
"""

from sk_pwiser.networks._entire_space import DCMT, DDPO, ESCM2, ESMM
from sk_pwiser.networks._experts import FDN, PLE, STEM, MetaHeac, MMoE, OMoE
from sk_pwiser.networks._input import (
    INTERACTIONS,
    SHARED_PARAMS,
    TASK_SPACES,
    Bags,
    BagSpec,
    NetworkSpec,
    numeric_widths,
)
from sk_pwiser.networks._multi_task_network import (
    AITM,
    CTCL,
    Labels,
    MultiTaskNetwork,
    NetworkOutput,
    SharedBottom,
    SingleTask,
    chain_logits,
    full_log_logits,
)
from sk_pwiser.networks._multi_task_network import random_inputs as random_inputs

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
    "chain_logits",
    "full_log_logits",
    "numeric_widths",
]
