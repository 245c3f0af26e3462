"""Arguments of any array-like as arrays, with errors that name the argument."""

import numpy as np
import scipy.sparse as sp
from sklearn.utils import check_array


def read_array(values, name, rule, *, dtype=None, error=None):
    """Return an argument as an array of one dimension or two.

    Parameters
    ----------
    values : array-like
        The argument, whose entries are not checked.
    name : str
        Name of the argument, for messages.
    rule : str
        What follows the name in messages.
    dtype : dtype, default=None
        The dtype to convert to; None for that of the argument.
    error : type, default=None
        Class of the errors about entries; by default that of the error found, TypeError
        or ValueError.

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError, TypeError
        If the argument cannot be read. The message is one line with the column and the
        row of the entry, where there is one.
    """
    refuse_unreadable(values, name)
    try:
        return check_array(
            values,
            ensure_2d=False,
            dtype=dtype,
            ensure_all_finite=False,
            input_name=name,
        )
    # Some libraries raise errors of their own classes.
    except Exception as found:
        if error is None:
            error = TypeError if isinstance(found, TypeError) else ValueError
        message = f"{name} {rule} {_first_line(found)} {_culprit(values, dtype)}"
        raise error(message.strip()) from found


def refuse_unreadable(values, name):
    """Raise for a tensor that numpy cannot read, or an array of complex numbers.

    Raises
    ------
    TypeError
        If it is a tensor of torch that requires gradients, is on another device, or
        has a dtype that numpy does not have.
    ValueError
        If it is an array of complex numbers. The message contains row, column and
        value.
    """
    if type(values).__module__.partition(".")[0] == "torch":
        try:
            values = np.asarray(values)
        except (RuntimeError, TypeError) as error:
            raise TypeError(
                f"{name} is a tensor that numpy cannot read: {_first_line(error)} Pass "
                f"{name}.detach().cpu().float().numpy()."
            ) from error
    if getattr(getattr(values, "dtype", None), "kind", "") == "c":
        raise ValueError(
            f"Complex data not supported: {name} has dtype {values.dtype}"
            f"{_first_complex(values)}."
        )


def _first_line(error):
    line = str(error).strip().partition("\n")[0]
    return line if line.endswith(".") else f"{line}."


def _first_complex(values):
    if sp.issparse(values):
        values = values.tocoo()
        entries, places = values.data, np.transpose([values.row, values.col])
    else:
        entries = np.ravel(values)
        places = np.argwhere(np.ones(np.shape(values), dtype=bool))
    if not entries.size:
        return ""
    entry = int(np.argmax(entries.imag != 0))
    row, *column = places[entry]
    found = f"; it contains {entries[entry]} in row {row}"
    return found + (f" of column {column[0]}" if column else "")


def _culprit(values, dtype):
    """Return the column of a DataFrame, or the row, that cannot be read by itself."""
    if hasattr(values, "columns") and hasattr(values, "dtypes"):
        for index, column in enumerate(values.columns):
            one = values.iloc[:, index] if hasattr(values, "iloc") else values[column]
            if not _can_read(one, dtype):
                return f"Found in column {column!r}."
    elif isinstance(values, list | tuple) or getattr(values, "ndim", 0) == 1:
        row = _first_unreadable(values, dtype)
        if not _can_read(values[row : row + 1], dtype):
            return f"Found in row {row}."
    return ""


def _first_unreadable(values, dtype):
    """Return the first row that cannot be read, if not their mixture is at fault."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        if _can_read(values[low:middle], dtype):
            low = middle
        else:
            high = middle
    return low


def _can_read(values, dtype):
    try:
        check_array(values, ensure_2d=False, dtype=dtype, ensure_all_finite=False)
    except Exception:
        return False
    return True
