"""Kinds of columns that can contain the same category values."""

import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa


def series(dtype):
    return lambda values: pd.Series(values, dtype=dtype)


def arrow(dtype):
    return lambda values: pd.Series(pd.array(values, dtype=pd.ArrowDtype(dtype)))


def polars(dtype):
    return lambda values: pl.Series("column", values, dtype=dtype)


def categories(*unused):
    """Make a category column whose declared order is not that of the values."""

    def make(values):
        known = sorted({v for v in values if v is not None}, reverse=True)
        return pd.Series(pd.Categorical(values, categories=[*unused, *known]))

    return make


MIXED = pd.DataFrame(
    {"n": [1, 2, 2], "c": pd.Categorical(["x", "y", "x"]), "f": [0.5, 1.5, 2.5]}
)


def objects(values):
    return np.array([*values, None], dtype=object)[:-1]


def numpy_scalars(values):
    scalars = [v if v is None else np.array(v)[()] for v in values]
    return objects(scalars)


# Kinds of columns that can contain the same values; None stands for a missing value.
KINDS = {
    "text": {
        "category": categories("unused", "never"),
        "str": series("str"),
        "string": series("string"),
        "string[python]": series("string[python]"),
        "object": series(object),
        "arrow string": arrow(pa.string()),
        "arrow large_string": arrow(pa.large_string()),
        "arrow dictionary": arrow(pa.dictionary(pa.int32(), pa.string())),
        "polars String": polars(pl.String),
        "polars Categorical": polars(pl.Categorical),
        "polars Enum": polars(pl.Enum(["unused", "d", "c", "b", "a", "new"])),
        "polars Object": polars(pl.Object),
        "numpy object": objects,
        "numpy scalars": numpy_scalars,
    },
    "integers": {
        "category": categories(-1, 7),
        "Int64": series("Int64"),
        "object": series(object),
        "arrow int64": arrow(pa.int64()),
        "polars Int64": polars(pl.Int64),
        "numpy object": objects,
        "numpy scalars": numpy_scalars,
    },
    "booleans": {
        "category": categories(),
        "boolean": series("boolean"),
        "object": series(object),
        "arrow bool": arrow(pa.bool_()),
        "polars Boolean": polars(pl.Boolean),
        "polars Int8": lambda v: pl.Series(v, dtype=pl.Boolean).cast(pl.Int8),
        "float": lambda v: pd.Series(v, dtype="boolean").astype(float),
        "numpy object": objects,
        "numpy scalars": numpy_scalars,
    },
    "floats": {
        "category": categories(0.125),
        "float64": series("float64"),
        "float32": series("float32"),
        "Float64": series("Float64"),
        "arrow double": arrow(pa.float64()),
        "arrow decimal": lambda values: arrow(pa.decimal128(5, 2))(
            [None if v is None else decimal.Decimal(v) for v in values]
        ),
        "polars Float64": polars(pl.Float64),
        "polars Float32": polars(pl.Float32),
        "numpy float64": lambda values: np.array(values, dtype=np.float64),
        "numpy object": objects,
    },
}
