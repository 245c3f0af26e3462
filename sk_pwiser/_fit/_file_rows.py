"""Rows of files that may be larger than memory: read in parts, checked, and learnt."""

import sys
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from sk_pwiser._columns._base import TableCells
from sk_pwiser._columns._column_warnings import warn_about_constants
from sk_pwiser._columns._encoder import learn_constant_columns
from sk_pwiser._columns._encoding_params import check_encoding_params
from sk_pwiser._columns._factorize import factorize
from sk_pwiser._columns._frames import as_table, list_columns
from sk_pwiser._rows import _row_summary
from sk_pwiser._rows._checked_rows import CheckedRows, named_place
from sk_pwiser._rows._row_sample import RowSample
from sk_pwiser._settings import Settings, left_out_column
from sk_pwiser._tasks import _labels, _weights
from sk_pwiser._tasks._amounts import find_values
from sk_pwiser._tasks._tree import read_task_parents
from sk_pwiser._training._schema import Schema
from sk_pwiser._utils._threads import in_background
from sk_pwiser._utils._warnings import warn_user


class FileRows:
    """The rows of a data set on disk, in parts that are checked when they are read."""

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
        check_encoding_params(settings.encoding_params)
        if settings.checkpoint_dir is not None:
            raise ValueError(
                "checkpoint_dir must be None for a dataset that is read in parts; got "
                f"{str(settings.checkpoint_dir)!r}."
            )
        self.settings = settings
        self.dataset = dataset
        self.folder = folder  # of the encoded rows
        self.n_files = n_files  # smallest number of stored files
        self.origin = origin
        # The tasks of the rows, without labels and before any row is read.
        value_columns = list(settings.value_tasks or {})
        columns = [name for name in dataset.targets if name not in value_columns]
        task_names = settings.task_names
        names = _labels.choose_task_names(len(columns), task_names, columns, None)
        classes = np.array([0, 1])
        if len(names) > 1:
            classes = np.tile(classes, (len(names), 1))
        parents = read_task_parents(settings.task_parents, names)
        values = np.empty((0, len(names)), dtype=np.float32)
        value_names = tuple(name for name in value_columns if name in dataset.targets)
        self.tasks = _labels.Targets(
            values,
            classes,
            names,
            parents=parents,
            learnt_values=find_values(settings.value_tasks, value_names, names),
        )
        self.n_rows = dataset.n_rows_  # filters may select fewer
        self.sample_rows = dataset.sample_rows
        self.has_groups = dataset.groups is not None
        self.has_task_weights: bool = isinstance(dataset.sample_weight, list)
        self.summary = _row_summary.RowSummary()

    def again(self) -> "FileRows":
        """Return the same rows for another fit, which reads and counts them anew."""
        return FileRows(
            self.settings, self.dataset, self.folder, self.n_files, self.origin
        )

    def parts(self, label: str) -> Iterator[CheckedRows]:
        """Read the rows in order, and check them; `label` is what is done with them."""
        dataset, settings, numbers = self.dataset, self.settings, GroupNumbers()
        tables = dataset.iter_tables(dataset._used_columns())
        # None are known in the first pass.
        n_known, n_read, n_kept = self.summary.n_rows, 0, 0
        total = n_known or dataset.n_rows_
        shows = bool(settings.verbose and label)
        for table, place in in_background(tables):
            with named_place(place):
                targets = _labels.check_targets(
                    as_table(table.select(dataset.targets)),
                    settings.task_names,
                    classes=[0, 1] if len(self.tasks.task_names) == 1 else None,
                    missing_labels=settings.missing_labels,
                    task_parents=settings.task_parents,
                    value_tasks=settings.value_tasks,
                )
                weights: Any = None
                if dataset.sample_weight is not None:
                    columns = table.select(dataset._weight_columns).columns
                    weights = [c.to_numpy(zero_copy_only=False) for c in columns]
                    several = self.has_task_weights
                    weights = np.column_stack(weights) if several else weights[0]
                targets, weights = _weights.combine_weights(
                    targets, weights, is_part=True
                )
                groups = None
                if dataset.groups is not None:
                    groups = numbers.of(as_table(table.select([dataset.groups])))
            X = table.select(dataset.features)
            rows = CheckedRows(X, targets, weights, groups, place).with_weight()
            if len(rows):
                yield rows
            n_kept += len(rows)
            n_read += len(rows) if n_known else len(table)
            if shows and sys.stderr.isatty():
                show_progress(label, n_read, total)
        if shows:
            show_progress(label, n_read, total, end="\n")
        if not n_known:
            warn_about_corrupt(dataset, "are left out")
        if not n_kept:
            what = "weights above 0" if dataset.sample_weight else "rows"
            raise ValueError(f"{dataset!r} has no {what} that its filters select.")

    def check_features(
        self, eval_rows: Mapping[str, Any], earlier: Schema | None
    ) -> None:
        """Raise if rows lack features of the earlier fit or of the training rows."""
        names = self.dataset.features
        if earlier is not None:
            names = list(getattr(earlier.encoder, "feature_names_in_", ()))
        for rows in (self, *eval_rows.values()):
            if isinstance(rows, FileRows):
                columns = rows.dataset.features
            else:
                columns = list(getattr(rows.rows.X, "columns", names))
            # The times order training rows alone.
            others = columns if rows is self else [left_out_column(self.settings)]
            absent = [name for name in names if name not in {*columns, *others}]
            if absent:
                raise ValueError(
                    f"In {rows.origin}: features of training are absent: {absent}."
                )


def warn_about_corrupt(dataset, consequence):
    if dataset.corrupt_:
        warn_user(
            f"{len(dataset.corrupt_)} files or row groups cannot be read and "
            f"{consequence}, the first of them {dataset.corrupt_[0]}."
        )


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
            self.apart = f"{name}={values[indices[np.delete(starts, firsts)[0]]]!r}"
        if self.apart is not None and self.n_parts > 1:
            raise ValueError(
                f"The rows of a group must be consecutive; those with {self.apart} are "
                "not. Sort the files by this column, or leave out groups."
            )
        new = count(self.n_groups)
        # Only the groups of this part are kept: those that come back get new numbers.
        self.known = {
            value: self.known[value] if value in self.known else next(new)
            for value in values
        }
        self.n_groups = next(new)
        return np.array(list(self.known.values()), dtype=np.int64)[indices]


def show_progress(label: str, n_rows: int, total: int, end: str = "") -> None:
    """Write the number of rows to a line of stderr, in a terminal to the same one."""
    start = "\r" if sys.stderr.isatty() else ""
    sys.stderr.write(f"{start}{label}: {n_rows:,} of {total:,} rows{end}")
    sys.stderr.flush()


class TableLearner:
    """Learns the columns of rows in parts, numbers from a sample of the rows.

    With a fitted encoder, which is not `new`, it learns only the columns that were
    constant so far.
    """

    def __init__(self, encoder, dataset, generator, new=True):
        self.encoder = encoder
        self.new = new
        self.max_values = dataset.max_values
        self.sample = RowSample(dataset.sample_rows, generator)
        self.learners = None  # by column

    def add(self, X, weights):
        if not self.new:
            if any(column.has_constant for column in self.encoder.columns_):
                self.sample.add(X, weights)
            return
        if self.learners is None:
            self.encoder.begin(X)
            columns = self.encoder.columns_
            self.sampled = [column for column in columns if column.needs_sample]
            self.learners = {
                column.name: column.part_learner(self.max_values) for column in columns
            }
        table = TableCells(X, self.encoder.columns_, list_columns(as_table(X)))
        for column in self.encoder.columns_:
            column.check_cells(table)
        for learner in self.learners.values():
            learner.add(table)
        names = [column.name for column in self.sampled]
        self.sample.add(X.select(names), weights)

    def finish(self):
        """Return the encoder when all rows were added."""
        encoder = self.encoder
        if not self.sample.n_kept:  # none of the columns were constant
            return encoder
        table, weights = self.sample.finish()
        weights = _weights.scale_weights(weights)
        weights = _weights.row_weights(weights)
        if not self.new:
            return learn_constant_columns(encoder, table, weights)
        cells = list_columns(as_table(table)) if self.sampled else []
        sample = TableCells(table, self.sampled, cells)
        for learner in self.learners.values():
            learner.finish(sample, weights)
        encoder.warn_about_columns(sample)
        warn_about_constants(encoder.columns_)
        dropped = {name: each.max_dropped for name, each in self.learners.items()}
        found = [f"{name!r} ({n_rows})" for name, n_rows in dropped.items() if n_rows]
        if found:
            warn_user(
                f"Columns with more than max_values={self.max_values} values: "
                f"{', '.join(found)}. In brackets: rows that a count may lack. "
                "n_hash_buckets in encoding_params gives each value a vector."
            )
        return encoder
