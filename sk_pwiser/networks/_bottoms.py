"""Networks of bottoms and towers, without experts.

`SharedBottom` and `SingleTask` are the two ends of sharing. `AITM` and `CTCL` pass
information between the towers of tasks that presuppose each other.
"""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sk_pwiser._utils import at_least_float32, check_choice, check_number
from sk_pwiser.networks import _layers as layers
from sk_pwiser.networks._multi_task_network import (
    Labels,
    MultiTaskNetwork,
    NetworkOutput,
    chain_logits,
    log_odds,
)
from sk_pwiser.networks._spec import NetworkSpec


class SharedBottom(MultiTaskNetwork):
    """One shared bottom and one tower per task.

    .. math:: z_k = t_k(b(x))

    with x the input of embeddings and numeric values, b the bottom, t_k the tower of
    task k and z_k its logit.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    bottom_units : sequence of int, default=(128, 64)
        Widths of the bottom's layers.
    tower_units : sequence of int, default=(32,)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations that are dropped in training.

    References
    ----------
    R. Caruana (1997). Multitask Learning. Machine Learning 28, 41-75.
    :doi:`10.1023/A:1007379606734`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import NetworkSpec, SharedBottom
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> network = SharedBottom(spec, bottom_units=(16,))
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(network(codes, numeric).logits.shape)
    (1, 2)
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        bottom_units: Sequence[int] = (128, 64),
        tower_units: Sequence[int] = (32,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec)
        units = layers.check_units("bottom_units", bottom_units)
        self.bottom = layers.MLP(self.width, units, dropout)
        self.towers = layers.TaskTowers(
            self.bottom.n_out, tower_units, self.base_logits, dropout
        )

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        return NetworkOutput(self.towers(self.bottom(self.input_layer(codes, numeric))))


class SingleTask(MultiTaskNetwork):
    """One independent network per task: the baseline without sharing.

    .. math:: z_k = t_k(b_k(x_k))

    with x_k the input from the task's own embeddings, b_k its bottom, t_k its tower
    and z_k its logit. The tasks share only the optimiser and early stopping.

    Weight decay competes with gradients that are proportional to the rate of a task:
    the default would leave a constant prediction of a task with a rate of 0.4 %. All
    parameters of a task with a base rate below 5 % therefore have the weight decay
    times the rate divided by 5 %. Above 95 %, the rate of the label 0 counts instead.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    bottom_units : sequence of int, default=(128, 64)
        Widths of the first layers of each task's network.
    tower_units : sequence of int, default=(32,)
        Widths of the layers that follow.
    dropout : float, default=0.0
        Share of activations that are dropped in training.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import NetworkSpec, SingleTask
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(SingleTask(spec)(codes, numeric).logits.shape)
    (1, 2)
    """

    task_parameters = (
        "towers.{task}.*",
        "input_layer.embeddings.{task}.*",
        "input_layer.bags.embeddings.{task}.*",
        "input_layer.bags.attention.{task}.*",
        "input_layer.bins.{task}.*",
        "input_layer.gates.{task}.*",
        "input_layer.interactions.{task}.*",
    )

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        bottom_units: Sequence[int] = (128, 64),
        tower_units: Sequence[int] = (32,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, n_tables=spec.n_tasks)
        bottom = layers.check_units("bottom_units", bottom_units)
        # A separate bottom and tower per task are one perceptron.
        units = bottom + layers.check_units("tower_units", tower_units)
        self.towers = layers.TaskTowers(self.width, units, self.base_logits, dropout)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        return NetworkOutput(self.towers(self.input_layer(codes, numeric)))


class AITM(MultiTaskNetwork):
    r"""Adaptive information transfer multi-task: information passes along the funnel.

    Task k has a tower :math:`q_k` on the shared input. The representation of the
    previous task, :math:`h_{k-1}`, is passed on as a vector
    :math:`i_k = ReLU(V_k h_{k-1} + d_k)`, and attention weights the two,

    .. math:: h_1 = q_1, \quad h_k = \sum_{v \in \{q_k, i_k\}} a_k(v)\, W^3_k v, \quad
        a_k(v) = softmax_v \frac{\langle W^1_k v, W^2_k v \rangle}{\sqrt{d}}

    with d the width of a tower. The logit is linear in :math:`h_k`. In a tree of tasks,
    the task that task k presupposes takes the place of k - 1.

    Training adds 0.6 times :func:`~sk_pwiser.losses.funnel_monotonicity_penalty`, which
    penalises a probability of a later task above that of an earlier task;
    `monotonicity_weight` sets another weight.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    tower_units : sequence of int, default=(128, 64, 32)
        Widths of each tower's layers, at least one.
    dropout : float, default=0.0
        Share of activations that are dropped in towers in training.

    Notes
    -----
    This implementation differs from the paper in two points: the penalty, the
    calibrator of the paper, is a mean over rows, so that its weight does not depend on
    the batch size; and the linear maps of a transfer have biases.

    References
    ----------
    D. Xi, Z. Chen, P. Yan, Y. Zhang, Y. Zhu, F. Zhuang and Y. Chen (2021). Modeling
    the Sequential Dependence among Audience Multi-step Conversions with Multi-task
    Learning in Targeted Display Advertising. KDD. :arxiv:`2105.08489`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import AITM, NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(AITM(spec)(codes, numeric).logits.shape)
    (1, 2)
    """

    monotonicity_weight: float = 0.6

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        tower_units: Sequence[int] = (128, 64, 32),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec)
        units = layers.check_units("tower_units", tower_units)
        if not units:
            raise ValueError("tower_units must hold at least one width; got ().")
        self.bottoms = nn.ModuleList(
            layers.MLP(self.width, units, dropout) for _ in range(spec.n_tasks)
        )
        self.transfers = nn.ModuleList(
            Transfer(units[-1]) for parent in spec.parents if parent >= 0
        )
        self.towers = layers.TaskTowers(units[-1], (), self.base_logits, dropout)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        inputs = self.input_layer(codes, numeric)
        hidden = [bottom(inputs) for bottom in self.bottoms]
        transfers = iter(self.transfers)
        for k, parent in enumerate(self.spec.parents):
            if parent >= 0:
                # Parents come first, so that their vectors already hold what they
                # received.
                hidden[k] = next(transfers)(hidden[k], hidden[parent])
        return NetworkOutput(self.towers(torch.stack(hidden)))


class Transfer(nn.Module):
    """Attention over a task's own tower and the vector from the previous task."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(width)
        self.information = nn.Linear(width, width)
        self.attention = layers.StackedLinear(3, width, width)

    def forward(self, own: Tensor, previous: Tensor) -> Tensor:
        """Map two tensors of shape `(batch, width)` to one."""
        passed = torch.relu(self.information(previous))
        # Both vectors go through the three maps W^1, W^2 and W^3 in one product.
        candidates = torch.cat([own, passed])
        projected = self.attention(candidates).unflatten(1, (2, -1))
        keys, queries, values = projected.unbind()
        scores = (keys * queries).sum(dim=2) * self.scale
        weights = scores.softmax(dim=0).unsqueeze(2)
        return torch.sum(weights * values, dim=0)


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
        units = layers.check_units("transfer_units", transfer_units)
        self.pairs = [(j, k) for k, j in enumerate(spec.parents) if j >= 0]
        # Probabilities over impressions, in either task space.
        logits = log_odds(spec.base_rates)
        # Transfer nets start at the base rate of the task that they predict.
        to_children = logits[[child for _, child in self.pairs]]
        to_parents = logits[[parent for parent, _ in self.pairs]]
        self.to_children = layers.TaskTowers(n_hidden, units, to_children, dropout)
        self.to_parents = layers.TaskTowers(n_hidden, units, to_parents, dropout)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, `(batch, n_tasks)`, and the extra loss."""
        inputs = self.bottom(self.input_layer(codes, numeric))
        towers = cast(list[layers.Tower], list(self.towers))
        hidden = [tower.hidden(inputs) for tower in towers]
        heads = [tower.output(h) for tower, h in zip(towers, hidden, strict=True)]
        logits = torch.cat(heads, dim=1)
        if not self.pairs:
            return NetworkOutput(logits)
        known = None
        if self.reads_predictions:
            # Without a gradient: a task must not move to where others predict it.
            known = at_least_float32(logits.detach())
            if self.spec.task_space == "conditional":
                known = chain_logits(known, self.spec.parents)
        # All transfer nets of one direction run together: one input per pair.
        of_parents = torch.stack([hidden[parent] for parent, _ in self.pairs])
        of_children = torch.stack([hidden[child] for _, child in self.pairs])
        to_children = self.to_children(of_parents).unbind(dim=1)
        to_parents = self.to_parents(of_children).unbind(dim=1)
        pairs = [*self.pairs, *((child, parent) for parent, child in self.pairs)]
        transfers = dict(zip(pairs, [*to_children, *to_parents], strict=True))

        def consistency(labels: Labels) -> Tensor:
            return self.consistency_weight * consistency_loss(labels, transfers, known)

        return NetworkOutput(logits, extra_losses={"consistency": consistency})


def consistency_loss(
    labels: Labels,
    transfers: Mapping[tuple[int, int], Tensor],
    known: Tensor | None = None,
) -> Tensor:
    """Compute the mean loss of the transfers from each task, of shape `(n_tasks,)`.

    The keys of `transfers` are the task that a logit is computed from and the task that
    it predicts; the logits have shape `(batch,)`. The targets are the probabilities of
    the logits `known`, or the labels if it is None.
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
        # The value at T = p_k: otherwise the loss would fall as p_k becomes certain.
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
    return torch.stack(totals)
