"""List columns: the categories in a row's list, pooled by their mean or sum."""

import numpy as np

from sk_pwiser._table._bags import Bags, make_bags
from sk_pwiser._table._categories import MISSING, UNSEEN, CategoryColumn
from sk_pwiser._table._dataframe import to_float
from sk_pwiser._table._read_lists import has_lists, read_lists
from sk_pwiser._utils import check_choice

POOLINGS = "mean", "sum"


class ListWeights:
    """A column of lists of weights, which is no input of its own."""

    def __init__(self, name):
        self.name = name


class ListColumn:
    """A column of lists of categories, as one bag per row.

    The codes of the elements are those of a category column: 0 for missing elements, 1
    for unseen ones. An empty list has one entry, with a code of its own, and so has a
    missing list, with the code of missing elements. If fit saw neither, they have the
    code of unseen values, whose vector is trained.

    Parameters
    ----------
    name : str or int
        Name of the column, for messages.
    vocabulary : Vocabulary
        Which elements have codes of their own, by their numbers of occurrences.
    pooling : {"mean", "sum"}
        Whether the weights of a row are divided by their sum.
    weights_name : str or int, default=None
        Name of the column of weights, for messages.
    """

    def __init__(self, name, vocabulary, pooling, weights_name=None):
        self.name = name
        self.pooling = pooling
        self.weights_name = weights_name
        self.items_ = CategoryColumn(name, vocabulary)

    @property
    def n_vectors(self):
        """Number of vectors that the entries select from."""
        return self.items_.cardinality + 1

    def fit_transform(self, column, weights=None):
        """Learn the elements of the lists, and return the `Bags` of the column."""
        lists = read_lists(column, self.name)
        codes = self.items_.fit_transform(lists.elements)
        self.learn_special((lists.sizes < 0).any(), (lists.sizes == 0).any())
        return self._encode(lists, codes, weights)

    def learn_special(self, has_missing, has_empty):
        """Learn whether there are missing and empty lists."""
        self.missing_code_ = MISSING if has_missing else UNSEEN
        self.empty_code_ = self.items_.cardinality if has_empty else UNSEEN

    def transform(self, column, weights=None):
        """Return the `Bags` of a column."""
        lists = read_lists(column, self.name)
        return self._encode(lists, self.items_.transform(lists.elements), weights)

    def _encode(self, lists, codes, weights):
        is_filled = lists.sizes > 0
        sizes = np.where(is_filled, lists.sizes, 1)
        offsets = np.concatenate([[0], sizes.cumsum()])
        is_element = np.repeat(is_filled, sizes)
        indices = np.empty(offsets[-1], dtype=np.int64)
        indices[is_element] = codes.take(slice(None))
        special = np.where(lists.sizes < 0, self.missing_code_, self.empty_code_)
        indices[~is_element] = special[~is_filled]
        of_entries = np.ones(len(indices))
        if self.weights_name is not None:
            of_entries[is_element] = self._read_weights(lists, weights)
        if self.pooling == "mean":
            total = np.add.reduceat(of_entries, offsets[:-1])
            of_entries /= np.repeat(np.where(total > 0, total, 1.0), sizes)
        return Bags(offsets, indices, of_entries.astype(np.float32))

    def _read_weights(self, lists, column):
        """Return the weights of the elements.

        Raises
        ------
        ValueError or TypeError
            If they are not one finite number >= 0 per element.
        """
        own, name = f"list_weights of column {self.name!r}", self.weights_name
        if not has_lists(column):
            raise TypeError(f"{own}: column {name!r} does not contain lists.")
        weights = read_lists(column, name)
        differs = np.maximum(weights.sizes, 0) != np.maximum(lists.sizes, 0)
        if differs.any():
            row = int(differs.argmax())
            n_weights, n_elements = (max(x.sizes[row], 0) for x in (weights, lists))
            raise ValueError(
                f"{own}: row {row} has {n_elements} elements, but {n_weights} weights "
                f"in column {name!r}."
            )
        try:
            values = np.asarray(to_float(weights.elements))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{own}: column {name!r} cannot be read as numbers: {error}."
            ) from error
        is_valid = np.isfinite(values) & (values >= 0)
        if not is_valid.all():
            element = int(np.argmin(is_valid))
            raise ValueError(
                f"{own} must be finite and >= 0; row {weights.row_of(element)} of "
                f"column {name!r} contains {values[element]}."
            )
        return values


def combine_bags(parts, sizes):
    """Return the bags of a table from those of its columns.

    Parameters
    ----------
    parts : list of Bags
        The bags of each column, with one bag per row.
    sizes : list of int
        Number of vectors of each column.
    """
    n_entries = np.transpose([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], n_entries.cumsum()])
    starts = np.cumsum([0, *sizes])
    small = starts[-1] <= np.iinfo(np.int32).max
    indices = np.empty(offsets[-1], dtype=np.int32 if small else np.int64)
    weights = np.empty(offsets[-1], dtype=np.float32)
    for b, part in enumerate(parts):
        moves = offsets[b : -1 : len(parts)] - part.offsets[:-1]
        places = np.arange(len(part.indices)) + np.repeat(moves, n_entries[:, b])
        indices[places] = part.indices + starts[b]
        weights[places] = part.weights
    return make_bags(offsets, indices, weights)


def check_lists(params):
    """Raise if a setting of list columns is invalid for every table.

    Raises
    ------
    ValueError or TypeError
        If `list_pooling` is unknown or `list_weights` is neither None nor a dict.
    """
    check_choice("list_pooling", params["list_pooling"], POOLINGS)
    weights = params["list_weights"]
    if weights is not None and not isinstance(weights, dict):
        raise TypeError(
            "list_weights must be None or a dict from list columns to columns of their "
            f"weights; got {weights!r}."
        )


def find_weights(list_weights, names, list_names):
    """Return a dict from names of list columns to names of their weights.

    Raises
    ------
    ValueError
        If an entry is not a column, or a key is not a list column of categories.
    """
    found = dict(list_weights or {})
    for column, weights in found.items():
        for name in (column, weights):
            if name not in names:
                raise ValueError(
                    f"list_weights contains {name!r}, which is not a column of X; its "
                    f"columns are {names}."
                )
        if column not in list_names:
            raise ValueError(
                f"list_weights contains {column!r}, which is not a column of lists of "
                f"categories; these are {list_names}."
            )
    return found
