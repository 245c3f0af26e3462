"""Fields of rows become inputs of the network, value by value, without a table."""

import copy
import math
from bisect import bisect_right

import numpy as np

from sk_pwiser._table import (
    NUMERIC_ENCODINGS,
    UNSEEN,
    CategoryColumn,
    is_missing,
    to_float,
)

# Beyond this number of rows, one vectorised call costs less than a loop.
FEW_ROWS = 8

LARGEST = np.finfo(np.float64).max.item()


def make_fields(encoder):
    """Return the field of each column of a fitted encoder of tables.

    Raises
    ------
    ValueError
        If a column has cells other than one category value or one number.
    """
    if len(encoder.columns_) != encoder.n_features_in_:
        raise ValueError(
            "The estimator was fitted on a sparse table, whose columns cannot be "
            "exported; only category columns and numeric columns can."
        )
    return [_make_field(column) for column in encoder.columns_]


def _make_field(column):
    if isinstance(column, CategoryColumn):
        return CategoryField(column)
    if type(column) in NUMERIC_ENCODINGS.values():
        return NumericField(column)
    raise ValueError(
        f"Column {column.name!r} cannot be exported: its cells hold more than one "
        "value, such as lists; only category columns and numeric columns can be."
    )


class CategoryField:
    """Codes of a category column, looked up by value.

    Parameters
    ----------
    column : CategoryColumn
        The fitted column. Later updates of its estimator do not change the field.
    """

    def __init__(self, column):
        self.name = column.name
        self._column = copy.copy(column)
        self._column.codes_ = dict(column.codes_)
        is_hashed = column.vocabulary.n_hash_buckets is not None
        # Types whose unknown values are unseen, without a further check.
        self._unseen_types = set()
        if not is_hashed:
            self._unseen_types |= {str} if "text" in column.kinds_ else set()
            self._unseen_types |= {int, bool} if "numbers" in column.kinds_ else set()

    def encode(self, values):
        """Return the codes of a list or array of values, those of rare values included.

        Raises
        ------
        TypeError, ValueError
            If a value cannot be encoded. The message names the field and the row.
        """
        find = self._column.codes_.get
        if isinstance(values, np.ndarray):
            values = values.tolist()  # Python numbers, as in fit
        try:
            codes = [find(value) for value in values]
        except TypeError:
            row = next(r for r, value in enumerate(values) if not _has_hash(value))
            raise TypeError(
                f"Row {row}, field {self.name!r}: {values[row]!r} cannot be a category."
            ) from None
        if None in codes:
            codes = [
                self._other_code(value, row) if code is None else code
                for row, (value, code) in enumerate(zip(values, codes, strict=True))
            ]
        return codes

    def _other_code(self, value, row):
        """Return the code of a value that has none of its own."""
        if is_missing(value):
            return self._column.missing_code_
        if type(value) in self._unseen_types:
            return UNSEEN
        try:
            return int(self._column.transform(as_column([value])).take(0))
        except (TypeError, ValueError) as error:
            raise type(error)(f"Row {row}, field {self.name!r}: {error}") from error


class NumericField:
    """Inputs of a numeric column, interpolated between the nodes of its encoding.

    Parameters
    ----------
    column : NumericColumn
        The fitted column.
    """

    def __init__(self, column):
        self.name = column.name
        self.has_missing = column.has_missing_
        self._fill_value = float(column.fill_value_)
        nodes, inputs = column.nodes
        self._nodes, self._inputs = nodes.tolist(), inputs.tolist()
        self._slopes = (np.diff(inputs) / np.diff(nodes)).tolist()

    def encode(self, values):
        """Return the inputs of a list or array of values.

        Returns
        -------
        list of sequence
            The inputs and, if the column had missing values in fit, the indicator of
            missing values.

        Raises
        ------
        TypeError, ValueError
            If a value is not a finite number and not missing. The message names the
            field and the row.
        """
        numbers = self._read(values)
        if len(numbers) <= FEW_ROWS:
            numbers = numbers.tolist() if isinstance(numbers, np.ndarray) else numbers
            inputs = [self._input(number) for number in numbers]
            missing = [math.isnan(number) for number in numbers]
        else:
            numbers = np.asarray(numbers, dtype=np.float64)
            missing = np.isnan(numbers)
            inputs = np.interp(numbers, self._nodes, self._inputs)
            inputs[missing] = self._fill_value
        return [inputs, missing] if self.has_missing else [inputs]

    def _input(self, number):
        nodes, inputs = self._nodes, self._inputs
        if number != number:
            return self._fill_value
        place = bisect_right(nodes, number) - 1
        if place < 0:
            return inputs[0]
        if place >= len(self._slopes):
            return inputs[-1]
        return inputs[place] + self._slopes[place] * (number - nodes[place])

    def _read(self, values):
        """Return numbers, NaN where they are missing."""
        if not isinstance(values, np.ndarray):
            numbers = [math.nan if value is None else value for value in values]
            if all(map(_is_plain_number, numbers)):
                return numbers
        try:
            numbers = to_float(as_column(values))
        except (TypeError, ValueError, OverflowError):
            self._find_fault(values)
            raise
        if np.isinf(numbers).any():
            self._find_fault(values)
        return numbers

    def _find_fault(self, values):
        """Raise an error that names the first row with a value that is no number."""
        for row, value in enumerate(values):
            where = f"Row {row}, field {self.name!r}:"
            try:
                number = to_float(as_column([value]))[0]
            except TypeError as error:
                raise TypeError(f"{where} not a number: {error}.") from error
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{where} not a number: {error}.") from error
            if np.isinf(number):
                raise ValueError(f"{where} the number must be finite; got {value!r}.")


def as_column(values):
    """Return a list of values as an array of objects, whatever they are."""
    if isinstance(values, np.ndarray):
        return values
    return np.fromiter(values, dtype=object, count=len(values))


def _is_plain_number(value):
    """Return whether a value needs no conversion: a number that is not infinite."""
    is_number = isinstance(value, (float, int))
    return is_number and (-LARGEST <= value <= LARGEST or value != value)


def _has_hash(value):
    try:
        hash(value)
    except TypeError:
        return False
    return True
