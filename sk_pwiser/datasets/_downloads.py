"""Downloaded files: found, read and checked."""

import csv
import io
import warnings
import zipfile
from pathlib import Path

import numpy as np


def import_pandas(user, *, parquet=False):
    """Import pandas, or raise an error that names the extra.

    Parameters
    ----------
    user : str
        The function or parameter that needs pandas, for the message.
    parquet : bool, default=False
        Whether to import pyarrow too, which reading parquet files needs.

    Returns
    -------
    module
        The module pandas.

    Raises
    ------
    ImportError
        If a package is not installed.
    """
    try:
        import pandas

        if parquet:
            import pyarrow  # noqa: F401
    except ImportError as error:
        needs = "pandas and pyarrow" if parquet else "pandas"
        raise ImportError(
            f'{user} needs {needs}: pip install "sk_pwiser[pandas]"'
        ) from error
    return pandas


def find_file(folder, name, *, inside, download):
    """Find a file in a folder or in its sub-folder with the conventional name.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder that holds the file, or its parent.
    name : str
        Name of the file.
    inside : str
        Name of the sub-folder to search if `folder` does not contain the file.
    download : str
        Where to download the file, for the message.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    FileNotFoundError
        If neither folder contains the file.
    """
    folder = Path(folder).expanduser()
    for candidate in (folder / name, folder / inside / name):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"{name!r} is neither in {str(folder)!r} nor in its sub-folder {inside!r}. "
        f"{download}"
    )


def find_first(path, candidates):
    """Return the first of some files that exists in a folder, None if none does.

    Parameters
    ----------
    path : str or os.PathLike
        The folder.
    candidates : iterable of str
        Paths relative to the folder.

    Returns
    -------
    pathlib.Path or None
        The file.
    """
    folder = Path(path).expanduser()
    return next((folder / c for c in candidates if (folder / c).is_file()), None)


def warn_unclicked(target, user):
    """Count and report the rows with a conversion and without a click.

    Parameters
    ----------
    target : DataFrame of shape (n_samples, 2)
        Labels, columns `click` and `conversion`.
    user : str
        The public function that calls this one, for the message.

    Returns
    -------
    int
        Number of such rows.
    """
    n_unclicked = int((target["conversion"] > target["click"]).sum())
    if n_unclicked:
        # Above the loader is the frame of `validate_params`, then the user's.
        warnings.warn(
            f"{user}: {n_unclicked} rows have a conversion and no click. They are "
            "kept with these labels.",
            UserWarning,
            stacklevel=4,
        )
    return n_unclicked


def check_columns(frame, columns, source):
    """Raise ValueError if `frame`, read from the file `source`, lacks columns."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(f"{source} lacks the column(s) {missing}.")


def binary_labels(frame, columns, source):
    """Return the label columns as int64 after checking that they hold 0 and 1.

    Parameters
    ----------
    frame : DataFrame
        Rows read from `source`.
    columns : list of str
        The label columns.
    source : str
        Name of the file, for the message.

    Returns
    -------
    DataFrame of shape (n_samples, n_labels)
        Labels, each 0 or 1.

    Raises
    ------
    ValueError
        If a label is missing or is not 0 or 1.
    """
    for name in columns:
        wrong = ~frame[name].isin((0, 1))
        if wrong.any():
            raise ValueError(
                f"Column {name!r} of {source} must hold 0 or 1, found "
                f"{frame[name][wrong].iloc[0]!r} in {int(wrong.sum())} row(s)."
            )
    return frame[columns].astype("int64")


def read_csv(
    pandas, file, dtypes, *, has_header=True, may_be_missing=False, n_rows=None
):
    """Read typed columns of a csv file, or raise an error that names line and field.

    Parameters
    ----------
    pandas : module
        The module pandas.
    file : pathlib.Path
        The csv file, or a zip file that contains it.
    dtypes : dict
        Type of each column that is returned: `"int64"`, `"float32"` or `"str"`. An
        `"int64"` column must be complete.
    has_header : bool, default=True
        Whether the first line holds the names of the columns. Otherwise the columns
        are those of `dtypes`, in their order.
    may_be_missing : bool, default=False
        Whether fields of `"float32"` columns may be empty.
    n_rows : int, default=None
        Number of rows to read; None reads all.

    Returns
    -------
    DataFrame of shape (n_rows, n_columns)
        The columns of `dtypes`.

    Raises
    ------
    ValueError
        If a column is missing, if a line has too many or too few fields, or if a field
        does not hold a value of its type.
    """
    names, options = list(dtypes), {"header": None, "names": list(dtypes)}
    if has_header:
        header = pandas.read_csv(file, nrows=0)
        check_columns(header, names, file)
        names, options = list(header.columns), {}
    types = {name: dtypes.get(name, "str") for name in names}
    try:
        # Without `usecols`, with which pandas accepts lines with too many fields.
        rows = pandas.read_csv(
            file,
            dtype=types,
            skip_blank_lines=False,
            keep_default_na=False,
            na_values=[""],
            nrows=n_rows,
            **options,
        )
    except (ValueError, OverflowError) as error:
        fault = _first_fault(file, types, has_header, may_be_missing)
        raise ValueError(fault or f"{file}: {error}") from error
    floats = [] if may_be_missing else [n for n in names if types[n] == "float32"]
    # A line with too many fields may turn the first column into an index.
    is_whole = isinstance(rows.index, pandas.RangeIndex)
    if not (is_whole and all(np.isfinite(rows[name]).all() for name in floats)):
        raise ValueError(_first_fault(file, types, has_header, may_be_missing))
    return rows[list(dtypes)]


def check_flags(rows, columns, file, *, n_header_lines=1, values=(0, 1)):
    """Raise ValueError with the line if a column holds other values than `values`."""
    for name in columns:
        wrong = ~rows[name].isin(values).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            known = " or ".join(map(str, values))
            raise ValueError(
                f"{file}, line {row + 1 + n_header_lines}: column {name!r} must hold "
                f"{known}, found {rows[name].iloc[row]!r} (in {int(wrong.sum())} "
                "line(s))."
            )


def open_text(file):
    """Open a csv file, or the only file of a zip file, for reading text."""
    if file.suffix != ".zip":
        return open(file, encoding="utf-8", newline="")
    archive = zipfile.ZipFile(file)
    return io.TextIOWrapper(archive.open(archive.namelist()[0]), "utf-8", newline="")


def _first_fault(file, types, has_header, may_be_missing):
    """Return the first line and field that do not have the expected form."""
    with open_text(file) as lines:
        reader = csv.reader(lines)
        for cells in reader:
            if has_header and reader.line_num == 1:
                continue
            place = f"{file}, line {reader.line_num}"
            if len(cells) != len(types):
                return f"{place}: expected {len(types)} fields, found {len(cells)}."
            for cell, (name, kind) in zip(cells, types.items(), strict=True):
                if fault := _fault(cell, kind, may_be_missing):
                    return f"{place}: column {name!r} {fault}, found {cell!r}."
    return None


def _fault(cell, kind, may_be_missing):
    """Return what is wrong with a cell, None if nothing is."""
    if kind == "str" or (kind == "float32" and may_be_missing and not cell):
        return None
    try:
        value = int(cell) if kind == "int64" else float(cell)
    except ValueError:
        return "must hold a whole number" if kind == "int64" else "must hold a number"
    if kind == "int64":
        is_valid = -(2**63) <= value < 2**63
        return None if is_valid else "must hold a whole number of 64 bits"
    is_valid = np.isfinite(value) or (may_be_missing and np.isnan(value))
    return None if is_valid else "must hold a finite number"
