"""Columns of arrays of numbers."""

from copy import copy
from typing import Any, Self

import numpy as np

from sk_pwiser._columns import _frames
from sk_pwiser._columns._base import Column, Input
from sk_pwiser._columns._choice import Choice
from sk_pwiser._columns._number import NumericColumn
from sk_pwiser._columns._standard import StandardColumn


class ArrayColumn(NumericColumn):
    """Encodes a column of arrays of one size as one standardised input per element."""

    kind = "array of numbers"
    is_scalar = False
    is_exportable = False
    holds_lists = True

    @classmethod
    def claim(cls, choice: Choice, name: Any) -> Self | None:
        """Return a column for arrays that are no categories."""
        return cls(name) if choice.has_lists(name) else None

    @property
    def words(self) -> str:
        """How the elements are encoded, in a few words."""
        return f"{len(self.elements_)} standardised"

    @property
    def inputs(self) -> list[Input]:
        """The input of each element, and an indicator if there were missing arrays."""
        names = [element.name for element in self.elements_]
        names += [f"{self.name}_missing"] if self.has_missing_ else []
        return [Input(name, 0, 1.0) for name in names]

    @property
    def n_inputs(self) -> int:
        """Number of the inputs."""
        return len(self.elements_) + self.has_missing_

    def open(self, cells: Any) -> np.ndarray:
        """Read the arrays at once."""
        return self.read(cells)

    def fit(self, column: Any, sample_weight: np.ndarray | None = None) -> Self:
        """Learn the elements of the arrays of a column."""
        self.elements_: Any = None
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
    def has_constant(self) -> bool:
        """Whether an element of the arrays has been constant so far."""
        return any(element.has_constant for element in self.elements_)

    @property
    def is_constant_(self):
        return all(element.is_constant_ for element in self.elements_)

    @property
    def has_few_values(self) -> bool:
        """Whether an element is scaled by few values."""
        return any(element.has_few_values for element in self.elements_)

    def learn_constant(
        self, column: Any, sample_weight: np.ndarray | None = None
    ) -> Self:
        """Return a column that has learnt the elements that were constant so far."""
        if not self.has_constant:
            return self
        successor = copy(self)
        pairs = zip(self.elements_, self.read(column).T, strict=True)
        successor.elements_ = [
            element.learn_constant(values, sample_weight) for element, values in pairs
        ]
        return self if successor.elements_ == self.elements_ else successor

    def plain_values(self, cells: Any) -> np.ndarray:
        """Raise: models of other packages read one number per row."""
        return Column.plain_values(self, cells)

    def transform(self, values, start=0):
        """Return the inputs of rows, given the result of `read`."""
        pairs = zip(self.elements_, values.T, strict=True)
        inputs = [element.transform(numbers)[0] for element, numbers in pairs]
        return [*inputs, np.isnan(values).all(axis=1)] if self.has_missing_ else inputs

    def read(self, column, start=0):
        """Return the elements as float64 (n_samples, n_elements), NaN if missing."""
        lists = _frames.read_lists(column, self.name)
        has_array = lists.sizes >= 0
        sizes = lists.sizes[has_array]
        n_elements = int(sizes[0]) if len(sizes) else 0
        if self.elements_ is not None:
            n_elements = len(self.elements_)
        if (sizes != n_elements).any():
            row = int(np.argmax(has_array & (lists.sizes != n_elements)))
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
        values[has_array] = numbers.reshape(len(sizes), n_elements)
        return values
