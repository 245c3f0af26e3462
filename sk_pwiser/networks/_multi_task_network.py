"""The base class of the networks, what they return, and networks without experts.

The networks in this file have bottoms and towers only.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils import at_least_float32, chain_parents, check_choice, check_number
from sk_pwiser.networks import _layers as layers
from sk_pwiser.networks._input import Bags, InputLayer, NetworkSpec

# Upper limit of the initial rate of a conditional head: a head that starts near 1 has
# almost no gradient.
HIGHEST_CONDITIONAL_RATE = 0.99


@dataclass(frozen=True)
class Labels:
    """The labels and the loss from which a network computes its extra losses.

    Parameters
    ----------
    y : float Tensor of shape (batch, n_tasks)
        Labels, 0 or 1.
    sample_weight : Tensor of shape (batch,) or (batch, n_tasks), or None
        Weights of the rows, with a mean of 1 over the training rows. If there is one
        weight per row and task, 0 stands for a missing label, where `y` is 0.
    row_losses : callable
        The pointwise part of the loss that training minimises, without weights:
        maps logits and targets in [0, 1], both of shape `(batch, n_tasks)`, to losses
        of the same shape.
    logits : Tensor of shape (batch, n_tasks) or None, default=None
        The network's log-odds of P(Y_k = 1 | impression) as the losses compare them
        with the labels: with the offset of :meth:`MultiTaskNetwork.shift_level`, which
        the logits in `forward` lack, and in the sampled log. The base class sets them.
    conditional_logits : Tensor of shape (batch, n_tasks) or None, default=None
        The conditional heads with their offset, if the network has such heads. The base
        class sets them, in either task space.
    level_offset : Tensor of shape (n_tasks,) or None, default=None
        That offset of the heads, for further towers that start at the base rates. The
        base class sets it.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import BCE
    >>> from sk_pwiser.networks import Labels
    >>> y = torch.tensor([[1.0, 0.0]])
    >>> labels = Labels(y, None, BCE(["click", "conversion"]).row_losses)
    >>> labels.row_losses(torch.zeros(1, 2), labels.y)
    tensor([[0.6931, 0.6931]])
    """

    y: Tensor
    sample_weight: Tensor | None
    row_losses: Callable[[Tensor, Tensor], Tensor]
    logits: Tensor | None = None
    conditional_logits: Tensor | None = None
    level_offset: Tensor | None = None


# An extra loss: a penalty, or a function of the labels.
ExtraLoss = Tensor | Callable[[Labels], Tensor]


class NetworkOutput(NamedTuple):
    """What a network returns for a batch.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression), one column per task; predictions depend on
        these only. In conditional task space, a network may return log-odds of
        P(Y_k = 1 | Y_{k-1} = 1, impression) here: the base class composes them.
    aux_logits : sequence of Tensor of shape (batch, n_tasks), default=()
        Logits of extra heads, each trained with the losses of the tasks, in the space
        of the tasks.
    aux_weight : float, default=1.0
        Weight of the losses of the extra heads.
    extra_losses : mapping of str to Tensor or callable, default={}
        Named terms of the loss, already weighted: a Tensor of shape (), a penalty; or
        a callable that maps :class:`Labels` to a Tensor of shape (n_tasks,), which is
        added to the losses of the tasks, or of shape (), a penalty. A callable reads
        the network's own log-odds from the :class:`Labels`, not from `forward`.
    conditional_logits : Tensor of shape (batch, n_tasks) or None, default=None
        Log-odds of P(Y_k = 1 | Y_{k-1} = 1, impression), if `logits` are composed of
        conditional heads. Set in conditional task space, None in entire space.
    sampled_logits : Tensor of shape (batch, n_tasks) or None, default=None
        Log-odds of P(Y_k = 1 | impression) in the sampled log, which the losses are
        computed from in entire space, if `logits` were corrected to the full log. Set
        by the base class.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import NetworkOutput
    >>> logits = torch.zeros(3, 2)
    >>> penalty = 0.1 * logits.square().mean()
    >>> output = NetworkOutput(logits, extra_losses={"penalty": penalty})
    >>> output.aux_logits
    ()
    """

    logits: Tensor
    aux_logits: Sequence[Tensor] = ()
    aux_weight: float = 1.0
    extra_losses: Mapping[str, ExtraLoss] = {}
    conditional_logits: Tensor | None = None
    sampled_logits: Tensor | None = None


class MultiTaskNetwork(nn.Module):
    """Base class of the networks.

    A subclass takes the specification and its own keyword parameters, builds its
    layers on the `width` outputs of `input_layer`, and defines `forward`. The class
    itself is then a valid `network=` of
    :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`.

    The base class implements `task_space`. In conditional space, it reads the columns
    of the logits that `forward` returns as conditional heads and composes them to
    logits over impressions, unless `forward` returns `conditional_logits` as well.

    Weightings of gradients decide per parameter tensor whether tasks share it. Layers
    of different tasks should therefore have separate parameter tensors, and no gradient
    should be multiplied by 0 on its way to another task's tensors.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    n_tables : int, default=1
        Number of independent embedding tables. With more than one, `input_layer`
        returns one input per table, of shape `(n_tables, batch, width)`.

    Attributes
    ----------
    spec : NetworkSpec
        The specification.
    n_tasks : int
        Number of tasks.
    input_layer : module
        Maps codes and numeric inputs to a dense input of shape `(batch, width)`.
    width : int
        Width of the dense input.
    base_logits : Tensor of shape (n_tasks,)
        Log-odds of the initial base rates in the task space, for output biases.
    conditional_base_logits : Tensor of shape (n_tasks,)
        Log-odds of the rates among the rows with the task that each task presupposes.
    level_offset : Tensor of shape (n_tasks,), or None
        Log-odds that are added to the logits of `forward`, or to its conditional
        logits, and to auxiliary logits in their space; see :meth:`shift_level`. No
        code in `forward` reads it: what needs the shifted log-odds reads them from the
        :class:`Labels` of a callable in `extra_losses`.
    monotonicity_weight : float
        Weight of :func:`~sk_pwiser.losses.funnel_monotonicity_penalty`. A subclass may
        set another default than 0 as a class attribute.
    task_parameters : tuple of str
        Patterns of the names of parameters that belong to one task, with `{task}` for
        its index. Their weight decay is reduced if the task is rare, since the
        gradients of a rare task are small. Empty by default.
    extra_losses_are_means : bool
        Whether all extra losses are means over the rows of a batch, or do not depend on
        its rows. Several workers train networks with extra losses only if it is True.
        False by default.
    towers_name : str
        Name of the submodule whose input is the features that the logits are computed
        from. Three regularizers of :func:`~sk_pwiser.transfer.fine_tune` compare these.
        "towers" by default.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import MultiTaskNetwork, NetworkOutput, NetworkSpec
    >>> class Linear(MultiTaskNetwork):
    ...     def __init__(self, spec):
    ...         super().__init__(spec)
    ...         self.head = torch.nn.Linear(self.width, self.n_tasks)
    ...     def forward(self, codes, numeric):
    ...         return NetworkOutput(self.head(self.input_layer(codes, numeric)))
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(Linear(spec)(codes, numeric).logits.shape)
    (1, 2)
    """

    monotonicity_weight: float = 0.0
    task_parameters: tuple[str, ...] = ()
    extra_losses_are_means: bool = False
    towers_name: str = "towers"

    level_offset: Tensor | None

    def __init__(self, spec: NetworkSpec, *, n_tables: int = 1) -> None:
        super().__init__()
        self.spec = spec
        self.n_tasks = spec.n_tasks
        self.base_logits = initial_logits(spec, spec.task_space)
        self.conditional_base_logits = initial_logits(spec, "conditional")
        self.input_layer = InputLayer(spec, n_tables=n_tables)
        self.width = self.input_layer.width
        if spec.monotonicity_weight is not None:
            self.monotonicity_weight = spec.monotonicity_weight
        self.register_buffer("level_offset", None)

    def __call__(
        self,
        codes: Tensor,
        numeric: Tensor,
        bags: Bags | None = None,
        *,
        composes: bool = True,
    ) -> NetworkOutput:
        """Run `forward`, check its output, add the offset, and compose the logits.

        The result has logits over impressions, in the full log. With `composes=False`
        they stay as `forward` returns them, which is conditional in conditional space.

        If the table has bags, `forward` receives the sums over the bags as the first
        numeric inputs. `input_layer` expects them there.
        """
        if bags is not None:
            numeric = self.input_layer.with_sums(codes, numeric, bags)
        # Not a forward hook: torch.compile would compile it apart from `forward`.
        # `forward` is what users write, and knows neither bags nor task spaces: both
        # are added around it.
        output = super().__call__(codes, numeric)
        if not isinstance(output, NetworkOutput):
            found: Any = type(output).__name__
            raise TypeError(
                f"network must return a NetworkOutput from forward; got {found}."
            )
        logits = output.logits
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits)
            raise ValueError(
                f"network must return logits of shape (batch, n_tasks); got {found}."
            )
        if output.sampled_logits is not None:
            raise ValueError(
                "network must not return sampled_logits from forward: the base class "
                "sets them. In forward, call the forward method of another network."
            )
        heads = output.conditional_logits
        parents = self.spec.parents
        if heads is None and self.level_offset is not None:
            logits = logits + self.level_offset
        elif heads is not None and self.level_offset is not None:
            # A shift of the composed logits could raise a task above its parent.
            heads = at_least_float32(heads) + self.level_offset
            logits = chain_logits(heads, parents)
        if not composes:
            return output._replace(logits=logits, conditional_logits=heads)
        is_conditional = self.spec.task_space == "conditional"
        if is_conditional and heads is None:
            # The sums of logarithms in the chain would lose most digits in half
            # precision.
            heads = at_least_float32(logits)
            # Not by its shape, which is a tensor while a graph is traced. The criterion
            # refuses other numbers of columns.
            if len(heads.unbind(dim=1)) == self.n_tasks:
                logits = chain_logits(heads, parents)
        sampled = None
        rate = self.spec.negative_sampling_rate
        if rate != 1:
            # Losses compare the labels of the sampled log with `sampled_logits`;
            # predictions are made for the full log.
            sampled = at_least_float32(logits)
            logits = full_log_logits(sampled, rate)
        compared = logits if sampled is None else sampled
        return output._replace(
            logits=logits,
            aux_logits=self._shifted_aux_logits(output),
            extra_losses=self._extra_losses(output, compared, heads),
            conditional_logits=heads if is_conditional else None,
            sampled_logits=sampled,
        )

    def _shifted_aux_logits(self, output: NetworkOutput) -> Sequence[Tensor]:
        """Add the offset to the auxiliary logits, if it belongs to their space."""
        aux_logits = output.aux_logits
        is_of_conditional_heads = output.conditional_logits is not None
        has_other_space = is_of_conditional_heads and self.spec.task_space == "entire"
        if self.level_offset is None or has_other_space:
            return aux_logits
        # The criterion refuses other types.
        if not isinstance(aux_logits, list | tuple):
            return aux_logits
        return [logits + self.level_offset for logits in aux_logits]

    def _extra_losses(
        self, output: NetworkOutput, logits: Tensor, heads: Tensor | None
    ) -> Mapping[str, ExtraLoss]:
        """Pass the log-odds with their offset to the extra losses that read labels."""
        extra_losses = output.extra_losses
        # The criterion refuses other types.
        if not isinstance(extra_losses, Mapping):
            return extra_losses
        if heads is not None:
            # A view: the gradients of all extra losses are added up before they reach
            # the heads, in an order that does not depend on when the losses run.
            heads = heads.view_as(heads)
        return {
            name: partial(_loss_of_log_odds, term, logits, heads, self.level_offset)
            if callable(term)
            else term
            for name, term in extra_losses.items()
        }

    def shift_level(self, log_odds: Tensor) -> None:
        """Add log-odds to all predictions.

        Parameters
        ----------
        log_odds : Tensor of shape (n_tasks,)
            Log-odds per task; of the conditional probabilities in networks that
            multiply these.
        """
        if self.level_offset is None:
            device = next(self.parameters()).device
            self.level_offset = torch.zeros(self.n_tasks, device=device)
        self.level_offset += log_odds.to(self.level_offset)

    def set_base_rates(self, base_rates: Sequence[float]) -> None:
        """Receive the rates of all rows so far, before a training that continues.

        Those of the specification may be the rates of a small first update. By default,
        the method does nothing. A network that needs the rates in training keeps them
        in a buffer, whose values a failed update restores.

        Parameters
        ----------
        base_rates : sequence of float
            Rate of each task, a probability over impressions.
        """

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any
    ) -> None:
        if self.level_offset is None and f"{prefix}level_offset" in state_dict:
            self.shift_level(torch.zeros(self.n_tasks))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def set_tables(
        self,
        cardinalities: Sequence[int],
        weights: Sequence[Tensor],
        n_vectors: Sequence[int] = (),
    ) -> None:
        """Replace the embedding tables of the input layer, in place.

        Parameters
        ----------
        cardinalities : sequence of int
            The new numbers of codes of the category columns.
        weights : sequence of Tensor of shape (sum(cardinalities), embedding_dim)
            The new tables, and after them those of the vectors that bags do not share
            with a column, of shape (n_own_vectors, embedding_dim).
        n_vectors : sequence of int, default=()
            The new numbers of vectors of the bags.
        """
        sizes = zip(self.spec.bags, n_vectors, strict=True)
        bags = [bag._replace(n_vectors=n) for bag, n in sizes]
        self.spec = replace(self.spec, cardinalities=list(cardinalities), bags=bags)
        self.input_layer.set_tables(cardinalities, weights, bags)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch.

        Parameters
        ----------
        codes : int64 Tensor of shape (batch, n_category_columns)
            Codes of the category columns, each below the cardinality of its column.
        numeric : float Tensor of shape (batch, n_numeric)
            Numeric inputs: scaled values, or positions for inputs with bins.

        Returns
        -------
        NetworkOutput
            Logits `(batch, n_tasks)` and, if the network has them, auxiliary logits
            and extra losses.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward.")


def _loss_of_log_odds(
    extra_loss: Callable[[Labels], Tensor],
    logits: Tensor,
    conditional_logits: Tensor | None,
    level_offset: Tensor | None,
    labels: Labels,
) -> Tensor:
    """Compute an extra loss from labels and the log-odds that they are compared with.

    Not in `forward`, which does not know the offset.
    """
    return extra_loss(
        replace(
            labels,
            logits=logits,
            conditional_logits=conditional_logits,
            level_offset=level_offset,
        )
    )


def random_inputs(
    network: MultiTaskNetwork, n_rows: int
) -> tuple[Tensor, Tensor, Bags | None]:
    """Return inputs for a call of a network, with two entries per bag."""
    spec, random = network.spec, torch.Generator().manual_seed(0)
    device = network.input_layer.offsets.device
    sizes = torch.tensor(spec.cardinalities, dtype=torch.float64)
    # float64: in float32 a share near 1 could round up to the cardinality itself.
    shares = torch.rand(n_rows, len(sizes), generator=random, dtype=torch.float64)
    numeric = torch.randn(n_rows, spec.n_numeric, generator=random)
    if spec.numeric_bins:  # inputs with bins are positions from 0 to their number
        n_bins = torch.tensor(spec.numeric_bins)
        positions = n_bins * torch.rand(numeric.shape, generator=random)
        numeric = torch.where(n_bins > 0, positions, numeric)
    bags = None
    if spec.bags:
        n_entries = 2 * n_rows * len(spec.bags)
        # The last vector of a bag, to which attention applies.
        last = torch.tensor([bag.n_vectors for bag in spec.bags]).cumsum(0) - 1
        has_ages = any(bag.has_ages for bag in spec.bags)
        bags = Bags(
            torch.arange(0, n_entries + 1, 2),
            last.repeat_interleave(2).repeat(n_rows),
            torch.ones(n_entries),
            torch.zeros(n_entries) if has_ages else None,
        ).to(device)
    return (shares * sizes).long().to(device), numeric.to(device), bags


def initial_logits(spec: NetworkSpec, task_space: str) -> Tensor:
    """Return the log-odds of the base rates in a task space, float32 `(n_tasks,)`.

    They are finite also for rates of 0 and 1.
    """
    base_rates = spec.base_rates
    rates = list(base_rates)
    for k, parent in enumerate(spec.parents if task_space == "conditional" else ()):
        if parent >= 0:
            # Without rows that have the parent, the conditional rate is unknown.
            rate = rates[k] / base_rates[parent] if base_rates[parent] else 0.5
            rates[k] = min(rate, HIGHEST_CONDITIONAL_RATE)
    # float64, since 1 - 1e-9 is 1 in float32.
    return torch.logit(torch.tensor(rates, dtype=torch.float64), eps=1e-9).float()


def full_log_logits(sampled_logits: Tensor, rate: float) -> Tensor:
    r"""Correct logits for rows without the first task that were left out of the log.

    Let such rows be kept with probability r, independently of all else, and let P be
    the probability in the sampled log. By Bayes' rule, the probability in the full log
    is

    .. math:: P^{full}_k = \frac{r\, P_k}{1 - P_1 + r\, P_1}
        \quad\text{and}\quad
        1 - P^{full}_k = \frac{(1 - r)(1 - P_1) + r\,(1 - P_k)}{1 - P_1 + r\, P_1}.

    For the first task the log-odds change by log r. The probability of a later task
    given an earlier one does not change.

    Parameters
    ----------
    sampled_logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression) in the sampled log.
    rate : float
        The share r of the rows without the first task that was kept, in (0, 1].

    Returns
    -------
    Tensor of shape (batch, n_tasks)
        Log-odds in the full log.

    References
    ----------
    King and Zeng (2001), "Logistic regression in rare events data", Political Analysis
    9(2), section 4.1: the correction of the intercept, for one task.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import full_log_logits
    >>> full_log_logits(torch.logit(torch.tensor([[0.5, 0.25]])), 0.1).sigmoid()
    tensor([[0.0909, 0.0455]])
    """
    if rate == 1:
        return sampled_logits
    # The two numerators above, in logarithms; their common denominator cancels.
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    log_not_first = F.logsigmoid(-sampled_logits[:, :1])
    log_not = torch.logaddexp(
        log_rest + log_not_first, log_rate + F.logsigmoid(-sampled_logits)
    )
    return log_rate + F.logsigmoid(sampled_logits) - log_not


def chain_logits(
    conditional_logits: Tensor, parents: Sequence[int] | None = None
) -> Tensor:
    r"""Compose conditional heads to logits over impressions, in log space.

    .. math:: P_k = \prod_{j \le k} \sigma(c_j), \quad
        \log(1 - P_k) = \log[(1 - P_{k-1}) + P_{k-1}\, \sigma(-c_k)]

    Parameters
    ----------
    conditional_logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | Y_{k-1} = 1, impression), and in the first column of
        P(Y_1 = 1 | impression).
    parents : sequence of int, default=None
        Column of the task that takes the place of k - 1 for each task, or -1 if there
        is none. By default the tasks are a funnel.

    Returns
    -------
    Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression). No column exceeds that of its parent.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import chain_logits
    >>> chain_logits(torch.zeros(1, 3)).sigmoid()
    tensor([[0.5000, 0.2500, 0.1250]])
    """
    if parents is None:
        parents = chain_parents(conditional_logits.shape[1])
    # log P_k and log(1 - P_k) side by side: 1 - P would lose all digits for rare tasks,
    # and P for frequent ones.
    log_p = list(F.logsigmoid(conditional_logits).unbind(dim=1))
    log_not = list(F.logsigmoid(-conditional_logits).unbind(dim=1))
    for k, parent in enumerate(parents):
        if parent >= 0:
            log_not[k] = torch.logaddexp(log_not[parent], log_p[parent] + log_not[k])
            log_p[k] = log_p[parent] + log_p[k]
    # Tasks without a parent are computed like the others, not copied from the input:
    # all columns then have the same rounding errors, and their order is kept.
    return torch.stack([p - n for p, n in zip(log_p, log_not, strict=True)], dim=1)


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
        *("towers.{task}.*", "input_layer.embeddings.{task}.*"),
        "input_layer.bags.embeddings.{task}.*",
        "input_layer.bags.attention.{task}.*",
        *("input_layer.bins.{task}.*", "input_layer.gates.{task}.*"),
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
        projected = self.attention(torch.cat([own, passed])).unflatten(1, (2, -1))
        keys, queries, values = projected.unbind()
        scores = (keys * queries).sum(dim=2) * self.scale
        return torch.sum(scores.softmax(dim=0).unsqueeze(2) * values, dim=0)


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
        down = [(j, k) for k, j in enumerate(spec.parents) if j >= 0]
        # The task that each transfer net reads, and the one that it predicts.
        self.pairs = [*down, *((k, j) for j, k in down)]
        # They start at the base rate of the latter, over impressions in either task
        # space.
        starts = initial_logits(spec, "entire")[[target for _, target in self.pairs]]
        self.transfer_nets = layers.TaskTowers(n_hidden, units, starts, dropout)

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
                at_level = at_level + self._shifts(labels.level_offset).unsqueeze(1)
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
        """Return how far the offset moves the task of each transfer net."""
        shifts = level_offset
        if self.spec.task_space == "conditional":
            # Transfer nets predict over impressions.
            start = self.conditional_base_logits.to(level_offset)
            heads = torch.stack([start, start + level_offset])
            composed = chain_logits(heads, self.spec.parents)
            shifts = composed[1] - composed[0]
        return shifts[[target for _, target in self.pairs]]


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
    floor: Tensor | float = 0.0
    if known is not None:
        # The value at T = p_k: otherwise the loss would fall as p_k becomes certain.
        floor = labels.row_losses(known, targets)
    weights = labels.sample_weight
    if weights is not None:
        weights = weights.view(len(targets), -1)
        if known is not None:
            # Predictions need no label: rows count as for the first task, which has
            # one in every row.
            weights = weights[:, :1]
    means: list[list[Tensor]] = [[] for _ in range(targets.shape[1])]
    for (source, target), logits in transfers.items():
        # The loss takes one column per task, of which that of the target counts.
        columns = torch.stack([at_least_float32(logits)] * len(means), dim=1)
        losses = labels.row_losses(columns, targets) - floor
        if weights is not None:
            losses = losses * weights
        means[source].append(losses.mean(dim=0)[target])
    zero = targets.new_zeros(())
    return torch.stack([torch.stack(own).mean() if own else zero for own in means])
