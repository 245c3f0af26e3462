"""Numeric columns: what all their encodings share."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from sk_pwiser._columns import _frames
from sk_pwiser._columns._base import (
    Column,
    EncodedColumn,
    Input,
    PartLearner,
    TableCells,
)
from sk_pwiser._columns._choice import Choice
from sk_pwiser._columns._misread import looks_like_codes, refuse_merged
from sk_pwiser._columns._row_fields import Field, as_column
from sk_pwiser._columns._text_cells import numbers_of_texts

# On average, a share of 2 / (n + 1) of later values is out of the range of n values.
FEW_VALUES = 100


# Sums of weights and counts of repeated rows differ by rounding errors, which must not
# move an edge to the next value.
ROUNDING = 1e-9


def distinct_shares(values, weight):
    """Return the distinct values, increasing, and each one's share of the rows."""
    if weight is None:
        distinct, weights = np.unique(values, return_counts=True)
    else:
        distinct, indices = np.unique(values, return_inverse=True)
        weights = np.bincount(indices, weights=weight)
    return distinct, weights / weights.sum()


# Inputs are clipped to the range of the values in fit: the network has learnt nothing
# about others. They are clipped to this number of standard deviations, too, so that a
# single extreme value does not dominate the logit in predictions.
LARGEST_DEVIATION = 10.0


# The effect of a value beyond the range of fit is that of the outermost value at first:
# later rows exceed it slightly. But a single row may have decided on it. Further on, it
# is the mean effect of this share of the rows of fit, the outermost ones; the distance
# is that from the outermost value to the first of theirs, and half of it where the
# change begins.
OUTER_SHARE = 0.1


def outer_mean(distinct, shares, inputs):
    """Return the first value of the largest `OUTER_SHARE` of rows, and the mean input.

    The rows have increasing values with these shares and inputs.
    """
    above = np.append(shares[::-1].cumsum()[::-1][1:], 0.0)
    outer_shares = np.clip(OUTER_SHARE - above, 0.0, shares)
    first = np.flatnonzero(outer_shares > ROUNDING)[0]
    mean = outer_shares @ inputs / outer_shares.sum()
    return distinct[first], np.clip(mean, inputs.min(), inputs.max())


# Values are clipped to +-LARGEST_VALUE, since squares, sums and ratios of larger values
# may overflow. In fit, values closer to 0 than SMALLEST_VALUE count as 0, since ratios
# with their differences as denominators may overflow.
LARGEST_VALUE = 1e100
SMALLEST_VALUE = 1e-100

# For more rows than this, a vectorised call is faster than a loop.
FEW_ROWS = 8
LARGEST_FLOAT = np.finfo(np.float64).max.item()
# Values of these types are numbers, or missing, and need no conversion.
NUMBERS = {bool, float, int, np.float64, type(None)}


@dataclass(eq=False)
class NumericColumn(Column):
    """Encodes a numeric column, with an indicator if it had missing values in fit.

    A subclass defines `encoding_name`, by which the user chooses it, `_fit`, which
    learns from the values that are not missing, and `_nodes`, the map from values to
    inputs as points. A column with one distinct value is encoded as 0 until
    `learn_constant` learns it from later rows.
    """

    name: Any

    kind = "numeric"
    network_input = "numeric"
    needs_sample = True
    encoding_name: ClassVar[str]

    # Input of a missing value: the mean of the other inputs.
    fill_value_ = 0.0

    # Far below and above the range of fit: a value and its input each, which further
    # values share. None in files of earlier versions: the outermost value's input is.
    beyond_: tuple[float, float, float, float] | None = None

    # Whether the column has one number per row.
    is_scalar = True

    @property
    def is_combinable(self) -> bool:  # type: ignore[override]
        """Whether the numbers can be cut into bins."""
        return self.is_scalar

    n_bins_ = 0

    @classmethod
    def claim(cls, choice: Choice, name: Any) -> Self | None:
        """Return a column if this is the encoding of numbers that the user chose."""
        return cls(name) if choice.numeric_encoding == cls.encoding_name else None

    @property
    def inputs(self) -> list[Input]:
        """The input of the numbers, and an indicator if there were missing ones."""
        inputs = [Input(f"{self.name}", self.n_bins_, self.bin_scale)]
        if self.has_missing_:
            inputs.append(Input(f"{self.name}_missing", 0, 1.0))
        return inputs

    @property
    def n_inputs(self) -> int:
        """Number of the inputs."""
        return 2 if self.has_missing_ else 1

    @property
    def bin_scale(self) -> float:
        """Factor of the components of the bins."""
        return 1.0

    @property
    def words(self) -> str:
        """How numbers that differ are encoded, in a few words."""
        raise NotImplementedError

    def _fit(self, numbers: np.ndarray, weight: np.ndarray | None) -> None:
        """Learn from the numbers that are not missing."""
        raise NotImplementedError

    def _nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return increasing values, and their inputs."""
        raise NotImplementedError

    def _learn_beyond(self, distinct: np.ndarray, shares: np.ndarray) -> None:
        """Learn the inputs of values far beyond these, which increase."""
        inputs = self._encode(distinct.copy())
        first_above, above = outer_mean(distinct, shares, inputs)
        last_below, below = outer_mean(-distinct[::-1], shares[::-1], inputs[::-1])
        self.beyond_ = (
            float(2 * distinct[0] + last_below),
            float(below),
            float(2 * distinct[-1] - first_above),
            float(above),
        )

    @property
    def encoding(self) -> str:
        """How the values are encoded, in a few words."""
        words = "constant" if self.is_constant_ else self.words
        return f"{words}, NaN" if self.has_missing_ else words

    def cells_of_texts(self, texts: Sequence[str | None]) -> Sequence[Any]:
        """Return the numbers that texts stand for."""
        if not self.is_scalar:
            return super().cells_of_texts(texts)
        return numbers_of_texts(self.name, texts)

    # A table.

    def fit_table(
        self, table: TableCells, sample_weight: np.ndarray | None
    ) -> EncodedColumn:
        """Learn the numbers."""
        cells = table.cells[self.name]
        self.fit(cells, sample_weight)
        if self.is_scalar:
            refuse_merged(self.name, cells)
        return self.encode_table(table)

    def encode_table(self, table: TableCells) -> EncodedColumn:
        """Return the inputs, which are computed when they are read."""
        cells = self.open(table.cells[self.name])
        read_inputs = partial(self._read_inputs, cells)
        return EncodedColumn(n_inputs=self.n_inputs, read_inputs=read_inputs)

    def open(self, cells: Any) -> Any:
        """Return what `transform` reads by parts: the cells, or their numbers."""
        return cells

    def _read_inputs(self, cells, rows):
        if rows is None:
            return self.transform(cells)
        return self.transform(_frames.rows_of(cells, rows), rows.start)

    def part_learner(self, max_values: int) -> "NumberLearner":
        """Return what checks numbers in parts, and learns them from a sample."""
        return NumberLearner(self)

    def looks_like_codes(self, cells: Any) -> bool:
        """Return whether whole numbers look like codes or ids, not amounts."""
        return self.is_scalar and looks_like_codes(cells, self.name)

    # Values.

    def fit(self, column: Any, sample_weight: np.ndarray | None = None) -> Self:
        """Learn the numbers of a column."""
        values = self.read(column)
        is_number = ~np.isnan(values)
        numbers = values if is_number.all() else values[is_number]
        numbers = np.where(np.abs(numbers) < SMALLEST_VALUE, 0.0, numbers)
        self.n_known = len(numbers)
        self.has_missing_ = 0 < len(numbers) < len(values)
        self.is_constant_ = not len(numbers) or numbers.min() == numbers.max()
        self.has_one_value = self.is_constant_ and not self.has_missing_
        if not self.is_constant_:
            weight = None if sample_weight is None else sample_weight[is_number]
            self._fit(numbers, weight)
        return self

    @property
    def has_constant(self) -> bool:
        """Whether the column, or an element of its arrays, has been constant so far."""
        return self.is_constant_

    @property
    def has_few_values(self) -> bool:
        """Whether the encoding is that of few values; needs `fit` of this version."""
        return self.n_known < FEW_VALUES and not self.is_constant_

    def learn_constant(
        self, column: Any, sample_weight: np.ndarray | None = None
    ) -> Self:
        """Return a column of as many inputs that has learnt these rows, if it can."""
        if not self.is_constant_:
            return self
        successor = copy(self).fit(column, sample_weight)
        if successor.is_constant_:
            return self
        successor.has_missing_ = self.has_missing_
        return successor

    def transform(self, column, start=0):
        """Return the inputs of rows from `start` on, and any indicator."""
        values = self.read(column, start)
        if self.is_constant_:
            inputs = np.zeros(len(values))
        else:
            nodes, _ = self._nodes()
            is_beyond = (values < nodes[0]) | (values > nodes[-1])
            beyond = values[is_beyond]
            inputs = self._encode(values)
            if len(beyond):
                inputs[is_beyond] = np.interp(beyond, *self.nodes)
        inputs = inputs.astype(np.float32)
        missing = np.isnan(values)
        if missing.any():
            inputs[missing] = self.fill_value_
        return [inputs, missing] if self.has_missing_ else [inputs]

    def _encode(self, values):
        return np.interp(values, *self._nodes())

    @property
    def nodes(self):
        """Increasing values, and their inputs, between which these are linear."""
        if self.is_constant_:
            return np.zeros(1), np.zeros(1)
        nodes, inputs = self._nodes()
        if self.beyond_ is None:
            return nodes, inputs
        far_below, below, far_above, above = self.beyond_
        near_below = (far_below + nodes[0]) / 2
        near_above = (far_above + nodes[-1]) / 2
        if far_below < near_below < nodes[0]:
            nodes = np.append([far_below, near_below], nodes)
            inputs = np.append([below, inputs[0]], inputs)
        if nodes[-1] < near_above < far_above:
            nodes = np.append(nodes, [near_above, far_above])
            inputs = np.append(inputs, [inputs[-1], above])
        return nodes, inputs

    def read(self, column, start=0):
        """Return the values as float64; raise if some are infinite or no numbers."""
        values = _frames.read_numbers(
            column,
            lambda: f"Column {_frames.describe(self.name, column)}",
            lambda: self._advice(column),
        )
        # fmin and fmax ignore NaN.
        low = np.fmin.reduce(values, initial=0.0)
        high = np.fmax.reduce(values, initial=0.0)
        if low >= -LARGEST_VALUE and high <= LARGEST_VALUE:
            return values
        is_infinite = np.isinf(values)
        if is_infinite.any():
            row = int(is_infinite.argmax())
            raise _frames.infinity_error(self.name, column, start + row, values[row])
        return np.clip(values, -LARGEST_VALUE, LARGEST_VALUE)

    def _advice(self, column):
        """Return what to do with a column that holds no numbers."""
        if not _frames.holds_dates(column):
            return (
                f" Convert it, for example by X[{self.name!r}].astype(float), or fit "
                "with it in categorical_features."
            )
        return (
            " If its dates order the rows, fit with encoding_params={'time_column': "
            f"{self.name!r}}}; otherwise derive numbers, such as the hour, the weekday "
            "or the age in days, or fit with it in categorical_features."
        )

    # Other forms.

    def plain_values(self, cells: Any) -> np.ndarray:
        """Return the numbers as floats."""
        return self.read(cells)

    def row_field(self) -> Field:
        """Return what encodes the values of single rows and small batches."""
        return NumericField(self)

    def add_to_graph(self, graph: Any) -> list[str]:
        """Add the interpolation between the nodes, and any indicator."""
        values = graph.number_input(self.name)
        nodes, inputs = self.nodes
        if len(nodes) == 1:  # some runtimes cannot multiply matrices without columns
            nodes = np.append(nodes, nodes + 1)
            inputs = np.repeat(inputs, 2)
        first = np.float64(nodes[0])
        last = np.float64(nodes[-1])
        is_missing = graph.add("IsNaN", values)
        numbers = graph.add("Where", is_missing, first, values)
        numbers = graph.add("Clip", numbers, first, last)
        # The share of each interval between two nodes that lies below the value.
        shares = graph.add("Sub", numbers, nodes[np.newaxis, :-1])
        shares = graph.add("Div", shares, np.diff(nodes)[np.newaxis])
        shares = graph.add("Clip", shares, np.float64(0), np.float64(1))
        encoded = graph.add("MatMul", shares, np.diff(inputs)[:, np.newaxis])
        encoded = graph.add("Add", encoded, np.float64(inputs[0]))
        fill_value = np.float64(self.fill_value_)
        encoded = graph.add("Where", is_missing, fill_value, encoded)
        tensors = [encoded, is_missing] if self.has_missing_ else [encoded]
        return [graph.to_float(tensor) for tensor in tensors]


class NumberLearner(PartLearner):
    """Checks all numbers, and learns those of a sample of the rows."""

    def add(self, table: TableCells) -> None:
        """Check the numbers: an infinite value is named with its row."""
        if self.column.is_scalar:
            self.column.read(table.cells[self.column.name])


class NumericField(Field):
    """Encodes a numeric column by interpolation between the nodes of its encoding."""

    def __init__(self, column: NumericColumn) -> None:
        self.name = column.name
        self.holds_lists = column.holds_lists
        self.has_missing = column.has_missing_
        self._fill_value = float(column.fill_value_)
        nodes, inputs = column.nodes
        self._arrays = nodes, inputs
        self._nodes = nodes.tolist()
        self._inputs = inputs.tolist()
        self._slopes = (np.diff(inputs) / np.diff(nodes)).tolist()

    def encode_one(self, value: Any, row: int = 0) -> tuple[Any, ...]:
        """Return the input, and whether the value is missing if fit had any such."""
        if value is None:
            value = math.nan
        elif type(value) not in NUMBERS or not (
            -LARGEST_FLOAT <= value <= LARGEST_FLOAT or value != value
        ):
            value = self._read([value], row)[0].item()
        nodes = self._nodes
        inputs = self._inputs
        if value != value:
            encoded = self._fill_value
        else:
            place = bisect_right(nodes, value) - 1
            if place < 0:
                encoded = inputs[0]
            elif place >= len(self._slopes):
                encoded = inputs[-1]
            else:
                encoded = inputs[place] + self._slopes[place] * (value - nodes[place])
        return (encoded, value != value) if self.has_missing else (encoded,)

    def encode(self, values: Sequence[Any] | np.ndarray) -> Iterable[Any]:
        """Return the inputs, and an indicator of missing values if fit had any."""
        if len(values) <= FEW_ROWS:
            rows = [self.encode_one(value, row) for row, value in enumerate(values)]
            return zip(*rows, strict=True)
        numbers = self._read(values)
        is_missing = np.isnan(numbers)
        inputs = np.interp(numbers, *self._arrays)
        inputs[is_missing] = self._fill_value
        return [inputs, is_missing] if self.has_missing else [inputs]

    def _read(self, values, first_row=0):
        """Return the values as an array of numbers, with NaN for missing values."""
        try:
            if isinstance(values, list) and NUMBERS.issuperset(map(type, values)):
                numbers = np.array(values, dtype=np.float64)  # None becomes NaN
            else:
                numbers = _frames.to_float(as_column(values))
        except (TypeError, ValueError, OverflowError):
            self._find_fault(values, first_row)
            raise
        if np.isinf(numbers).any():
            self._find_fault(values, first_row)
        return numbers

    def _find_fault(self, values, first_row):
        """Raise an error that names the first row without a finite number."""
        for row, value in enumerate(values, start=first_row):
            where = f"Row {row}, field {self.name!r}:"
            (number,) = _frames.read_numbers(as_column([value]), f"{where} the value")
            if np.isinf(number):
                raise ValueError(f"{where} the number must be finite; got {value!r}.")
