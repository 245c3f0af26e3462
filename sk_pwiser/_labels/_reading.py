"""Labels as an array, with a mask of the missing ones."""

from typing import NamedTuple

import numpy as np

from sk_pwiser._labels._arrays import read_array

# What a missing label is: an error, or a label that takes no part in its task.
MISSING_LABELS = ("error", "ignore")


class ReadLabels(NamedTuple):
    """Labels that were read, but whose values are not checked yet.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_tasks) or (n_samples,)
        Labels in the user's dtype, 0 where they are missing.
    missing : bool ndarray of the same shape, or None
        Which labels are missing; None if none is.
    columns : list of str or None
        Names of the columns, if they have any.
    """

    values: np.ndarray
    missing: np.ndarray | None
    columns: list | None


def is_missing(value):
    """Return whether a Python object is None, NaN, NaT or pandas.NA."""
    if value is None:
        return True
    differs_from_itself = value != value
    if isinstance(differs_from_itself, bool | np.bool_):
        return bool(differs_from_itself)
    # A comparison with pandas.NA returns pandas.NA.
    return differs_from_itself is value


def names_of_columns(Y):
    """Return the column names of labels as strings, or None if they have none."""
    if _is_frame(Y):
        return [str(column) for column in Y.columns]
    name = getattr(Y, "name", None)
    # A name may be pandas.NA, which has no truth value.
    return None if is_missing(name) or str(name) == "" else [str(name)]


def _is_frame(Y):
    # The columns of an Arrow table are arrays, and it has no dtypes.
    return hasattr(Y, "columns") and hasattr(Y, "dtypes")


def read_labels(Y, missing_labels="error", *, input_name="Y"):
    """Read labels of any array-like.

    Parameters
    ----------
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels. None, NaN, pandas.NA and nulls of polars are missing.
    missing_labels : {"error", "ignore", "any"}, default="error"
        Whether labels of tasks after the first may be missing, or of all tasks.
    input_name : str, default="Y"
        Name of the labels, for messages.

    Returns
    -------
    ReadLabels

    Raises
    ------
    ValueError
        If `Y` is None or has no form of labels, or if a label is infinite, or missing
        where it must not be. The message contains column and row.
    TypeError
        If `Y` is sparse or a scalar.
    """
    if Y is None:
        raise ValueError(
            "This estimator requires y to be passed, but the target y is None."
        )
    columns = names_of_columns(Y)
    labels = read_array(Y, input_name, "cannot be read as labels:")
    missing = _find_missing(labels)
    if missing is not None:
        if missing_labels != "any":
            _check_missing(missing, columns, missing_labels, input_name)
        labels = labels.copy()
        labels[missing] = 0
    raise_if_infinite(labels, columns, input_name)
    labels = labels.astype(_original_dtype(Y, labels.dtype), copy=False)
    return ReadLabels(labels, missing, columns)


def _find_missing(labels):
    if labels.dtype == object:
        missing = np.frompyfunc(is_missing, 1, 1)(labels).astype(bool)
    elif labels.dtype.kind in "iub":
        return None
    else:
        missing = labels != labels
    return missing if missing.any() else None


def _check_missing(missing, columns, missing_labels, input_name):
    several = missing.ndim == 2 and missing.shape[1] > 1
    if missing_labels == "error" or not several:
        hint = ""
        if several and not missing[:, 0].any():
            hint = " With missing_labels='ignore', they take no part in their task."
        _raise_for_most(missing, columns, f"Input {input_name} contains NaN", hint)
    rule = f"The first task must have a label in every row: {input_name} contains NaN"
    _raise_for_most(missing[:, :1], columns, rule)


def raise_if_infinite(labels, columns, input_name="Y"):
    """Raise a ValueError if there are infinite labels."""
    if labels.dtype.kind == "f":
        what = "infinity or a value too large for dtype('float64')"
        _raise_for_most(
            np.isinf(labels), columns, f"Input {input_name} contains {what}"
        )


def _raise_for_most(is_wrong, columns, message, hint=""):
    """Raise for the column with the most wrong labels, if there is any."""
    if is_wrong.any():
        is_wrong = is_wrong.reshape(len(is_wrong), -1)
        counts = is_wrong.sum(axis=0)
        k = int(counts.argmax())
        name = k if columns is None else columns[k]
        raise ValueError(
            f"{message}: {counts[k]} in column {name!r}, the first in row "
            f"{is_wrong[:, k].argmax()}.{hint}"
        )


def _original_dtype(Y, dtype):
    """Return the dtype of the user's labels: nullable integers arrive as floats."""
    dtypes = Y.dtypes if _is_frame(Y) else [getattr(Y, "dtype", dtype)]
    plain = [getattr(one, "numpy_dtype", one) for one in dtypes]
    if all(isinstance(one, np.dtype) and one.kind in "iub" for one in plain):
        return np.result_type(*plain)
    return dtype


def zero_one_labels(labels, columns=None, *, input_name="Y"):
    """Return labels of 0 and 1 as float32.

    Parameters
    ----------
    labels : ndarray of shape (n_samples, n_tasks)
        The labels, 0 where they are missing.
    columns : list of str, default=None
        Names of the columns, for messages.
    input_name : str, default="Y"
        Name of the labels, for messages.

    Returns
    -------
    float32 ndarray of shape (n_samples, n_tasks)

    Raises
    ------
    ValueError
        If a label is neither 0 nor 1. The message contains column, row and value.
    """
    for k in range(labels.shape[1]):
        column = labels[:, k]
        is_wrong = ~np.isin(column, [0, 1])
        if is_wrong.any():
            row = int(is_wrong.argmax())
            name = k if columns is None else columns[k]
            raise ValueError(
                f"Labels must be 0 or 1; column {name!r} of {input_name} contains "
                f"{column[row : row + 1].tolist()[0]!r} in row {row}."
            )
    return labels.astype(np.float32)
