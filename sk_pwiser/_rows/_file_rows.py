"""Rows of files that may be larger than memory: read in parts, and checked."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sk_pwiser._columns._encoding_params import check_encoding_params
from sk_pwiser._columns._frames import as_table
from sk_pwiser._rows import _row_summary
from sk_pwiser._rows._checked_rows import CheckedRows, named_place
from sk_pwiser._rows._file_store import FEWEST_FILE_ROWS, FileStore
from sk_pwiser._rows._group_numbers import GroupNumbers
from sk_pwiser._rows._protocol import RowEncoder, Rows
from sk_pwiser._rows._stored_rows import FILE_ROWS, StoredRows
from sk_pwiser._rows._streamed_rows import StreamedImpressions
from sk_pwiser._rows._task_weights import check_task_weights
from sk_pwiser._settings import Settings, left_out_column
from sk_pwiser._tasks import _labels, _weights
from sk_pwiser._tasks._amounts import check_value_tasks, find_columns, find_values
from sk_pwiser._tasks._implied_labels import ImpliedCounts
from sk_pwiser._tasks._tree import read_task_parents
from sk_pwiser._utils._threads import in_background
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.losses import MultiTaskLoss


class FileRows:
    """The rows of a data set on disk, in parts that are checked when they are read."""

    stays_in_memory = False

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
        targets = list(dataset.targets)
        check_value_tasks(settings.value_tasks)
        names_of_values = find_columns(
            settings.value_tasks or {}, len(targets), targets
        )
        columns = [
            name for place, name in enumerate(targets) if place not in names_of_values
        ]
        task_names = settings.task_names
        names = _labels.choose_task_names(len(columns), task_names, columns, None)
        classes = np.array([0, 1])
        if len(names) > 1:
            classes = np.tile(classes, (len(names), 1))
        parents = read_task_parents(settings.task_parents, names)
        values = np.empty((0, len(names)), dtype=np.float32)
        value_names = tuple(names_of_values.values())
        self.tasks = _labels.Targets(
            values,
            classes,
            names,
            parents=parents,
            learnt_values=find_values(settings.value_tasks, value_names, names),
        )
        self.n_rows = dataset.n_rows_  # filters may select fewer
        self.sample_rows = dataset.sample_rows
        self.max_values = dataset.max_values
        self.has_groups = dataset.groups is not None
        self.has_task_weights: bool = isinstance(dataset.sample_weight, list)
        self.summary = _row_summary.RowSummary()
        # Of which tasks missing labels that others imply are learnt; by all rows.
        self._learnt_tasks: np.ndarray | None = None

    def again(self) -> "FileRows":
        """Return the same rows for another fit, which reads and counts them anew."""
        return FileRows(
            self.settings, self.dataset, self.folder, self.n_files, self.origin
        )

    def parts(self, label: str) -> Iterator[CheckedRows]:
        """Read the rows in order, and check them; `label` is what is done with them."""
        dataset = self.dataset
        settings = self.settings
        group_numbers = GroupNumbers()
        tables = dataset.iter_tables(dataset._used_columns())
        # 0 in the first pass.
        n_rows_with_weight = self.summary.n_rows
        n_read = 0
        n_with_weight = 0
        n_without_label = 0
        learnt_tasks = self._find_learnt_tasks()
        total = n_rows_with_weight or dataset.n_rows_
        shows = bool(settings.verbose and label)
        for table, place in in_background(tables):
            with named_place(place):
                targets = self._read_targets(table, learnt_tasks)
                n_without_label += _weights.n_unlabelled(targets)
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
                    groups = group_numbers.of(as_table(table.select([dataset.groups])))
            X = table.select(dataset.features)
            rows = CheckedRows(
                X=X, targets=targets, weights=weights, groups=groups, place=place
            ).with_weight()
            if len(rows):
                yield rows
            n_with_weight += len(rows)
            n_read += len(rows) if n_rows_with_weight else len(table)
            if shows and sys.stderr.isatty():
                show_progress(label, n_read, total)
        if shows:
            show_progress(label, n_read, total, end="\n")
        if not n_rows_with_weight:
            warn_about_corrupt(dataset, "are left out")
            _weights.warn_about_left_out(n_without_label, n_read, self.origin)
        if not n_with_weight:
            missing = "weights above 0" if dataset.sample_weight else "rows"
            raise ValueError(f"{dataset!r} has no {missing} that its filters select.")

    def _read_targets(
        self, table: Any, learnt_tasks: np.ndarray | None
    ) -> _labels.Targets:
        """Check the labels of a table of a part."""
        settings = self.settings
        targets: _labels.Targets = _labels.check_targets(
            as_table(table.select(self.dataset.targets)),
            settings.task_names,
            classes=[0, 1] if len(self.tasks.task_names) == 1 else None,
            missing_labels=settings.missing_labels,
            task_parents=settings.task_parents,
            value_tasks=settings.value_tasks,
            learnt_tasks=learnt_tasks,
        )
        return targets

    def _find_learnt_tasks(self) -> np.ndarray | None:
        """Return of which tasks implied labels are learnt; that is up to all rows."""
        if self.settings.missing_labels == "error" or max(self.tasks.parents) < 0:
            return None  # none are missing, or implied
        if self._learnt_tasks is None:
            n_tasks = len(self.tasks.task_names)
            counts = ImpliedCounts(n_tasks)
            unfilled = np.zeros(n_tasks, dtype=bool)
            for table, place in self.dataset.iter_tables(list(self.dataset.targets)):
                with named_place(place):
                    targets = self._read_targets(table, unfilled)
                counts.add(targets.values, targets.missing, targets.parents)
            self._learnt_tasks = counts.learnt_tasks()
        return self._learnt_tasks

    def feature_names(self, default: Sequence[Any]) -> Sequence[Any]:
        """Return the names of the columns, `default` if they have none."""
        return list(self.dataset.features)

    def check_features(
        self, eval_rows: Mapping[str, Rows], schema: RowEncoder | None
    ) -> None:
        """Raise if rows lack features of the earlier fit or of the training rows."""
        names = list(self.dataset.features)
        if schema is not None:
            names = list(getattr(schema.encoder, "feature_names_in_", ()))
        self._refuse_absent(self, names, self.dataset.features)
        # The times order training rows alone.
        needed = [name for name in names if name != left_out_column(self.settings)]
        for rows in eval_rows.values():
            self._refuse_absent(rows, needed, rows.feature_names(names))

    @staticmethod
    def _refuse_absent(
        rows: Rows, names: Sequence[Any], columns: Sequence[Any]
    ) -> None:
        absent = [name for name in names if name not in set(columns)]
        if absent:
            raise ValueError(
                f"In {rows.origin}: features of training are absent: {absent}."
            )

    def eval_rows(self, dataset: Any) -> "FileRows":
        """Return the rows of a data set on which training on these is validated."""
        targets = self.dataset.targets
        if dataset.targets != targets or dataset.sample_weight is not None:
            raise ValueError(
                f"In eval_set: targets and sample_weight must be {targets}, as in the "
                f"training rows, and None; got {dataset.targets} and "
                f"{dataset.sample_weight!r}."
            )
        return FileRows(self.settings, dataset, self.folder, origin="eval_set")

    def value_of_group(self, number: int) -> Any:
        """Return None: only the groups of a part are in memory."""
        return None

    def new_store(self) -> FileStore:
        """Return an empty store of encoded rows, without those of an earlier pass."""
        file_rows = None
        if self.n_files is not None:
            rows_of_each = max(FEWEST_FILE_ROWS, self.summary.n_rows // self.n_files)
            file_rows = min(FILE_ROWS, rows_of_each)
        return FileStore(
            self.folder,
            file_rows=file_rows,
            part_rows=self.dataset.shuffle_rows,
            validation_fraction=self.settings.validation_fraction,
        )

    def encode(self, schema: RowEncoder, loss: MultiTaskLoss) -> StreamedImpressions:
        """Encode and store validation rows, on which `loss` is measured."""
        store = StoredRows(self.folder / "eval")
        for rows in self.parts(""):
            weights = None
            # There are weights only if labels are missing.
            if rows.weights is not None:
                check_task_weights(loss)
                weights = rows.weights.astype(np.float32)
            with named_place(rows.place):
                encoded = schema.transform(rows.X, as_shown=True)
            encoded = encoded.labelled(
                rows.targets.values, weights, rows.groups, rows.targets.amounts
            )
            store.add(encoded, np.arange(len(rows)))
        store.flush()
        return StreamedImpressions(store, schema, None, self.dataset.shuffle_rows)

    def release(self) -> None:
        """Do nothing: the rows are read from their files."""


def warn_about_corrupt(dataset, consequence):
    if dataset.corrupt_:
        warn_user(
            f"{len(dataset.corrupt_)} files or row groups cannot be read and "
            f"{consequence}, the first of them {dataset.corrupt_[0]}."
        )


def show_progress(label: str, n_rows: int, total: int, end: str = "") -> None:
    """Write the number of rows to a line of stderr, in a terminal to the same one."""
    start = "\r" if sys.stderr.isatty() else ""
    sys.stderr.write(f"{start}{label}: {n_rows:,} of {total:,} rows{end}")
    sys.stderr.flush()
