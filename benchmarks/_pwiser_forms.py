"""Further forms of the pairwise term, as losses that the benchmarks compare.

All terms act on the last task. As in `PWiseR`, each mean over lower rows is weighted
with the share of converted rows in the batch, so that one weight has the same effect at
every conversion rate. None takes sample weights.
"""

from typing import ClassVar

import torch
from skorch.callbacks import Callback
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from sk_pwiser.losses import MultiTaskLoss

MARGIN = 1.0


def hinge(higher, lower):
    """Return the hinge of every pair, of shape `(n_higher, n_lower)`."""
    return (MARGIN - (higher[:, None] - lower[None, :])).clamp(min=0)


class PairForm(MultiTaskLoss):
    """Cross-entropy plus a weighted term on the last task; forms define `term`."""

    estimator_parameters: ClassVar[tuple[str, ...]] = ("pwiser_weight",)

    def __init__(self, task_names, *, pwiser_weight):
        super().__init__(task_names)
        self.pwiser_weight = pwiser_weight

    def forward(self, logits, y, sample_weight=None, groups=None):
        """Compute the loss of each task."""
        losses = binary_cross_entropy_with_logits(logits, y, reduction="none").mean(0)
        depth = y.sum(dim=1).long()
        term = self.term(logits, depth, groups)
        last = torch.zeros_like(losses)
        last[-1] = 1.0
        return losses + self.pwiser_weight * term * last

    def term(self, logits, depth, groups):
        """Return the pairwise term; `depth` is the funnel depth of each row."""
        raise NotImplementedError

    def row_losses(self, logits, targets):
        """Return the cross-entropy per row and task."""
        return binary_cross_entropy_with_logits(logits, targets, reduction="none")


def over_depths(scores, depth, n_tasks, mean):
    """Sum `mean(higher, lower)` over the lower depths, times the share of conversions.

    A depth without rows adds nothing.
    """
    converted = scores[depth == n_tasks]
    total = scores.sum() * 0.0
    for lower_depth in range(n_tasks):
        lower = scores[depth == lower_depth]
        if len(converted) and len(lower):
            total = total + len(converted) / len(scores) * mean(converted, lower)
    return total


class HardPairs(PairForm):
    """Each converted row is compared with the highest tenth of the lower rows."""

    def term(self, logits, depth, groups):
        """Return the mean over the hard pairs."""
        return over_depths(logits[:, -1], depth, logits.shape[1], self._mean)

    @staticmethod
    def _mean(higher, lower):
        return hinge(higher, lower.topk(max(len(lower) // 10, 1)).values).mean()


class WithinGroups(PairForm):
    """Converted rows are compared with the lower rows of the same group only."""

    asks_for_groups = True

    def term(self, logits, depth, groups):
        """Return the sum over converted rows of the mean over lower rows, per row."""
        scores, n_tasks = logits[:, -1], logits.shape[1]
        higher = depth == n_tasks
        total = scores.sum() * 0.0
        for lower_depth in range(n_tasks):
            lower = depth == lower_depth
            is_pair = groups[higher][:, None] == groups[lower][None, :]
            sums = (hinge(scores[higher], scores[lower]) * is_pair).sum(dim=1)
            total = total + (sums / is_pair.sum(dim=1).clamp(min=1)).sum()
        return total / len(scores)


class ConditionalHead(PairForm):
    """Converted rows against clicked ones, by the log-odds of P(last | first)."""

    def term(self, logits, depth, groups):
        """Return the mean over pairs of clicked rows."""
        log_p = logsigmoid(logits)
        log_cvr = (log_p[:, -1] - log_p[:, 0]).clamp(max=-1e-6)
        scores = log_cvr - torch.log(-torch.expm1(log_cvr))
        n_tasks = logits.shape[1]
        converted, clicked = depth == n_tasks, (depth > 0) & (depth < n_tasks)
        if not converted.any() or not clicked.any():
            return scores.sum() * 0.0
        pairs = hinge(scores[converted], scores[clicked])
        return converted.float().mean() * pairs.mean()


class Memory(PairForm):
    """Lower rows are also compared with converted rows of earlier batches.

    The remembered scores have no gradient. The gradient of the batch's own converted
    rows is scaled by the number of all over the mean number per batch, so that the
    forces on converted and lower rows cancel on average.
    """

    def __init__(self, task_names, *, pwiser_weight, n_remembered=256):
        super().__init__(task_names, pwiser_weight=pwiser_weight)
        self.n_remembered = n_remembered
        self.remembered = torch.empty(0)
        self.mean_converted = 0.0

    def term(self, logits, depth, groups):
        """Return the mean over pairs of the own and the remembered converted rows."""
        scores, n_tasks = logits[:, -1], logits.shape[1]
        own = scores[depth == n_tasks]
        if not self.training:
            return over_depths(scores, depth, n_tasks, lambda a, b: hinge(a, b).mean())
        keep = 0.99 if self.mean_converted else 0.0
        self.mean_converted = keep * self.mean_converted + (1 - keep) * len(own)
        n_all = len(own) + len(self.remembered)
        scale = n_all / max(self.mean_converted, 1e-3)
        pulled = own.detach() + scale * (own - own.detach())
        converted = torch.cat([pulled, self.remembered.to(scores)])
        total = scores.sum() * 0.0
        for lower_depth in range(n_tasks):
            lower = scores[depth == lower_depth]
            if n_all and len(lower):
                share = self.mean_converted / len(scores)
                total = total + share * hinge(converted, lower).mean()
        own = own.detach().cpu()
        self.remembered = torch.cat([self.remembered, own])[-self.n_remembered :]
        return total


class HalvedWeight(Callback):
    """Halve the weight of the term after every epoch, starting from a given one."""

    def __init__(self, weight):
        self.weight = weight

    def on_epoch_begin(self, net, **kwargs):
        """Set the weight of the epoch."""
        loss = net.criterion_.loss
        loss.pwiser_weight = self.weight * 0.5 ** len(net.history[:-1])
