"""Rows of a data set on disk, read in parts and checked."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from sk_pwiser._table._categories import factorize
from sk_pwiser._table._frames import as_table
from sk_pwiser._table._labels import (
    Targets,
    check_distinct,
    check_targets,
    choose_task_names,
)
from sk_pwiser._table._row_values import combine_weights
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import in_background, read_task_parents


class Chunk(NamedTuple):
    X: Any  # pyarrow.Table, not yet encoded
    targets: Targets
    weights: np.ndarray | None  # float64 (n_rows,) or (n_rows, n_tasks), not scaled
    groups: np.ndarray | None  # int64 (n_rows,)
    place: str  # file and row, for messages
    n_read: int  # rows including those of weight 0


@dataclass(frozen=True)
class Source:
    """The rows of a fit on files, and where they are stored when they are encoded."""

    settings: Settings
    dataset: Any
    folder: Path
    file_rows: int | None = None  # largest number of rows per stored file

    def tasks(self) -> Targets:
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

    def chunks(self) -> Iterator[Chunk]:
        """Read the rows in order, and check them."""
        dataset, settings, numbers = self.dataset, self.settings, GroupNumbers()
        tables = dataset.iter_tables(dataset._used_columns())
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
            yield _with_weight(Chunk(X, targets, weights, groups, place, len(X)))


@contextmanager
def named_place(place):
    """Add the file and row to the message of an error."""
    try:
        yield
    except (TypeError, ValueError) as error:
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


def _with_weight(chunk):
    if chunk.weights is None:
        return chunk
    is_kept = chunk.weights.reshape(len(chunk.weights), -1).any(axis=1)
    if is_kept.all():
        return chunk
    kept = np.flatnonzero(is_kept)
    return chunk._replace(
        X=chunk.X.take(kept),
        targets=chunk.targets.at(kept),
        weights=chunk.weights[kept],
        groups=None if chunk.groups is None else chunk.groups[kept],
    )


class GroupNumbers:
    """Numbers groups in the order of their rows; again after a part without them."""

    def __init__(self):
        self.known = {}
        self.n_groups = 0

    def of(self, frame):
        name = frame.columns[0]
        indices, values = factorize(frame[name])
        if (indices < 0).any():
            raise ValueError(
                f"groups must not be missing; column {name!r} has no value in row "
                f"{int(np.argmax(indices < 0))}."
            )
        new = count(self.n_groups)
        self.known = {
            value: self.known[value] if value in self.known else next(new)
            for value in values
        }
        self.n_groups = next(new)
        return np.array(list(self.known.values()), dtype=np.int64)[indices]


class RowSample:
    """A random sample of `n_rows` rows: those with the smallest random keys."""

    def __init__(self, n_rows, generator):
        self.n_rows = n_rows
        self.generator = generator
        self.limit = np.inf  # rows with larger keys are not in the sample
        self.tables, self.weights, self.keys = [], [], []
        self.n_kept = 0

    def add(self, table, weights):
        keys = self.generator.random(len(table))
        weights = np.ones(len(table)) if weights is None else weights
        if np.isfinite(self.limit):
            kept = np.flatnonzero(keys < self.limit)
            table, keys, weights = table.take(kept), keys[kept], weights[kept]
        if not len(keys):
            return
        self.tables.append(table)
        self.weights.append(weights)
        self.keys.append(keys)
        self.n_kept += len(keys)
        if self.n_kept > 2 * self.n_rows:
            self._reduce()

    def _reduce(self):
        """Keep the smallest keys, in the order of the rows."""
        keys = np.concatenate(self.keys)
        chosen = np.sort(np.argpartition(keys, self.n_rows)[: self.n_rows])
        table, weights = self._join()
        self.tables, self.keys = [table.take(chosen)], [keys[chosen]]
        self.weights = [weights[chosen]]
        self.limit, self.n_kept = keys[chosen].max(), len(chosen)

    def _join(self):
        import pyarrow as pa  # installed, since the tables are its own

        table = pa.concat_tables(self.tables).combine_chunks()
        # Some of the parts may have weights per task.
        n_columns = max(part[0].size for part in self.weights)
        parts = [
            np.broadcast_to(part.reshape(len(part), -1), (len(part), n_columns))
            for part in self.weights
        ]
        return table, np.concatenate(parts)

    def finish(self):
        if self.n_kept > self.n_rows:
            self._reduce()
        return self._join()


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
