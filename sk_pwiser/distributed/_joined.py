"""The inputs of the criterion, joined over the workers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sk_pwiser._utils import at_least_float32
from sk_pwiser.distributed._workers import Workers
from sk_pwiser.networks import Labels, NetworkOutput

# Output, labels, weights and groups.
Inputs = tuple[NetworkOutput, Tensor, Tensor | None, Tensor | None]
Term = Tensor | Callable[[Labels], Tensor]


def join(own: Inputs, workers: Workers, sizes: Sequence[int], n_weights: int) -> Inputs:
    """Join the outputs and labels of all workers, in one exchange.

    Extra losses of the network are computed from the rows of each worker and averaged.

    Parameters
    ----------
    own : tuple
        Output of the network, labels, weights and groups of this worker's rows.
    workers : Workers
        All workers.
    sizes : sequence of int
        Numbers of rows by rank.
    n_weights : int
        Number of weights per row: 0, or that of the workers whose rows have weights.
        Repeated draws of rows have weights in the batches of some workers only.

    Returns
    -------
    tuple
        The same of the rows of all workers.
    """
    output, y, sample_weight, groups = own
    columns = {"logits": output.logits}
    columns |= {f"aux {k}": head for k, head in enumerate(output.aux_logits)}
    for name, head in (
        ("conditional_logits", output.conditional_logits),
        ("sampled_logits", output.sampled_logits),
    ):
        if head is not None:
            columns[name] = head
    columns["y"] = y
    if n_weights:
        given = torch.ones_like(y[:, :1]) if sample_weight is None else sample_weight
        columns["weight"] = given.view(len(y), -1).expand(-1, n_weights)
    found = _join_columns(columns, workers, sizes)
    joined = output._replace(
        logits=found["logits"],
        aux_logits=[found[f"aux {k}"] for k in range(len(output.aux_logits))],
        extra_losses={
            name: _averaged(term, y, sample_weight, workers, sizes)
            for name, term in output.extra_losses.items()
        },
        conditional_logits=found.get("conditional_logits"),
        sampled_logits=found.get("sampled_logits"),
    )
    weight = found.get("weight")
    if weight is not None and (sample_weight is None or sample_weight.dim() == 1):
        weight = weight.squeeze(1)
    if groups is not None:
        groups = workers.join(groups, sizes)
    return joined, found["y"], weight, groups


def _join_columns(
    columns: dict[str, Tensor], workers: Workers, sizes: Sequence[int]
) -> dict[str, Tensor]:
    """Join tensors of shape `(n_rows, n_columns)`, in float32 or above."""
    kind = at_least_float32(columns["logits"]).dtype
    packed = torch.cat([each.to(kind) for each in columns.values()], dim=1)
    widths = [each.shape[1] for each in columns.values()]
    parts = workers.join(packed, sizes).split(widths, dim=1)
    return dict(zip(columns, parts, strict=True))


def _averaged(
    term: Term,
    y: Tensor,
    sample_weight: Tensor | None,
    workers: Workers,
    sizes: Sequence[int],
) -> Term:
    """Return an extra loss that is averaged over the workers."""
    if isinstance(term, Tensor):
        return workers.mean(term, sizes)

    def average(labels: Labels) -> Tensor:
        own = term(Labels(y, sample_weight, labels.row_losses))
        return workers.mean(own, sizes)

    return average
