"""Kernels and waits of a training step on an accelerator, component by component.

    python benchmarks/accelerators.py

Counted on the simulated accelerator of the tests, which g++ builds: the calls of
operators in a step that launch a kernel on CUDA, and those in which the host waits for
the device, as a mean over the steps 2 to 65 of a fit. Both depend on the components,
not on the machine or the size of a batch, except for the surrogate "logistic" and
combined_pair: above 2^22 pairs per batch they use a grid.
"""

import sys
from pathlib import Path

import numpy as np
from _harness import begin, make_parser
from skorch.callbacks import Callback

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS
from sk_pwiser.weighting import WEIGHTINGS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from simulated_device import counts, simulated_device

N_STEPS = 65


class Steps(Callback):
    """Counts from the end of the first step to the end of the last one."""

    def on_train_begin(self, net, **kwargs):
        self.marks = []

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.marks.append(counts())


def calls_per_step(batch, groups=False, **params):
    """Return the kernels and the waits of a step."""
    data = make_ctr_cvr(N_STEPS * batch, ctr=0.3, cvr=0.3, random_state=0)
    steps = Steps()
    model = MultiTaskCTRCVRClassifier(
        batch_size=batch,
        max_epochs=1,
        early_stopping=False,
        device=simulated_device(),
        callbacks=[steps],
        random_state=0,
        **params,
    )
    groups = np.arange(len(data.data)) // 8 if groups else None
    model.fit(data.data, data.target, groups=groups)
    found = steps.marks[-1] - steps.marks[0]
    return [sum(part.values()) / (len(steps.marks) - 1) for part in found]


# Parameters of the estimator, by heading and label.
BCE = {"loss": "bce"}
PARTS = {
    "Losses": {
        "default": {},
        **{loss: {"loss": loss, "groups": loss == "jrc"} for loss in LOSSES},
        "pwiser, squared hinge": {"loss_params": {"surrogate": "squared_hinge"}},
        "pwiser, logistic": {"loss_params": {"surrogate": "logistic"}},
        "pwiser, all tasks": {"loss_params": {"tasks": "all"}},
        "default, bfloat16": {"precision": "bfloat16"},
        "default, conditional heads": {"network_params": {"task_space": "conditional"}},
    },
    "Networks, with bce": {name: {**BCE, "network": name} for name in NETWORKS},
    "Weightings, with bce": {
        name: {
            **BCE,
            "weighting": name,
            "weighting_params": {"weights": [1.0, 1.0]} if name == "fixed" else None,
        }
        for name in WEIGHTINGS
    },
    "Optimisers, with bce": {
        "adam": BCE,
        "adam, gradients clipped": {**BCE, "optimizer_params": {"clip_grad_norm": 1.0}},
        "adam, tables by rows": {**BCE, "optimizer_params": {"lazy_embeddings": True}},
        "sgd": {**BCE, "optimizer": "sgd"},
    },
}


def main():
    """Print one table per kind of component."""
    arguments, report = begin("accelerators", make_parser(__doc__, device=False))
    for heading, components in PARTS.items():
        report.text("", heading)
        report.table(["kernels", "waits"])
        for label, params in components.items():
            kernels, waits = calls_per_step(64 if arguments.quick else 128, **params)
            report.row(label, [f"{kernels:.0f}", f"{waits:.0f}"])


if __name__ == "__main__":
    main()
