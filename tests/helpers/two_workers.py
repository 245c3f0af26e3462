"""Compares steps of two processes with those of one on the joined batch."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import torch

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.distributed._workers import WorkerNet
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS
from sk_pwiser.weighting import WEIGHTINGS

N_ROWS = 64
REFUSED = {"dcmt", "ddpo", "escm2"}  # their losses are divided by sums of weights
REQUIRED = {"fixed": {"weights": [1.0, 3.0]}}
CONDITIONAL = {"network_params": {"task_space": "conditional"}}
CASES = {
    **{f"loss {name}": {"loss": name} for name in LOSSES},
    **{
        f"network {name}": {"network": name} for name in NETWORKS if name not in REFUSED
    },
    **{
        f"weighting {name}": {"weighting": name, "weighting_params": REQUIRED.get(name)}
        for name in WEIGHTINGS
    },
    "funnel pairs": {"loss_params": {"pairs": "funnel", "tasks": "all"}},
    "conditional heads": CONDITIONAL,
    "pwiser on conditional ctcl": {"network": "ctcl", **CONDITIONAL},
    "sampled negatives": {"negative_sampling_rate": 0.5},
    "lazy embeddings": {"optimizer_params": {"lazy_embeddings": True}},
    "groups": {"loss": "jrc", "groups": True},
    "row weights": {"loss": "pwiser", "weights": 1},
    "task weights": {"loss": "pwiser", "weights": 2},
    "weights of one worker": {"loss": "pwiser", "weights": "first"},
    "no rows left": {"loss": "pwiser", "sizes": [N_ROWS, 0]},
    "one converted row": {"loss": "pwiser", "rows": "one converted"},
}


def make_net(params):
    """Return a fitted net in float64, without random numbers, and its batch."""
    data = make_ctr_cvr(400, ctr=0.4, cvr=0.4, random_state=0)
    model = MultiTaskCTRCVRClassifier(
        max_epochs=1,
        early_stopping=False,
        encoding_params={"category_dropout": 0.0, "min_frequency": 1},
        random_state=0,
        **params,
    ).fit(data.data, data.target)
    net = model.net_
    net.module_.double()
    impressions = model._result.schema.transform(data.data[:N_ROWS])
    impressions = impressions.labelled(data.target[:N_ROWS].to_numpy())
    batch, y = impressions.batch(slice(0, N_ROWS))
    batch["numeric"] = batch["numeric"].double()
    return net, batch, y.double()


def add_weights(batch, kind, rng):
    shape = (N_ROWS, 2) if kind == 2 else (N_ROWS,)
    weights = rng.uniform(0.2, 2.0, shape)
    if kind == "first":
        weights[N_ROWS // 2 :] = 1.0
    batch["sample_weight"] = torch.from_numpy(weights)


def part(batch, y, rows, kind):
    """Return some rows of a batch, of which only the first may have weights."""
    own = {name: tensor[rows] for name, tensor in batch.items()}
    if kind == "first" and rows.start:
        del own["sample_weight"]
    return own, y[rows]


def gradients(net):
    return [
        None if p.grad is None else p.grad.to_dense().clone()
        for p in [*net.module_.parameters(), *net.criterion_.parameters()]
    ]


def largest_difference(ours, theirs):
    """Return the largest relative difference of two lists of tensors."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None and a.numel():
            worst = max(worst, ((a - b).abs().max() / (b.abs().max() + 1e-3)).item())
    return worst


def compare(workers, params):
    """Return the differences of loss and gradients, and the loss itself."""
    params, rng = dict(params), np.random.default_rng(0)
    kind, sizes = params.pop("weights", None), params.pop("sizes", [40, 24])
    has_groups, rows = params.pop("groups", False), params.pop("rows", None)
    if kind == "first":
        sizes = [N_ROWS // 2] * 2
    net, batch, y = make_net(params)
    if kind is not None:
        add_weights(batch, kind, rng)
    if has_groups:
        batch["groups"] = torch.from_numpy(rng.integers(0, 8, N_ROWS))
    if rows is not None:
        y[:, 1] = 0
        y[-1] = 1
    alone = deepcopy(net)
    loss = alone.train_step_single((batch, y))["loss"].item()
    expected = gradients(alone)
    net.__class__ = WorkerNet
    net.join(workers, 0)
    n_weights = 0 if kind is None else 2 if kind == 2 else 1
    net._steps = SimpleNamespace(sizes=sizes, n_weights=n_weights)
    start = sum(sizes[: workers.rank])
    own = slice(start, start + sizes[workers.rank])
    if own.start == own.stop:
        own = slice(0, 1)  # does not count
    step = net.train_step_single(part(batch, y, own, kind))
    return {
        "value": loss,
        "loss": abs(step["loss"].item() - loss) / abs(loss),
        "gradients": largest_difference(gradients(net), expected),
    }


def run(folder, workers):
    """Return the figures of a process by case; see two_processes.py."""
    return {name: compare(workers, params) for name, params in CASES.items()}
