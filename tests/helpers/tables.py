"""One table in every library and dtype that users pass as X."""

import pandas as pd
import polars as pl
import pyarrow as pa


def pandas_objects(columns):
    """Return a DataFrame, whose lists and texts are Python objects."""
    return pd.DataFrame(
        {
            name: pd.Series(values, dtype=object if holds_objects(values) else None)
            for name, values in columns.items()
        }
    )


def holds_objects(values):
    known = [value for value in values if value is not None]
    return isinstance(known[0], str | list)


def arrow_table(columns):
    return pa.table({name: pa.array(list(v)) for name, v in columns.items()})


def arrow_backed(columns):
    return arrow_table(columns).to_pandas(types_mapper=pd.ArrowDtype)


# Functions of a dict of columns: lists of Python values, None where they are missing.
CONTAINERS = {
    "pandas": pandas_objects,
    "pandas nullable": lambda columns: pandas_objects(columns).convert_dtypes(),
    "pandas arrow": arrow_backed,
    "polars": pl.DataFrame,
    "polars lazy": pl.LazyFrame,
    "arrow": arrow_table,
}
