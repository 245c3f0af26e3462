"""Helpers to find, read and check downloaded files."""

import csv
import io
import os
import zipfile
from pathlib import Path

import numpy as np
from sklearn.utils._param_validation import StrOptions

from sk_pwiser._utils import warn_user

# Constraints of the parameters that all loaders have.
PARAMETERS = {
    "path": [str, os.PathLike],
    "subset": [StrOptions({"all", "train", "test"})],
}


def find_files(path, *forms, download):
    """Return the files of the first form that is complete.

    A form is a list of files, and each file a list of names to look for.
    """
    folder, missing = Path(path).expanduser(), []
    for form in forms:
        files = [
            next((folder / name for name in names if (folder / name).is_file()), None)
            for names in form
        ]
        if None not in files:
            return files
        missing.append(form[files.index(None)][0])
    raise FileNotFoundError(
        f"There is no {' and no '.join(missing)} in {str(path)!r} or its usual "
        f"subfolders. {download}"
    )


def warn_unclicked(target, user):
    """Count the rows with a conversion but no click, and warn if there are any."""
    n_unclicked = int((target["conversion"] > target["click"]).sum())
    if n_unclicked:
        warn_user(
            f"{user}: {n_unclicked} rows have a conversion and no click. They are kept "
            "with these labels."
        )
    return n_unclicked


def check_columns(frame, columns, source):
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(f"{source} lacks the column(s) {missing}.")


def read_csv(pandas, file, dtypes, *, has_header=True, n_rows=None):
    """Read columns from a csv file, or from a zip file that contains one.

    Numbers may be missing only if the file has no header.
    """
    names, options = list(dtypes), {"header": None, "names": list(dtypes)}
    if has_header:
        # The header first, so that a missing column is named before any row is read.
        header = pandas.read_csv(file, nrows=0)
        check_columns(header, names, file)
        names, options = list(header.columns), {}
    types = {name: dtypes.get(name, "str") for name in names}
    try:
        # Not with `usecols`, for which pandas accepts lines with too many fields.
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
        # pandas names neither the line nor the column, so a second pass looks for them.
        fault = _first_fault(file, types, has_header)
        raise ValueError(fault or f"{file}: {error}") from error
    floats = [name for name in names if has_header and types[name] == "float32"]
    # A line with too many fields may turn the first column into an index.
    is_whole = isinstance(rows.index, pandas.RangeIndex)
    if not (is_whole and all(np.isfinite(rows[name]).all() for name in floats)):
        raise ValueError(_first_fault(file, types, has_header))
    return rows[list(dtypes)]


def check_flags(rows, columns, file, *, n_header_lines=1, values=(0, 1)):
    """Raise an error that names the first line or row with a value not in `values`."""
    for name in columns:
        wrong = ~rows[name].isin(values).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            place = f"row {row}"
            if n_header_lines is not None:
                place = f"line {row + 1 + n_header_lines}"
            raise ValueError(
                f"{file}, {place}: column {name!r} must contain "
                f"{' or '.join(map(str, values))}, found {rows[name].iloc[row]!r} (in "
                f"{int(wrong.sum())} row(s))."
            )


def open_text(file):
    if file.suffix != ".zip":
        return open(file, encoding="utf-8", newline="")
    archive = zipfile.ZipFile(file)
    return io.TextIOWrapper(archive.open(archive.namelist()[0]), "utf-8", newline="")


def _first_fault(file, types, has_header):
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
                if fault := _fault(cell, kind, may_be_missing=not has_header):
                    return f"{place}: column {name!r} {fault}, found {cell!r}."
    return None


def _fault(cell, kind, may_be_missing):
    if kind == "str" or (kind == "float32" and may_be_missing and not cell):
        return None
    try:
        value = int(cell) if kind == "int64" else float(cell)
    except ValueError:
        return f"must contain a {'whole ' if kind == 'int64' else ''}number"
    if kind == "int64":
        is_valid = -(2**63) <= value < 2**63
        return None if is_valid else "must contain a whole number of 64 bits"
    is_valid = np.isfinite(value) or (may_be_missing and np.isnan(value))
    return None if is_valid else "must contain a finite number"
