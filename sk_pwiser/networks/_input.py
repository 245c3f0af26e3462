"""What every network receives: its specification, bags, and the dense input."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils import (
    chain_parents,
    check_choice,
    check_integer,
    check_number,
    generator_on,
)
from sk_pwiser.networks._layers import (
    CrossNetwork,
    DomainGate,
    FactorizationMachine,
    NumericInputs,
    constant,
    numeric_groups,
)


class Bags(NamedTuple):
    """The entries of the bags of a batch, bag after bag and row after row.

    Parameters
    ----------
    offsets : int64 Tensor of shape (batch * n_bags + 1,)
        Where the entries of each bag start, and where the last ones end.
    indices : int64 Tensor of shape (n_entries,)
        The vector that each entry selects, counted over all bags: those of the second
        bag follow those of the first.
    weights : float32 Tensor of shape (n_entries,), default=None
        Weights of the entries. With None, all are 1.
    ages : float32 Tensor of shape (n_entries,), default=None
        Scaled ages of the entries, NaN if unknown; None if no bag has ages.

    Examples
    --------
    Two rows with one bag each, of two entries and of one.

    >>> import torch
    >>> from sk_pwiser.networks import Bags
    >>> bags = Bags(torch.tensor([0, 2, 3]), torch.tensor([4, 0, 4]))
    >>> bags.indices[bags.offsets[0] : bags.offsets[1]].tolist()
    [4, 0]
    """

    offsets: Tensor
    indices: Tensor
    weights: Tensor | None = None
    ages: Tensor | None = None

    def to(self, device: torch.device) -> "Bags":
        """Move the tensors to a device.

        Parameters
        ----------
        device : torch.device
            The device.

        Returns
        -------
        Bags
            The same entries there.
        """
        return Bags(**{name: t.to(device) for name, t in self.tensors.items()})

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, without those that are None."""
        return {k: v for k, v in self._asdict().items() if v is not None}


# Vectors of a bag before those of its column: of empty and of missing lists.
N_SPECIAL = 2


class BagSpec(NamedTuple):
    """An input that holds any number of entries per row.

    Parameters
    ----------
    n_vectors : int
        Number of vectors from which the entries select.
    has_unseen : bool, default=False
        Whether one of the vectors, that of `unseen_code`, stands for unseen values.
        Category dropout then applies to the entries.
    column : int, default=None
        Index of a category column whose embeddings the bag shares. They follow two
        vectors of its own, which stand for an empty and for a missing list, so that
        `n_vectors` is 2 plus the cardinality of the column.
    attends : bool, default=False
        Whether attention to the value of `column` in the same row weights the entries.
        Otherwise they have their own weights only.
    has_ages : bool, default=False
        Whether the ages of the entries are inputs of the attention.

    Examples
    --------
    >>> from sk_pwiser.networks import BagSpec, NetworkSpec
    >>> spec = NetworkSpec([], 0, 4, [0.1], bags=[BagSpec(1_000)])
    >>> spec.bags[0].n_vectors
    1000
    """

    n_vectors: int
    has_unseen: bool = False
    column: int | None = None
    attends: bool = False
    has_ages: bool = False


TASK_SPACES = ("entire", "conditional")
INTERACTIONS = ("cross", "fm")

# Fields of the specification that users set in `network_params`, for every network.
SHARED_PARAMS = (
    *("cross_rank", "domain_features", "interaction"),
    *("monotonicity_weight", "n_cross_layers"),
    "task_space",
)


@dataclass(frozen=True)
class NetworkSpec:
    """The table that a network reads, the tasks that it learns and shared options.

    Parameters
    ----------
    cardinalities : sequence of int
        Number of codes of each category column, including the codes for missing and
        unseen values. Empty if there are no category columns.
    n_numeric : int
        Number of numeric inputs.
    embedding_dim : int
        Width of the embedding of a category value, the largest one if
        `embedding_dims` is given.
    base_rates : sequence of float
        Mean of the labels of each task, a probability; its length is the number of
        tasks. Networks initialise their output biases from these rates, so that
        training starts from calibrated predictions.
    unseen_code : int, default=1
        Code of an unknown category value, the same in every column.
    category_dropout : float or sequence of float, default=0.0
        Probability that a category value is replaced by `unseen_code` in training: one
        for all, or one per category column and then one per bag.
    numeric_bins : sequence of int, default=()
        Number of bins of each numeric input, or 0. An input with bins is a position
        among their edges, in [0, n_bins], and becomes one component per bin, or with
        more than 8 bins a few learned sums of the components. Empty if no input has
        bins.
    bin_scales : sequence of float, default=()
        Factor of the components of each numeric input, > 0. With factors, a position
        also becomes a normal score. Empty if there are only components, of scale 1.
    interaction : {"cross", "fm"} or None, default=None
        Products of columns in the dense input: cross layers of DCN-v2 ("cross"), or the
        second-order term of a factorisation machine ("fm").
    task_space : {"entire", "conditional"}, default="entire"
        Whether the columns of the logits that `forward` returns are read as
        P(Y_k = 1 | impression) or as P(Y_k = 1 | Y_{k-1} = 1, impression).
        :class:`MultiTaskNetwork` composes the latter to logits over impressions.
    monotonicity_weight : float or None, default=None
        Weight of :func:`~sk_pwiser.losses.funnel_monotonicity_penalty`. None takes the
        default of the network's class.
    embedding_dims : sequence of int, default=()
        Width of the embeddings of each category column, at most `embedding_dim`. Empty
        if all have this width.
    negative_sampling_rate : float, default=1.0
        Share of the rows without the first task that the log has kept, in (0, 1].
        :class:`MultiTaskNetwork` corrects the logits to those of the full log.
    bags : sequence of BagSpec, default=()
        Inputs with any number of entries per row: lists of categories, or the columns
        of a sparse matrix.
    task_parents : sequence of int or None, default=None
        Index of the task that each task presupposes, smaller than its own; -1 if a task
        presupposes none. None stands for a funnel, in which it is the task before.
    n_cross_layers : int, default=1
        Number of cross layers, with `interaction="cross"`.
    cross_rank : int or None, default=None
        Rank of the matrices of the cross layers. If it is below half the width of the
        dense input, each matrix is a product of two; otherwise, and with None, it is
        full.
    domain_features : sequence of int or None, default=None
        Inputs that set a factor in (0, 2) of each column of the dense input: category
        columns counted first, then bags, then numeric inputs. None for no factors.
    unseen_inputs : sequence of tuple (int, int, float), default=()
        Numeric inputs that depend on a category value: the index of the input, that of
        the category column, and what the input is for an unseen value. Category dropout
        replaces them with the value.

    Attributes
    ----------
    n_tasks : int
        Number of tasks.
    parents : tuple of int
        Index of the task that each task presupposes, -1 if there is none.
    widths : list of int
        Width of the embeddings of each category column.
    dropouts : list of float
        Category dropout of each category column, and then of each bag.

    References
    ----------
    Chang et al. (2023), "PEPNet", :arxiv:`2302.01115`, for the factors;
    Gorishniy, Rubachev and Babenko (2022), :arxiv:`2203.05556`, for the bins; Wang et
    al. (2021), "DCN V2", :arxiv:`2008.13535`, and Rendle (2010), "Factorization
    Machines", ICDM, for the interactions.

    Examples
    --------
    >>> from sk_pwiser.networks import NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> spec.n_tasks
    2
    """

    cardinalities: Sequence[int]
    n_numeric: int
    embedding_dim: int
    base_rates: Sequence[float]
    unseen_code: int = 1
    category_dropout: float | Sequence[float] = 0.0
    numeric_bins: Sequence[int] = ()
    bin_scales: Sequence[float] = ()
    interaction: str | None = None
    task_space: str = "entire"
    monotonicity_weight: float | None = None
    embedding_dims: Sequence[int] = ()
    negative_sampling_rate: float = 1.0
    bags: Sequence[BagSpec] = ()
    task_parents: Sequence[int] | None = None
    n_cross_layers: int = 1
    cross_rank: int | None = None
    domain_features: Sequence[int] | None = None
    unseen_inputs: Sequence[tuple[int, int, float]] = ()

    n_tasks: int = field(init=False)
    parents: tuple[int, ...] = field(init=False)
    widths: list[int] = field(init=False)
    dropouts: list[float] = field(init=False)

    def __post_init__(self) -> None:
        n_tasks, n_columns = len(self.base_rates), len(self.cardinalities)
        dropouts, dims = self.category_dropout, self.embedding_dims
        if not isinstance(dropouts, list | tuple):
            dropouts = [dropouts] * (n_columns + len(self.bags))  # type: ignore[list-item]
        parents = self.task_parents
        parents = chain_parents(n_tasks) if parents is None else tuple(parents)
        for name, value in (
            ("n_tasks", n_tasks),
            ("parents", parents),
            ("widths", [*dims] or [self.embedding_dim] * n_columns),
            ("dropouts", [*dropouts]),
        ):
            object.__setattr__(self, name, value)  # as the class is frozen
        # Users set these fields in `network_params`, so that errors name the fields as
        # parameters.
        check_choice("interaction", self.interaction, (*INTERACTIONS, None))
        check_integer("n_cross_layers", self.n_cross_layers, at_least=1)
        if self.cross_rank is not None:
            check_integer("cross_rank", self.cross_rank, at_least=1)
        n_layers, rank = self.n_cross_layers, self.cross_rank
        if self.interaction != "cross" and (n_layers, rank) != (1, None):
            raise ValueError(
                f"n_cross_layers={n_layers} and cross_rank={rank} require "
                f"interaction='cross'; got {self.interaction!r}."
            )
        if dims and self.interaction == "fm":
            raise ValueError(
                "interaction='fm' requires embeddings of equal width; set "
                "embedding_dim to a number."
            )
        check_choice("task_space", self.task_space, TASK_SPACES)
        if self.monotonicity_weight is not None:
            check_number("monotonicity_weight", self.monotonicity_weight, at_least=0)
        rate = self.negative_sampling_rate
        # The correction to the full log holds if all rows with any task have the first
        # one.
        if rate != 1 and parents.count(-1) > 1:
            without = [k for k, parent in enumerate(parents) if k and parent < 0]
            raise ValueError(
                f"negative_sampling_rate={rate} requires that all tasks presuppose the "
                f"first one; the tasks with the indices {without} presuppose none."
            )


# Standard deviation of initial embeddings. If it is small, the embedding of a rare
# value stays near 0: it departs only as far as the value's few rows require.
INITIAL_STD = 0.01


def numeric_widths(spec: NetworkSpec) -> list[int]:
    """Return how many dense inputs each numeric input becomes.

    Parameters
    ----------
    spec : NetworkSpec
        The table that a network reads.

    Returns
    -------
    list of int, of length n_numeric
        1 for an input without bins. Otherwise, the components of its bins or their
        learned sums, and the normal score.

    Examples
    --------
    >>> from sk_pwiser.networks import NetworkSpec, numeric_widths
    >>> spec = NetworkSpec([], 3, 4, base_rates=[0.1], numeric_bins=[0, 5, 64])
    >>> numeric_widths(spec)
    [1, 5, 8]
    """
    n_bins, scales = spec.numeric_bins, spec.bin_scales
    widths = [1] * spec.n_numeric
    for columns, width in numeric_groups(n_bins, scales):
        for j in columns:
            has_score = n_bins[j] > 1 and len(scales) > 0
            widths[j] = (width or max(1, n_bins[j])) + has_score
    return widths


class TargetAttention(nn.Module):
    r"""Weights of the entries of a bag by their relation to the target of their row.

    For a target with embedding q, and an entry with embedding k and age s, which may be
    unknown,

    .. math:: a = w^T \operatorname{relu}(W [q, k, q - k, q \odot k, s, known] + b) + c

    The weights are not normalised, so that their sum measures how well the bag fits
    the target. They start near 1 / `USUAL_ENTRIES`, so that the first sums are about
    means. This is equation 3 of the Deep Interest Network (Zhou et al. 2018,
    :arxiv:`1706.06978`) with other layers, and with ages.
    """

    n_units = 32
    USUAL_ENTRIES = 10

    def __init__(self, dim: int, has_ages: bool) -> None:
        super().__init__()
        self.has_ages = has_ages
        self.hidden = nn.Linear(4 * dim + 2 * has_ages, self.n_units)
        self.output = nn.Linear(self.n_units, 1)
        nn.init.constant_(self.output.bias, 1 / self.USUAL_ENTRIES)

    def forward(self, target: Tensor, entries: Tensor, ages: Tensor | None) -> Tensor:
        """Return the weights `(n_entries,)`; target and entries have `dim` columns."""
        inputs = [target, entries, target - entries, target * entries]
        if self.has_ages:
            assert ages is not None
            # An unknown age becomes 0 with the flag `known` at 0: NaN would spread to
            # all weights.
            is_unknown = ages.isnan()
            known = torch.where(is_unknown, torch.zeros_like(ages), ages)
            inputs.append(torch.stack([known, (~is_unknown).to(ages.dtype)], dim=1))
        hidden = torch.relu(self.hidden(torch.cat(inputs, dim=1)))
        weights: Tensor = self.output(hidden).squeeze(1)
        return weights


class BagEmbeddings(nn.Module):
    """Sums per bag of the vectors of this layer, or of tables of category columns.

    `offsets` has the first row of each category column in its table.
    """

    def __init__(self, spec: NetworkSpec, n_tables: int, offsets: Tensor) -> None:
        super().__init__()
        bags, dim = spec.bags, spec.embedding_dim
        self.n_bags = len(bags)
        self.width = len(bags) * dim
        self.unseen_code = spec.unseen_code
        dropouts = spec.dropouts[len(spec.cardinalities) :]
        self.drops = any(
            dropout and bag.has_unseen
            for dropout, bag in zip(dropouts, bags, strict=True)
        )
        self.shares = any(bag.column is not None for bag in bags)
        self.dropout = constant(torch.tensor(dropouts, dtype=torch.float32))
        is_shared = torch.tensor([bag.column is not None for bag in bags])
        self.is_shared = constant(is_shared)
        n_vectors = self.set_columns(bags, offsets)
        # One table holds the vectors of all bags, one bag after another.
        self.embeddings = nn.ModuleList(
            nn.EmbeddingBag(n_vectors, dim, mode="sum", include_last_offset=True)
            for _ in range(n_tables)
        )
        for weight in self.embeddings.parameters():
            nn.init.normal_(weight, std=INITIAL_STD)
        # The bag and its column
        self.attended = [(b, bag.column) for b, bag in enumerate(bags) if bag.attends]
        self.attention = nn.ModuleList(  # per table, one layer per bag
            nn.ModuleList(
                TargetAttention(dim, bag.has_ages) for bag in bags if bag.attends
            )
            for _ in range(n_tables if self.attended else 0)
        )

    def set_columns(self, bags: Sequence[BagSpec], offsets: Tensor) -> int:
        """Set the sizes of the bags; return the number of vectors of the layer."""
        device = offsets.device
        sizes = torch.tensor([0, *(bag.n_vectors for bag in bags)], device=device)
        self.starts = constant(sizes.cumsum(0)[:-1])
        n_own = [bag.n_vectors if bag.column is None else N_SPECIAL for bag in bags]
        own_starts = torch.tensor([0, *n_own[:-1]], device=device).cumsum(0)
        self.own_starts = constant(own_starts)
        has_unseen = torch.tensor([bag.has_unseen for bag in bags], device=device)
        # In a shared bag, the codes of the column follow the special vectors.
        unseen = self.starts + self.unseen_code + N_SPECIAL * self.is_shared.to(device)
        self.unseen = constant(torch.where(has_unseen, unseen, -1))
        columns = torch.tensor([bag.column or 0 for bag in bags], device=device)
        self.rows = constant(offsets[columns] if self.shares else own_starts)
        return sum(n_own)

    @property
    def tables(self) -> list[nn.Parameter]:
        """The vectors of this layer, one row per vector, bag after bag."""
        return [table.get_parameter("weight") for table in self.embeddings]

    def forward(self, bags: Bags, codes: Any, tables: Sequence[nn.Module]) -> Tensor:
        """Return `(batch, n_tables * n_bags * dim)`; `codes` are those of targets."""
        bags = bags._replace(indices=self._drop(bags.indices))
        # EmbeddingBag is faster, but reads one table only. The other form is also the
        # one that exports use.
        if self.shares or torch.jit.is_tracing():  # type: ignore[no-untyped-call]
            sums = self._sums_of_entries(bags, codes, tables)
        else:
            sums = [
                table(bags.indices, bags.offsets, bags.weights)
                for table in self.embeddings
            ]
        return torch.cat([each.reshape(-1, self.width) for each in sums], dim=1)

    def locate(self, bags: Bags) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return where the vectors of the entries are, as four tensors `(n_entries,)`.

        These are the bag of each entry, counted over all rows; whether its vector
        belongs to this layer; the row of the vector in this layer; and its row in the
        tables of category columns. The row that is not used is a valid one.
        """
        n_entries = bags.indices.shape[0]
        ends = bags.offsets[1:-1]
        # A mark at the start of each bag after the first: their running sum numbers the
        # bags, also empty ones. The extra place takes the marks of empty bags at the
        # end.
        marks = torch.zeros(n_entries + 1, dtype=ends.dtype, device=ends.device)
        marks = marks.scatter_add(0, ends, torch.ones_like(ends))
        bag = marks.cumsum(0)[:-1]
        of_row = bag % self.n_bags
        local = bags.indices - self.starts[of_row]
        is_own = ~self.is_shared[of_row] | (local < N_SPECIAL)
        # Both rows are computed for all entries: to select entries would block the
        # host.
        own = self.own_starts[of_row] + torch.where(is_own, local, 0)
        code = torch.where(is_own, self.unseen_code, local - N_SPECIAL)
        return bag, is_own, own, self.rows[of_row] + code

    def _sums_of_entries(
        self, bags: Bags, codes: Any, tables: Sequence[nn.Module]
    ) -> list[Tensor]:
        """Return the sums of each table, from one vector per entry."""
        bag, is_own, own, shared = self.locate(bags)
        n_sums, sums = bags.offsets.shape[0] - 1, []
        for t, table in enumerate(self.embeddings):
            assert isinstance(table, nn.EmbeddingBag)
            vectors = F.embedding(own, table.weight, sparse=table.sparse)
            if self.shares:
                vectors = torch.where(is_own.unsqueeze(1), vectors, tables[t](shared))
            weights = bags.weights
            if weights is None:
                weights = torch.ones_like(vectors[:, 0])
            layers: Any = self.attention[t] if self.attended else ()
            for attention, (b, column) in zip(layers, self.attended, strict=True):
                # Special vectors, of empty and missing lists, keep their weights.
                chosen = ((bag % self.n_bags == b) & ~is_own).nonzero().squeeze(1)
                targets = tables[t](codes[:, column])[bag[chosen] // self.n_bags]
                ages = None if bags.ages is None else bags.ages[chosen]
                found = attention(targets, vectors[chosen], ages).to(weights.dtype)
                weights = weights.index_put((chosen,), found * weights[chosen])
            vectors = vectors * weights.unsqueeze(1)
            zeros = vectors.new_zeros(n_sums, vectors.shape[1])
            places = bag.unsqueeze(1).expand_as(vectors)
            sums.append(zeros.scatter_add(0, places, vectors))
        return sums

    def _drop(self, indices: Tensor) -> Tensor:
        """Apply category dropout in training."""
        if not self.training or not self.drops:
            return indices
        bag = torch.bucketize(indices, self.starts, right=True) - 1
        unseen = self.unseen[bag]
        drawn = torch.empty(indices.shape, device=indices.device)
        drawn.uniform_(generator=generator_on(indices.device))
        return torch.where((drawn < self.dropout[bag]) & (unseen >= 0), unseen, indices)


class InputLayer(nn.Module):
    """Category embeddings, sums over bags and numeric inputs, side by side.

    All category columns share one embedding table, in which each has an offset. A
    column with narrower embeddings uses their first components. In training, category
    dropout replaces random values by the code of unseen values, whose embedding is
    trained by this, and numeric inputs that depend on them by those of unseen values.
    Each of `n_tables` tables has its own projections of numeric columns, gate and
    interaction.
    """

    def __init__(self, spec: NetworkSpec, *, n_tables: int = 1) -> None:
        super().__init__()
        self.unseen_code = spec.unseen_code
        n_columns, dim = len(spec.cardinalities), spec.embedding_dim
        n_fields, each_table = n_columns + len(spec.bags), range(n_tables)
        dropouts = spec.dropouts[:n_columns]
        self.drops = any(dropouts)
        self.depends = len(spec.unseen_inputs) > 0
        self.dropout = constant(torch.tensor(dropouts, dtype=torch.float32))
        # The column that each numeric input depends on, n_columns for none, and the
        # inputs of unseen values.
        self.values_of = constant(torch.full((spec.n_numeric,), n_columns))
        self.unseen_inputs = constant(torch.zeros(spec.n_numeric))
        for index, column, value in spec.unseen_inputs:
            self.values_of[index], self.unseen_inputs[index] = column, value
        self.embeddings = nn.ModuleList(
            nn.Embedding(sum(spec.cardinalities), dim) for _ in each_table
        )
        for weight in self.embeddings.parameters():
            nn.init.normal_(weight, std=INITIAL_STD)
        # One lookup reads all columns at full width; `used` then drops the unused
        # components.
        components = torch.arange(dim) < torch.tensor(spec.widths).unsqueeze(1)
        used = components.flatten().nonzero().squeeze(1)
        self.used = constant(used) if len(used) < n_columns * dim else None
        self._set_cardinalities(spec.cardinalities)
        # Lists read the whole vectors of their column.
        of_lists = {bag.column for bag in spec.bags}
        self.read_widths = [
            dim if column in of_lists else width
            for column, width in enumerate(spec.widths)
        ]
        # Numeric projections, gates and interactions are built per table: tasks with
        # their own tables share no weights.
        widths = [*spec.widths, *[dim] * len(spec.bags)]
        args = spec.numeric_bins, spec.bin_scales, sum(widths)
        has_bins = any(spec.numeric_bins)
        bins = [NumericInputs(*args) for _ in each_table if has_bins]
        self.bins = nn.ModuleList(bins)
        numbers = bins[0].owners if bins else range(spec.n_numeric)
        # Which input each column of the dense input belongs to, counted in the order
        # category columns, bags, numeric inputs.
        self.owners = [
            owner for owner, width in enumerate(widths) for _ in range(width)
        ]
        self.owners += [n_fields + owner for owner in numbers]
        self.width = len(self.owners)
        # Bags may share the embeddings of columns: they read the columns' offsets.
        self.bags: BagEmbeddings | None = None
        if spec.bags:
            self.bags = BagEmbeddings(spec, n_tables, self.offsets)
        self.gates, self.interactions = nn.ModuleList(), nn.ModuleList()
        features, depth = spec.domain_features, (spec.n_cross_layers, spec.cross_rank)
        if features:
            self.gates.extend(
                DomainGate(self.owners, features, n_fields) for _ in each_table
            )
        for _ in each_table:
            if spec.interaction == "cross":
                self.interactions.append(CrossNetwork(self.width, *depth))
            elif spec.interaction == "fm":
                fields = n_fields, dim, len(numbers)
                self.interactions.append(FactorizationMachine(*fields))
        if spec.interaction == "fm":
            self.width += dim

    def forward(self, codes: Tensor, numeric: Tensor) -> Tensor:
        """Return `(batch, width)`, or `(n_tables, batch, width)` for several tables."""
        places, dropped = self._look_up(codes)
        embedded = [table(places).flatten(1) for table in self.embeddings]
        if self.used is not None:
            embedded = [each.index_select(1, self.used) for each in embedded]
        n_tables, parts = len(embedded), [embedded]
        if self.bags is not None:  # the sums over bags come before the numeric inputs
            n_sums = n_tables * self.bags.width
            parts.append(list(numeric[:, :n_sums].chunk(n_tables, dim=1)))
            numeric = numeric[:, n_sums:]
        if dropped is not None and self.depends:
            # Inputs that depend on no value read the last, added column.
            is_unseen = F.pad(dropped, (0, 1)).index_select(1, self.values_of)
            numeric = torch.where(is_unseen, self.unseen_inputs, numeric)
        parts.append([bins(numeric) for bins in self.bins] or [numeric] * n_tables)
        inputs = [torch.cat(of_table, dim=1) for of_table in zip(*parts, strict=True)]
        # Gates come first: their factors then apply to the products, too.
        for layers in (self.gates, self.interactions):
            if layers:
                pairs = zip(layers, inputs, strict=True)
                inputs = [layer(columns) for layer, columns in pairs]
        return inputs[0] if n_tables == 1 else torch.stack(inputs)

    def _look_up(self, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the rows of the tables, and which values category dropout replaces."""
        places = codes + self.offsets
        if not self.training or not self.drops:
            return places, None
        # Not torch.rand, which torch.compile cannot call with `generator`.
        drawn = torch.empty(codes.shape, device=codes.device)
        drawn.uniform_(generator=generator_on(codes.device))
        dropped = drawn < self.dropout
        return torch.where(dropped, self.unseen, places), dropped

    def with_sums(self, codes: Tensor, numeric: Tensor, bags: Bags) -> Tensor:
        """Put the sums over bags before the numeric inputs.

        Networks pass both on together, so that their `forward` takes no bags.
        """
        assert self.bags is not None
        # For attention, this draws another category dropout than `forward` does.
        targets = self._look_up(codes)[0] if self.bags.attended else None
        return torch.cat([self.bags(bags, targets, self.embeddings), numeric], dim=1)

    @property
    def tables(self) -> list[nn.Parameter]:
        """The weights of the embedding tables, one row per code of each column."""
        return [table.get_parameter("weight") for table in self.embeddings]

    def column_embeddings(self, column: int) -> Tensor:
        """Return a column's embeddings, one row per code, tables side by side.

        Components that nothing reads are left out.
        """
        start = int(self.offsets[column])
        rows = slice(start, start + self.cardinalities[column])
        width = self.read_widths[column]
        return torch.cat([table[rows, :width] for table in self.tables], dim=1).detach()

    def set_unseen_inputs(self, found: Sequence[tuple[int, int, float]]) -> None:
        """Set the numeric inputs of unseen values, as in the network's `spec`."""
        for index, _, value in found:
            self.unseen_inputs[index] = value

    def set_tables(
        self,
        cardinalities: Sequence[int],
        weights: Sequence[Tensor],
        bags: Sequence[BagSpec],
    ) -> None:
        """Replace the embedding tables, in place, by those of other cardinalities.

        Those of the bags follow in `weights`.
        """
        self._set_cardinalities(cardinalities)
        tables = list(self.embeddings)
        if self.bags is not None:
            self.bags.set_columns(bags, self.offsets)
            tables += self.bags.embeddings
        for table, weight in zip(tables, weights, strict=True):
            parameter = table.get_parameter("weight")
            # Another dtype makes torch forget the shape: the graph of a failed update,
            # which an error may keep alive, would refuse gradients of the earlier one.
            parameter.data = weight.new_empty(0, dtype=torch.float16)
            parameter.data = weight
            table.num_embeddings = len(weight)  # type: ignore[assignment]

    def _set_cardinalities(self, cardinalities: Sequence[int]) -> None:
        """Set the first row of each column, and that of its unseen values."""
        self.cardinalities = list(cardinalities)
        device = next(self.embeddings.parameters()).device
        sizes = torch.tensor([0, *cardinalities], device=device)
        self.offsets = constant(sizes.cumsum(0)[:-1])
        self.unseen = constant(self.offsets + self.unseen_code)
