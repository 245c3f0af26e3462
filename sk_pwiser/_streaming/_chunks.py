"""Rows of a data set on disk, read in parts and checked."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from sk_pwiser._table._categories import factorize
from sk_pwiser._table._frames import as_table
from sk_pwiser._table._labels import (
    Targets,
    check_distinct,
    check_targets,
    choose_task_names,
)
from sk_pwiser._table._weights_and_groups import RowSummary, combine_weights
from sk_pwiser._training._schema import Rows, Schema
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import in_background, read_task_parents, warn_user


class FileRows:
    """The rows of a data set on disk, in parts that are checked when they are read."""

    has_task_weights: bool

    def __init__(
        self,
        settings: Settings,
        dataset: Any,
        folder: Path,
        n_files: int | None = None,
        origin: str = "the training rows",
    ) -> None:
        if not dataset.targets:
            raise ValueError("targets of the dataset is empty; fit needs labels.")
        self.settings = settings
        self.dataset = dataset
        self.folder = folder  # of the encoded rows
        self.n_files = n_files  # smallest number of stored files
        self.origin = origin
        self.tasks = self._tasks()
        self.n_rows = dataset.n_rows_  # filters may select fewer
        self.sample_rows = dataset.sample_rows
        self.has_groups = dataset.groups is not None
        self.has_task_weights = isinstance(dataset.sample_weight, list)
        self.summary = RowSummary()

    def _tasks(self) -> Targets:
        """Return the tasks of the rows, without labels and before any row is read."""
        columns, task_names = self.dataset.targets, self.settings.task_names
        check_distinct("task_names", task_names)
        names = choose_task_names(len(columns), task_names, columns, None)
        classes = np.array([0, 1])
        if len(names) > 1:
            classes = np.tile(classes, (len(names), 1))
        parents = read_task_parents(self.settings.task_parents, names)
        values = np.empty((0, len(names)), dtype=np.float32)
        return Targets(values, classes, names, parents=parents)

    def parts(self, label: str) -> Iterator[Rows]:
        """Read the rows in order, and check them; `label` is what is done with them."""
        dataset, settings, numbers = self.dataset, self.settings, GroupNumbers()
        tables = dataset.iter_tables(dataset._used_columns())
        n_known = self.summary.n_rows  # 0 in the first pass
        verbose = settings.verbose if label else 0
        progress = RowProgress(label, n_known or dataset.n_rows_, verbose)
        for table, place in in_background(tables):
            with named_place(place):
                targets = check_targets(
                    as_table(table.select(dataset.targets)),
                    settings.task_names,
                    classes=[0, 1] if len(dataset.targets) == 1 else None,
                    missing_labels=settings.missing_labels,
                    task_parents=settings.task_parents,
                )
                weights = _read_weights(table, dataset)
                targets, weights = combine_weights(targets, weights, is_part=True)
                groups = None
                if dataset.groups is not None:
                    groups = numbers.of(as_table(table.select([dataset.groups])))
            X = table.select(dataset.features)
            rows = Rows(X, targets, weights, groups, place).with_weight()
            if len(rows):
                yield rows
            progress(len(rows) if n_known else len(table))
        progress.close()  # filters may select fewer rows than the files have

    def check_features(
        self, eval_rows: Mapping[str, Any], earlier: Schema | None
    ) -> None:
        """Raise if rows lack features of the earlier fit or of the training rows."""
        names = self.dataset.features
        found, n_features = [("", "the dataset", names)], len(names)
        for rows in eval_rows.values():
            if isinstance(rows, FileRows):
                found.append(
                    (f"In {rows.origin}: ", "the dataset", rows.dataset.features)
                )
                continue
            columns = list(getattr(rows.rows.X, "columns", ()))
            if columns and all(isinstance(column, str) for column in columns):
                found.append((f"In {rows.origin}: ", "X", columns))
        if earlier is not None:
            names = list(getattr(earlier.encoder, "feature_names_in_", ()))
            n_features = earlier.encoder.n_features_in_
        for where, what, columns in found:
            absent = [name for name in names if name not in columns]
            # The times order training rows alone.
            if where and self.settings.left_out_column in absent:
                absent.remove(self.settings.left_out_column)
            if absent:
                raise ValueError(
                    f"{where}Training uses features that {what} lacks: {absent}."
                )
            if not names and len(columns) != n_features:
                raise ValueError(
                    f"{where}Training uses {n_features} features; {what} has "
                    f"{len(columns)}."
                )

    def check_rows_left(self, n_rows: int) -> None:
        """Raise if no rows were read; warn about files that cannot be read."""
        dataset = self.dataset
        if dataset.corrupt_:
            warn_user(
                f"{len(dataset.corrupt_)} files or row groups cannot be read and are "
                f"left out, the first of them {dataset.corrupt_[0]}."
            )
        if not n_rows:
            what = "weights above 0" if dataset.sample_weight else "rows"
            raise ValueError(f"{dataset!r} has no {what} that its filters select.")


@contextmanager
def named_place(place):
    """Add the file and row of a part to the message of an error."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if place is None:
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"In {place}: {error}") from error


def _read_weights(table, dataset):
    columns = [
        table[name].to_numpy(zero_copy_only=False) for name in dataset._weight_columns()
    ]
    if not columns:
        return None
    is_one = isinstance(dataset.sample_weight, str)
    return columns[0] if is_one else np.column_stack(columns)


class GroupNumbers:
    """Numbers groups in the order of their rows; again after a part without them."""

    def __init__(self):
        self.known = {}
        self.n_groups = self.n_parts = 0
        self.apart = None  # the first group found whose rows are not consecutive

    def of(self, frame):
        name = frame.columns[0]
        indices, values = factorize(frame[name])
        if (indices < 0).any():
            raise ValueError(
                f"groups must not be missing; column {name!r} has no value in row "
                f"{int(np.argmax(indices < 0))}."
            )
        # In one part, they may come in any order, as in a table.
        self.n_parts += 1
        starts = np.append(0, np.flatnonzero(np.diff(indices)) + 1)
        if self.apart is None and len(starts) > len(values):
            _, firsts = np.unique(indices[starts], return_index=True)
            again = np.delete(starts, firsts)[0]
            self.apart = f"{name}={values[indices[again]]!r}"
        if self.apart is not None and self.n_parts > 1:
            raise ValueError(
                f"The rows of a group must be consecutive; those with {self.apart} are "
                "not. Sort the files by this column, and make its values unique over "
                "the files, or leave out groups."
            )
        new = count(self.n_groups)
        # Only the groups of this part are kept: those that come back get new numbers.
        self.known = {
            value: self.known[value] if value in self.known else next(new)
            for value in values
        }
        self.n_groups = next(new)
        return np.array(list(self.known.values()), dtype=np.int64)[indices]


# Seconds between two updates of the line.
INTERVAL = 1.0


class RowProgress:
    """Counts rows on a line of the standard error stream; in a file only at the end."""

    def __init__(self, label: str, total: int, verbose: int) -> None:
        self.label = label
        self.total = total
        self.verbose = verbose
        self.n_rows = 0
        self.shown_at = 0.0

    def __call__(self, n_rows: int) -> None:
        """Add rows, and end the line after the last one."""
        self.n_rows += n_rows
        if self.n_rows >= self.total:
            self.close()
        elif monotonic() - self.shown_at >= INTERVAL and sys.stderr.isatty():
            self._show("")

    def close(self) -> None:
        if self.n_rows:
            self._show("\n")
        self.n_rows = 0

    def _show(self, end: str) -> None:
        if self.verbose:
            start = "\r" if sys.stderr.isatty() else ""
            text = f"{self.label}: {self.n_rows:,} of {self.total:,} rows"
            sys.stderr.write(start + text + end)
            sys.stderr.flush()
            self.shown_at = monotonic()
