"""Columns of lists of categories."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import InitVar, dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np

from sk_pwiser._columns import _frames
from sk_pwiser._columns._bags import Bags, BagShape
from sk_pwiser._columns._base import (
    Column,
    EncodedColumn,
    GrownColumn,
    Lookup,
    PartLearner,
    TableCells,
)
from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._choice import Choice
from sk_pwiser._columns._codes import FIRST_VALUE, MISSING, UNSEEN
from sk_pwiser._columns._number import FEW_VALUES, LARGEST_DEVIATION
from sk_pwiser._columns._row_fields import Field, as_column, repeat

POOLINGS = "mean", "sum", "attention"
# With shared embeddings, codes of lists without elements precede those of values.
EMPTY_LIST = 0
MISSING_LIST = 1
N_SPECIAL = 2
# Elements of these types are of a kind of those in fit, without a further check.
TYPES_OF_KINDS = {"text": {str}, "numbers": {bool, int, float}}


@dataclass(eq=False)
class ListColumn(Column):
    """Encodes a column of lists of categories as one bag per row.

    Elements have the codes of a category column, `items` of the methods: of the column
    `shared_name`, after two codes for empty and for missing lists, or of `items_`. Such
    lists are one entry; if fit saw none, it has the code of unseen values. Ages enter
    as standardised log(1 + age).
    """

    name: Any
    vocabulary: InitVar[Any]
    pooling: str
    weights_name: Any = None
    shared_name: Any = None
    ages_name: Any = None

    kind = "list of categories"
    network_input = "bags"
    holds_lists = True
    # Smallest and largest log(1 + age).
    age_ends_ = np.inf, -np.inf

    def __post_init__(self, vocabulary):
        self.age_sums_ = np.zeros(3)  # numbers, sums and squares of log(1 + age)
        self.has_missing_ = False
        self.has_empty_ = False
        self.items_ = None
        if self.shared_name is None:
            self.items_ = CategoryColumn(self.name, vocabulary, place="element")

    @classmethod
    def claim(cls, choice: Choice, name: Any) -> Self | None:
        """Return a column for lists that are categories by dtype or by name."""
        if not (choice.is_category(name) and choice.has_lists(name)):
            return None
        return cls(
            name,
            choice.vocabulary(name),
            pooling=choice.list_pooling.get(name, "mean"),
            weights_name=choice.list_weights.get(name),
            shared_name=choice.shared_embeddings.get(name),
            ages_name=choice.list_ages.get(name),
        )

    @property
    def encoding(self) -> str:
        """How the values are encoded, in a few words."""
        return f"{self.pooling} of embeddings"

    @property
    def n_vectors(self) -> int:
        """Number of vectors that the entries do not share with a category column."""
        return N_SPECIAL if self.items_ is None else self.items_.cardinality + 1

    @property
    def n_values(self) -> int:
        """Number of values that target statistics tell apart."""
        return 0 if self.items_ is None else self.items_.cardinality - FIRST_VALUE

    @property
    def n_counted_codes(self) -> int:
        """Number of codes of a table of target statistics."""
        return self.n_vectors

    @property
    def has_few_values(self) -> bool:
        """Whether the ages are scaled by few values."""
        return 0 < self.age_sums_[0] < FEW_VALUES

    def bag_shape(self, code_columns: Sequence[Column]) -> BagShape:
        """Return the shape of the bag, with vectors of a shared column if any."""
        if self.shared_name is None:
            return BagShape(self.n_vectors, has_unseen=True)
        names = [column.name for column in code_columns]
        place = names.index(self.shared_name)
        return BagShape(
            self.n_vectors + code_columns[place].cardinality,
            has_unseen=True,
            column=place,
            attends=self.pooling == "attention",
            has_ages=self.ages_name is not None,
        )

    def describe(self, columns: Mapping[Any, Column]) -> dict[str, Any]:
        """Return what `column_encodings_` says of the column beside its rates."""
        values = self.items_in(columns).own_values_
        return {**super().describe(columns), "values": values}

    def stored_values(self) -> Sequence[Any]:
        """Return the values that a file of the column must hold."""
        return () if self.items_ is None else list(self.items_.codes_)

    # A table.

    def items_in(self, columns: Mapping[Any, Any]) -> CategoryColumn:
        """Return the category column of the elements, its own or a shared one."""
        return columns[self.shared_name] if self.items_ is None else self.items_

    def _numbers_in(self, table):
        """Return the cells of the columns of weights and of ages, None without one."""
        return table.cells.get(self.weights_name), table.cells.get(self.ages_name)

    def check_cells(self, table: TableCells) -> None:
        """Raise if the cells are no lists."""
        table.lists(self.name)

    def fit_table(
        self, table: TableCells, sample_weight: np.ndarray | None
    ) -> EncodedColumn:
        """Learn the elements, after those of a column whose vocabulary is shared."""
        lists = table.lists(self.name)
        items = self.items_in(table.columns)
        weights, ages = self._numbers_in(table)
        return EncodedColumn(bag=self.fit_transform(lists, items, weights, ages))

    def encode_table(self, table: TableCells) -> EncodedColumn:
        """Return the bags of another table."""
        lists = table.lists(self.name)
        items = self.named(self.items_in(table.columns))
        codes = items.transform(lists.elements)
        weights, ages = self._numbers_in(table)
        bag = self.encode(lists, items, codes, weights, ages)
        lookup = Lookup(items, lists.elements, codes, lists)
        return EncodedColumn(bag=bag, lookup=lookup)

    def part_learner(self, max_values: int) -> "ListLearner":
        """Return what counts the elements of rows in parts."""
        return ListLearner(self, max_values)

    def grow_table(
        self, table: TableCells, forget_after: int | None = None
    ) -> GrownColumn:
        """Return a column with vectors for the frequent new values of a table."""
        elements = table.lists(self.name).elements
        grown, origin = self.grown(elements, forget_after=forget_after)
        return GrownColumn(column=grown, vector_origin=origin)

    def for_serving(self) -> Self:
        """Return the column without the record of uses of its elements, or itself."""
        items = None if self.items_ is None else self.items_.for_serving()
        if items is self.items_:
            return self
        served = copy(self)
        served.items_ = items
        return served

    def unchanged(self) -> GrownColumn:
        """Return the column itself, with its vectors as their own origins."""
        return GrownColumn(column=self, vector_origin=np.arange(self.n_vectors))

    # Lists.

    def fit_transform(self, lists, items, weights=None, ages=None):
        if items is self.items_:
            codes = items.fit_transform(lists.elements)
        else:
            codes = self.named(items).transform(lists.elements)
        self.add(lists, ages)
        self.finish()
        return self.encode(lists, items, codes, weights, ages)

    def add(self, lists, ages):
        """Learn from some rows which special lists there are, and the ages."""
        self.has_missing_ |= bool((lists.sizes < 0).any())
        self.has_empty_ |= bool((lists.sizes == 0).any())
        if self.ages_name is not None:
            ages = self._read_numbers("list_ages", self.ages_name, lists, ages)
            log_ages = np.log1p(ages[~np.isnan(ages)])
            squares = (log_ages**2).sum()
            self.age_sums_ += [len(log_ages), log_ages.sum(), squares]
            low, high = self.age_ends_
            ends = log_ages.min(initial=low), log_ages.max(initial=high)
            self.age_ends_ = tuple(map(float, ends))

    def finish(self):
        """Learn the codes of special lists, after the codes of values."""
        if self.items_ is None:
            missing = MISSING_LIST
            empty = EMPTY_LIST
            unseen = N_SPECIAL + UNSEEN
        else:
            missing = MISSING
            empty = self.items_.cardinality
            unseen = UNSEEN
        self.missing_code_ = missing if self.has_missing_ else unseen
        self.empty_code_ = empty if self.has_empty_ else unseen

    def grown(self, elements, forget_after=None):
        """Return a list column with vectors for new values, and the earlier vectors."""
        items = self.items_
        n_before = self.n_vectors - 1  # without that of empty lists
        if items is not None:
            items, origin = items.grown(elements, forget_after=forget_after)
        if items is self.items_:
            return self, np.arange(self.n_vectors)
        grown = copy(self)
        grown.items_ = items
        grown.finish()
        origin = origin[: items.cardinality]
        # The vector of empty lists comes last.
        return grown, np.append(np.where(origin < n_before, origin, -1), n_before)

    def named(self, items):
        """Return the vocabulary as messages name it, also if it is that of a column."""
        items = copy(items)
        items.name = self.name
        items.place = "element"
        return items

    def encode(self, lists, items, codes, weights=None, ages=None):
        """Return the bags of lists, whose elements have these codes of `items`."""
        is_filled = lists.sizes > 0
        sizes = np.where(is_filled, lists.sizes, 1)
        offsets = np.concatenate([[0], sizes.cumsum()])
        is_element = np.repeat(is_filled, sizes)
        indices = np.empty(offsets[-1], dtype=np.int64)
        indices[is_element] = codes[:]
        indices[indices >= items.cardinality] = UNSEEN  # the codes of rare values
        if self.items_ is None:
            indices += N_SPECIAL
        special = np.where(lists.sizes < 0, self.missing_code_, self.empty_code_)
        indices[~is_element] = special[~is_filled]
        entry_weights = np.ones(len(indices))
        if self.weights_name is not None:
            entry_weights[is_element] = self._read_numbers(
                "list_weights", self.weights_name, lists, weights
            )
        if self.pooling == "mean":
            total = np.add.reduceat(entry_weights, offsets[:-1])
            entry_weights /= np.repeat(np.where(total > 0, total, 1.0), sizes)
        scaled_ages = None
        if self.ages_name is not None:
            scaled_ages = np.full(len(indices), np.nan, dtype=np.float32)
            ages = self._read_numbers("list_ages", self.ages_name, lists, ages)
            scaled_ages[is_element] = self._scale_ages(np.log1p(ages))
        entry_weights = entry_weights.astype(np.float32)
        return Bags(offsets, indices, entry_weights, scaled_ages)

    def _scale_ages(self, ages):
        n, total, squares = self.age_sums_
        mean = total / max(n, 1)
        scale = np.sqrt(max(squares / max(n, 1) - mean**2, 0.0))
        low, high = self.age_ends_
        if low <= high:  # as for other numbers
            ages = np.clip(ages, low, high)
        scaled = (ages - mean) / (scale if scale > 1e-6 else 1.0)
        return np.clip(scaled, -LARGEST_DEVIATION, LARGEST_DEVIATION)

    def _read_numbers(self, parameter, name, lists, column):
        """Return one finite number >= 0 per element; NaN for an unknown age."""
        start = f"{parameter} of column {self.name!r}"
        content = parameter.removeprefix("list_")
        is_filled = (lists.sizes > 0).any()
        is_list = _frames.content_of(column) in ("lists", "arrays")
        if not is_list and (is_filled or _frames.first_known(column) is not None):
            raise TypeError(f"{start}: column {name!r} does not contain lists.")
        numbers = _frames.read_lists(column, name)
        n_numbers = np.maximum(numbers.sizes, 0)
        n_elements = np.maximum(lists.sizes, 0)
        if (differs := n_numbers != n_elements).any():
            row = int(differs.argmax())
            raise ValueError(
                f"{start}: row {row} has {n_elements[row]} elements, but "
                f"{n_numbers[row]} {content} in column {name!r}."
            )
        values = _frames.read_numbers(numbers.elements, f"{start}: column {name!r}")
        is_valid = np.isfinite(values) & (values >= 0)
        if content == "ages":
            is_valid |= np.isnan(values)
        if not is_valid.all():
            element = int(np.argmin(is_valid))
            raise ValueError(
                f"{start} must be finite and >= 0; row {numbers.row_of(element)} of "
                f"column {name!r} contains {values[element]}."
            )
        return values

    # Other forms.

    def elements_of(self, indices: np.ndarray, sizes: np.ndarray) -> "Elements":
        """Return the elements of bags; special lists are one unseen value."""
        first = N_SPECIAL if self.items_ is None else 0
        return Elements(np.maximum(indices - first, UNSEEN), sizes)

    def row_field(self) -> "ListField":
        """Return what encodes the lists of single rows and small batches."""
        return ListField(self)

    def onnx_obstacle(self) -> str | None:
        """Return why an ONNX graph cannot take the raw values."""
        return 'it contains lists; use inputs="encoded"'


class ListLearner(PartLearner):
    """Learns lists from rows in parts."""

    def __init__(self, column: ListColumn, max_values: int) -> None:
        super().__init__(column)
        # Elements of a shared vocabulary are counted by the column that has it.
        self.counts = None
        if column.items_ is not None:
            self.counts = column.items_.part_learner(max_values)

    @property
    def max_dropped(self) -> int:
        """Rows of a value that its count may lack."""
        return 0 if self.counts is None else self.counts.max_dropped

    def add(self, table: TableCells) -> None:
        """Count the elements, and learn the ages and which special lists there are."""
        lists = table.lists(self.column.name)
        if self.counts is not None:
            self.counts.count(lists.elements)
        self.column.add(lists, table.cells.get(self.column.ages_name))

    def finish(self, sample: TableCells, sample_weight: np.ndarray | None) -> None:
        """Learn the counted values, and then the codes of special lists."""
        if self.counts is not None:
            self.counts.finish(sample, sample_weight)
        self.column.finish()


class ListField(Field):
    """Encodes the lists of categories of a column."""

    def encode_bag(
        self, values: Mapping[Any, Any], fields: Mapping[Any, Field], n_rows: int
    ) -> Bags:
        """Return the bags, from the values and the fields of all columns by name."""
        column = self.column
        items = column.items_
        if items is None:
            items = fields[column.shared_name].column
        items = column.named(items)
        names = (self.name, column.weights_name, column.ages_name)
        cells = [None if name is None else values[name] for name in names]
        n_read = max(len(values) for values in cells if values is not None)
        lists, *numbers = (
            None if values is None else as_column(repeat(values, n_read))
            for values in cells
        )
        lists = _frames.read_lists(lists, self.name)
        self._check_kinds(lists, items)
        bags = column.encode(lists, items, items.transform(lists.elements), *numbers)
        if n_read == n_rows:
            return bags
        # The entries of one row, in all rows.
        entries: Any = [None if a is None else np.tile(a, n_rows) for a in bags[1:]]
        return Bags(np.arange(n_rows + 1) * len(bags.indices), *entries)

    def _check_kinds(self, lists, items):
        """Raise if no element of a list is of a kind in fit, whatever other lists have.

        A table is checked as a whole, but a row of a request is checked by itself.
        """
        types = [TYPES_OF_KINDS.get(kind, ()) for kind in items.kinds_]
        if set(map(type, lists.elements)).issubset({type(None)}.union(*types)):
            return
        ends = np.maximum(lists.sizes, 0).cumsum().tolist()
        for row, (start, end) in enumerate(pairwise([0, *ends])):
            try:
                items.transform(lists.elements[start:end])
            except (TypeError, ValueError) as error:
                raise type(error)(f"Row {row}, field {self.name!r}: {error}") from error


@dataclass(eq=False)
class Elements:
    """Codes of a column: one per row or, for lists, as many as `sizes` has per row."""

    codes: np.ndarray
    sizes: np.ndarray | None = None

    def repeat(self, values: np.ndarray) -> np.ndarray:
        """Return the values of rows, once per element."""
        return values if self.sizes is None else np.repeat(values, self.sizes, axis=0)

    @property
    def first(self):
        """The code of the first element of each row."""
        return self.codes[self.sizes.cumsum() - self.sizes]

    def means(self, inputs):
        """Return the inputs of rows: of lists, the means over their elements."""
        if self.sizes is None:
            return inputs
        starts = self.sizes.cumsum() - self.sizes
        sums = [np.add.reduceat(column, starts) for column in inputs.T]
        return np.stack(sums, axis=1) / self.sizes[:, np.newaxis].astype(np.float32)
