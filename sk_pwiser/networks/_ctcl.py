"""Cross-task consistency learning."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from sk_pwiser._utils import at_least_float32, check_choice, check_number
from sk_pwiser.networks._chain import base_logits, chain_logits
from sk_pwiser.networks._layers import MLP, TaskTowers, Tower, check_units
from sk_pwiser.networks._multi_task_network import (
    Labels,
    MultiTaskNetwork,
    NetworkOutput,
)
from sk_pwiser.networks._spec import NetworkSpec


class CTCL(MultiTaskNetwork):
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
        super().__init__(spec)
        check_choice("consistency", consistency, ("prediction", "label"))
        self.reads_predictions = consistency == "prediction"
        self.consistency_weight = check_number(
            "consistency_weight", consistency_weight, at_least=0
        )
        units = check_units("bottom_units", bottom_units)
        self.bottom = MLP(self.width, units, dropout)
        self.towers = self._make_towers(self.bottom.n_out, tower_units, dropout)
        n_hidden = [self.bottom.n_out, *tower_units][-1]
        units = check_units("transfer_units", transfer_units)
        self.pairs = [(j, k) for k, j in enumerate(spec.parents) if j >= 0]
        # Probabilities over impressions, in either task space.
        logits = base_logits(spec.base_rates)
        to_children = logits[[child for _, child in self.pairs]]
        to_parents = logits[[parent for parent, _ in self.pairs]]
        self.to_children = TaskTowers(n_hidden, units, to_children, dropout)
        self.to_parents = TaskTowers(n_hidden, units, to_parents, dropout)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, `(batch, n_tasks)`, and the extra loss."""
        inputs = self.bottom(self.input_layer(codes, numeric))
        towers = cast(list[Tower], list(self.towers))
        hidden = [tower.hidden(inputs) for tower in towers]
        heads = [tower.output(h) for tower, h in zip(towers, hidden, strict=True)]
        logits = torch.cat(heads, dim=1)
        if not self.pairs:
            return NetworkOutput(logits)
        known = None
        if self.reads_predictions:
            known = at_least_float32(logits.detach())
            if self.spec.task_space == "conditional":
                known = chain_logits(known, self.spec.parents)
        of_parents = torch.stack([hidden[parent] for parent, _ in self.pairs])
        of_children = torch.stack([hidden[child] for _, child in self.pairs])
        to_children = self.to_children(of_parents).unbind(dim=1)
        to_parents = self.to_parents(of_children).unbind(dim=1)
        transfers = dict(zip(self.pairs, to_children, strict=True))
        for (parent, child), transfer in zip(self.pairs, to_parents, strict=True):
            transfers[child, parent] = transfer
        consistency = partial(
            consistency_loss,
            transfers=transfers,
            known=known,
            weight=self.consistency_weight,
        )
        return NetworkOutput(logits, extra_losses={"consistency": consistency})


def consistency_loss(
    labels: Labels,
    transfers: Mapping[tuple[int, int], Tensor],
    known: Tensor | None = None,
    weight: float = 1.0,
) -> Tensor:
    """Compute the mean loss of the transfers from each task, of shape `(n_tasks,)`.

    `transfers` are the logits, `(batch,)`, by the task that they are computed from and
    the task that they predict. The targets are the probabilities of the logits `known`,
    or the labels.
    """
    targets = labels.y if known is None else known.sigmoid()
    tasks = range(targets.shape[1])
    # The loss takes one column per task: columns without a transfer are filled.
    zero = torch.zeros_like(next(iter(transfers.values())))
    filled = [
        torch.stack([transfers.get((j, k), zero) for k in tasks], dim=1) for j in tasks
    ]
    losses = torch.stack(
        [labels.row_losses(at_least_float32(logits), targets) for logits in filled]
    )
    if known is not None:
        losses = losses - labels.row_losses(known, targets)
    if labels.sample_weight is not None:
        weights = labels.sample_weight.view(len(targets), -1)
        if known is not None:
            # Predictions need no label: rows count as for the first task, which has
            # one in every row.
            weights = weights[:, :1]
        losses = losses * weights
    means = losses.mean(dim=1)
    totals = []
    for j in tasks:
        own = [means[pair] for pair in transfers if pair[0] == j]
        totals.append(torch.stack(own).mean() if own else means.new_zeros(()))
    return weight * torch.stack(totals)
