"""The parameter `target_encoding`: the columns and the blocks of target statistics."""

from numbers import Integral

import numpy as np

from sk_pwiser._table._categories import FIRST_VALUE, CategoryColumn
from sk_pwiser._table._dataframe import is_dataframe, list_columns, to_float
from sk_pwiser._table._target_statistics import TargetStatistics
from sk_pwiser._utils import check_integer


def find_target_columns(target_encoding, columns, min_values):
    """Return the columns whose values get target statistics.

    Parameters
    ----------
    target_encoding : "auto", bool or sequence of (str or int)
        The estimator's parameter.
    columns : list of CategoryColumn or NumericColumn
        The fitted columns of the table.
    min_values : int
        Columns with fewer distinct values are left out, unless they are named.

    Returns
    -------
    list of int
        Indices among the category columns.

    Raises
    ------
    ValueError
        If a column is named that is not a category column of the table.
    TypeError
        If a column is given by a bool, as in a mask.
    """
    categories = [c for c in columns if isinstance(c, CategoryColumn)]
    if isinstance(target_encoding, bool | np.bool_ | str):
        return [
            index
            for index, column in enumerate(categories)
            if target_encoding and column.n_codes - FIRST_VALUE >= min_values
        ]
    names = [column.name for column in columns]
    chosen = set()
    for column in target_encoding:
        # A mask would otherwise select the columns 0 and 1.
        if isinstance(column, bool | np.bool_):
            raise TypeError(
                "target_encoding must contain names or indices of columns; got "
                f"{column!r}."
            )
        if isinstance(column, str) and column in names:
            found = columns[names.index(column)]
        elif isinstance(column, Integral) and -len(columns) <= column < len(columns):
            found = columns[column]
        else:
            raise ValueError(
                f"target_encoding contains {column!r}, which is not a column of X; its "
                f"columns are {names}."
            )
        if found not in categories:
            raise ValueError(
                f"target_encoding contains {column!r}, which is not a category column; "
                f"the category columns are {[c.name for c in categories]}."
            )
        chosen.add(categories.index(found))
    return sorted(chosen)


def make_target_statistics(target_encoding, encoder, n_samples, params):
    """Return unfitted statistics for the chosen columns, or None if there are none.

    Parameters
    ----------
    target_encoding : "auto", bool or sequence of (str or int)
        The estimator's parameter.
    encoder : TableEncoder
        The fitted encoder, which keeps the codes of rare values.
    n_samples : int
        Number of rows.
    params : mapping
        `target_encoding_min_values` and `target_encoding_blocks`.

    Raises
    ------
    ValueError
        If a column is not a category column, or if there are fewer rows than blocks.
    """
    columns = find_target_columns(
        target_encoding, encoder.columns_, params["target_encoding_min_values"]
    )
    n_blocks = params["target_encoding_blocks"]
    if columns and n_samples < n_blocks:
        raise ValueError(
            f"target_encoding_blocks={n_blocks} requires as many rows; X has "
            f"{n_samples}. Use fewer blocks, or target_encoding=False."
        )
    if not columns:
        return None
    return TargetStatistics(columns, [encoder.n_codes_[c] for c in columns])


def check_target_encoding(params):
    """Raise if a number in `encoding_params` is invalid for every table."""
    check_integer(
        "target_encoding_blocks", params["target_encoding_blocks"], at_least=2
    )
    check_integer(
        "target_encoding_min_values", params["target_encoding_min_values"], at_least=1
    )


def read_times(X, column, names):
    """Return the times of the rows, by which blocks are formed.

    Parameters
    ----------
    X : DataFrame or array of shape (n_samples, n_features)
        The table.
    column : str, int or None
        Name or index of a numeric column; None if the rows are in the order of time.
    names : list of str or int
        Names of the columns.

    Returns
    -------
    float64 ndarray of shape (n_samples,) or None

    Raises
    ------
    ValueError
        If there is no such column, or if times are missing.
    TypeError
        If the column is not numeric.
    """
    if column is None:
        return None
    if column not in names:
        raise ValueError(
            f"time_column={column!r} is not a column of X; its columns are {names}."
        )
    try:
        # Lists may mix numbers and text, all of which numpy would convert to text.
        table = X if hasattr(X, "dtype") or is_dataframe(X) else np.array(X, object)
        values = list_columns(table)[names.index(column)]
        times = np.asarray(to_float(values))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"time_column={column!r} cannot be read as numbers: {error}."
        ) from error
    if np.isnan(times).any():
        raise ValueError(
            f"time_column={column!r} must not have missing values; it has "
            f"{int(np.isnan(times).sum())}."
        )
    return times
