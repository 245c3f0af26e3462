"""Columns of arrays of numbers."""

from copy import copy

import numpy as np

from sk_pwiser._columns import _frames
from sk_pwiser._columns._number import Input, NumericColumn
from sk_pwiser._columns._standard import StandardColumn


class ArrayColumn(NumericColumn):
    """Encodes a column of arrays of one size as one standardised input per element."""

    kind = "array of numbers"
    is_scalar = False

    @property
    def _words(self):
        return f"{len(self.elements_)} standardised"

    @property
    def inputs(self):
        names = [element.name for element in self.elements_]
        names += [f"{self.name}_missing"] if self.has_missing_ else []
        return [Input(name, 0, 1.0) for name in names]

    def fit(self, column, sample_weight=None):
        self.elements_ = None
        values = self.read(column)
        is_missing_row = np.isnan(values).all(axis=1)
        self.has_missing_ = bool(is_missing_row.any() and not is_missing_row.all())
        self.elements_ = [
            StandardColumn(f"{self.name}[{index}]").fit(element, sample_weight)
            for index, element in enumerate(values.T)
        ]
        self.has_one_value = self.is_constant_ and not self.has_missing_
        return self

    @property
    def has_constant(self):
        return any(element.has_constant for element in self.elements_)

    @property
    def is_constant_(self):
        return all(element.is_constant_ for element in self.elements_)

    @property
    def has_few_values(self):
        return any(element.has_few_values for element in self.elements_)

    def learn_constant(self, column, sample_weight=None):
        if not self.has_constant:
            return self
        learnt = copy(self)
        pairs = zip(self.elements_, self.read(column).T, strict=True)
        learnt.elements_ = [
            element.learn_constant(values, sample_weight) for element, values in pairs
        ]
        return self if learnt.elements_ == self.elements_ else learnt

    def transform(self, values, start=0):
        """Return the inputs of rows, given the result of `read`."""
        pairs = zip(self.elements_, values.T, strict=True)
        inputs = [element.transform(numbers)[0] for element, numbers in pairs]
        return [*inputs, np.isnan(values).all(axis=1)] if self.has_missing_ else inputs

    def read(self, column, start=0):
        """Return the elements as float64 (n_samples, n_elements), NaN if missing."""
        lists = _frames.read_lists(column, self.name)
        is_known = lists.sizes >= 0
        sizes = lists.sizes[is_known]
        n_elements = int(sizes[0]) if len(sizes) else 0
        if self.elements_ is not None:
            n_elements = len(self.elements_)
        if (sizes != n_elements).any():
            row = int(np.argmax(is_known & (lists.sizes != n_elements)))
            raise ValueError(
                f"Column {self.name!r} contains arrays of {n_elements} numbers; row "
                f"{row} contains {lists.sizes[row]}. Name the column in "
                "categorical_features if its lists are categories, in list_ages or "
                "list_weights of encoding_params if they belong to another list."
            )
        numbers = _frames.read_numbers(
            lists.elements,
            f"The lists of column {self.name!r}",
            " Include the column in categorical_features if these are categories.",
        )
        if (is_infinite := np.isinf(numbers)).any():
            first = int(is_infinite.argmax())
            row = lists.row_of(first)
            raise _frames.infinity_error(self.name, None, row, numbers[first])
        values = np.full((len(lists.sizes), n_elements), np.nan)
        values[is_known] = numbers.reshape(len(sizes), n_elements)
        return values
