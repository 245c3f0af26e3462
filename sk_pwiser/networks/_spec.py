"""What a network reads and learns: the specification of a table and its tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sk_pwiser._tasks._tree import chain_parents
from sk_pwiser._utils._checks import check_choice, check_integer, check_number


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


class VectorSpec(NamedTuple):
    """Vectors of the values of a category column, such as of their texts.

    Parameters
    ----------
    column : int
        Index of the category column.
    vectors : float32 Tensor of shape (n_vectors, size)
        The vectors; the first one stands for values without a vector.
    rows : int64 Tensor of shape (n_codes,)
        The vector of each code. Codes from the cardinality of the column on have a
        vector, but no embedding.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import NetworkSpec, VectorSpec
    >>> vectors = VectorSpec(0, torch.randn(3, 8), torch.tensor([0, 0, 1, 2]))
    >>> spec = NetworkSpec([3], 0, 4, [0.1], vectors=[vectors])
    >>> spec.vectors[0].vectors.shape[1]
    8
    """

    column: int
    vectors: Tensor
    rows: Tensor


TASK_SPACES = ("entire", "conditional")


INTERACTIONS = ("cross", "fm")


# Fields of the specification that users set in `network_params`, for every network.
SHARED_PARAMS = (
    "cross_rank",
    "domain_features",
    "interaction",
    "monotonicity_weight",
    "n_cross_layers",
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
    value_parents : sequence of int, default=()
        For each value that is learnt beside the events, the index of the event under
        which its amount arises; -1 for a value per impression. Their heads follow those
        of the events.
    unseen_inputs : sequence of tuple (int, int, float), default=()
        Numeric inputs that depend on a category value: the index of the input, that of
        the category column, and what the input is for an unseen value. Category dropout
        replaces them with the value.
    unseen_sources : sequence of tuple (int, int, float), default=()
        Inputs that follow another input if their value is unseen: the index of one of
        `unseen_inputs`, that of the other input, and the factor of the latter. Such is
        the rate of an unseen value whose parent is known.
    vectors : sequence of VectorSpec, default=()
        Vectors of the values of category columns. The codes of such a column may exceed
        its cardinality: `input_layer` reads them.

    Attributes
    ----------
    n_tasks : int
        Number of heads: of events, and then of values.
    n_events : int
        Number of events.
    parents : tuple of int
        Index of the event that each event or value presupposes, -1 if there is none.
    event_parents : tuple of int
        Those of the events.
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
    value_parents: Sequence[int] = ()
    unseen_inputs: Sequence[tuple[int, int, float]] = ()
    unseen_sources: Sequence[tuple[int, int, float]] = ()
    vectors: Sequence[VectorSpec] = ()

    n_events: int = field(init=False)
    event_parents: tuple[int, ...] = field(init=False)
    n_tasks: int = field(init=False)
    parents: tuple[int, ...] = field(init=False)
    widths: list[int] = field(init=False)
    dropouts: list[float] = field(init=False)

    def __post_init__(self) -> None:
        n_events = len(self.base_rates)
        n_columns = len(self.cardinalities)
        dims = self.embedding_dims
        dropouts = self.category_dropout
        if not isinstance(dropouts, list | tuple):
            dropouts = [dropouts] * (n_columns + len(self.bags))  # type: ignore[list-item]
        parents = self.task_parents
        parents = chain_parents(n_events) if parents is None else tuple(parents)
        for name, value in (
            ("n_events", n_events),
            ("event_parents", parents),
            ("n_tasks", n_events + len(self.value_parents)),
            ("parents", (*parents, *self.value_parents)),
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
        n_layers = self.n_cross_layers
        rank = self.cross_rank
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
