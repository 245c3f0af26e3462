"""Tables in CSV and Parquet files."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sk_pwiser._columns._frames import refuse_repeated
from sk_pwiser._utils._checks import did_you_mean
from sk_pwiser._utils._extras import import_extra

SEPARATORS = (",", ";", "\t", "|")
# The ends of names of Parquet files.
PARQUET = (".parquet", ".pq")


def is_parquet(path: Path) -> bool:
    """Return whether a file is one of Parquet by its name."""
    return path.suffix.lower() in PARQUET


def read_parquet(path: Path, id_names: Iterable[str], option: str) -> Any:
    """Return the table in a Parquet file; ids are not rounded."""
    pd = import_extra("pandas", option)

    def table(**options: Any) -> Any:
        # pandas makes an index of columns that were one when the file was written.
        frame = pd.read_parquet(path, **options)
        index_names = [name for name in frame.index.names if name is not None]
        # Joined tables have the labels of each, which name several rows.
        return frame.reset_index(index_names).reset_index(drop=True)

    frame = table()
    refuse_repeated(f"The columns of {path.name}", list(frame.columns))
    ids = frame.columns.intersection(list(id_names))
    rounded = list(frame[ids].select_dtypes("float"))
    if rounded:
        # Beside missing values, integers became floats, which merge ids above 2^53.
        exact = table(dtype_backend="numpy_nullable")
        frame[rounded] = exact[rounded].set_axis(frame.index)
    return frame


def check_columns(path: Path, frame: Any, expected_names: Iterable[str]) -> None:
    """Raise if the table in a file lacks columns."""
    absent_names = [name for name in expected_names if name not in frame.columns]
    if absent_names:
        raise ValueError(
            f"{path.name} has no columns {absent_names}; its columns are "
            f"{list(frame.columns)}.{did_you_mean(absent_names[0], frame.columns)}"
        )


def read_texts(path: Path, expected_names: Sequence[str], option: str) -> Any:
    """Return the table in a CSV file as text, in which blanks are missing values.

    The separator is the one that tells most of the expected columns apart, and of
    these the one with most columns.
    """
    pd = import_extra("pandas", option)
    try:
        headers = {sep: list(pd.read_csv(path, sep=sep, nrows=0)) for sep in SEPARATORS}
        expected = set(expected_names)
        separator = max(
            SEPARATORS,
            key=lambda sep: (
                len(expected.intersection(headers[sep])),
                len(headers[sep]),
            ),
        )
        header = read_header(path, separator)
        # pandas would number them, and the second one of a target would be a feature.
        refuse_repeated(f"The columns of {path.name}", list(filter(None, header)))
        frame = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, na_values=[""]
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not a CSV file in UTF-8: {error}") from error
    except pd.errors.ParserError as error:
        refuse_long_rows(path, separator)
        raise ValueError(f"{path.name} is not a CSV file: {error}") from error
    if not isinstance(frame.index, pd.RangeIndex):
        # pandas makes an index of the first fields, which shifts all others.
        refuse_long_rows(path, separator)
    return frame


def opened(path: Path) -> Any:
    """Open a file of text, which may be compressed, as pandas does."""
    common = import_extra("pandas.io.common", "--data")
    return common.get_handle(path, "r", encoding="utf-8-sig", compression="infer")


def read_header(path: Path, separator: str) -> list[str]:
    """Return the fields of the first line of a CSV file that is not blank."""
    with opened(path) as handles:
        return next(filter(None, csv.reader(handles.handle, delimiter=separator)), [])


def refuse_long_rows(path: Path, separator: str) -> None:
    """Raise if a row of a CSV file has more fields than the header."""
    with opened(path) as handles:
        lines = csv.reader(handles.handle, delimiter=separator)
        header = next(filter(None, lines))
        for row in lines:
            if len(row) > len(header):
                where = ""
                if row[-1] == "":
                    where = " and ends with the separator"
                raise ValueError(
                    f"{path.name}, line {lines.line_num}, has {len(row)} fields"
                    f"{where}; the header has {len(header)}: {header}. Name the "
                    "columns that it lacks, or remove the separators at the ends of "
                    "rows."
                )
