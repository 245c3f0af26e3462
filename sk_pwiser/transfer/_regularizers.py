"""Penalties that keep a network near the one that its training started from.

Each of `REGULARIZERS` returns a penalty, a function of a batch and its features, from
the net with the initial weights, the training rows, a mask of the embeddings to
include, and a seed.
"""

import math
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import NamedTuple

import torch
from torch.nn import functional as F

from sk_pwiser.transfer._fit_like import embedding_tables

DEFAULT_WEIGHTS = {"l2_sp": 0.01, "delta": 0.01, "bss": 0.001, "tred": 0.01}

# The separation of features in "tred": weights of its terms, and its optimisation.
DISCREPANCY_WEIGHT, GATE_PENALTY, HEAD_PENALTY = 0.05, 0.024, 0.03
N_STEPS, STEP_SIZE, N_ROWS = 200, 0.05, 128


def l2_sp(net, rows, included, seed):
    """Penalise half the squared distance of the weights from the initial ones."""
    network = net.module_
    start = {n: p.detach().clone() for n, p in network.named_parameters()}
    included = included.to(next(network.parameters()).device).unsqueeze(1)
    masks = dict.fromkeys(embedding_tables(network), included)

    def penalty(_inputs, _features):
        return l2_sp_penalty(dict(network.named_parameters()), start, masks)

    return penalty


def delta(net, rows, included, seed):
    """Penalise the distance from the features of the initial network."""
    initial = deepcopy(net.module_).eval()
    return lambda inputs, features: distance_penalty(
        features, features_of(initial, inputs)
    )


def bss(net, rows, included, seed):
    """Penalise the smallest singular value of the features of a batch."""
    return lambda _inputs, features: spectral_penalty(features)


def tred(net, rows, included, seed):
    """Penalise the distance from the relevant part of the initial features."""
    initial = deepcopy(net.module_).eval()
    batches = [
        features_of(initial, (inputs["codes"].long(), inputs["numeric"]))
        for inputs, _ in net.get_iterator(rows)
    ]
    labels = rows.labels().to(batches[0].device)
    gates = separate(torch.cat(batches), labels, rows.weights(), seed)
    return lambda inputs, features: distance_penalty(
        features, gates * features_of(initial, inputs)
    )


REGULARIZERS = {"l2_sp": l2_sp, "delta": delta, "bss": bss, "tred": tred}
# These run the initial network beside the trained one.
OF_FEATURES = "delta", "tred"


def l2_sp_penalty(parameters, start, masks):
    """Compute half the squared distance of parameters from their start, by masks."""
    total = torch.zeros((), device=next(iter(start.values())).device)
    for name, parameter in parameters.items():
        difference = parameter - start[name]
        if name in masks:
            difference = difference * masks[name]
        total = total + difference.square().sum()
    return total / 2


def distance_penalty(features, reference):
    """Compute the mean over rows of the squared distance, both `(batch, width)`."""
    return (features - reference).square().sum(dim=1).mean()


def spectral_penalty(features):
    """Compute the smallest squared singular value of `(batch, width)`."""
    # Each feature that is 0 in all rows would add a singular value of 0.
    features = features[:, (features != 0).any(dim=0)]
    return torch.linalg.svdvals(features)[-1:].square().sum()


def squared_discrepancy(x, y, n_kernels=5):
    """Compute the squared maximum mean discrepancy of two samples, (n_rows, width).

    The kernel is the mean of Gaussian kernels, whose widths differ by factors of 2.
    """
    points = torch.cat([x, y])
    # Not torch.cdist, whose gradient is not finite for equal points after a root.
    squares = points.square().sum(dim=1)
    distances = squares.unsqueeze(0) + squares.unsqueeze(1) - 2 * points @ points.T
    distances = distances.clamp(min=0)
    n, n_x = len(points), len(x)
    mean = distances.detach().sum() / (n * (n - 1))
    scale = mean.clamp(min=torch.finfo(points.dtype).tiny)
    widths = [scale * 2.0 ** (i - n_kernels // 2) for i in range(n_kernels)]
    kernel = torch.stack([torch.exp(-distances / w) for w in widths]).mean(dim=0)
    within = kernel[:n_x, :n_x].mean() + kernel[n_x:, n_x:].mean()
    return within - 2 * kernel[:n_x, n_x:].mean()


def separate(features, y, sample_weight, seed):
    """Find which features matter for the labels: gates in (0, 1), near 1 if they do.

    Linear models of the gated features predict the labels. The cross-entropy of each
    task is divided by the entropy of its base rate, so that the penalties have the same
    effect at all rates. Half of the rows of a step have positive labels, weighted by
    the base rate. Tasks whose labels are all equal are left out; all gates are 1
    without another.
    """
    generator = torch.Generator().manual_seed(seed)
    device, width = features.device, features.shape[1]
    # Constant features carry no information: they are 0.
    deviation = features.std(dim=0)
    x = torch.where(deviation > 1e-6, features / deviation.clamp(min=1e-6), 0.0)
    tasks = _balanced_tasks(y, sample_weight)
    if not tasks:
        return torch.ones(width, device=device)
    base_logits = [math.log(task.shares[0] / task.shares[1]) for task in tasks]
    logits = torch.zeros(width, device=device, requires_grad=True)
    heads = torch.zeros(len(tasks), width, device=device, requires_grad=True)
    biases = torch.tensor(base_logits, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([logits, heads, biases], lr=STEP_SIZE)
    for _step in range(N_STEPS):
        gates = torch.sigmoid(logits)
        rows = torch.randint(len(x), (N_ROWS,), generator=generator).to(device)
        relevant, rest = gates * x[rows], (1 - gates) * x[rows]
        loss = -DISCREPANCY_WEIGHT * squared_discrepancy(relevant, rest)
        loss = loss + GATE_PENALTY * gates.square().mean()
        loss = loss + HEAD_PENALTY * heads.square().sum()
        for task, head, bias in zip(tasks, heads, biases, strict=True):
            drawn = task.draw(generator)
            for share, sign, of_label in zip(task.shares, (-1, 1), drawn, strict=True):
                z = x[of_label] @ (gates * head) + bias
                cross_entropy = share * F.softplus(sign * z).mean()
                loss = loss + cross_entropy / task.relative_entropy
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.sigmoid(logits.detach())


class _BalancedTask(NamedTuple):
    """Rows of a task by label, 1 first, with cumulated weights and shares of weight."""

    rows: list
    sums: list
    shares: list

    @property
    def relative_entropy(self):
        """The entropy of the base rate over that of a rate of 1/2."""
        return -sum(share * math.log2(share) for share in self.shares)

    def draw(self, generator):
        """Draw rows of each label in proportion to their weights."""
        for rows, sums in zip(self.rows, self.sums, strict=True):
            u = torch.rand(N_ROWS // 2, generator=generator, dtype=torch.float64)
            places = torch.searchsorted(sums, u * sums[-1], right=True)
            yield rows[places.clamp(max=len(rows) - 1).to(rows.device)]


def _balanced_tasks(y, sample_weight):
    """Return the tasks that have weighted rows with both labels."""
    tasks = []
    weights = torch.ones(len(y), 1) if sample_weight is None else sample_weight.cpu()
    weights = weights.double().view(len(y), -1).expand(len(y), y.shape[1])
    for labels, weight in zip(y.cpu().T, weights.T, strict=True):
        rows = [
            torch.nonzero(is_class & (weight > 0)).squeeze(1)
            for is_class in (labels > 0, labels == 0)
        ]
        if all(len(each) for each in rows):
            sums = [weight[each].cumsum(0) for each in rows]
            totals = torch.stack([each[-1] for each in sums])
            shares = (totals / totals.sum()).tolist()
            rows = [each.to(y.device) for each in rows]
            tasks.append(_BalancedTask(rows, sums, shares))
    return tasks


def features_of(network, inputs):
    """Return the features of a network, without a gradient, `(batch, width)`."""
    with torch.no_grad(), _recording(network) as recorded:
        network(*inputs)
    return _flat(recorded[0], len(inputs[0]))


@contextmanager
def _recording(network):
    """Record the input of the towers, until the list is cleared."""
    towers = getattr(network, network.towers_name, None)
    if towers is None:
        raise ValueError(
            f"network {type(network).__name__} has no module {network.towers_name!r}, "
            "whose input the regularizer compares. Set the class attribute "
            "towers_name to the module that maps features to logits."
        )
    recorded = []

    def record(_module, inputs):
        if not recorded:
            recorded.append(inputs[0])

    # A network may call the towers one by one: the first call counts.
    hooks = [module.register_forward_pre_hook(record) for module in towers.modules()]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def _flat(features, n_rows):
    """Return the features of all towers as one float32 vector per row."""
    features = features.float()
    return features.reshape(-1, n_rows, features.shape[-1]).movedim(0, 1).flatten(1)


@contextmanager
def penalised(net, regularizer, weight, rows, included, seed):
    """Add a penalty, which starts at 0 and grows, to the extra losses in training."""
    network, reads_features = net.module_, regularizer != "l2_sp"
    penalty = REGULARIZERS[regularizer](net, rows, included, seed)

    def add(module, inputs, output):
        n_rows = len(inputs[0])
        features = _flat(recorded[0], n_rows) if reads_features else None
        recorded.clear()
        if not module.training:
            return output
        with torch.autocast(inputs[0].device.type, enabled=False):
            value = weight * penalty(inputs, features)
        extra = {**output.extra_losses, "regularizer": value}
        return output._replace(extra_losses=extra)

    recorder = _recording(network) if reads_features else nullcontext([])
    with recorder as recorded:
        hook = network.register_forward_hook(add)
        try:
            yield
        finally:
            hook.remove()
