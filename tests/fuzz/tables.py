"""Strategies of tables: of every library and dtype, valid or with one wrong column."""

import datetime

import numpy as np
import pandas as pd
import scipy.sparse as sp
from hypothesis import strategies as st
from tables import CONTAINERS

TEXT = st.text(st.characters(codec="utf-8"), max_size=4)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SMALL = st.integers(0, 3)

# Values of one valid column; None stands for a missing value.
VALUES = {
    "float": FLOATS,
    "float32": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "count": SMALL,
    "bool": st.booleans(),
    "text": TEXT,
    "list": st.lists(TEXT, max_size=3),
    "vector": st.lists(st.floats(-9, 9), min_size=2, max_size=2),
}
NUMBERS = ("float", "float32", "count")

# Values that no column of numbers or categories may contain.
WRONG = {
    "infinity": st.just([np.inf]),
    "dates": st.just([datetime.date(2026, 5, 1)]),
    "complex": st.just([1j]),
    "nested": st.just([[[1], [2]]]),
    "ragged": st.just([[1.5], [1.5, 2.5]]),
}


@st.composite
def columns(draw, n_rows, kinds=tuple(VALUES), missing=True):
    """Draw a dict of the names of columns to lists of values."""
    table = {}
    for index in range(draw(st.integers(1, 3))):
        values = VALUES[draw(st.sampled_from(kinds))]
        column = draw(st.lists(values, min_size=n_rows, max_size=n_rows))
        if missing and draw(st.booleans()):
            holes = draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows))
            column = [
                None if hole else value
                for hole, value in zip(holes, column, strict=True)
            ]
        table[f"col{index}"] = column
    return table


def has_value(column):
    return any(value is not None for value in column)


@st.composite
def dataframes(draw, n_rows):
    """Draw a table with names of its columns, of any library."""
    table = draw(columns(n_rows).filter(lambda t: all(map(has_value, t.values()))))
    return CONTAINERS[draw(st.sampled_from(sorted(CONTAINERS)))](table)


@st.composite
def arrays(draw, n_rows):
    """Draw an array of numbers, an array of objects, or lists of rows."""
    if draw(st.booleans()):
        table = draw(columns(n_rows, NUMBERS))
        dtype = draw(
            st.sampled_from([np.float64, np.float32, np.float16, "longdouble"])
        )
        with np.errstate(over="ignore"):
            array = np.array(list(table.values()), dtype=float).T.astype(dtype)
        return np.where(np.isinf(array), 1, array).astype(dtype)
    table = draw(columns(n_rows, ("float", "count", "text", "bool")))
    array = np.empty((n_rows, len(table)), dtype=object)
    for index, column in enumerate(table.values()):
        array[:, index] = column
    return array if draw(st.booleans()) else array.tolist()


@st.composite
def sparse(draw, n_rows):
    """Draw a sparse matrix of scipy, or a DataFrame of sparse columns."""
    dense = np.array(list(draw(columns(n_rows, NUMBERS, missing=False)).values())).T
    make = draw(
        st.sampled_from([sp.csr_array, sp.csc_array, sp.coo_array, sp.csr_matrix, None])
    )
    if make is None:
        return pd.DataFrame(dense.astype(float)).astype(pd.SparseDtype(float, 0.0))
    return make(dense)


def valid_tables(n_rows):
    """Return a strategy of tables that must be accepted."""
    return st.one_of(dataframes(n_rows), arrays(n_rows), sparse(n_rows))


@st.composite
def wrong_tables(draw, n_rows):
    """Draw a table with a wrong column, and the culprit as a regular expression."""
    table = draw(columns(n_rows, ("float", "text"), missing=False))
    kind = draw(st.sampled_from(sorted(WRONG)))
    name = draw(st.sampled_from(sorted(table)))
    values = draw(WRONG[kind])
    # Only the first rows are wrong, or all.
    n_wrong = draw(st.sampled_from([len(values), n_rows]))
    wrong = [values[row % len(values)] for row in range(n_wrong)]
    others = [values[0]] if kind in ("nested", "ragged") else [1.5]
    table[name] = [*wrong, *others * n_rows][:n_rows]
    frame = pd.DataFrame({k: pd.Series(v, dtype=object) for k, v in table.items()})
    index = list(table).index(name)
    if draw(st.booleans()):
        return frame, rf"olumn .*'{name}'"
    array = np.empty(frame.shape, dtype=object)
    for place, column in enumerate(table.values()):
        for row, value in enumerate(column):
            array[row, place] = value
    return array, rf"olumn {index}\b"
