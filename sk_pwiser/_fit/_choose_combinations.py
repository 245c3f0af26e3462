"""Combinations of columns: those that the user names, or that a scan of rows finds."""

from typing import Any

import numpy as np

from sk_pwiser._columns import _combination_scan
from sk_pwiser._columns._base import Column, TableCells
from sk_pwiser._columns._combination import CombinationColumn, bin_edges, bins_of
from sk_pwiser._columns._encoder import EncodedTable, TableEncoder
from sk_pwiser._columns._frames import check_among, find_column
from sk_pwiser._rows._checked_rows import CheckedRows
from sk_pwiser._rows._row_units import MOST_EQUAL_ROWS, equal_row_units, row_hashes
from sk_pwiser._settings import Settings
from sk_pwiser._times import row_times
from sk_pwiser._training._schema import task_labels

# Combinations that "auto" takes at most.
MOST_COMBINATIONS = 12
# Rows that are scanned, and the fewest that tell an effect from chance.
MOST_SCANNED = 50_000
FEWEST_SCANNED = 300


def choose_of_table(
    settings: Settings, encoder: TableEncoder, encoded: EncodedTable, rows: CheckedRows
) -> list[CombinationColumn]:
    """Return unfitted combinations of the columns of a table that were learnt of it.

    The random state of a fit is left alone: without combinations, all is as before.
    """
    chosen = settings.encoding_params["combinations"]
    if chosen is None or encoder.is_sparse_:
        if chosen is not None and chosen != "auto" and not isinstance(chosen, int):
            raise ValueError(
                f"combinations must be empty if X is sparse; got {chosen!r}."
            )
        return []
    if isinstance(chosen, list):
        return _named(chosen, encoder, encoder.read(encoded.X))
    n_rows = len(rows)
    most = MOST_COMBINATIONS if chosen == "auto" else int(chosen)
    columns = [column for column in encoder.columns_ if column.is_combinable]
    if n_rows < FEWEST_SCANNED or len(columns) < 2:
        return []
    table = encoder.read(encoded.X)
    scanned = _scanned_rows(settings, rows, encoder)
    values = {}
    numbers = []
    encoded_columns = dict(zip(encoder.columns_, encoded.columns, strict=True))
    for column in columns:
        codes = encoded_columns[column].codes
        if codes is not None:
            values_of_column = codes[scanned]
        else:
            numbers.append(column.read(table.cells[column.name])[scanned])
            values_of_column = bins_of(numbers[-1], bin_edges(numbers[-1]))
        distinct, number = np.unique(values_of_column, return_inverse=True)
        if len(distinct) > 1:
            values[column.name] = number
    gains = _combination_scan.find_pairs(
        _scan_rows(settings, rows, scanned, values, numbers), most
    )
    by_name = {column.name: column for column in columns}
    return [
        CombinationColumn.of(
            [by_name[name] for name in gain.names], table, gain=float(gain.gain)
        )
        for gain in gains
    ]


def _scanned_rows(
    settings: Settings, rows: CheckedRows, encoder: TableEncoder
) -> np.ndarray:
    """Return the indices of a sample of the rows, in the order of time if it is known."""
    n_rows = len(rows)
    scanned = np.arange(n_rows)
    if n_rows > MOST_SCANNED:
        generator = np.random.default_rng(0)
        scanned = np.sort(generator.choice(n_rows, MOST_SCANNED, replace=False))
    time_column = settings.encoding_params["time_column"]
    if time_column is not None:
        times = row_times(encoder.align(rows.X), time_column)
        scanned = scanned[np.argsort(times[scanned], kind="stable")]
    return scanned


def _scan_rows(
    settings: Settings,
    rows: CheckedRows,
    scanned: np.ndarray,
    values: dict[Any, np.ndarray],
    numbers: list[np.ndarray],
) -> _combination_scan.ScanRows:
    """Return what a scan reads of the rows."""
    labels, weights = task_labels(settings, rows.targets, rows.weights)
    units = None
    if rows.groups is not None:
        units = rows.groups[scanned]
    elif values:
        codes = np.stack(list(values.values()), axis=1)
        inputs = np.empty((len(scanned), len(numbers)), dtype=np.float32)
        for place, number in enumerate(numbers):
            inputs[:, place] = number
        units = equal_row_units(row_hashes(codes, inputs), MOST_EQUAL_ROWS)
    return _combination_scan.ScanRows(
        values=values,
        labels=labels[scanned].astype(np.float64),
        weights=weights[scanned].astype(np.float64),
        units=units,
        is_ordered=settings.encoding_params["time_column"] is not None,
    )


def _named(
    chosen: list[Any], encoder: TableEncoder, table: TableCells
) -> list[CombinationColumn]:
    """Return the combinations that the user names."""
    names = [column.name for column in encoder.columns_]
    combinable = {c.name: c for c in encoder.columns_ if c.network_input is not None}
    combinable = {
        name: column
        for name, column in combinable.items()
        if column.is_combinable or column.network_input == "codes"
    }
    combinations: dict[Any, CombinationColumn] = {}
    for combined in chosen:
        columns: list[Column] = []
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
