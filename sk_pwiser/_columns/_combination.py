"""Combinations of columns: codes of the cells of a table of their values."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import numpy as np

from sk_pwiser._columns import _frames
from sk_pwiser._columns._base import Column, EncodedColumn, GrownColumn, TableCells
from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._choice import Choice
from sk_pwiser._columns._codes import UNSEEN, Codes
from sk_pwiser._columns._row_fields import Field, as_column, as_list
from sk_pwiser._columns._standard import StandardColumn
from sk_pwiser._columns._value_counts import ValueCounts
from sk_pwiser._columns._vocabulary import DEFAULT

# Numbers with more values than this are cut at quantiles into so many bins.
MOST_NUMBERS = 24
N_BINS = 16
# Columns that are combined at most: cells of more have a row or two.
MOST_SOURCES = 3

# A value of a column, as cells name it: text, a number, or None if it is missing.
CellPart = str | int | float | None


def bin_edges(numbers: np.ndarray) -> np.ndarray:
    """Return the numbers at which the bins of a column begin, but the first one.

    Columns with few values have one bin per value.
    """
    present_numbers = numbers[~np.isnan(numbers)]
    values = np.unique(present_numbers)
    if len(values) <= MOST_NUMBERS:
        return values[1:]
    shares = np.arange(1, N_BINS) / N_BINS
    edges = np.unique(np.quantile(present_numbers, shares, method="higher"))
    return edges[edges > values[0]]


def bins_of(numbers: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the bin of each number, -1 for missing ones."""
    bins = np.searchsorted(edges, numbers, side="right")
    return np.where(np.isnan(numbers), -1, bins)


@dataclass(eq=False)
class CombinationColumn(CategoryColumn):
    """Encodes the values of several columns of a table together, as codes of cells.

    Its name is the tuple of their names. A cell is text in JSON, a list with a category
    or the number of a bin per column, so that a cell with a missing value is one like
    others. What holds for the values of a category column holds for cells.
    """

    # Per column, the numbers at which its bins begin; None for categories.
    edges: tuple[Any, ...] = ()
    gain: float | None = None  # share of the log loss, None if the user chose it

    kind = "combination"

    @classmethod
    def claim(cls, choice: Choice, name: Any) -> Self | None:
        """Return None: it is no column of a table."""
        return None

    @classmethod
    def of(
        cls,
        columns: Sequence[Column],
        table: TableCells,
        gain: float | None = None,
    ) -> Self:
        """Return an unfitted combination of columns that were learnt.

        The bins of numbers are those of a table.
        """
        edges: list[np.ndarray | None] = []
        for column in columns:
            is_number = column.network_input == "numeric"
            numbers = (
                _read(column.name, table.cells[column.name]) if is_number else None
            )
            edges.append(None if numbers is None else bin_edges(numbers))
        name = tuple(column.name for column in columns)
        return cls(name, DEFAULT, edges=tuple(edges), gain=gain)

    @property
    def is_combinable(self) -> bool:  # type: ignore[override]
        """Return False: it is a combination already."""
        return False

    @property
    def encoding(self) -> str:
        """How the values are encoded, in a few words."""
        return "embedding of cells"

    def names_in(self, names: Iterable[Any]) -> list[Any]:
        """Return no name: it stands beside the columns of a table."""
        return []

    def cells_of(self, table: TableCells) -> tuple[Any, ...]:
        """Return the cells of the combined columns of a table."""
        return tuple(table.cells[source] for source in self.name)

    # A table.

    def fit_table(
        self, table: TableCells, sample_weight: np.ndarray | None
    ) -> EncodedColumn:
        """Learn the cells."""
        return EncodedColumn(codes=self.fit_transform(self.cells_of(table)))

    def encode_table(self, table: TableCells) -> EncodedColumn:
        """Return the codes of another table; new cells are no reason for a warning."""
        return EncodedColumn(codes=self.transform(self.cells_of(table)))

    def part_learner(self, max_values: int) -> "CellCounts":
        """Return what counts the cells of rows in parts."""
        return CellCounts(self, max_values)

    def grow_table(
        self, table: TableCells, forget_after: int | None = None
    ) -> GrownColumn:
        """Return a column with codes for the frequent new cells of a table."""
        cells = self.cells_of(table)
        grown, origin = self.grown(cells, forget_after=forget_after)
        return GrownColumn(column=grown, code_origin=origin)

    def learn(
        self,
        values: list[Any],
        counts: list[int],
        has_missing: bool,
        kinds: set[str],
        n_further: int = 0,
    ) -> None:
        """Learn cells; `n_further` rows have further ones, without codes."""
        super().learn(values, counts, has_missing, kinds, n_further)
        self.content_ = None  # cells are text of our own

    def transform(self, column: Any) -> Codes:
        """Return the `Codes` of the cells of the combined columns."""
        numbering = numbering_of(self)
        places = [
            self._places(source, cells, parts)
            for source, (cells, parts) in enumerate(
                zip(column, numbering.parts, strict=True)
            )
        ]
        return numbering.codes(places)

    def places_of(self, cells_by_column: Mapping[Any, Any]) -> list[np.ndarray]:
        """Return the places of the values of rows, as `codes_of_places` reads them."""
        parts = numbering_of(self).parts
        return [
            self._places(source, cells_by_column[name], parts[source])
            for source, name in enumerate(self.name)
        ]

    def codes_of_places(self, places: Sequence[np.ndarray]) -> np.ndarray:
        """Return the codes of cells by the places of their values."""
        codes: np.ndarray = numbering_of(self).codes(places)[slice(None)]
        return codes

    def _places(
        self, source: int, cells: Any, parts: Mapping[CellPart, int]
    ) -> np.ndarray:
        """Return the place of each row's value among those of cells, -1 for others."""
        indices, values = self._parts(source, cells)
        place_of_values = [parts.get(value, -1) for value in values]
        places: np.ndarray = np.array(place_of_values, dtype=np.int64)[indices]
        return places

    def _parts(self, source: int, cells: Any) -> tuple[np.ndarray, list[CellPart]]:
        """Return the index of each row's value, and the different values."""
        edges = self.edges[source]
        name = self.name[source]
        values: list[CellPart]
        if edges is None:
            indices, distinct = CategoryColumn(name)._factorize(cells)
            values = [part_of(value) for value in distinct]
        else:
            indices = bins_of(_read(name, cells), edges)
            values = list(range(len(edges) + 1))
        # The last one is selected by the index of missing values, -1.
        return np.asarray(indices, dtype=np.int64), [*values, None]

    def _factorize(self, column: Any) -> tuple[np.ndarray, list[str]]:
        """Return the index of the cell of each row, and the different cells as text."""
        used_parts: list[list[CellPart]] = []
        cells = np.zeros(0, dtype=np.int64)
        for source, cells_of_source in enumerate(column):
            indices, values = self._parts(source, cells_of_source)
            used, places = np.unique(indices, return_inverse=True)
            used_parts.append([values[index] for index in used.tolist()])
            cells = places if source == 0 else cells * len(used) + places
        distinct, indices = np.unique(cells, return_inverse=True)
        columns = []
        for parts in reversed(used_parts):
            columns.append([parts[place] for place in (distinct % len(parts)).tolist()])
            distinct //= len(parts)
        texts = [
            json.dumps(cell, ensure_ascii=False)
            for cell in zip(*reversed(columns), strict=True)
        ]
        return indices, texts

    # Other forms.

    def values_of(self, table: TableCells) -> list[tuple[np.ndarray, list[str]]]:
        """Return the place of each row's value per column, and the values as text.

        The values are in the order of their text or, in bins, of their numbers; those
        that no cell has have the place -1.
        """
        values = []
        cells = zip(self.cells_of(table), numbering_of(self).parts, strict=True)
        for source, (cells_of_source, parts) in enumerate(cells):
            ordered = sorted(parts, key=_order_of_part)
            place_of = {part: place for place, part in enumerate(ordered)}
            places = self._places(source, cells_of_source, place_of)
            texts = [self.part_text(source, part) for part in ordered]
            values.append((places, texts))
        return values

    def part_text(self, source: int, part: CellPart) -> str:
        """Return a value of a combined column as a reader knows it."""
        edges = self.edges[source]
        if part is None:
            return "missing"
        if edges is None:
            return str(part)
        assert isinstance(part, int)
        if not len(edges):
            return "any"
        if part == 0:
            return f"< {edges[0]:g}"
        if part == len(edges):
            return f"≥ {edges[-1]:g}"
        return f"{edges[part - 1]:g} to {edges[part]:g}"

    def row_field(self) -> "CombinationField":  # type: ignore[override]
        """Return what encodes the values of single rows and small batches."""
        return CombinationField(self)

    def onnx_obstacle(self) -> str | None:
        """Return None: the combined columns have theirs."""
        return None

    def add_cells_to_graph(
        self, graph: Any, sources: Mapping[Any, Column]
    ) -> list[str]:
        """Add the lookup of the codes of cells, after those of the combined columns."""
        numbering = numbering_of(self)
        cells = None
        for source, (name, parts) in enumerate(
            zip(self.name, numbering.parts, strict=True)
        ):
            places = self._add_places_to_graph(
                graph, source, sources[name], dict(parts)
            )
            # The place of values that no cell has is the last one.
            size = np.int64(len(parts) + 1)
            if cells is None:
                cells = places
            else:
                cells = graph.add("Add", graph.add("Mul", cells, size), places)
        codes = {}
        for text, code in self.codes_.items():
            key = 0
            for part, parts in zip(json.loads(text), numbering.parts, strict=True):
                key = key * (len(parts) + 1) + parts[part]
            codes[float(key)] = code
        return [graph.look_up(graph.to_double(cells), codes or {-1.0: UNSEEN}, UNSEEN)]

    def _add_places_to_graph(
        self, graph: Any, source: int, column: Any, parts: dict[CellPart, int]
    ) -> str:
        """Add the places of the values of a combined column to a graph."""
        name = str(self.name[source])
        edges = self.edges[source]
        other = len(parts)
        missing_place = np.int64(parts.pop(None, other))
        if edges is not None:
            reached = graph.add("GreaterOrEqual", name, np.array([edges], np.float64))
            bins = graph.add(
                "ReduceSum", graph.to_int(reached), np.array([1], np.int64), keepdims=1
            )
            keys = {float(part): place for part, place in parts.items()}  # type: ignore[arg-type]
            places = graph.look_up(graph.to_double(bins), keys or {-1.0: other}, other)
            return str(
                graph.add("Where", graph.add("IsNaN", name), missing_place, places)
            )
        values = {value: parts.get(part_of(value), other) for value in column.codes_}
        if "numbers" not in column.kinds_:
            texts = {str(value): place for value, place in values.items()}
            texts[""] = int(missing_place)
            return str(graph.look_up(name, texts, other))
        numbers = {float(value): place for value, place in values.items()}
        places = graph.look_up(name, numbers or {0.0: other}, other)
        return str(graph.add("Where", graph.add("IsNaN", name), missing_place, places))


class CellCounts(ValueCounts):
    """Numbers of rows per cell of a combination."""

    def add(self, table: TableCells) -> None:
        """Add a part of the rows."""
        self.count(self.column.cells_of(table))


class Numbering(NamedTuple):
    """The cells of a combination by the places of their values."""

    # Per column, the place of each value that a cell has, from 0 on.
    parts: list[dict[CellPart, int]]
    keys: np.ndarray  # increasing, a number per cell
    codes_of_keys: np.ndarray  # and that of other cells, the last one

    def codes(self, places: Sequence[np.ndarray]) -> Codes:
        """Return the codes of rows by the places of their values."""
        keys = np.zeros(len(places[0]), dtype=np.int64)
        is_known = np.ones(len(keys), dtype=bool)
        for place, parts in zip(places, self.parts, strict=True):
            keys = keys * len(parts) + place
            is_known &= place >= 0
        indices = np.searchsorted(self.keys, keys)
        indices[indices == len(self.keys)] = -1
        if len(self.keys):
            is_known &= self.keys[indices] == keys
        indices[~is_known] = -1
        return Codes(indices, self.codes_of_keys)


# By the combination, its codes and what follows from them. Files do not hold it, and a
# column that has grown has other codes.
_NUMBERINGS: "WeakKeyDictionary[CombinationColumn, tuple[Any, Numbering]]" = (
    WeakKeyDictionary()
)


def numbering_of(column: CombinationColumn) -> Numbering:
    """Return the numbers of the cells of a combination that was learnt."""
    codes, numbering = _NUMBERINGS.get(column, (None, None))
    if numbering is not None and codes is column.codes_:
        return numbering
    n_sources = len(column.name)
    parts: list[dict[CellPart, int]] = [{} for _ in range(n_sources)]
    places = np.empty((n_sources, len(column.codes_)), dtype=np.int64)
    for cell, text in enumerate(column.codes_):
        for source, part in enumerate(json.loads(text)):
            places[source, cell] = parts[source].setdefault(part, len(parts[source]))
    keys = np.zeros(len(column.codes_), dtype=np.int64)
    for place, parts_of_source in zip(places, parts, strict=True):
        keys = keys * len(parts_of_source) + place
    order = np.argsort(keys)
    codes_of_cells = np.fromiter(column.codes_.values(), np.int64, len(keys))
    codes_of_keys = np.append(codes_of_cells[order], UNSEEN)
    dtype = np.min_scalar_type(-column.n_codes)
    numbering = Numbering(parts, keys[order], codes_of_keys.astype(dtype))
    _NUMBERINGS[column] = (column.codes_, numbering)
    return numbering


class CombinationField(Field):
    """Encodes the values of a combination in single rows, by lookup."""

    def __init__(self, column: CombinationColumn) -> None:
        super().__init__(column)
        self._codes = {
            tuple(json.loads(text)): code for text, code in column.codes_.items()
        }

    def encode(self, values: Sequence[Any] | np.ndarray) -> list[int]:
        """Return the codes of rows; `values` has the values of each column."""
        columns = []
        n_rows = max(map(len, values))
        for values_of_source, edges, name in zip(
            values, self.column.edges, self.name, strict=True
        ):
            parts: list[CellPart]
            if edges is None:
                parts = [
                    None if _frames.is_missing(value) else part_of(value)
                    for value in as_list(values_of_source)
                ]
            else:
                numbers = _read(name, as_column(values_of_source))
                bins = bins_of(numbers, edges).tolist()
                parts = [None if number < 0 else number for number in bins]
            columns.append(parts * n_rows if len(parts) == 1 else parts)
        return [self._codes.get(cell, UNSEEN) for cell in zip(*columns, strict=True)]

    def encode_one(self, value: Sequence[Any]) -> int:
        """Return the code of a row, given the value of each column."""
        return self.encode([[entry] for entry in value])[0]


def part_of(value: Any) -> CellPart:
    """Return a category as cells name it, equal for equal values of any library."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Real | Decimal | np.bool_):
        number: Any = value
        whole = int(number)
        return whole if whole == number else float(number)
    return str(value)


def _order_of_part(part: CellPart) -> tuple[int, float, str]:
    """Return a key that sorts numbers, then text, and then the missing value."""
    if part is None:
        return 2, 0.0, ""
    if isinstance(part, str):
        return 1, 0.0, part
    return 0, float(part), ""


def _read(name: Any, cells: Any) -> np.ndarray:
    """Return the numbers of a column as float64."""
    numbers: np.ndarray = StandardColumn(name).read(cells)
    return numbers
