"""The kinds of columns: which column is encoded how."""

from functools import partial

import numpy as np

from sk_pwiser._table._categories import (
    UNSEEN,
    CategoryColumn,
    check_vocabulary,
    count_values,
    read_vocabularies,
)
from sk_pwiser._table._frames import (
    find_column,
    has_category_dtype,
    has_lists,
    is_dataframe,
    list_columns,
)
from sk_pwiser._table._lists import ListColumn, ListWeights, check_lists, find_weights
from sk_pwiser._table._numbers import (
    NUMERIC_ENCODINGS,
    ArrayColumn,
    NumericColumn,
    PiecewiseLinearColumn,
)
from sk_pwiser._table._target_statistics import check_target_encoding
from sk_pwiser._utils import check_integer, warn_user


def find_category_columns(categorical_features, X, names):
    """Return a list of bools, one per column: whether it is a category column.

    Names and indices are added to the columns whose dtype marks them as categories; a
    boolean mask decides for all columns.
    """
    if categorical_features is None:
        return [False] * len(names)
    if isinstance(categorical_features, str):
        if categorical_features != "from_dtype":
            raise ValueError(
                "categorical_features must be 'from_dtype', None, or a list of names, "
                f"indices or booleans; got {categorical_features!r}."
            )
        chosen = []
    else:
        chosen = np.asarray(categorical_features).tolist()
        chosen = chosen if isinstance(chosen, list) else [chosen]
    if chosen and all(isinstance(c, bool) for c in chosen):
        if len(chosen) != len(names):
            raise ValueError(
                "categorical_features as a mask must have one entry per column of X, "
                f"{len(names)}; it has {len(chosen)}."
            )
        return chosen
    mask = [has_category_dtype(column) for column in list_columns(X)]
    for column in chosen:
        mask[find_column("categorical_features", column, names)] = True
    return mask


def refuse_chosen_columns(categorical_features):
    """Raise if the parameter selects columns of a sparse table."""
    is_default = categorical_features is None or isinstance(categorical_features, str)
    if not is_default and len(categorical_features):
        raise ValueError(
            "categorical_features must be 'from_dtype' or None if X is sparse, since "
            f"its columns are numbers; got {categorical_features!r}."
        )


def check_encoding_params(params):
    """Raise if an entry of `encoding_params` is invalid, whatever the table is."""
    check_target_encoding(params)
    check_vocabulary(params)
    check_lists(params)
    check_integer("max_bins", params["max_bins"], at_least=1)


def make_columns(params, X, names):
    """Return unfitted encoders for the columns of a table.

    `params` are the parameters of the table's encoder.
    """
    is_category = find_category_columns(params["categorical_features"], X, names)
    vocabularies = read_vocabularies(params, names, is_category)
    is_list = [has_lists(column) for column in list_columns(X)]
    list_names = [
        name
        for name, *flags in zip(names, is_category, is_list, strict=True)
        if all(flags)
    ]
    weights = find_weights(params["list_weights"], names, list_names)
    make_numeric = NUMERIC_ENCODINGS[params["numeric_encoding"]]
    if issubclass(make_numeric, PiecewiseLinearColumn):
        make_numeric = partial(make_numeric, max_bins=params["max_bins"])
    columns = []
    for index, name in enumerate(names):
        if name in weights.values():
            column = ListWeights(name)
        elif name in list_names:
            pooling = params["list_pooling"]
            column = ListColumn(name, vocabularies[index], pooling, weights.get(name))
        elif is_category[index]:
            column = CategoryColumn(name, vocabularies[index], params["keeps_rare"])
        else:
            column = (ArrayColumn if is_list[index] else make_numeric)(name)
        columns.append(column)
    return columns


# A warning about unseen values needs at least this share of the rows with known values,
# this number of rows and this number of distinct unseen values ...
UNSEEN_SHARE, UNSEEN_ROWS, UNSEEN_VALUES = 0.95, 20, 2
# ... in a column where new values are unusual: at most this share of the rows in fit
# had a value that was rare or occurred once.
USUAL_SHARE = 0.5


def align_columns(X, names):
    """Return a DataFrame with the columns of fit, in their order.

    Columns that were not seen in fit are ignored, with one warning. The same object is
    returned if it is not a DataFrame or if a column is missing.
    """
    if names is None or not is_dataframe(X) or has_columns(X, names):
        return X
    found, names = list(X.columns), list(names)
    if len(set(found)) < len(found) or not set(names) <= set(found):
        return X
    extra = [column for column in found if column not in set(names)]
    if extra:
        warn_user(
            f"X has {len(extra)} column(s) not seen in fit, which are ignored: "
            f"{', '.join(map(repr, extra[:5]))}{', ...' if len(extra) > 5 else ''}."
        )
    return X.select(names) if hasattr(X, "select") else X[names]


def has_columns(X, names):
    """Return whether a DataFrame has exactly the given columns, in the same order."""
    return names is not None and list(X.columns) == names.tolist()


def has_form(X, encoder):
    """Return whether `X` is an array of numbers with the number of columns in fit.

    Such an array needs no further validation, which takes longer than encoding a row.
    """
    return (
        type(X) is np.ndarray
        and X.dtype.kind in "fiu"
        and X.ndim == 2
        and len(X) > 0
        and X.shape[1] == encoder.n_features_in_
        and not hasattr(encoder, "feature_names_in_")
    )


def warn_about_unseen(columns):
    """Warn once about columns, given with their codes, with almost no value of fit."""
    found = [
        f"{column.name!r} ({share:.0%})"
        for column, codes in columns
        if column.usual_share_ <= USUAL_SHARE
        and (share := _unseen_share(codes)) >= UNSEEN_SHARE
    ]
    if found:
        warn_user(
            "Almost all rows have a value that was not seen in fit in "
            f"{', '.join(found)}. They are encoded as unseen values; check the "
            "spelling, the case and the white space of the values."
        )


def _unseen_share(codes):
    """Return the share of rows with unseen values, or 0 if there are too few."""
    is_unseen = codes.table[:-1] == UNSEEN
    if np.count_nonzero(is_unseen) < UNSEEN_VALUES:
        return 0.0
    n_rows = count_values(codes.indices, len(is_unseen))[:-1]
    total = n_rows.sum()
    return n_rows[is_unseen].sum() / total if total >= UNSEEN_ROWS else 0.0


# An ArrayColumn is also a NumericColumn: the first class that applies is the kind.
KINDS = {
    CategoryColumn: "category",
    ListColumn: "list of categories",
    ListWeights: "weights of a list",
    ArrayColumn: "array of numbers",
    NumericColumn: "numeric",
}


def column_kinds(encoder):
    """Return the names of the columns of a fitted `TableEncoder`, by kind."""
    if encoder.sparse_ is not None:
        names = getattr(encoder, "feature_names_in_", range(encoder.n_features_in_))
        return {"sparse": list(names)}
    kinds = {}
    for column in encoder.columns_:
        kind = next(kind for cls, kind in KINDS.items() if isinstance(column, cls))
        kinds.setdefault(kind, []).append(column.name)
    return kinds


def vector_counts(encoder):
    """Return the number of embedding vectors of each category and list column.

    All columns of a sparse table, with one vector each, are one entry.
    """
    if encoder.sparse_ is not None:
        return {"sparse columns": encoder.sparse_.n_vectors}
    names = encoder.category_names_
    lists = [c for c in encoder.columns_ if isinstance(c, ListColumn)]
    return {
        **dict(zip(names, encoder.cardinalities_, strict=True)),
        **{column.name: column.n_vectors for column in lists},
    }
