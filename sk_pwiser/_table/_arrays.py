"""Columns of numeric arrays of one size, such as embeddings from elsewhere."""

from copy import copy

import numpy as np

from sk_pwiser._labels import is_missing
from sk_pwiser._table._dataframe import to_float
from sk_pwiser._table._numeric import NumericColumn, StandardColumn
from sk_pwiser._table._read_lists import read_lists


class ArrayColumn(NumericColumn):
    """A column whose cells are arrays of one size: one standardised input per element.

    Their elements are standardised whatever the encoding of other numeric columns is: a
    single element of an embedding has no meaning that bins could show. A missing array,
    or a missing element, counts as the mean. If arrays were missing in fit, an
    indicator follows the elements.
    """

    is_scalar = False

    @property
    def bins(self):
        """Number of bins of each input of the column: 0."""
        return [0] * len(self.input_names)

    @property
    def input_names(self):
        """Names of the inputs of the column."""
        names = [element.name for element in self.elements_]
        return [*names, f"{self.name}_missing"] if self.has_missing_ else names

    def fit(self, column, sample_weight=None):
        """Learn the distribution of each element."""
        self.elements_ = None
        values = self.load(column)
        is_missing_row = np.isnan(values).all(axis=1)
        self.has_missing_ = bool(is_missing_row.any() and not is_missing_row.all())
        self.elements_ = [
            StandardColumn(f"{self.name}[{index}]").fit(element, sample_weight)
            for index, element in enumerate(values.T)
        ]
        return self

    @property
    def can_awaken(self):
        """Whether an element was constant so far."""
        return any(element.can_awaken for element in self.elements_)

    def awaken(self, column, sample_weight=None):
        """Return a column that has learnt elements that vary now, or this one."""
        pairs = zip(self.elements_, self.load(column).T, strict=True)
        elements = [each.awaken(of_rows, sample_weight) for each, of_rows in pairs]
        if all(new is old for new, old in zip(elements, self.elements_, strict=True)):
            return self
        learnt = copy(self)
        learnt.elements_ = elements
        return learnt

    def transform(self, column):
        """Return the inputs of a column, or of what `load` returned for it."""
        is_loaded = getattr(column, "ndim", 1) == 2
        values = column if is_loaded else self.load(column)
        pairs = zip(self.elements_, values.T, strict=True)
        inputs = [element.transform(of_rows)[0] for element, of_rows in pairs]
        return [*inputs, np.isnan(values).all(axis=1)] if self.has_missing_ else inputs

    def load(self, column):
        """Return the elements, float64 of shape (n_samples, n_elements).

        Missing arrays are rows of NaN.

        Raises
        ------
        ValueError or TypeError
            If a row contains another number of elements than the others, or something
            that is not a finite number.
        """
        lists = read_lists(column, self.name)
        is_known = lists.sizes >= 0
        sizes = lists.sizes[is_known]
        if self.elements_ is not None:
            n_elements = len(self.elements_)
        else:
            n_elements = int(sizes[0]) if len(sizes) else 0
        if (sizes != n_elements).any():
            row = int(np.argmax(is_known & (lists.sizes != n_elements)))
            raise ValueError(
                f"Column {self.name!r} contains arrays of {n_elements} numbers; row "
                f"{row} contains {lists.sizes[row]}. Include the column in "
                "categorical_features if its lists are categories."
            )
        values = np.full((len(lists.sizes), n_elements), np.nan)
        values[is_known] = self._read_elements(lists).reshape(len(sizes), n_elements)
        return values

    def _read_elements(self, lists):
        try:
            values = np.asarray(to_float(lists.elements))
        except (TypeError, ValueError, OverflowError) as error:
            row, value = _first_non_number(lists)
            raise TypeError(
                f"Column {self.name!r} contains lists that cannot be read as arrays of "
                f"numbers: row {row} contains {value!r}. Include the column in "
                "categorical_features if its lists are categories."
            ) from error
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise ValueError(
                f"Input X contains infinity in column {self.name!r}: row "
                f"{lists.row_of(infinite[0])} contains {values[infinite[0]]}."
            )
        return values


def _first_non_number(lists):
    for index, value in enumerate(lists.elements):
        if not is_missing(value) and not isinstance(value, int | float | np.number):
            return lists.row_of(index), value
    return 0, None
