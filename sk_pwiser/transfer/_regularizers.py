"""Penalties that keep a network near the one that its training started from.

Each function in `REGULARIZERS` takes the net with its initial weights, the training
rows, a mask of the embeddings to include, and a seed. It returns the penalty, a
function of a batch and its features.
"""

import math
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import NamedTuple

import torch
from torch.nn import functional as F

from sk_pwiser.transfer._compatible import embedding_tables

DEFAULT_WEIGHTS = {None: 0.0, "l2_sp": 0.01, "delta": 0.5, "tred": 0.5}

# The separation of features in "tred": weights of its terms, and its optimisation.
DISCREPANCY_WEIGHT, GATE_PENALTY, HEAD_PENALTY = 0.05, 0.024, 0.03
N_STEPS, STEP_SIZE, N_ROWS = 200, 0.05, 128
# Rows from which the scales of the features are computed.
N_SCALED_ROWS = 10_000


def l2_sp(net, rows, included, seed):
    """Penalise half the squared distance of the weights from the initial ones."""
    network = net.module_
    # Copies: the parameters themselves are about to change.
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


def tred(net, rows, included, seed):
    """Penalise the distance from the relevant part of the initial features."""
    initial = deepcopy(net.module_).eval()

    def read(chosen):
        """Return the features of some rows: those of all rows may not fit."""
        if rows.rows is not None:
            chosen = rows.rows[chosen.to(rows.rows.device)]
        inputs, _ = rows.batch(chosen.to(rows.device))
        codes, numeric = inputs["codes"].long(), inputs["numeric"]
        return features_of(initial, (codes.to(net.device), numeric.to(net.device)))

    gates = separate(read, rows.labels(), rows.column("sample_weight"), seed)
    return lambda inputs, features: distance_penalty(
        features, gates * features_of(initial, inputs)
    )


REGULARIZERS = {"l2_sp": l2_sp, "delta": delta, "tred": tred}
# These compare the features of a batch with those of the initial network.
OF_FEATURES = "delta", "tred"


def l2_sp_penalty(parameters, start, masks):
    """Compute half the squared distance of parameters from their start.

    `masks` has factors of the rows of embedding tables.
    """
    total = torch.zeros((), device=next(iter(start.values())).device)
    for name, parameter in parameters.items():
        difference = parameter - start[name]
        if name in masks:
            difference = difference * masks[name]
        total = total + difference.square().sum()
    return total / 2


def distance_penalty(features, reference):
    """Compute the mean squared distance of features, both `(batch, width)`.

    It is a mean over rows and features: networks differ in width by a factor of 12.
    """
    return (features - reference).square().mean()


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
    # Several widths, since the right one is not known.
    kernel = torch.stack([torch.exp(-distances / w) for w in widths]).mean(dim=0)
    within = kernel[:n_x, :n_x].mean() + kernel[n_x:, n_x:].mean()
    return within - 2 * kernel[:n_x, n_x:].mean()


def separate(read, y, sample_weight, seed):
    """Find which features matter for the labels: gates in (0, 1), near 1 if they do.

    `read` returns the features of some rows, `(n_chosen, width)`, for their numbers.

    Linear models of the gated features predict the labels. The cross-entropy of each
    task is divided by the entropy of its base rate, so that the penalties have the same
    effect at all rates. Half of the rows of a step have positive labels, weighted by
    the base rate. Tasks whose labels are all equal are left out. If no task remains,
    all gates are 1.
    """
    generator = torch.Generator().manual_seed(seed)
    n_scaled = min(len(y), N_SCALED_ROWS)
    deviation = read(torch.arange(n_scaled) * len(y) // n_scaled).std(dim=0)
    # Constant features carry no information: they are 0.
    scale = torch.where(deviation > 1e-6, 1 / deviation.clamp(min=1e-6), 0.0)
    device, width = scale.device, len(scale)
    tasks = _balanced_tasks(y.cpu(), sample_weight)
    if not tasks:
        return torch.ones(width, device=device)
    base_logits = [math.log(task.shares[0] / task.shares[1]) for task in tasks]
    logits = torch.zeros(width, device=device, requires_grad=True)
    heads = torch.zeros(len(tasks), width, device=device, requires_grad=True)
    biases = torch.tensor(base_logits, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([logits, heads, biases], lr=STEP_SIZE)
    for _step in range(N_STEPS):
        gates = torch.sigmoid(logits)
        rows = [torch.randint(len(y), (N_ROWS,), generator=generator)]
        for task in tasks:
            rows += task.draw(generator)
        x, *of_labels = (scale * read(torch.cat(rows))).split([len(r) for r in rows])
        # The two parts should differ as much as possible.
        relevant, rest = gates * x, (1 - gates) * x
        loss = -DISCREPANCY_WEIGHT * squared_discrepancy(relevant, rest)
        loss = loss + GATE_PENALTY * gates.square().mean()
        loss = loss + HEAD_PENALTY * heads.square().sum()
        pairs = zip(of_labels[::2], of_labels[1::2], strict=True)
        for task, pair, head, bias in zip(tasks, pairs, heads, biases, strict=True):
            for share, sign, x in zip(task.shares, (-1, 1), pair, strict=True):
                z = x @ (gates * head) + bias
                # log(1 + exp(-z)) for label 1, weighted by its share.
                cross_entropy = share * F.softplus(sign * z).mean()
                loss = loss + cross_entropy / task.relative_entropy
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.sigmoid(logits.detach())


class _BalancedTask(NamedTuple):
    """The rows of a task by label, 1 first, with their cumulated weights.

    `shares` are the shares of the labels in the total weight.
    """

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
            # Inverse transform sampling, since torch.multinomial takes at most 2**24
            # rows.
            u = torch.rand(N_ROWS // 2, generator=generator, dtype=torch.float64)
            places = torch.searchsorted(sums, u * sums[-1], right=True)
            yield rows[places.clamp(max=len(rows) - 1)]


def _balanced_tasks(y, sample_weight):
    """Return the tasks that have weighted rows with both labels."""
    tasks = []
    weights = torch.ones(len(y), 1) if sample_weight is None else sample_weight.cpu()
    weights = weights.double().view(len(y), -1).expand(len(y), y.shape[1])
    for labels, weight in zip(y.T, weights.T, strict=True):
        rows = [
            torch.nonzero(is_class & (weight > 0)).squeeze(1)
            for is_class in (labels > 0, labels == 0)
        ]
        if all(len(each) for each in rows):
            sums = [weight[each].cumsum(0) for each in rows]
            totals = torch.stack([each[-1] for each in sums])
            shares = (totals / totals.sum()).tolist()
            tasks.append(_BalancedTask(rows, sums, shares))
    return tasks


def features_of(network, inputs):
    """Return the features of a network, without a gradient, `(batch, width)`."""
    with torch.no_grad(), _recording(network) as recorded:
        network(*inputs)
    return _flat(recorded[0], len(inputs[0]))


@contextmanager
def _recording(network):
    """Record the input of the towers in a list; a call fills it if it is empty."""
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
    """Add a penalty to the extra losses in training.

    Before the first step, "l2_sp" is 0, "delta" measures only what dropout changes, and
    "tred" is the size of the features that do not matter.
    """
    network, reads_features = net.module_, regularizer in OF_FEATURES
    penalty = REGULARIZERS[regularizer](net, rows, included, seed)

    def add(module, inputs, output):
        n_rows = len(inputs[0])
        features = _flat(recorded[0], n_rows) if reads_features else None
        recorded.clear()
        if not module.training:
            return output
        # Squares of small differences would be lost in half precision.
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
