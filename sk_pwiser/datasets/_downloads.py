"""Helpers to find, read and check downloaded files."""

import csv
import io
import warnings
import zipfile
from pathlib import Path

import numpy as np


def find_file(folder, name, *, inside, download):
    file = find_first(folder, [name, f"{inside}/{name}"])
    if file is None:
        raise FileNotFoundError(
            f"{name!r} is neither in {str(folder)!r} nor in its subfolder {inside!r}. "
            f"{download}"
        )
    return file


def find_first(path, candidates):
    folder = Path(path).expanduser()
    return next((folder / c for c in candidates if (folder / c).is_file()), None)


def find_part(path, processed, raw, download):
    """Return the processed file of a part, or all of the publisher's, by candidates."""
    if file := find_first(path, processed):
        return [file]
    files = [find_first(path, candidates) for candidates in raw]
    if None in files:
        missing = Path(raw[files.index(None)][0]).name
        raise FileNotFoundError(
            f"Neither {processed[0]} nor {missing} is in {str(path)!r} or its usual "
            f"subfolders. {download}"
        )
    return files


def warn_unclicked(target, user):
    """Count the rows with a conversion but no click, and warn if there are any."""
    n_unclicked = int((target["conversion"] > target["click"]).sum())
    if n_unclicked:
        # The frames of the loader and of `validate_params` come before the user's.
        warnings.warn(
            f"{user}: {n_unclicked} rows have a conversion and no click. They are kept "
            "with these labels.",
            UserWarning,
            stacklevel=4,
        )
    return n_unclicked


def check_columns(frame, columns, source):
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(f"{source} lacks the column(s) {missing}.")


def read_csv(
    pandas, file, dtypes, *, has_header=True, may_be_missing=False, n_rows=None
):
    """Read columns of given types from a csv file, or from a zip file with one."""
    names, options = list(dtypes), {"header": None, "names": list(dtypes)}
    if has_header:
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
        fault = _first_fault(file, types, has_header, may_be_missing)
        raise ValueError(fault or f"{file}: {error}") from error
    floats = [] if may_be_missing else [n for n in names if types[n] == "float32"]
    # A line with too many fields may turn the first column into an index.
    is_whole = isinstance(rows.index, pandas.RangeIndex)
    if not (is_whole and all(np.isfinite(rows[name]).all() for name in floats)):
        raise ValueError(_first_fault(file, types, has_header, may_be_missing))
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


def _first_fault(file, types, has_header, may_be_missing):
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
                if fault := _fault(cell, kind, may_be_missing):
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
