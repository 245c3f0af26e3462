"""What users pass as X: lazy frames and Arrow tables become DataFrames."""

import scipy.sparse as sp

from sk_pwiser._labels import refuse_unreadable
from sk_pwiser._table._dataframe import is_polars


def as_table(X):
    """Return a table that can be read by columns or, if it is sparse, by rows.

    A polars LazyFrame is collected. An Arrow table becomes a pandas or, without pandas,
    a polars DataFrame that shares its memory. A sparse matrix becomes one in CSR form.
    Other objects are returned unchanged.

    Raises
    ------
    ImportError
        If an Arrow table is passed and neither pandas nor polars is installed.
    ValueError
        If `X` is an array of complex numbers.
    TypeError
        If `X` is a tensor that numpy cannot read, or a dataset that is
        read in parts.
    """
    refuse_parts(X)
    if is_polars(X) and type(X).__name__ == "LazyFrame":
        return X.collect()
    if type(X).__module__.partition(".")[0] == "pyarrow":
        return _read_arrow(X)
    refuse_unreadable(X, "X")
    return X.tocsr() if sp.issparse(X) else X


def reads_in_parts(X):
    """Return whether `X` is a dataset that is read in parts, not a table."""
    return getattr(X, "reads_in_parts", False) is True


def refuse_parts(X):
    """Raise a TypeError if `X` is a dataset that is read in parts."""
    if reads_in_parts(X):
        raise TypeError(
            f"{type(X).__name__} is read in parts, which only fit and the predictions "
            "of MultiTaskCTRCVRClassifier support. Pass a table, such as some of its "
            "rows as a DataFrame."
        )


def is_sparse(X):
    """Return whether a table is a sparse matrix, or a DataFrame of sparse columns."""
    if sp.issparse(X):
        return True
    dtypes = list(X.dtypes) if hasattr(X, "iloc") and X.ndim == 2 else []
    return bool(dtypes) and all(
        str(dtype).startswith("Sparse[") and dtype.fill_value == 0 for dtype in dtypes
    )


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
