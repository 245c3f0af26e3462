"""What users pass as X: lazy frames and Arrow tables become DataFrames."""

import numpy as np

from sk_pwiser._table._dataframe import is_polars


def as_table(X):
    """Return a table that can be read by columns or, if it is sparse, by rows.

    A polars LazyFrame is collected. An Arrow table becomes a pandas or, without pandas,
    a polars DataFrame that shares its memory. Other objects are returned unchanged.

    Raises
    ------
    ImportError
        If an Arrow table is passed and neither pandas nor polars is installed.
    ValueError
        If `X` is an array of complex numbers.
    """
    if is_polars(X) and type(X).__name__ == "LazyFrame":
        return X.collect()
    if type(X).__module__.partition(".")[0] == "pyarrow":
        return _read_arrow(X)
    if getattr(getattr(X, "dtype", None), "kind", "") == "c":
        _refuse_complex(X)
    return X


def _read_arrow(X):
    import pyarrow as pa  # installed, since X is one of its objects

    if isinstance(X, pa.RecordBatch):
        X = pa.Table.from_batches([X])
    if not isinstance(X, pa.Table):
        return X
    try:
        import pandas as pd
    except ImportError:
        try:
            import polars as pl
        except ImportError as error:
            raise ImportError(
                "A pyarrow.Table as X is read through pandas or polars: "
                'pip install "sk_pwiser[pandas]" or "sk_pwiser[polars]".'
            ) from error
        return pl.from_arrow(X)
    # Metadata of pandas may declare a column as the index.
    return X.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)


def _refuse_complex(X):
    values = np.atleast_1d(X)
    position = tuple(int(i) for i in np.argwhere(values.imag != 0)[:1].ravel())
    position = position or (0,) * values.ndim
    where = f" in row {position[0]}" if values.size else ""
    where += f" of column {position[1]}" if len(position) > 1 else ""
    found = f"; it contains {values[position]}{where}" if values.size else ""
    raise ValueError(f"Complex data not supported: X has dtype {X.dtype}{found}.")
