"""The features, labels and times in a file of impressions."""

import argparse
import contextlib
import warnings
from pathlib import Path
from typing import Any

from sk_pwiser._columns._text_cells import MISSING_WORDS
from sk_pwiser._columns._value_kinds import DATE
from sk_pwiser._command._options import read_value_tasks
from sk_pwiser._command._table_files import (
    check_columns,
    is_parquet,
    read_parquet,
    read_texts,
)
from sk_pwiser._tasks._labels import read_labels, read_words, zero_one_labels
from sk_pwiser._utils._extras import import_extra


def read(arguments: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """Return the features, labels, times and groups in a CSV or Parquet file."""
    path = arguments.data
    targets = arguments.targets
    pd = import_extra("pandas", "--data")
    if is_parquet(path):
        frame = read_parquet(path, arguments.categorical, "--data")
    else:
        frame = read_csv(arguments)
    value_names = list(read_value_tasks(arguments))
    named_columns = [*targets, *value_names, *arguments.categorical, *arguments.ignore]
    if arguments.time is not None:
        named_columns.append(arguments.time)
    if arguments.groups is not None:
        named_columns.append(arguments.groups)
    check_columns(path, frame, named_columns)
    labels, missing, _ = read_labels(frame[targets], "ignore")
    if missing is not None:
        raise ValueError(
            f"{int(missing.sum())} labels of --targets are missing. Leave these rows "
            "out, or use compare_models, with missing_labels='ignore', in Python."
        )
    words = read_words(labels.reshape(len(frame), -1))
    labels = zero_one_labels(words, targets).astype("int8")
    Y = pd.DataFrame(labels, frame.index, targets).join(frame[value_names])
    no_features = [*targets, *value_names, *arguments.ignore]
    X = frame[frame.columns.difference(no_features, sort=False)]
    groups = None
    if arguments.groups is not None:
        groups = X[arguments.groups]
        X = X.drop(columns=arguments.groups)
    elif arguments.time is None:
        arguments.time = time_of_dates(X, path)
    times = None
    if arguments.time is not None:
        times = read_dates(X[arguments.time], arguments.time)
        X = X.drop(columns=arguments.time)
    categorical = X.columns.intersection(arguments.categorical)
    X = X.astype(dict.fromkeys(categorical, "category"))
    return X, Y, times, groups


def time_of_dates(X: Any, path: Path) -> str | None:
    """Return the only column of dates in a Parquet file, None without one."""
    dates = list(X.select_dtypes(["datetime", "datetimetz"]))
    if len(dates) > 1:
        raise ValueError(
            f"{path.name} has several columns of dates, {dates}: name the one that "
            "orders the rows with --time, and the others with --ignore."
        )
    if not dates:
        return None
    (name,) = dates
    print(
        f"The dates in {name!r} order the rows, as with --time {name}; to leave them "
        f"out: --ignore {name}",
        flush=True,
    )
    return name


def read_csv(arguments: argparse.Namespace) -> Any:
    """Return the table in a CSV file: categories as text, other columns as numbers.

    A value of a category is the same text everywhere in the file, unlike with types
    that pandas guesses by parts of the file: "007", "7" and "NA" are three values.
    """
    pd = import_extra("pandas", "--data")
    targets = arguments.targets
    # The separator tells the labels apart.
    frame = read_texts(arguments.data, targets, "--data")
    no_codes = {*targets, *read_value_tasks(arguments), arguments.time}
    columns = {}
    codes = []
    for name, column in frame.items():
        is_plain = name in no_codes
        if name in arguments.categorical and not is_plain:
            columns[name] = column
            continue
        numbers = read_numbers(column)
        if numbers is not None and not is_plain and begins_with_zero(column):
            # As postcodes and account numbers do.
            codes.append(name)
            numbers = None
        if numbers is None and is_plain:
            column = column.mask(column.str.strip().isin(MISSING_WORDS))
        columns[name] = column if numbers is None else numbers
    shown_codes = [name for name in codes if name not in arguments.ignore]
    if shown_codes:
        print("Read as categories, since their numbers begin with 0:", *shown_codes)
    return pd.DataFrame(columns)


def read_numbers(column: Any) -> Any:
    """Return a column of text as numbers, or None if it holds other text."""
    pd = import_extra("pandas", "--data")
    for hides_words in (False, True):
        try:
            if hides_words:
                is_word = column.str.strip().isin(MISSING_WORDS)
                if not is_word.any() or is_word[column.notna()].all():
                    return None
                column = column.mask(is_word)
            return pd.to_numeric(column)
        except ValueError:
            continue
    return None


def begins_with_zero(column: Any) -> bool:
    """Return whether whole numbers as text have zeros in front."""
    texts = column.dropna().str.strip()
    return texts.str.fullmatch(r"\d+").all() and texts.str.match(r"0\d").any()


# The offset from UTC at the end of a date, which databases write after a space; a time
# precedes it, since the day of a date looks like one.
OFFSET = r"(:\d\d\S*?)\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$"


def read_dates(column: Any, name: str) -> Any:
    """Return the times of `--time`: numbers as such, and ISO dates as dates."""
    pd = import_extra("pandas", "--data")
    is_date = pd.api.types.is_datetime64_any_dtype(column)
    if is_date or pd.api.types.is_numeric_dtype(column):
        return column
    texts = column.dropna().astype(str)
    try:
        with warnings.catch_warnings():
            # Older pandas warns of several offsets, and returns objects.
            warnings.simplefilter("error", FutureWarning)
            times = pd.to_datetime(texts, format="ISO8601")
    except (ValueError, FutureWarning):
        times = read_offsets(texts, name)
    if times.dt.tz is not None:
        times = times.dt.tz_convert("UTC")
    return times.reindex(column.index)


def read_offsets(texts: Any, name: str) -> Any:
    """Return ISO dates of text in UTC, whose offsets differ or stand after a space."""
    pd = import_extra("pandas", "--data")
    texts = texts.str.strip()
    has_offset = texts.str.fullmatch(f".*{OFFSET}")
    # Offsets differ between winter and summer.
    texts = texts.str.replace(OFFSET, r"\1\2", regex=True)
    texts = texts.str.replace(r"(?:UTC|GMT)$", "Z", regex=True)
    try:
        # The day and the month of 04/05/2026 could be confused.
        return pd.to_datetime(texts, format="ISO8601", utc=bool(has_offset.all()))
    except ValueError as error:
        raise ValueError(
            "--time must name a column of numbers, or of dates such as 2026-04-30 "
            f"or 2026-04-30T12:00; {name!r}: {str(error).split('. ')[0]}"
        ) from error


def date_columns(X: Any) -> list[str]:
    """Return the columns of text that hold dates which `--time` can read."""
    names = []
    for name, column in X.select_dtypes(["object", "string"]).items():
        values = column.dropna()
        if not values[:1].astype(str).str.fullmatch(DATE.pattern).any():
            continue  # most columns of text
        values = values.drop_duplicates().astype(str)
        if values.str.fullmatch(DATE.pattern).all():
            with contextlib.suppress(ValueError):
                read_dates(values, name)
                names.append(name)
    return names
