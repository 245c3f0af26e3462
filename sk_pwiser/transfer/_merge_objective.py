"""What the coefficients of a merge minimise, and its gradient."""

import numpy as np
import torch
from torch.func import functional_call
from torch.nn import functional as F

from sk_pwiser.transfer._task_vectors import combine


def row_log_losses(logits, y):
    """Return the cross-entropy per row and task, of shape `(batch, n_tasks)`."""
    return F.binary_cross_entropy_with_logits(logits, y, reduction="none")


def row_entropies(logits, _y=None):
    """Return the entropy of predictions per row and task, `(batch, n_tasks)`.

    Its derivative is -z p (1 - p), with the logit z and the probability p: it pushes
    every logit away from 0.
    """
    return -F.logsigmoid(-logits) - logits * torch.sigmoid(logits)


OBJECTIVES = {"log_loss": row_log_losses, "entropy": row_entropies}


class MergeObjective:
    """A mean over rows and tasks, as a function of the coefficients of a merge.

    The merged weights are linear in the coefficients. The gradient is therefore the
    inner product of each task vector with the gradient of the weights, which one pass
    over the rows gives for all coefficients.

    Parameters
    ----------
    net : MultiTaskNet
        The net of the base, which is not changed.
    base : dict of str to Tensor
        State of the common start.
    members : list of dict of str to Tensor
        States of the members.
    names : list of str
        The tensors that are merged.
    rows : Impressions
        The encoded rows, with labels for "log_loss".
    objective : {"log_loss", "entropy"}
        Name of the mean.
    """

    def __init__(self, net, base, members, names, rows, objective):
        self.net = net
        self.base = base
        self.members = members
        self.names = names
        self.rows = rows
        self.row_values = OBJECTIVES[objective]

    def __call__(self, coefficients):
        """Return the objective and its gradient.

        Parameters
        ----------
        coefficients : ndarray of shape (n_merged_tensors, n_members)
            Coefficients, one row per tensor.

        Returns
        -------
        value : float
            The mean.
        gradient : ndarray of shape (n_merged_tensors, n_members)
            Its derivatives.
        """
        merged = combine(
            self.base,
            self.members,
            dict(zip(self.names, coefficients, strict=True)),
        )
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
        total, network = 0.0, self.net.module_

        def run(*inputs):
            return functional_call(network, merged, inputs)

        self.net._set_training(False)
        for inputs, y in self.net.get_iterator(self.rows):
            with torch.enable_grad():
                logits = _training_logits(self.net.infer(inputs, network=run))
                values = self.row_values(logits, y.double())
                part = values.sum() / (len(self.rows) * logits.shape[1])
            if part.requires_grad:
                part.backward()
            total += part.item()
        return total

    def _inner(self, tensor, member, name):
        """Return the inner product of a gradient with a task vector."""
        gradient = tensor.grad
        if gradient is None:
            return 0.0
        new, old = member[name], self.base[name]
        if gradient.is_sparse:  # of a large embedding table: the rows of the batches
            gradient = gradient.coalesce()
            (rows,) = gradient.indices()
            new, old, gradient = new[rows], old[rows], gradient.values()
        return float((gradient.double() * (new.double() - old.double())).sum())


def _training_logits(output):
    """Return the logits that training compares with labels, in float64.

    Labels of a log without some negatives are those of the sampled log.
    """
    is_sampled = output.sampled_logits is not None
    return (output.sampled_logits if is_sampled else output.logits).double()
