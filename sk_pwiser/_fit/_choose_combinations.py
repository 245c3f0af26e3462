"""Combinations of columns: those that the user names, or that a scan of rows finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sk_pwiser._columns._base import Column, EncodedColumn, TableCells
from sk_pwiser._columns._combination import CombinationColumn, bin_edges, bins_of
from sk_pwiser._columns._combination_scan import MOST_TAKEN, ScanRows, find_pairs
from sk_pwiser._columns._encoder import EncodedTable, TableEncoder
from sk_pwiser._columns._frames import as_table, check_among, find_column, list_columns
from sk_pwiser._rows._checked_rows import CheckedRows, named_place
from sk_pwiser._rows._protocol import Rows
from sk_pwiser._rows._row_sample import RowSample
from sk_pwiser._rows._row_units import MOST_EQUAL_ROWS, equal_row_units, row_hashes
from sk_pwiser._settings import Settings
from sk_pwiser._times import row_times
from sk_pwiser._training._schema import task_labels

# Rows that are scanned, and the fewest that tell an effect from chance.
MOST_SCANNED = 50_000
FEWEST_SCANNED = 300
# The random state of a fit is left alone: without combinations, all is as before.
SEED = 0


@dataclass(frozen=True, kw_only=True)
class ScannedRows:
    """What a scan reads of rows beside their columns."""

    labels: np.ndarray  # (n_samples, n_tasks)
    weights: np.ndarray  # of the labels
    groups: np.ndarray | None
    times: np.ndarray | None  # None if times do not order the rows

    def sample(self) -> np.ndarray:
        """Return the indices of a sample of the rows, in the order of time if any."""
        n_rows = len(self.labels)
        chosen = np.arange(n_rows)
        if n_rows > MOST_SCANNED:
            generator = np.random.default_rng(SEED)
            chosen = np.sort(generator.choice(n_rows, MOST_SCANNED, replace=False))
        if self.times is not None:
            chosen = chosen[np.argsort(self.times[chosen], kind="stable")]
        return chosen


def choose_of_table(
    settings: Settings, encoder: TableEncoder, encoded: EncodedTable, rows: CheckedRows
) -> list[CombinationColumn]:
    """Return unfitted combinations of the columns of a table that were learnt of it."""
    if not _may_combine(settings, encoder):
        return []
    table = encoder.read(encoded.X)
    labels, weights = _weighted_labels(settings, rows)
    time_column = settings.encoding_params["time_column"]
    times = None if time_column is None else row_times(table.X, time_column)
    scanned = ScannedRows(
        labels=labels, weights=weights, groups=rows.groups, times=times
    )
    return choose(settings, encoder, table, encoded.columns, scanned)


def choose(
    settings: Settings,
    encoder: TableEncoder,
    table: TableCells,
    encoded: Sequence[EncodedColumn],
    rows: ScannedRows,
) -> list[CombinationColumn]:
    """Return unfitted combinations: those that are named, or those of a scan."""
    chosen = settings.encoding_params["combinations"]
    if isinstance(chosen, list):
        return _named(settings, encoder, table)
    n_columns = sum(column.is_combinable for column in encoder.columns_)
    if chosen is None or len(rows.labels) < FEWEST_SCANNED or n_columns < 2:
        return []
    return _scan(settings, encoder, table, encoded, rows)


class CombinationsOfParts:
    """Chooses combinations by a sample of rows in parts, and learns them of all."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Labels and what else is read of the rows are the weights of this sample.
        self.sample = RowSample(MOST_SCANNED, np.random.default_rng(SEED))
        self.n_rows = 0
        self.has_groups = False

    def add(self, rows: CheckedRows, times: np.ndarray | None) -> None:
        """Add the next rows of the first pass."""
        if self.settings.encoding_params["combinations"] is None:
            return
        labels, weights = _weighted_labels(self.settings, rows)
        self.has_groups = rows.groups is not None
        beside = np.zeros((len(rows), 2))
        if rows.groups is not None:
            beside[:, 0] = rows.groups
        # Without times, the order of the rows.
        beside[:, 1] = self.n_rows + np.arange(len(rows)) if times is None else times
        self.sample.add(rows.X, np.hstack([labels, weights, beside]))
        self.n_rows += len(rows)

    def learn(self, encoder: TableEncoder, source: Rows) -> None:
        """Choose combinations, and count their cells in a further pass."""
        if not _may_combine(self.settings, encoder) or not self.sample.n_kept:
            return
        X, columns = self.sample.finish()
        table = encoder.read(as_table(X))
        encoded = [column.encode_table(table) for column in encoder.columns_]
        n_tasks = (columns.shape[1] - 2) // 2
        by_time = self.settings.encoding_params["time_column"] is not None
        scanned = ScannedRows(
            labels=columns[:, :n_tasks],
            weights=columns[:, n_tasks:-2],
            groups=columns[:, -2] if self.has_groups else None,
            times=columns[:, -1] if by_time else None,
        )
        combinations = choose(self.settings, encoder, table, encoded, scanned)
        if not combinations:
            return
        max_values: Any = source.max_values  # an int, since only files have parts
        learners = [column.part_learner(max_values) for column in combinations]
        for rows in source.parts("Counting the combinations"):
            with named_place(rows.place):
                part = TableCells(
                    rows.X, encoder.columns_, list_columns(as_table(rows.X))
                )
                for learner in learners:
                    learner.add(part)
        for learner in learners:
            learner.finish(table, None)
        encoder.combinations_ = tuple(combinations)


def _weighted_labels(
    settings: Settings, rows: CheckedRows
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of all tasks, and their weights, which may be large."""
    labels, weights = task_labels(settings, rows.targets, None)
    weights = weights.astype(np.float64)
    if rows.weights is not None:
        weights *= rows.weights.reshape(len(weights), -1)
    return labels, weights


def _may_combine(settings: Settings, encoder: TableEncoder) -> bool:
    """Return whether combinations are asked for, and possible."""
    chosen = settings.encoding_params["combinations"]
    if encoder.is_sparse_ and isinstance(chosen, list) and chosen:
        raise ValueError(
            "combinations must be empty if X is sparse, whose columns are numbers that "
            f"the network sums; got {chosen!r}."
        )
    return chosen is not None and not encoder.is_sparse_


def _scan(
    settings: Settings,
    encoder: TableEncoder,
    table: TableCells,
    encoded: Sequence[EncodedColumn],
    rows: ScannedRows,
) -> list[CombinationColumn]:
    """Return the combinations that tell more than all columns do alone."""
    chosen = rows.sample()
    values = {}
    numbers = []
    by_name: dict[Any, Column] = {}
    for column, encoded_column in zip(encoder.columns_, encoded, strict=True):
        if not column.is_combinable:
            continue
        if encoded_column.codes is not None:
            values_of_column = encoded_column.codes[chosen]
        else:
            numbers.append(column.read(table.cells[column.name])[chosen])
            values_of_column = bins_of(numbers[-1], bin_edges(numbers[-1]))
        distinct, number = np.unique(values_of_column, return_inverse=True)
        if len(distinct) > 1:
            values[column.name] = number
            by_name[column.name] = column
    scan_rows = ScanRows(
        values=values,
        labels=rows.labels[chosen].astype(np.float64),
        weights=rows.weights[chosen].astype(np.float64),
        units=_units(rows, chosen, list(values.values()), numbers),
        is_ordered=rows.times is not None,
    )
    most = settings.encoding_params["combinations"]
    gains = find_pairs(scan_rows, MOST_TAKEN if most == "auto" else int(most))
    return [
        CombinationColumn.of(
            [by_name[name] for name in gain.names], table, gain=float(gain.gain)
        )
        for gain in gains
    ]


def _units(
    rows: ScannedRows,
    chosen: np.ndarray,
    values: Sequence[np.ndarray],
    numbers: Sequence[np.ndarray],
) -> np.ndarray | None:
    """Return which rows stay together: those of a group, or rows with equal values."""
    if rows.groups is not None:
        return rows.groups[chosen]
    if not values:
        return None
    codes = np.stack(values, axis=1)
    inputs = np.empty((len(chosen), len(numbers)), dtype=np.float32)
    for place, column in enumerate(numbers):
        inputs[:, place] = column
    units: np.ndarray | None = equal_row_units(
        row_hashes(codes, inputs), MOST_EQUAL_ROWS
    )
    return units


def _named(
    settings: Settings, encoder: TableEncoder, table: TableCells
) -> list[CombinationColumn]:
    """Return the combinations that the user names."""
    chosen = settings.encoding_params["combinations"]
    names = [column.name for column in encoder.columns_]
    # A user may also combine categories that share codes of hash buckets.
    combinable = {
        column.name: column
        for column in encoder.columns_
        if column.is_combinable or column.network_input == "codes"
    }
    combinations: dict[Any, CombinationColumn] = {}
    for combined in chosen if isinstance(chosen, list) else ():
        columns = []
        for column in combined:
            name = names[find_column("combinations", column, names)]
            kind = "column of categories or numbers, without lists"
            check_among("combinations", name, list(combinable), kind)
            columns.append(combinable[name])
        combination = CombinationColumn.of(columns, table)
        if combination.name in combinations:
            raise ValueError(f"combinations contains {combination.name!r} twice.")
        combinations[combination.name] = combination
    return list(combinations.values())
