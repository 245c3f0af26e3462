"""The level of the predictions: log-odds that fit the last rows in time."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._training._batches import TrainingRows
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser.networks import chain_logits

# Standard deviation of the offsets before the rows are seen. It decides for a task with
# a few events, whose share in so few rows says little.
PRIOR_DEVIATION = 0.5


def shift_to(net: MultiTaskNet, rows: TrainingRows) -> None:
    """Shift the predictions of a net to the level of the labels of held-out rows."""
    heads, is_chain = net.heads(net.get_iterator(rows))
    weights = rows.column("sample_weight")
    # On the CPU: not every device has float64.
    heads, y = heads.cpu().double(), rows.labels().cpu().double()
    known = torch.ones(len(y), 1) if weights is None else weights.view(len(y), -1)
    parents = net.module_.spec.parents if is_chain else None
    net.module_.shift(find_offset(heads, y, known.cpu().double(), parents))


def find_offset(
    heads: Tensor, y: Tensor, weights: Tensor, parents: tuple[int, ...] | None
) -> Tensor:
    """Return the most probable offset of each task, of shape `(n_tasks,)`.

    With `parents`, the heads are conditional log-odds, which the labels of later tasks
    are products of. Weights have the shape `(n_rows, 1)` or `(n_rows, n_tasks)`.
    """
    offset = torch.zeros(y.shape[1], dtype=torch.float64, requires_grad=True)
    # LBFGS expects losses of the order of 1.
    optimizer = torch.optim.LBFGS([offset], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = heads + offset
        if parents is not None:
            logits = chain_logits(logits, parents)
        losses = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
        prior = (offset / PRIOR_DEVIATION).square().sum() / 2
        total: Tensor = ((losses * weights).sum() + prior) / len(y)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)
    return offset.detach()
