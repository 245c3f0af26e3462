"""Columns of lists of categories."""

from copy import copy
from dataclasses import InitVar, dataclass
from typing import Any

import numpy as np

from sk_pwiser._columns import _frames
from sk_pwiser._columns._bags import Bags
from sk_pwiser._columns._category import MISSING, UNSEEN, CategoryColumn
from sk_pwiser._columns._number import FEW_VALUES, LARGEST_DEVIATION

POOLINGS = "mean", "sum", "attention"


# With shared embeddings, codes of lists without elements precede those of values.
EMPTY_LIST, MISSING_LIST, N_SPECIAL = 0, 1, 2


@dataclass(eq=False)
class ListColumn:
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
    # Smallest and largest log(1 + age).
    age_ends_ = np.inf, -np.inf

    def __post_init__(self, vocabulary):
        self.age_sums_ = np.zeros(3)  # numbers, sums and squares of log(1 + age)
        self.has_missing_ = self.has_empty_ = False
        self.items_ = None
        if self.shared_name is None:
            self.items_ = CategoryColumn(self.name, vocabulary, place="element")

    @property
    def encoding(self):
        return f"{self.pooling} of embeddings"

    @property
    def n_own(self):
        """Number of vectors that the entries do not share with a category column."""
        return N_SPECIAL if self.items_ is None else self.items_.cardinality + 1

    @property
    def has_few_values(self):
        """Whether the ages are scaled by few values."""
        return 0 < self.age_sums_[0] < FEW_VALUES

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
            known = np.log1p(ages[~np.isnan(ages)])
            self.age_sums_ += [len(known), known.sum(), (known**2).sum()]
            low, high = self.age_ends_
            ends = known.min(initial=low), known.max(initial=high)
            self.age_ends_ = tuple(map(float, ends))

    def finish(self):
        """Learn the codes of special lists, after the codes of values."""
        missing, empty, unseen = MISSING_LIST, EMPTY_LIST, N_SPECIAL + UNSEEN
        if self.items_ is not None:
            missing, empty, unseen = MISSING, self.items_.cardinality, UNSEEN
        self.missing_code_ = missing if self.has_missing_ else unseen
        self.empty_code_ = empty if self.has_empty_ else unseen

    def grown(self, elements):
        """Return a list column with vectors for new values, and the earlier vectors."""
        items, before = self.items_, self.n_own - 1
        if items is not None:
            items, origin = items.grown(elements)
        if items is self.items_:
            return self, np.arange(self.n_own)
        grown = copy(self)
        grown.items_ = items
        grown.finish()
        origin = origin[: items.cardinality]
        # The vector of empty lists comes last.
        return grown, np.append(np.where(origin < before, origin, -1), before)

    def named(self, items):
        """Return the vocabulary as messages name it, also if it is that of a column."""
        items = copy(items)
        items.name, items.place = self.name, "element"
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
        of_entries = np.ones(len(indices))
        if self.weights_name is not None:
            of_entries[is_element] = self._read_numbers(
                "list_weights", self.weights_name, lists, weights
            )
        if self.pooling == "mean":
            total = np.add.reduceat(of_entries, offsets[:-1])
            of_entries /= np.repeat(np.where(total > 0, total, 1.0), sizes)
        scaled = None
        if self.ages_name is not None:
            scaled = np.full(len(indices), np.nan, dtype=np.float32)
            ages = self._read_numbers("list_ages", self.ages_name, lists, ages)
            scaled[is_element] = self._scale_ages(np.log1p(ages))
        return Bags(offsets, indices, of_entries.astype(np.float32), scaled)

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
        own, what = f"{parameter} of column {self.name!r}", parameter[len("list_") :]
        is_filled = (lists.sizes > 0).any()
        is_list = _frames.content_of(column) in ("lists", "arrays")
        if not is_list and (is_filled or _frames.first_known(column) is not None):
            raise TypeError(f"{own}: column {name!r} does not contain lists.")
        weights = _frames.read_lists(column, name)
        n_weights, n_elements = (np.maximum(x.sizes, 0) for x in (weights, lists))
        if (differs := n_weights != n_elements).any():
            row = int(differs.argmax())
            raise ValueError(
                f"{own}: row {row} has {n_elements[row]} elements, but "
                f"{n_weights[row]} {what} in column {name!r}."
            )
        values = _frames.read_numbers(weights.elements, f"{own}: column {name!r}")
        is_valid = np.isfinite(values) & (values >= 0)
        if what == "ages":
            is_valid |= np.isnan(values)
        if not is_valid.all():
            element = int(np.argmin(is_valid))
            raise ValueError(
                f"{own} must be finite and >= 0; row {weights.row_of(element)} of "
                f"column {name!r} contains {values[element]}."
            )
        return values


@dataclass(eq=False)
class Elements:
    """Codes of a column: one per row or, for lists, as many as `sizes` has per row."""

    codes: np.ndarray
    sizes: np.ndarray | None = None

    @classmethod
    def of_bags(cls, indices, sizes, shared_name):
        """Return the elements of a list column; special lists are one unseen value."""
        first = 0 if shared_name is None else N_SPECIAL
        return cls(np.maximum(indices - first, UNSEEN), sizes)

    def repeat(self, of_rows):
        return of_rows if self.sizes is None else np.repeat(of_rows, self.sizes, axis=0)

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


LISTS = "column of lists of categories"


# Settings that map a list column to another column: that of the weights or ages of the
# elements, or a category column of the same vocabulary.
LIST_MAPPINGS = "list_weights", "list_ages", "shared_embeddings"
