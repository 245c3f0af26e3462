"""CTCL: each task also predicts its neighbours."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._utils._checks import check_choice, check_number
from sk_pwiser._utils._precision import at_least_float32
from sk_pwiser.networks._base import Labels, NetworkOutput
from sk_pwiser.networks._layers import TaskTowers, check_units
from sk_pwiser.networks._shared_bottom import SharedBottom
from sk_pwiser.networks._spec import NetworkSpec
from sk_pwiser.networks._task_space import chain_logits, initial_logits


class CTCL(SharedBottom):
    r"""Cross-task consistency learning: each task also predicts its neighbours.

    The network is :class:`SharedBottom`, with transfer nets beside it. Neighbours are a
    task and the task that it presupposes: in a funnel each task and the one before, and
    with `task_parents` a parent and its child. Tasks with the same parent are no
    neighbours, and tasks without parents and children have none. For neighbours j and
    k, :math:`T_{jk}` maps the last hidden vector :math:`h_j` of the tower of task j to
    a logit of task k. Its loss compares this logit with the network's own probability
    of task k, without gradient ("prediction"), or with the label ("label"),

    .. math:: X_{jk} = \delta(T_{jk}(h_j), \mathrm{sg}(p_k))
        \quad\text{or}\quad X_{jk} = \delta(T_{jk}(h_j), y_k),

    with :math:`\delta` the pointwise part of `loss=`, averaged over rows. From the
    first form the value at :math:`T_{jk} = p_k` is subtracted, which leaves its
    gradient unchanged: a validation loss does not fall because predictions become more
    certain. For a proper loss such as cross-entropy, the difference is a divergence;
    for the focal loss it may be slightly below 0. The loss of task j increases by
    `consistency_weight` times the mean of :math:`X_{jk}` over its neighbours k.
    Predictions do not depend on the transfer nets.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    consistency : {"prediction", "label"}, default="prediction"
        What the transfer nets learn.
    consistency_weight : float, default=0.01
        Weight of their losses, >= 0.
    transfer_units : sequence of int, default=(16,)
        Widths of each transfer net's hidden layers.
    bottom_units : sequence of int, default=(128, 64)
        Widths of the bottom's layers.
    tower_units : sequence of int, default=(32,)
        Widths of each tower's hidden layers. Without layers, the transfer nets read the
        bottom, and change nothing that belongs to a single task.
    dropout : float, default=0.0
        Share of activations that are dropped in training.

    Notes
    -----
    Large weights make the towers alike, since a transfer net can only predict the mean
    of p_k given :math:`h_j`.

    This implementation differs from the paper in six points. The value above is
    subtracted. The transfer nets are perceptrons on the last hidden vector of a tower
    instead of its prediction, which is a single number here. The network's own
    probabilities are soft targets: the most probable class of a rare task is always 0.
    The paper minimises :math:`(1 - \lambda) L_j + \lambda X_{jk}`, apart from a factor
    a weight of :math:`\lambda / (1 - \lambda)`. There are any number of tasks.
    Uncertainty weights are a weighting, not a part of the network. In the authors' code
    "prediction" is called xtsc, and "label" xtc.

    References
    ----------
    A. Nakano, S. Chen and K. Demachi (2021). Cross-Task Consistency Learning Framework
    for Multi-Task Learning. :arxiv:`2111.14122`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import CTCL, NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> output = CTCL(spec, consistency="label")(codes, numeric)
    >>> tuple(output.logits.shape), list(output.extra_losses)
    ((1, 2), ['consistency'])
    """

    extra_losses_are_means = True

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        consistency: str = "prediction",
        consistency_weight: float = 0.01,
        transfer_units: Sequence[int] = (16,),
        bottom_units: Sequence[int] = (128, 64),
        tower_units: Sequence[int] = (32,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            spec, bottom_units=bottom_units, tower_units=tower_units, dropout=dropout
        )
        check_choice("consistency", consistency, ("prediction", "label"))
        self.reads_predictions = consistency == "prediction"
        self.consistency_weight = check_number(
            "consistency_weight", consistency_weight, at_least=0
        )
        n_hidden = [self.bottom.n_out, *tower_units][-1]
        units = check_units("transfer_units", transfer_units)
        down = [(j, k) for k, j in enumerate(spec.event_parents) if j >= 0]
        # The task that each transfer net reads, and the one that it predicts.
        self.pairs = [*down, *((k, j) for j, k in down)]
        # They start at the base rate of the latter, over impressions in either task
        # space.
        starts = initial_logits(spec, "entire")[[target for _, target in self.pairs]]
        self.transfer_nets = TaskTowers(n_hidden, units, starts, dropout)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, `(batch, n_tasks)`, and the extra loss."""
        inputs = self.bottom(self.input_layer(codes, numeric))
        towers: Any = self.towers
        hidden = [tower["hidden"](inputs) for tower in towers]
        heads = [tower["output"](h) for tower, h in zip(towers, hidden, strict=True)]
        logits = torch.cat(heads, dim=1)
        if not self.pairs:
            return NetworkOutput(logits)
        # All transfer nets run together: one input, and one row of logits, per pair.
        sources = torch.stack([hidden[source] for source, _ in self.pairs])
        predicted = self.transfer_nets(sources).t().contiguous()

        def consistency(labels: Labels) -> Tensor:
            at_level = predicted
            if labels.level_offset is not None:
                at_level = at_level + self._shifts(labels.level_offset)
            transfers = dict(zip(self.pairs, at_level.unbind(), strict=True))
            targets = None
            if self.reads_predictions:
                assert labels.logits is not None
                # Without a gradient: a task must not move to where others predict it.
                targets = at_least_float32(labels.logits.detach())
            loss = consistency_loss(labels, transfers, targets)
            return self.consistency_weight * loss

        return NetworkOutput(logits, extra_losses={"consistency": consistency})

    def _shifts(self, level_offset: Tensor) -> Tensor:
        """Return how far the offset moves the task of each net, `(n_pairs, ...)`."""
        shifts = level_offset.reshape(-1, level_offset.shape[-1])
        if self.spec.task_space == "conditional":
            # Transfer nets predict over impressions.
            start = self.conditional_base_logits[: self.spec.n_events].to(level_offset)
            heads = torch.cat([start.unsqueeze(0), start + shifts])
            composed = chain_logits(heads, self.spec.event_parents)
            shifts = composed[1:] - composed[:1]
        return shifts[:, [target for _, target in self.pairs]].t()


def consistency_loss(
    labels: Labels,
    transfers: Mapping[tuple[int, int], Tensor],
    target_logits: Tensor | None = None,
) -> Tensor:
    """Compute the mean loss of the transfers from each task, of shape `(n_tasks,)`.

    The keys of `transfers` are the task that a logit is computed from and the task that
    it predicts; the logits have shape `(batch,)`. The targets are the probabilities of
    the logits `target_logits`, or the labels if it is None.
    """
    targets = labels.y if target_logits is None else target_logits.sigmoid()
    floor: Tensor | float = 0.0
    if target_logits is not None:
        # The value at T = p_k: otherwise the loss would fall as p_k becomes certain.
        floor = labels.row_losses(target_logits, targets)
    weights = labels.sample_weight
    if weights is not None:
        weights = weights.view(len(targets), -1)
        if target_logits is not None:
            # Predictions need no label: rows count as for the first task, or as most
            # for any if it has no label.
            first = weights[:, :1]
            weights = first.where(first > 0, weights.amax(dim=1, keepdim=True))
    means: list[list[Tensor]] = [[] for _ in range(targets.shape[1])]
    for (source, target), logits in transfers.items():
        # The loss takes one column per task, of which that of the target counts.
        columns = torch.stack([at_least_float32(logits)] * len(means), dim=1)
        losses = labels.row_losses(columns, targets) - floor
        if weights is not None:
            losses = losses * weights
        means[source].append(losses.mean(dim=0)[target])
    zero = targets.new_zeros(())
    return torch.stack(
        [torch.stack(losses).mean() if losses else zero for losses in means]
    )
