"""The base class of the networks, what they return, and what their losses read."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sk_pwiser._utils._precision import at_least_float32
from sk_pwiser.networks._input import InputLayer
from sk_pwiser.networks._spec import Bags, NetworkSpec, VectorSpec
from sk_pwiser.networks._task_space import (
    chain_logits,
    full_log_logits,
    initial_logits,
    shown_logits,
)


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
    level_offset : Tensor of shape (n_tasks,) or (batch, n_tasks), or None, default=None
        That offset of the heads, for further towers that start at the base rates; per
        row if the exposure of the rows is part of it. The base class sets it.

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
    value_scores : Tensor of shape (batch, n_values) or None, default=None
        Logarithms of the mean amounts, in multiples of the mean of the training rows:
        the last columns of `logits`, or of `conditional_logits`, in `forward`. Set by
        the base class, which leaves the events in the other fields.

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
    value_scores: Tensor | None = None


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
    value_offset : Tensor of shape (n_values,), or None
        Logarithms of the factors of predicted amounts; see :meth:`shift_values`. They
        are not part of what training compares with the amounts.
    value_slope : Tensor of shape (n_values,), or None
        Factors of the scores of values before `value_offset` is added; see
        :meth:`shrink_values`.
    value_network : MultiTaskNetwork, or None
        The network whose heads are the scores of values, None for this network; see
        :meth:`split_values`.
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
    value_offset: Tensor | None
    value_slope: Tensor | None
    value_network: "MultiTaskNetwork | None"

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
        self.register_buffer("value_offset", None)
        self.register_buffer("value_slope", None)
        self.register_module("value_network", None)

    def __call__(
        self,
        codes: Tensor,
        numeric: Tensor,
        bags: Bags | None = None,
        *,
        composes: bool = True,
        exposure_offset: Tensor | None = None,
    ) -> NetworkOutput:
        """Run `forward`, check its output, add the offsets, and compose the logits.

        The result has logits over impressions, in the full log. With `composes=False`
        they stay as `forward` returns them, which is conditional in conditional space.

        An `exposure_offset` of shape `(batch, n_tasks)` is what the exposure of the
        rows adds to the log-odds of the heads; without it, the result is that at the
        reference.

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
            raise TypeError(
                "network must return a NetworkOutput from forward; got "
                f"{type(output).__name__}."
            )
        logits = output.logits
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            is_tensor = isinstance(logits, Tensor)
            form = tuple(logits.shape) if is_tensor else type(logits)
            raise ValueError(
                f"network must return logits of shape (batch, n_tasks); got {form}."
            )
        if output.sampled_logits is not None:
            raise ValueError(
                "network must not return sampled_logits from forward: the base class "
                "sets them. In forward, call the forward method of another network."
            )
        value_scores = None
        if self.spec.value_parents:
            output, value_scores = self._without_values(output)
            if self.value_network is not None:
                value_scores = self._scores_of_values(codes, numeric)
            value_scores = self._at_level(value_scores)
            logits = output.logits
        heads = output.conditional_logits
        parents = self.spec.event_parents
        if heads is None and self.level_offset is not None:
            logits = logits + self.level_offset
        elif heads is not None and self.level_offset is not None:
            # A shift of the composed logits could raise a task above its parent.
            heads = at_least_float32(heads) + self.level_offset
            logits = chain_logits(heads, parents)
        is_conditional = self.spec.task_space == "conditional"
        offset = self.level_offset
        if exposure_offset is not None:
            logits, heads, offset = self._as_shown(logits, heads, exposure_offset)
        if not composes:
            return output._replace(
                logits=logits, conditional_logits=heads, value_scores=value_scores
            )
        if is_conditional and heads is None:
            # The sums of logarithms in the chain would lose most digits in half
            # precision.
            heads = at_least_float32(logits)
            # Not by its shape, which is a tensor while a graph is traced. The criterion
            # refuses other numbers of columns.
            if len(heads.unbind(dim=1)) == self.spec.n_events:
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
            aux_logits=self._shifted_aux_logits(output, exposure_offset),
            extra_losses=self._extra_losses(output, compared, heads, offset),
            conditional_logits=heads if is_conditional else None,
            sampled_logits=sampled,
            value_scores=value_scores,
        )

    def _without_values(self, output: NetworkOutput) -> tuple[NetworkOutput, Tensor]:
        """Return the output of the events, and the scores of the values."""
        heads = output.logits
        if output.conditional_logits is not None:
            heads = output.conditional_logits
        n_events = self.spec.n_events
        # Not by its shape, which is a tensor while a graph is traced.
        n_heads = len(heads.unbind(dim=1))
        if n_heads != self.n_tasks:
            raise ValueError(
                f"network must return logits of {self.n_tasks} heads, of {n_events} "
                f"events and {self.n_tasks - n_events} values; got {n_heads}."
            )
        scores = at_least_float32(heads[:, n_events:])
        aux_logits = output.aux_logits
        # The criterion refuses other types.
        if isinstance(aux_logits, list | tuple):
            aux_logits = [logits[:, :n_events] for logits in aux_logits]
        event_output = output._replace(
            logits=output.logits[:, :n_events], aux_logits=aux_logits
        )
        if output.conditional_logits is not None:
            event_output = event_output._replace(
                conditional_logits=output.conditional_logits[:, :n_events]
            )
        return event_output, scores

    def _at_level(self, scores: Tensor) -> Tensor:
        """Return the scores of values with their slopes and factors in predictions."""
        # Training compares the scores without their factors with the amounts: a head of
        # mean logarithms would otherwise unlearn its own in each update.
        if self.value_offset is None or self.training:
            return scores
        offset, slope = self._value_buffers()
        return scores * slope + offset

    def split_values(self) -> "MultiTaskNetwork":
        """Give the values a network of their own, a copy of this one, and return it.

        What it learns does not change the events. The input layer, whose embeddings the
        values are too few for, and whose size is that of the vocabularies, is the same.

        Returns
        -------
        MultiTaskNetwork
            The network of the values, also if there is one already.
        """
        if self.value_network is not None:
            return self.value_network
        # The input layer is no module of the copy: states have each tensor once, and
        # tables grow in one place.
        shared = {id(part): part for part in (self.input_layer, self.spec)}
        copied = deepcopy(self, shared)
        for name in ("input_layer", "exposure_terms", "value_network"):
            copied._modules.pop(name, None)
        copied.__dict__["input_layer"] = self.input_layer
        for name in ("level_offset", "value_offset", "value_slope"):
            copied.register_buffer(name, None)
        # The last one: the parameters of the events stay the first.
        del self.value_network
        self.value_network = copied
        return copied

    def value_scores(
        self,
        codes: Tensor,
        numeric: Tensor,
        bags: Bags | None = None,
        *,
        exposure_offset: Tensor | None = None,
    ) -> Tensor:
        """Return the scores of values that training compares with the amounts.

        They are those of the network of values, without the events.

        Parameters
        ----------
        codes : Tensor of shape (batch, n_category_columns)
            Category codes.
        numeric : Tensor of shape (batch, n_numeric)
            Numeric inputs: scaled values, or positions for inputs with bins.
        bags : Bags, default=None
            The entries of the list columns, if there are any.
        exposure_offset : Tensor of shape (batch, n_tasks), default=None
            Not read: how a row was shown changes its events alone.

        Returns
        -------
        Tensor of shape (batch, n_values)
            Logarithms of the mean amounts, without slopes and factors of the level.
        """
        if bags is not None:
            numeric = self.input_layer.with_sums(codes, numeric, bags)
        return self._scores_of_values(codes, numeric)

    def _scores_of_values(self, codes: Tensor, numeric: Tensor) -> Tensor:
        assert self.value_network is not None
        output = self.value_network.forward(codes, numeric)
        heads = output.conditional_logits
        if heads is None:
            heads = output.logits
        return at_least_float32(heads[:, self.spec.n_events :])

    def _as_shown(
        self, logits: Tensor, heads: Tensor | None, exposure_offset: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Add an offset per row to logits or heads; return the offset of the heads."""
        at_reference = logits
        parents = self.spec.event_parents
        added = exposure_offset
        if heads is not None:
            heads = at_least_float32(heads) + exposure_offset
            logits = chain_logits(heads, parents)
        elif self.spec.task_space == "conditional":
            logits = at_least_float32(logits) + exposure_offset
        else:
            logits = shown_logits(logits, exposure_offset, parents)
            added = (logits - at_reference).detach()
        if self.level_offset is not None:
            added = added + self.level_offset
        return logits, heads, added

    def _shifted_aux_logits(
        self, output: NetworkOutput, exposure_offset: Tensor | None
    ) -> Sequence[Tensor]:
        """Add the offsets to the auxiliary logits, that of the level in its space."""
        aux_logits = output.aux_logits
        is_of_conditional_heads = output.conditional_logits is not None
        is_entire = self.spec.task_space == "entire"
        has_other_space = is_of_conditional_heads and is_entire
        # The criterion refuses other types.
        if not isinstance(aux_logits, list | tuple):
            return aux_logits
        if self.level_offset is not None and not has_other_space:
            aux_logits = [logits + self.level_offset for logits in aux_logits]
        if exposure_offset is None:
            return aux_logits
        if is_entire:
            parents = self.spec.event_parents
            return [
                shown_logits(logits, exposure_offset, parents) for logits in aux_logits
            ]
        return [logits + exposure_offset for logits in aux_logits]

    def _extra_losses(
        self,
        output: NetworkOutput,
        logits: Tensor,
        heads: Tensor | None,
        offset: Tensor | None,
    ) -> Mapping[str, ExtraLoss]:
        """Pass the log-odds with their offsets to the extra losses that read labels."""
        extra_losses = output.extra_losses
        # The criterion refuses other types.
        if not isinstance(extra_losses, Mapping):
            return extra_losses
        if heads is not None:
            # A view: the gradients of all extra losses are added up before they reach
            # the heads, in an order that does not depend on when the losses run.
            heads = heads.view_as(heads)
        return {
            name: partial(_loss_of_log_odds, term, logits, heads, offset)
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
            self.level_offset = torch.zeros(self.spec.n_events, device=device)
        self.level_offset += log_odds.to(self.level_offset)

    def shift_values(self, log_factors: Tensor) -> None:
        """Multiply all predicted amounts.

        Parameters
        ----------
        log_factors : Tensor of shape (n_values,)
            Logarithms of the factors.
        """
        offset, _ = self._value_buffers()
        offset += log_factors.to(offset)

    def shrink_values(self, shares: Tensor, centres: Tensor) -> None:
        """Move the logarithms of predicted amounts towards their mean.

        Parameters
        ----------
        shares : Tensor of shape (n_values,)
            Shares of the differences from the mean that remain.
        centres : Tensor of shape (n_values,)
            Means of the logarithms of predicted amounts.
        """
        offset, slope = self._value_buffers()
        shares = shares.to(slope)
        slope *= shares
        offset *= shares
        offset += (1 - shares) * centres.to(offset)

    def _value_buffers(self) -> tuple[Tensor, Tensor]:
        """Return offset and slope of the values, which are added where they lack."""
        if self.value_offset is None or self.value_slope is None:
            device = next(self.parameters()).device
            n_values = len(self.spec.value_parents)
            self.value_offset = torch.zeros(n_values, device=device)
            self.value_slope = torch.ones(n_values, device=device)
        return self.value_offset, self.value_slope

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
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        if self.level_offset is None and f"{prefix}level_offset" in state_dict:
            self.shift_level(torch.zeros(self.spec.n_events))
        if self.value_offset is None and f"{prefix}value_offset" in state_dict:
            self._value_buffers()
        if any(name.startswith(f"{prefix}value_network.") for name in state_dict):
            self.split_values()
        if self.value_slope is not None:
            # Files of early development versions have no slopes.
            no_change = torch.ones_like(self.value_slope)
            state_dict.setdefault(f"{prefix}value_slope", no_change)
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
        if self.value_network is not None:
            self.value_network.spec = self.spec

    def set_vectors(self, vectors: Sequence[VectorSpec]) -> None:
        """Replace the vectors of category values, in place.

        Parameters
        ----------
        vectors : sequence of VectorSpec
            Those of the same columns, with vectors of the same sizes.
        """
        self.spec = replace(self.spec, vectors=list(vectors))
        if self.input_layer.vectors is not None:
            self.input_layer.vectors.set_vectors(vectors)

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
    spec = network.spec
    random = torch.Generator().manual_seed(0)
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
