"""What every kind of column defines: one class owns all forms of its columns.

The rest of the package asks a column, and never of which kind it is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np

from sk_pwiser._columns import _frames
from sk_pwiser._columns._bags import Bags, BagShape
from sk_pwiser._columns._choice import Choice
from sk_pwiser._columns._codes import Codes
from sk_pwiser._columns._row_fields import Field


class Input(NamedTuple):
    """A numeric input of the network."""

    name: str  # that of an indicator of missing values ends with "_missing"
    n_bins: int  # over which the network expands it; 0 for no bins
    scale: float  # factor of the components of the bins


class ValueVectors(NamedTuple):
    """Vectors of the values of a column, which the network reads beside embeddings."""

    vectors: np.ndarray  # float32 (n_vectors, size); the first one is 0, for none
    rows: np.ndarray  # int64 (n_network_codes,), the vector of each code


class Lookup(NamedTuple):
    """Values that were looked up in a vocabulary, for warnings about unseen ones."""

    vocabulary: Any  # the category column
    values: Any
    codes: Codes
    lists: _frames.Lists | None = None  # whose elements the values are

    def rows(self, entries: np.ndarray) -> np.ndarray:
        """Return the rows that contain some of the values, by their indices."""
        if self.lists is None:
            return entries
        return np.unique(self.lists.row_of(entries))


@dataclass(frozen=True, kw_only=True)
class EncodedColumn:
    """The encoded values of a column of a table, in the form of its `network_input`."""

    codes: Codes | None = None
    bag: Bags | None = None
    n_inputs: int = 0
    # Returns the numeric inputs of some rows, or of all rows for None.
    read_inputs: Callable[[slice | None], Sequence[np.ndarray]] | None = None
    lookup: Lookup | None = None


@dataclass(frozen=True, kw_only=True)
class GrownColumn:
    """A column with codes for new values, and where its codes come from.

    The origins are the earlier codes, or the earlier vectors, -1 for new ones.
    """

    column: Any
    code_origin: np.ndarray | None = None  # of columns of codes
    vector_origin: np.ndarray | None = None  # of columns of bags


class TableCells:
    """The cells of a table by column. Lists are read once."""

    def __init__(self, X: Any, columns: Iterable["Column"], cells: Iterable[Any]):
        self.X = X
        self.columns = {column.name: column for column in columns}
        self.cells = dict(zip(self.columns, cells, strict=True))
        self._lists: dict[Any, _frames.Lists] = {}

    def lists(self, name: Any) -> _frames.Lists:
        """Return the lists of a column."""
        if name not in self._lists:
            self._lists[name] = _frames.read_lists(self.cells[name], name)
        return self._lists[name]

    def elements_beside(self, name: Any) -> list[Any]:
        """Return the elements of the columns that share the vocabulary of a column."""
        return [
            self.lists(column.name).elements
            for column in self.columns.values()
            if column.shared_name == name
        ]


class PartLearner:
    """Learns a column from rows in parts, of which only a sample is kept."""

    def __init__(self, column: Any) -> None:
        self.column = column

    @property
    def max_dropped(self) -> int:
        """Number of rows of a value that its count may lack."""
        return 0

    def add(self, table: TableCells) -> None:
        """Add a part of the rows."""

    def finish(self, sample: TableCells, sample_weight: np.ndarray | None) -> None:
        """Learn the column; the sample has the columns with `needs_sample`."""
        if self.column.needs_sample:
            self.column.fit_table(sample, sample_weight)


class Column:
    """Base class of the kinds of columns.

    A kind is a subclass in a file of its own and a line in `_registry`. It defines
    `kind`, `encoding`, `claim`, `fit_table` and `encode_table`, and what else differs
    from a column that is no input of the network.
    """

    name: Any
    kind: ClassVar[str]

    # The input of the network that has the values: integer codes with embeddings,
    # numbers, or bags of codes.
    network_input: ClassVar[Literal["codes", "numeric", "bags"] | None] = None
    # Why the column is no input, as the end of a message.
    not_an_input: ClassVar[str] = ""
    # Whether tables of predictions must have the column.
    is_read: ClassVar[bool] = True
    # Whether a `Scorer` and ONNX can take the column.
    is_exportable: ClassVar[bool] = True
    # Whether the cells are lists or arrays.
    holds_lists: ClassVar[bool] = False
    # What its terms depend on, if the column says how a row was shown.
    exposure_shape: Any = None
    # Whether its values can be combined with those of other columns.
    is_combinable: bool = False
    # Whether rows in parts are sampled for it.
    needs_sample: ClassVar[bool] = False

    # Whether the network also reads the bins of numbers as normal scores.
    has_scores: bool = False
    # The column whose vocabulary it shares.
    shared_name: Any = None
    # The category column whose values those of this one belong to.
    parent_name: Any = None

    # What warnings are about.
    content_: str | None = None  # of text that looks misread
    has_one_value: bool = False

    @property
    def inputs(self) -> Sequence[Input]:
        """The numeric inputs of the network."""
        return ()

    @property
    def bins(self) -> np.ndarray | None:
        """Edges of the bins of numbers."""
        return None

    @property
    def cardinality(self) -> int:
        """Number of codes without those of rare values, the number of embeddings."""
        return 0

    @property
    def n_codes(self) -> int:
        """Number of codes with those of rare values."""
        return 0

    @property
    def n_network_codes(self) -> int:
        """Number of codes that the network reads; others are those of unseen values."""
        return self.cardinality

    @property
    def value_vectors(self) -> ValueVectors | None:
        """Vectors of the values, None without any."""
        return None

    @property
    def n_vectors(self) -> int:
        """Number of vectors that it does not share with another column."""
        return 0

    @property
    def n_values(self) -> int:
        """Number of values that target statistics tell apart."""
        return 0

    @property
    def n_counted_codes(self) -> int:
        """Number of codes of a table of target statistics."""
        return 0

    @property
    def has_few_values(self) -> bool:
        """Whether the encoding is learnt from few values."""
        return False

    @property
    def has_constant(self) -> bool:
        """Whether the column, or a part of it, has been constant so far."""
        return False

    @property
    def encoding(self) -> str:
        """How the values are encoded, in a few words."""
        raise NotImplementedError

    @property
    def description(self) -> str:
        """The column, as the beginning of a message."""
        return f"Column {self.name!r}"

    @classmethod
    def claim(cls, choice: Choice, name: Any) -> Self | None:
        """Return an unfitted column if the named one is of this kind, else None."""
        raise NotImplementedError

    # Learning and encoding.

    def check_cells(self, table: TableCells) -> None:
        """Raise if the cells cannot be read, before any column is learnt."""

    def fit_table(
        self, table: TableCells, sample_weight: np.ndarray | None
    ) -> EncodedColumn:
        """Learn the column of a table, and return its encoded values.

        Columns that share a vocabulary are learnt after the column that has it.
        """
        return EncodedColumn()

    def encode_table(self, table: TableCells) -> EncodedColumn:
        """Return the encoded values of the column of another table."""
        return EncodedColumn()

    def part_learner(self, max_values: int) -> PartLearner:
        """Return what learns the column from rows in parts."""
        return PartLearner(self)

    def grow_table(
        self, table: TableCells, forget_after: int | None = None
    ) -> GrownColumn:
        """Return a column with codes for the frequent new values of a table.

        With `forget_after`, they may have the codes of values that so many updates have
        not had.
        """
        return self.unchanged()

    def with_vectors(self, table: Any) -> GrownColumn:
        """Return a column with further vectors of its values."""
        raise NotImplementedError

    def unchanged(self) -> GrownColumn:
        """Return the column itself, with its codes as their own origins."""
        return GrownColumn(column=self)

    def for_serving(self) -> Self:
        """Return the column without what only updates need, or itself."""
        return self

    def learn_constant(
        self, cells: Any, sample_weight: np.ndarray | None = None
    ) -> Self:
        """Return a column that has learnt what was constant so far, or itself."""
        return self

    def bag_shape(self, code_columns: Sequence["Column"]) -> BagShape:
        """Return the shape of the bag; `code_columns` may share their vectors."""
        raise NotImplementedError

    # Other forms.

    def names_in(self, names: Iterable[Any]) -> list[Any]:
        """Return which of the names of a table's columns it stands for."""
        return [self.name]

    def describe(self, columns: Mapping[Any, "Column"]) -> dict[str, Any]:
        """Return what `column_encodings_` says of the column beside its rates."""
        return {
            "kind": self.kind,
            "encoding": self.encoding,
            "values": None,
            "bins": self.bins,
        }

    def looks_like_codes(self, cells: Any) -> bool:
        """Return whether the values are read as amounts, but look like codes."""
        return False

    def stored_values(self) -> Iterable[Any]:
        """Return the values that a file of the column must hold."""
        return ()

    def cells_of_texts(self, texts: Sequence[str | None]) -> Sequence[Any]:
        """Return the cells that texts of a file, None for a blank, stand for.

        Raises
        ------
        ValueError
            If text cannot hold the values of the column, or these texts do not.
        """
        raise ValueError(
            f"Column {self.name!r} contained values in fit that files of text do not "
            "hold; use a Parquet file."
        )

    def plain_values(self, cells: Any) -> np.ndarray:
        """Return floats or, of categories, objects, for models of other packages."""
        raise ValueError(
            f"Column {self.name!r} holds lists, which models of other packages cannot "
            "read; leave it out of the comparison."
        )

    def row_field(self) -> Field:
        """Return what encodes the values of single rows and small batches."""
        return Field(self)

    def onnx_obstacle(self) -> str | None:
        """Return why an ONNX graph cannot take the raw values, or None."""
        return None

    def add_to_graph(self, graph: Any) -> list[str]:
        """Add the encoding to an ONNX graph; return the names of its tensors.

        `graph` is a `GraphBuilder`: this folder does not import onnx.
        """
        raise NotImplementedError


def learning_order(columns: Iterable[Column]) -> list[Column]:
    """Return columns with those last that share the vocabulary of another one."""
    return sorted(columns, key=lambda column: column.shared_name is not None)
