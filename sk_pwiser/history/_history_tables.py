"""Tables of any library: their columns, and new columns beside them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sk_pwiser._columns._frames import (
    as_table,
    collected,
    refuse_parts,
    refuse_repeated,
)


class ListOutput(NamedTuple):
    """A column of lists: sizes, and elements, which are places in `values` if given."""

    sizes: npt.NDArray[Any]
    elements: npt.NDArray[Any]
    values: list[Any] | None = None


def kind_of(X: Any) -> str:
    """Return "pandas", "polars" or "arrow"; arrays, without names, are none."""
    package = type(X).__module__.partition(".")[0]
    kinds = {"pyarrow": "arrow", "polars": "polars"}
    kind = kinds.get(package, "pandas" if hasattr(X, "iloc") else None)
    if kind and (hasattr(X, "columns") or hasattr(X, "column_names")):
        return kind
    raise TypeError(
        "X must be a table whose columns have names, of pandas, polars or Arrow; got "
        f"{type(X).__name__}. A single row is a dict for transform_row."
    )


class Table:
    """A table of any kind; an error if it has no names of columns."""

    def __init__(self, X: Any) -> None:
        refuse_parts(X)
        self.X: Any = collected(X)
        self.kind = kind_of(self.X)
        self.n_rows = len(self.X)
        names = self.X.column_names if self.kind == "arrow" else self.X.columns
        self.names: list[str] = list(names)
        refuse_repeated("The columns of X", self.names)

    def column(self, name: str) -> Any:
        if name not in self.names:
            raise ValueError(
                f"{name!r} is not a column of X; its columns are {self.names}."
            )
        if self.kind == "arrow":
            return as_table(self.X.select([name]))[name]
        return self.X[name]

    def with_features(
        self,
        passed_through: Sequence[str],
        features: Mapping[str, npt.NDArray[Any] | ListOutput],
        kind: str,
    ) -> Any:
        """Return some columns, and new ones behind them, as a table of a kind."""
        X = self._converted(passed_through, kind)
        new = {name: _new_column(column, kind) for name, column in features.items()}
        if kind == "arrow":
            for name, column in new.items():
                X = X.append_column(name, column)
            return X
        if kind == "polars":
            return X.with_columns(**new) if X.width else type(X)(new)
        import pandas as pd

        # Tables of other libraries without columns have no length.
        index = X.index if X.shape[1] or self.kind == "pandas" else None
        # Without a copy, as one array per column.
        columns = {name: pd.Series(column, index=index) for name, column in new.items()}
        frame = pd.DataFrame(columns, index=index, copy=False)
        return pd.concat([X, frame], axis=1) if X.shape[1] else frame

    def _converted(self, names: Sequence[str], kind: str) -> Any:
        """Return some columns as a table of a kind."""
        X = self.X[names] if self.kind == "pandas" else self.X.select(names)
        if kind == self.kind:
            return X
        if kind == "pandas":
            return X.to_pandas()
        import polars as pl

        return pl.from_arrow(X) if self.kind == "arrow" else pl.from_pandas(X)


def _new_column(new: npt.NDArray[Any] | ListOutput, kind: str) -> Any:
    """Return a new column in the form that tables of a kind take."""
    if isinstance(new, ListOutput):
        arrays = _arrow_lists(new)
        if arrays is not None:
            return _list_column(arrays, kind)
        new = _python_lists(new)
    if kind == "polars":
        import polars as pl

        return pl.Series(new.tolist() if new.dtype == object else new)
    if kind == "arrow":
        import pyarrow as pa  # installed, since the table is one of its objects

        return pa.array(new)
    return new


def _list_column(arrays: Any, kind: str) -> Any:
    """Return a column of lists from an array of Arrow."""
    if kind == "polars":
        import polars as pl
        import pyarrow as pa

        # As a table: polars up to 1.40 crashes on arrays of long lists of text.
        return pl.DataFrame(pa.table([arrays], [""])).to_series()
    if kind == "pandas":
        import pandas as pd

        return pd.arrays.ArrowExtensionArray(arrays)
    return arrays


def _arrow_lists(new: ListOutput) -> Any:
    """Return lists as an array of Arrow; None if it cannot hold them."""
    try:
        import pyarrow as pa
    except ImportError:
        return None
    elements = pa.array(new.elements)
    if new.values is not None:
        try:
            elements = arrow_array(new.values).take(elements)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            return None
    offsets = pa.array(np.append(0, new.sizes.cumsum()))
    return pa.LargeListArray.from_arrays(offsets, elements)


def arrow_array(values: Sequence[Any]) -> Any:
    """Return values as an array of Arrow, which reads integers as signed by itself."""
    import pyarrow as pa  # installed

    try:
        return pa.array(values)
    except OverflowError:
        return pa.array(values, type=pa.uint64())


def _python_lists(new: ListOutput) -> npt.NDArray[Any]:
    elements = new.elements.tolist()
    if new.values is not None:
        elements = [new.values[place] for place in elements]
    ends = new.sizes.cumsum().tolist()
    lists = np.empty(len(ends), dtype=object)
    for row, (start, end) in enumerate(pairwise([0, *ends])):
        lists[row] = elements[start:end]
    return lists
