"""Weights of estimators that were fine-tuned from one base: sums, and their gradient.

A state maps the names of parameters to tensors. The task vector of a member is its
state minus the base's. Sums are computed in float64 and rounded once, so that they do
not depend on the rounding of differences.
"""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from sk_pwiser._utils import widest


def read_state(estimator, device=None):
    """Return the parameters of a fitted network by name, on a given device."""
    parameters = estimator.net_.module_.named_parameters()
    return {name: parameter.detach().to(device) for name, parameter in parameters}


def combine(base, members, coefficients):
    """Compute the sum of a base and weighted task vectors, tensor by tensor.

    Tensors without coefficients are taken from the base. Coefficients of 0 give the
    base, and a single one of 1 gives its member, to the bit.
    """
    state = {}
    for name, start in base.items():
        values = coefficients.get(name, np.zeros(0))
        (used,) = np.nonzero(values)
        if len(used) == 1 and values[used[0]] == 1:
            # The difference to the base may have lost the last bits of small weights.
            state[name] = members[used[0]][name].clone()
            continue
        total = widest(start)
        for index in used:
            vector = widest(members[index][name]) - widest(start)
            total = total + float(values[index]) * vector
        state[name] = total.to(start.dtype, copy=True)
    return state


def with_state(estimator, state, rows):
    """Copy a fitted estimator with other weights, and without moments of the optimiser.

    Statistics of batch normalisation are computed over the encoded `rows`.
    """
    copy = deepcopy(estimator)
    net = copy.net_
    with torch.no_grad():
        for name, parameter in net.module_.named_parameters():
            parameter.copy_(state[name])
    net.optimizer_.state.clear()
    recompute_batch_norm(net, rows)
    return copy


def infer_with(net, state, rows):
    """Yield outputs for other weights, and labels, batch by batch."""

    def run(*inputs):
        return functional_call(net.module_, state, inputs)

    net._set_training(False)
    for inputs, y in net.get_iterator(rows):
        yield net.infer(inputs, network=run), y


def recompute_batch_norm(net, rows):
    """Compute the running statistics of batch normalisation anew, if there are any."""
    layers = [
        module
        for module in net.module_.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    net._set_training(False)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    with torch.no_grad():
        for inputs, _ in net.get_iterator(rows):
            net.infer(inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def row_log_losses(logits, y):
    """Return the log loss per row and task, `(batch, n_tasks)`; 0 without a label."""
    known = ~y.isnan()
    losses = F.binary_cross_entropy_with_logits(
        logits, y.nan_to_num(), reduction="none"
    )
    return losses * known


def row_entropies(logits, _y=None):
    """Return the entropy of predictions per row and task, `(batch, n_tasks)`."""
    return -F.logsigmoid(-logits) - logits * torch.sigmoid(logits)


OBJECTIVES = {
    "log_loss": row_log_losses,
    "entropy": row_entropies,
}


@dataclass
class MergeObjective:
    """A mean over rows and tasks, as a function of the coefficients of a merge.

    The merged weights are linear in these: the gradient is the inner product of each
    task vector with the gradient of the weights.
    """

    net: object
    base: dict
    members: list
    names: list
    rows: object
    objective: str

    def __call__(self, coefficients):
        """Return the objective and its gradient, (n_merged_tensors, n_members)."""
        by_name = dict(zip(self.names, coefficients, strict=True))
        merged = combine(self.base, self.members, by_name)
        for name in self.names:
            merged[name].requires_grad_()
        value = self._accumulate(merged)
        gradient = [
            [self._inner(merged[name], member, name) for member in self.members]
            for name in self.names
        ]
        return value, np.array(gradient).reshape(len(self.names), len(self.members))

    def _accumulate(self, merged):
        """Sum the objective over batches, and its gradient in the merged tensors."""
        total = 0.0
        with torch.enable_grad():
            for output, y in infer_with(self.net, merged, self.rows):
                # The logits of the sampled log, which labels belong to.
                sampled = output.sampled_logits
                logits = widest(output.logits if sampled is None else sampled)
                values = OBJECTIVES[self.objective](logits, widest(y))
                part = values.sum() / (len(self.rows) * logits.shape[1])
                if part.requires_grad:
                    part.backward()
                total += part.item()
        return total

    def _inner(self, tensor, member, name):
        gradient = tensor.grad
        if gradient is None:
            return 0.0
        new, old = member[name], self.base[name]
        if gradient.is_sparse:  # of a large embedding table: the rows of the batches
            gradient = gradient.coalesce()
            (rows,) = gradient.indices()
            new, old, gradient = new[rows], old[rows], gradient.values()
        return float((widest(gradient) * (widest(new) - widest(old))).sum())
