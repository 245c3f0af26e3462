"""The level of the predictions: log-odds that fit the last rows in time."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._training._batches import TrainingRows
from sk_pwiser._training._epoch_log import LOSS_ROWS
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser.networks import chain_logits

# Standard deviation of the offsets before the rows are seen. It decides for a task with
# a few events, whose share in so few rows says little.
PRIOR_DEVIATION = 0.5


def shift_to(net: MultiTaskNet, rows: TrainingRows) -> None:
    """Shift the predictions of a net to the level of the labels of held-out rows."""
    heads, is_chain = net.heads(net.get_iterator(rows))
    y, weights = rows.labels().cpu(), rows.column("sample_weight")
    known = torch.ones(len(y), 1) if weights is None else weights.cpu().view(len(y), -1)
    parents = net.module_.spec.parents if is_chain else None
    # On the CPU: not every device has float64.
    net.module_.shift_level(find_offset(heads.cpu(), y, known, parents))


def find_offset(
    heads: Tensor, y: Tensor, weights: Tensor, parents: Sequence[int] | None
) -> Tensor:
    """Return the most probable offset of each task, float64 of shape `(n_tasks,)`.

    With `parents`, the heads are conditional log-odds, and the probability of a task is
    the product of those on its path. Weights have the shape `(n_rows, 1)` or
    `(n_rows, n_tasks)`.
    """
    offset = torch.zeros(y.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([offset], max_iter=50, line_search_fn="strong_wolfe")
    # Tensors of float64 of many rows would need much memory.
    tensors = (torch.split(tensor, LOSS_ROWS) for tensor in (heads, y, weights))
    parts, n_rows = list(zip(*tensors, strict=True)), len(y)

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = _add_gradient((offset / PRIOR_DEVIATION).square().sum() / 2 / n_rows)
        for heads, y, weights in parts:
            logits = heads.double() + offset
            if parents is not None:
                logits = chain_logits(logits, parents)
            losses = F.binary_cross_entropy_with_logits(
                logits, y.double(), weights.double(), reduction="sum"
            )
            total += _add_gradient(losses / n_rows)
        return total

    optimizer.step(loss)
    return offset.detach()


def _add_gradient(term: Tensor) -> Tensor:
    term.backward()  # type: ignore[no-untyped-call]
    return term.detach()
