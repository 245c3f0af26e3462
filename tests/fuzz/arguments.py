"""Strategies of labels, weights and groups: valid, or wrong in one place.

A wrong argument comes with its culprit: a regular expression of what the error names.
"""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import scipy.sparse as sp
import torch
from hypothesis import strategies as st

TASKS = ("click", "cart", "conversion")


def _frame(dtype):
    def make(values):
        names = list(TASKS[: values.shape[1]])
        return pd.DataFrame(values, columns=names).astype(dtype)

    return make


def _polars(dtype):
    return lambda values: pl.DataFrame(
        values, schema=list(TASKS[: values.shape[1]])
    ).cast(dtype)


# Forms of labels of several tasks.
LABELS = {
    "int": lambda values: values,
    "bool": lambda values: values.astype(bool),
    "float32": lambda values: values.astype(np.float32),
    "object": lambda values: values.astype(object),
    "list": lambda values: values.tolist(),
    "frame": _frame(int),
    "nullable": _frame("Int64"),
    "boolean": _frame("boolean"),
    "category": _frame("category"),
    "arrow": _frame(pd.ArrowDtype(pa.int8())),
    "polars": _polars(pl.Int8),
    "polars bool": _polars(pl.Boolean),
    "tensor": torch.tensor,
}

# Two labels of a single task.
CLASSES = st.sampled_from(
    [[0, 1], [-1, 1], [False, True], ["no", "yes"], [0.0, 1.0], [7, 3], ["", "é"]]
)


@st.composite
def zero_one(draw, n_rows, n_tasks):
    """Draw labels, of which no task is constant."""
    rows = st.lists(st.booleans(), min_size=n_tasks, max_size=n_tasks)
    values = np.array(draw(st.lists(rows, min_size=n_rows, max_size=n_rows)), dtype=int)
    values[:2] = [[0], [1]]
    return values


@st.composite
def valid_labels(draw, n_rows):
    """Draw labels that must be accepted."""
    n_tasks = draw(st.integers(1, 3))
    values = draw(zero_one(n_rows, n_tasks))
    if n_tasks > 1:
        return LABELS[draw(st.sampled_from(sorted(LABELS)))](values)
    labels = np.array(draw(CLASSES))[values[:, 0]]
    forms = [np.array, list, pd.Series, pl.Series, lambda v: v[:, np.newaxis]]
    return draw(st.sampled_from(forms))(labels)


WRONG_LABELS = [2, -1, 0.5, np.nan, None, np.inf, "1", 1j, [1], b"1", pd.NA, 10**30]


@st.composite
def wrong_labels(draw, n_rows):
    """Draw labels of several tasks with a fault."""
    values = draw(zero_one(n_rows, 2))
    kind = draw(st.sampled_from(["value", "shape", "scalar", "sparse", "tensor"]))
    if kind == "value":
        row, column = draw(st.integers(0, n_rows - 1)), draw(st.integers(0, 1))
        labels = values.astype(object)
        labels[row, column] = draw(st.sampled_from(WRONG_LABELS))
        if draw(st.booleans()):
            return labels, rf"\bY\b.*(column|row)|column {column} of Y|Y cannot be read"
        return pd.DataFrame(labels, columns=["click", "buy"]), r"\bY\b"
    if kind == "shape":
        return draw(
            st.sampled_from([values[:-1], values[:0], values[:, :, np.newaxis]])
        ), r"\bY\b"
    if kind == "scalar":
        return draw(
            st.sampled_from([None, 1, "Y", {}, {"a": 1}, object()])
        ), r"\b[yY]\b"
    if kind == "sparse":
        return sp.csr_array(values), r"\bY\b"
    tensor = torch.tensor(values)
    return draw(
        st.sampled_from([tensor.bfloat16(), tensor.float().requires_grad_()])
    ), r"^Y is a tensor"


def valid_weights(n_rows):
    """Return a strategy of weights that must be accepted, or None."""
    weight = st.one_of(st.just(0.0), st.floats(1e-300, 1e300))
    rows = st.lists(weight, min_size=n_rows, max_size=n_rows).map(_with_first)
    forms = [np.array, list, pd.Series, pl.Series]
    return st.one_of(
        st.none(), st.builds(lambda make, w: make(w), st.sampled_from(forms), rows)
    )


def _with_first(weights):
    return [1.0, 1.0, *weights[2:]]


@st.composite
def wrong_weights(draw, n_rows):
    """Draw weights with a fault."""
    weights = [1.0] * n_rows
    if draw(st.booleans()):
        wrong = st.sampled_from([-1, np.nan, np.inf, None, "heavy", 1j, [1], "", pd.NA])
        weights[draw(st.integers(0, n_rows - 1))] = draw(wrong)
        return weights, "sample_weight"
    shapes = [weights[:-1], [], 2.0, "w", {}, [weights], np.zeros(n_rows), object()]
    return draw(st.sampled_from(shapes)), "sample_weight"


def valid_groups(n_rows):
    """Return a strategy of groups that must be accepted, or None."""
    value = st.one_of(st.integers(0, 3), st.sampled_from(["a", "b"]), st.booleans())
    rows = st.lists(value, min_size=n_rows, max_size=n_rows)
    return st.one_of(st.none(), rows.map(lambda v: pd.Series(v, dtype=object)), rows)


@st.composite
def wrong_groups(draw, n_rows):
    """Draw groups with a fault."""
    groups = [1] * n_rows
    if draw(st.booleans()):
        wrong = [None, np.nan, [1], {}, pd.NaT, np.array([1, 2])]
        groups[draw(st.integers(0, n_rows - 1))] = draw(st.sampled_from(wrong))
        groups = pd.Series(groups, dtype=object) if draw(st.booleans()) else groups
        return groups, "groups"
    shapes = [groups[:-1], [], 2, "g", {}, [groups], object(), sp.csr_array([groups])]
    return draw(st.sampled_from(shapes)), "groups"
