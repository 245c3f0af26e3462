"""Downloaded logs: what all loaders share."""

import csv
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import getdoc
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch

from sk_pwiser._utils._checks import check_choice
from sk_pwiser._utils._warnings import warn_user

# The published splits of the rows by `subset`.
SPLITS = {"all": ["train", "test"], "train": ["train"], "test": ["test"]}


def splits_of(subset: str) -> list[str]:
    return SPLITS[check_choice("subset", subset, SPLITS)]


def find_files(
    path: str | os.PathLike[str], *forms: Sequence[Sequence[str]], download: str
) -> list[Path]:
    """Return the files of the first form that is complete.

    A form is a list of files, and each file a list of names to look for.
    """
    folder = Path(path).expanduser()
    missing = []
    for form in forms:
        files = []
        absent = []
        for names in form:
            candidates = [folder / name for name in names]
            file = next((path for path in candidates if path.is_file()), None)
            if file is None:
                absent.append(names[0])
            else:
                files.append(file)
        if not absent:
            return files
        missing.append(absent[0])
    raise FileNotFoundError(
        f"There is no {' and no '.join(missing)} in {str(path)!r} or its usual "
        f"subfolders. {download}"
    )


def as_bunch(
    loader: Callable[..., Any],
    data: Any,
    target: Any,
    is_test: npt.NDArray[np.bool_],
    **attributes: Any,
) -> Bunch:
    """Return what all loaders return; the description is the loader's docstring."""
    return Bunch(
        data=data,
        target=target,
        task_names=list(target.columns),
        feature_names=list(data.columns),
        is_test=is_test,
        DESCR=getdoc(loader),
        **attributes,
    )


def click_conversion_bunch(
    loader: Callable[..., Any],
    data: Any,
    target: Any,
    is_test: npt.NDArray[np.bool_],
    **attributes: Any,
) -> Bunch:
    """Return what loaders return, and warn about conversions without a click."""
    n_unclicked = int((target["conversion"] > target["click"]).sum())
    if n_unclicked:
        warn_user(
            f"{loader.__name__}: {n_unclicked} rows have a conversion and no click. "
            "They are kept with these labels."
        )
    return as_bunch(
        loader,
        data,
        target,
        is_test,
        n_unclicked_conversions=n_unclicked,
        **attributes,
    )


def find_test_rows(
    splits: Sequence[str], sizes: Sequence[int]
) -> npt.NDArray[np.bool_]:
    """Return which rows are test rows, for splits of these sizes."""
    return np.repeat([split == "test" for split in splits], sizes)


def check_columns(names: Collection[str], columns: Iterable[str], source: Any) -> None:
    missing = [name for name in columns if name not in names]
    if missing:
        raise ValueError(f"{source} lacks the column(s) {missing}.")


@np.errstate(over="ignore")  # too large numbers become infinite, and are found
def read_csv(
    pandas: Any,
    file: Path,
    dtypes: Mapping[str, str],
    *,
    has_header: bool = True,
    is_complete: bool = False,
) -> Any:
    """Read columns from a csv file.

    Text may be missing, and floats if the file is not complete.
    """
    names = list(dtypes)
    if has_header:
        with open_text(file) as lines:
            names = next(csv.reader(lines), [])
        check_columns(names, dtypes, file)
    types = {name: dtypes.get(name, "str") for name in names}
    try:
        # Not with `usecols`, for which pandas accepts lines with too many fields.
        with open_text(file) as lines:
            rows = pandas.read_csv(
                lines,
                header=None,
                names=names,
                skiprows=int(has_header),
                dtype=types,
                skip_blank_lines=False,
                keep_default_na=False,
                na_values=[""],
            )
    except (ValueError, OverflowError) as error:
        # pandas names neither the line nor the column, so a second pass looks for them.
        fault = _first_fault(
            file, types, has_header=has_header, is_complete=is_complete
        )
        raise ValueError(fault or f"{file}: {error}") from error
    # A line with too many fields may turn the first column into an index. One with too
    # few has no value in the last column, which other lines may lack, too.
    is_suspect = not isinstance(rows.index, pandas.RangeIndex)
    is_suspect |= rows[names[-1]].isna().any()
    for name in names:
        if types[name].startswith("float"):
            numbers = rows[name] if is_complete else rows[name].dropna()
            is_suspect |= not np.isfinite(numbers).all()
    if is_suspect:
        fault = _first_fault(
            file, types, has_header=has_header, is_complete=is_complete
        )
        if fault is not None:
            raise ValueError(fault)
    return rows[list(dtypes)]


def check_flags(
    rows: Any,
    columns: Iterable[str],
    file: Path,
    *,
    n_header_lines: int | None = 1,
    values: Sequence[int] = (0, 1),
) -> None:
    """Raise an error that names the first line or row with a value not in `values`."""
    rule = f"must contain {' or '.join(map(str, values))}"
    for name in columns:
        is_wrong = ~rows[name].isin(values)
        check_column(rows[name], is_wrong, rule, file, n_header_lines)


REPEATED = "must not repeat a value of an earlier line"  # a rule of check_column


def check_column(
    column: Any, is_wrong: Any, rule: str, file: Path, n_header_lines: int | None = 1
) -> None:
    """Raise an error that names the first line that is wrong, or the first row."""
    if is_wrong.any():
        row = int(is_wrong.to_numpy().argmax())
        place = f"row {row}"
        if n_header_lines is not None:
            place = f"line {row + 1 + n_header_lines}"
        [value] = column.iloc[row : row + 1].tolist()
        raise ValueError(
            f"{file}, {place}: column {column.name!r} {rule}, found {value!r} (in "
            f"{int(is_wrong.sum())} row(s))."
        )


@contextmanager
def open_text(file: Path) -> Iterator[TextIO]:
    """Open a csv file to read its lines."""
    if file.suffix == ".zip":
        raise ValueError(f"{file} is an archive; unpack it.")
    try:
        # Bytes that are not UTF-8 become characters that no text can be encoded of.
        with open(
            file, encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as f:
            yield f
    except csv.Error as error:
        raise ValueError(f"{file} is damaged: {error}.") from error


# What the fields of a dtype must contain.
EXPECTED = {
    "str": "UTF-8 text",
    "int64": "a whole number of 64 bits",
    **dict.fromkeys(["float32", "float64"], "a finite number"),
}


def _first_fault(
    file: Path, types: Mapping[str, str], *, has_header: bool, is_complete: bool
) -> str | None:
    """Return a message about the first line that does not have the expected form."""
    with open_text(file) as lines:
        reader = csv.reader(lines)
        for cells in reader:
            if has_header and reader.line_num == 1:
                continue
            place = f"{file}, line {reader.line_num}"
            if len(cells) != len(types):
                return f"{place}: expected {len(types)} fields, found {len(cells)}."
            for cell, (name, kind) in zip(cells, types.items(), strict=True):
                if not _is_valid(cell, kind, is_complete):
                    return (
                        f"{place}: column {name!r} must contain {EXPECTED[kind]}, "
                        f"found {cell!r}."
                    )
    return None


def _is_valid(cell: str, kind: str, is_complete: bool) -> bool:
    may_be_missing = kind != "int64" and not is_complete
    try:
        cell.encode()
        if kind == "str" or (may_be_missing and not cell):
            return True
        return bool(np.isfinite(np.dtype(kind).type(cell)))
    except (OverflowError, ValueError):
        return False


def as_category(pandas: Any, column: Any, *, is_text: bool = False) -> Any:
    """Return a column of text as `category`, with whole numbers as integers."""
    column = column.astype("category")
    texts = column.cat.categories
    try:
        numbers = texts if is_text else pandas.to_numeric(texts)
    except ValueError:
        return column
    if numbers.dtype.kind == "f":
        # Such as "0.0", to which pandas turns integers beside missing values.
        is_whole = (numbers == np.floor(numbers)) & (abs(numbers) < 2**53)
        numbers = numbers.astype("int64") if is_whole.all() else texts
    # Two texts may be the same number, such as "1" and "1.0".
    categories, code_of_text = np.unique(numbers, return_inverse=True)
    # The code of missing values is -1.
    codes = np.append(code_of_text, -1)[column.cat.codes]
    return pandas.Categorical.from_codes(codes, categories=pandas.Index(categories))
