"""Access to tables of pandas, polars, Arrow and SciPy: columns, cells and rows."""

import datetime
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from itertools import chain
from numbers import Integral, Number, Real
from reprlib import repr as short_repr
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.utils import _safe_indexing

from sk_pwiser._utils._checks import did_you_mean
from sk_pwiser._utils._extras import import_extra


def is_polars(X):
    return type(X).__module__.startswith("polars.")


def collected(X):
    """Return the table of a query, a stream or a wrapper, other objects unchanged."""
    package = type(X).__module__.partition(".")[0]
    if package == "narwhals":
        return collected(X.to_native())
    if package == "pandas":
        return X
    if package == "polars":
        return X.collect() if type(X).__name__ == "LazyFrame" else X
    if package == "pyarrow":
        import pyarrow as pa  # installed, since X is one of its objects

        if isinstance(X, pa.RecordBatch):
            return pa.Table.from_batches([X])
        read = getattr(X, "to_table", None) or getattr(X, "read_all", None)
        return X if read is None else read()  # of a dataset, a scanner or a reader
    if hasattr(X, "__arrow_c_stream__") and not hasattr(X, "iloc"):
        return import_extra("pyarrow", type(X).__name__).table(X)
    is_table = hasattr(X, "columns") or hasattr(X, "column_names")
    if is_table and package in ("dask", "pyspark", "ray", "datasets"):
        raise TypeError(
            f"A {type(X).__name__} of {package} is not read: pass a pandas DataFrame."
        )
    return X


def refuse_unreadable(values, name):
    """Raise for dicts, a tensor that numpy cannot read, or complex numbers."""
    is_dict = isinstance(values, Mapping) and not sp.issparse(values)  # a DOK matrix
    rows = values[:1] if isinstance(values, list | tuple | np.ndarray) else ()
    if is_dict or (len(rows) and isinstance(rows[0], Mapping)):
        content = "a dict" if is_dict else "a list of dicts"
        cells = values.values() if is_dict else ()
        is_row = any(isinstance(v, str) or not hasattr(v, "__len__") for v in cells)
        rows = f"[{name}]" if is_row else name
        raise TypeError(f"{name} is {content}; pass pandas.DataFrame({rows}).")
    if hasattr(values, "detach"):
        try:
            values = np.asarray(values)
        except (RuntimeError, TypeError) as error:
            raise TypeError(
                f"{name} is a tensor that numpy cannot read: {first_line(error)} Pass "
                f"{name}.detach().cpu().float().numpy()."
            ) from error
    if getattr(getattr(values, "dtype", None), "kind", "") == "c":
        raise ValueError(
            f"Complex data not supported: {name} has dtype {values.dtype}."
        )


def first_line(error):
    line = str(error).strip().partition("\n")[0]
    return line if line.endswith(".") else f"{line}."


def is_missing(value):
    """Return whether a Python object is None, NaN, NaT or pandas.NA."""
    if value is None:
        return True
    differs_from_itself = value != value
    if isinstance(differs_from_itself, bool | np.bool_):
        return bool(differs_from_itself)
    # A comparison with pandas.NA returns pandas.NA.
    return differs_from_itself is value


SPANS = datetime.timedelta, np.timedelta64
DATES = datetime.date, datetime.time, np.datetime64
KINDS = {
    "text": str,
    "times": (datetime.datetime, np.datetime64),  # a datetime is a date as well
    "dates": datetime.date,
    "numbers": (Number, np.bool_),
}
# Kinds of large numbers: a float may be an integer that was rounded.
LARGE = {"rounded numbers", "integers above 2^53"}
# Prefixes of the names of dtypes.
TIME_DTYPES = {
    "spans of time": ("timedelta", "duration"),
    "dates": ("date", "time", "period"),
}
ADVICE = {
    "spans of time": ". The length in seconds, .dt.total_seconds(), is a number",
}

# Values that float() would accept, or reject without naming the value.
_NOT_NUMBERS = {
    "text": (str, bytes),
    "complex values": (complex, np.complexfloating),
    "spans of time": SPANS,
    "dates": DATES,
    "lists": (list, tuple, set, frozenset, np.ndarray),
}


def first_known(column):
    return next((value for value in column if not is_missing(value)), None)


# Types of cells that are lists. Tuples and frozensets can be category values.
_LISTS = list, np.ndarray


class Lists(NamedTuple):
    """The lists of a column; the elements of all are one Series or array of objects."""

    sizes: np.ndarray  # int64 (n_samples,); -1 for missing lists
    elements: object

    def row_of(self, elements):
        ends = np.maximum(self.sizes, 0).cumsum()
        return np.searchsorted(ends, elements, side="right")


def read_lists(column, name):
    """Return the lists of a column; TypeError for other rows and for lists of lists."""
    if not str(column.dtype).lower().startswith(_NESTED):
        return _read_objects(column, name)
    if hasattr(column, "iloc"):
        return _read_arrow_lists(column, name)
    return _read_polars(column, name)


def _read_objects(column, name):
    cells = [None if is_missing(cell) else cell for cell in column]
    allowed = *_LISTS, type(None)
    wrong = [cls for cls in set(map(type, cells)) if not issubclass(cls, allowed)]
    if wrong:
        row = next(row for row, cell in enumerate(cells) if type(cell) in wrong)
        raise TypeError(
            f"Column {name!r} must only contain lists; row {row} contains "
            f"{cells[row]!r}, which is not a list."
        )
    sizes = np.fromiter(
        (-1 if cell is None else len(cell) for cell in cells), np.int64, len(cells)
    )
    n_elements = int(np.maximum(sizes, 0).sum())
    values = chain.from_iterable(cell for cell in cells if cell is not None)
    elements = np.fromiter(values, dtype=object, count=n_elements)
    lists = Lists(sizes, elements)
    types = set(map(type, elements))
    nested = [cls for cls in types if issubclass(cls, (*_LISTS, tuple))]
    if nested:
        is_nested = [type(value) in nested for value in elements]
        row = lists.row_of(is_nested.index(True))
        raise _nested_error(name, cells[row : row + 1], row)
    return lists


def _read_polars(column, name):
    import polars as pl  # installed, since the column is one of polars

    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if column.dtype.inner.is_nested():
        raise _nested_error(name, column.to_list())
    sizes = column.list.len().cast(pl.Int64).fill_null(-1).to_numpy()
    # The first releases of polars filter by a Series only.
    return Lists(sizes, column.filter(pl.Series(sizes > 0)).explode())


def _read_arrow_lists(column, name):
    import pandas as pd
    import pyarrow as pa  # installed, since the column is one of Arrow
    import pyarrow.compute as pc

    array = pa.array(column.array)
    if pa.types.is_nested(array.type.value_type):
        raise _nested_error(name, column)
    sizes = pc.fill_null(pc.list_value_length(array), -1).to_numpy()
    elements = pc.list_flatten(array.drop_null())
    return Lists(
        sizes.astype(np.int64), pd.Series(pd.arrays.ArrowExtensionArray(elements))
    )


def _nested_error(name, cells, first=0):
    """Return an error that names the first list of cells, which begin with a row."""
    filled = ((row, v) for row, v in enumerate(cells, first) if not is_missing(v))
    row, value = next(filled, (first, None))
    return TypeError(
        f"Column {name!r} contains lists of lists, which cannot be encoded; row {row} "
        f"contains {short_repr(value)}."
    )


def as_table(X):
    """Convert a table to a form that can be read by columns or, if sparse, by rows."""
    refuse_parts(X)
    X = collected(X)
    if hasattr(X, "column_names"):
        return selectable(X)
    return X.tocsr() if sp.issparse(X) else X


# Mark of tables of Arrow that became tables of pandas, whose index says nothing.
CONVERTED = "converted by sk_pwiser"


def index_of(values):
    """Return the index that a user gave to a table or a Series, None without one."""
    if getattr(values, "attrs", {}).get(CONVERTED, False):
        return None
    index = getattr(values, "index", None)
    return index if hasattr(index, "factorize") else None


def selectable(X):
    """Return a collected table whose rows every release of scikit-learn can select."""
    X = collected(X)
    if not hasattr(X, "column_names"):  # as tables of Arrow have
        return X
    with suppress(ImportError):
        import pandas as pd

        # The metadata of pandas may declare a column to be the index.
        table = X.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
        # pandas passes the mark on to parts of the table, such as folds.
        table.attrs[CONVERTED] = True
        return table
    with suppress(ImportError):
        import polars as pl

        return pl.from_arrow(X)
    return import_extra("pandas", "A pyarrow.Table as X, without polars,")


def reads_in_parts(X):
    """Return whether `X` is a dataset that is read in parts instead of a table."""
    return getattr(X, "reads_in_parts", False) is True


def refuse_parts(X):
    """Raise for a dataset that is read in parts, and for what is no table at all."""
    if reads_in_parts(X):
        raise TypeError(
            f"{type(X).__name__} is read in parts, which this call does not support. "
            "Pass a table, such as a DataFrame."
        )
    refuse_unreadable(X, "X")


def is_sparse(X):
    if sp.issparse(X):
        return True
    dtypes = list(X.dtypes) if hasattr(X, "iloc") and X.ndim == 2 else []
    return bool(dtypes) and all(
        str(dtype).startswith("Sparse[") and dtype.fill_value == 0 for dtype in dtypes
    )


# Number of rows that are processed at a time, to limit the memory of temporary arrays.
CHUNK_ROWS = 32_768


def is_dataframe(X):
    return len(getattr(X, "shape", ())) == 2 and (is_polars(X) or hasattr(X, "iloc"))


def describe(name, column):
    """Return the name of a column, with the label if columns are named by index."""
    label = getattr(column, "name", None)
    if isinstance(name, str) or label is None or not hasattr(column, "iloc"):
        return repr(name)
    return f"{name!r} (labelled {label!r})"


def infinity_error(name, column, row, value, place="row"):
    where = "" if place is None else f": {place} {row} contains {value}"
    return ValueError(
        "Input X contains infinity or a value too large for dtype('float64') in column "
        f"{describe(name, column)}{where}."
    )


def find_column(parameter, column, names, kind="column of X"):
    """Return the index of a column, or of another kind of name, by name or index."""
    if isinstance(column, str) and column in names:
        return names.index(column)
    is_index = isinstance(column, Integral) and not isinstance(column, bool)
    if is_index and -len(names) <= column < len(names):
        return int(column) % len(names)
    raise unknown_name(f"{parameter} contains", column, names, kind)


def check_among(parameter, column, names, kind="column of X"):
    """Raise a ValueError if a parameter contains a name that is not of the kind."""
    if column not in names:
        raise unknown_name(f"{parameter} contains", column, names, kind)


def unknown_name(start, name, names, kind="column of X"):
    return ValueError(
        f"{start} {name!r}, which is not a {kind}; these are {names}."
        f"{did_you_mean(name, names)}"
    )


def refuse_repeated(label, names):
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"{label} must be distinct; {name!r} occurs {names.count(name)} times."
        )


def column_of(X, parameter, column):
    """Return the column of a table by its name or index, the value of a parameter."""
    refuse_parts(X)
    X = collected(X)
    is_arrow = hasattr(X, "column_names")
    names = list(X.column_names if is_arrow else getattr(X, "columns", ()))
    if isinstance(column, str) and column in names:
        return X[column].to_numpy() if is_arrow else X[column]
    if not isinstance(column, str):
        with suppress(ValueError, KeyError, IndexError, TypeError):
            return _safe_indexing(X, column, axis=1)
    if not names and getattr(X, "ndim", 0) == 2:
        names = list(range(X.shape[1]))
    raise unknown_name(f"{parameter} is", column, names)


def rows_of(column, rows):
    """Return a slice of the rows of a column."""
    return column.iloc[rows] if hasattr(column, "iloc") else column[rows]


def list_columns(X):
    if hasattr(X, "iloc"):
        return [column for _, column in X.items()]
    return X.get_columns() if is_polars(X) else list(X.T)


# Prefixes of the names of dtypes of lists, those of a fixed size first.
_FIXED = "array", "fixed_size"
_NESTED = (*_FIXED, "list", "large_list")
# The same of categories, beside text.
_CATEGORIES = "bool", "sparse[bool", "categor", "dictionary", "enum", "interval"
# Names of the types of missing values, other than NaN.
_MISSING = "NoneType", "NAType", "NaTType"


def content_of(column):
    """Return what a column holds by its dtype or its objects.

    These are "numbers", "arrays" of numbers, "categories" and "lists" of categories.
    Numbers include what is refused, such as dates, unless it is named as a category.
    """
    dtype = column.dtype
    name = str(dtype).lower()
    if name == "object":
        return _content_of_objects(column)
    if name.startswith(_NESTED):
        return "arrays" if _has_numeric_elements(dtype, name) else "lists"
    is_category = _is_text(dtype)
    if not isinstance(column, np.ndarray):  # whose bools are numbers
        is_category |= name.startswith(_CATEGORIES)
    return "categories" if is_category else "numbers"


def _content_of_objects(column):
    first = first_known(column)
    if isinstance(first, _LISTS):
        cells = chain.from_iterable(c for c in column if isinstance(c, _LISTS))
        types = set(map(type, cells)) - {type(None)}
        are_numbers = all(issubclass(c, int | float | np.number) for c in types)
        has_floats = any(issubclass(c, float | np.floating) for c in types)
        return "arrays" if are_numbers and has_floats else "lists"
    types = {cls for cls in set(map(type, column)) if cls.__name__ not in _MISSING}
    if isinstance(column, np.ndarray):
        is_category = any(issubclass(cls, str) for cls in types)
    else:
        is_category = not types or any(
            cls is bool or not issubclass(cls, Real | Decimal) for cls in types
        )
        is_category = is_category and not isinstance(first, (*DATES, *SPANS))
    return "categories" if is_category else "numbers"


def _has_numeric_elements(dtype, name):
    """Return whether lists are numbers: floats, or of a dtype with a fixed size."""
    is_fixed = name.startswith(_FIXED)
    if not hasattr(dtype, "pyarrow_dtype"):
        return dtype.inner.is_numeric() if is_fixed else dtype.inner.is_float()
    import pyarrow.types as pt  # installed, since the column is one of Arrow

    inner = dtype.pyarrow_dtype.value_type
    is_number = pt.is_floating(inner) or (is_fixed and pt.is_integer(inner))
    return bool(is_number or pt.is_decimal(inner))


# Names of the dtypes of text: of pandas, polars and Arrow.
_TEXTS = "str", "string", "large_string", "string_view"


def _is_text(dtype):
    name = str(dtype).lower().partition("[")[0]
    return name in _TEXTS or getattr(dtype, "kind", "") in ("S", "U", "T")


def to_float(column):
    """Return a numeric column as float64, NaN where missing; it may share memory."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "fiub":
        # Of a Series, numpy would ask for several protocols first, which takes long.
        return np.asarray(getattr(column, "values", column), dtype=np.float64)
    name = str(dtype).lower()
    if is_polars(column):
        if name == "object":
            return to_float(np.fromiter(column, dtype=object, count=len(column)))
        is_number = dtype.is_numeric() or name in ("boolean", "null")
    else:
        # numpy would accept text such as "7".
        is_number = dtype.kind not in "cmM" and not _is_text(dtype)
    kind = next((k for k, names in TIME_DTYPES.items() if name.startswith(names)), None)
    if kind or not is_number:
        advice = ADVICE.get(kind, "")
        raise TypeError(f"its dtype is {dtype}, which is not numeric{advice}")
    if is_polars(column):
        return column.cast(float).to_numpy().astype(np.float64)
    if dtype.kind == "O":
        _check_numbers(column)
    if isinstance(column, np.ndarray):
        numbers = (np.nan if is_missing(value) else value for value in column)
        return np.fromiter(numbers, dtype=np.float64, count=len(column))
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _check_numbers(column):
    types = set(map(type, column))
    for kind, classes in _NOT_NUMBERS.items():
        if not any(issubclass(cls, classes) for cls in types):
            continue
        refused = (value for value in column if isinstance(value, classes))
        value = first_known(refused)  # skips NaT, a missing date
        if value is not None:
            advice = ADVICE.get(kind, "")
            raise TypeError(f"it contains {kind}, such as {value!r}{advice}")


def holds_dates(column):
    """Return whether a column has a dtype of dates, or objects that are dates."""
    name = str(column.dtype).lower()
    if name == "object":
        return isinstance(first_known(column), DATES)
    return name.startswith(TIME_DTYPES["dates"])


def read_numbers(column, subject, advice=""):
    """Return a column as float64; errors begin with `subject` and end with `advice`.

    Both are text or functions.
    """
    try:
        return np.asarray(to_float(column))
    except (TypeError, ValueError, OverflowError) as error:
        subject = subject() if callable(subject) else subject
        advice = advice() if callable(advice) else advice
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{subject} cannot be read as numbers: {error}.{advice}") from error


def result_frame(columns):
    try:
        import pandas
    except ImportError:
        return columns
    return pandas.DataFrame(columns)


def check_same_kind(subject, values, fitted_values):
    """Raise if distinct `values` are of another kind, such as text, than those of fit.

    No value would be equal to one of fit, or only because it was rounded.
    """
    kinds = _examples_of_kinds(values)
    expected = _examples_of_kinds(fitted_values)
    has_both = {*kinds, *expected} >= LARGE
    if has_both and not any(map(LARGE.issubset, (kinds, expected))):
        kinds = {kind: kinds[kind] for kind in LARGE.intersection(kinds)}
        expected = LARGE.difference(kinds)
    if kinds and expected and kinds.keys().isdisjoint(expected):
        kind, value = next(iter(kinds.items()))
        raise ValueError(
            f"{subject} has values that are {kind}, such as {value!r}, but those of "
            f"fit are {' and '.join(expected)}: convert the column."
        )


def _examples_of_kinds(values):
    """Return a value of each kind."""
    return {kind_of(value): value for value in values if not is_missing(value)}


def kind_of(value):
    """Return the kind of a value, of which other kinds have no equal one."""
    for kind, types in KINDS.items():
        if isinstance(value, types):
            if kind == "numbers" and abs(value) > 2**53:
                is_float = isinstance(value, float | np.floating)
                return "rounded numbers" if is_float else "integers above 2^53"
            zoned = kind == "times" and getattr(value, "tzinfo", None) is not None
            return "times with a time zone" if zoned else kind
    return f"of type {type(value).__name__}"
