"""The rows between two passes: encoded at once, or read and encoded in every pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._rows._checked_rows import CheckedRows, named_place
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._hold_out import HeldOut, HeldOutOfParts, HeldOutOfTable, hold_out
from sk_pwiser._rows._kept_units import KeptUnits
from sk_pwiser._rows._protocol import Rows
from sk_pwiser._rows._row_drift import find_drift
from sk_pwiser._rows._row_units import UnitKeys, row_hashes
from sk_pwiser._rows._subjects import RowColumn, Subjects, find_subjects
from sk_pwiser._settings import Settings
from sk_pwiser._times import row_times
from sk_pwiser._training._schema import Schema, task_labels
from sk_pwiser._utils._warnings import warn_user

# Columns that a warning names.
LARGEST_NUMBER_NAMED = 4


@dataclass(frozen=True, kw_only=True)
class EncodedPart:
    """Rows that a pass has encoded, and what decides on their blocks."""

    rows: CheckedRows
    encoded: Impressions
    codes: np.ndarray
    exposure: np.ndarray | None  # codes of how rows were shown
    times: np.ndarray | None  # None if times do not order the rows
    weights: np.ndarray | None  # scaled, None for ones
    units: np.ndarray | None  # that blocks do not part
    keys: np.ndarray | None  # of `UnitKeys`, if units continue in other parts
    # Whether units are rows with equal inputs. At the borders of blocks, their rows are
    # interleaved, so that sorted rows would not be found.
    interleaves_units: bool


class EncodedParts(Protocol):
    """Encoded rows that may be passed over several times."""

    def read(self) -> Iterator[EncodedPart]:
        """Yield the rows in their order."""

    def hold_out(
        self,
        settings: Settings,
        random_state: np.random.RandomState,
        earlier_split: dict[str, Any] | None,
    ) -> HeldOut:
        """Choose the rows to hold out."""

    def share_of_repeats(self) -> float:
        """Return the share of rows, after a pass, whose equal rows blocks may part."""

    def warn_about_large_groups(self, holds_out: bool, has_blocks: bool) -> None:
        """Name a group that is too large to be held out, or left out of statistics."""

    def warn_about_order(
        self, settings: Settings, schema: Schema, *, is_sorted: bool
    ) -> None:
        """Warn if validation rows are random, but the order of rows has a meaning.

        If the rows are sorted, it has none.
        """


def times_of(settings: Settings, X: Any, encoder: TableEncoder) -> np.ndarray:
    """Return the times of rows."""
    name = settings.encoding_params["time_column"]
    times: np.ndarray = row_times(encoder.align(X), name)
    return times


def row_columns(
    encoder: TableEncoder, codes: np.ndarray, numeric: np.ndarray
) -> list[RowColumn]:
    """Return the columns of categories and of single numbers, as they are encoded."""
    columns = []
    n_codes = 0
    n_numeric = 0
    for column in encoder.columns_:
        if column.network_input == "codes":
            columns.append(RowColumn(column.name, codes[:, n_codes], False))
            n_codes += 1
        elif column.kind == "numeric":
            columns.append(RowColumn(column.name, numeric[:, n_numeric], True))
        n_numeric += len(column.inputs)
    return columns


class OnePart:
    """Rows in one part, encoded when their columns were learnt, and not read again."""

    def __init__(
        self,
        source: Rows,
        rows: CheckedRows,
        arrays: tuple[Any, ...],
        *,
        encoder: TableEncoder,
        exposure: np.ndarray | None,
        times: np.ndarray | None,
        units: KeptUnits,
    ) -> None:
        self.source = source
        self.encoder = encoder
        self.rows = rows
        self.arrays = arrays
        self.exposure = exposure
        self.times = times
        self.units = units
        self.subjects: Subjects | None = None  # of the rows that are held out

    def read(self) -> Iterator[EncodedPart]:
        """Yield the rows."""
        rows = self.rows
        weights = self.source.summary.scaled
        encoded = Impressions.of(*self.arrays).shown(self.exposure)
        yield EncodedPart(
            rows=rows,
            encoded=encoded.labelled(
                rows.targets.values, weights, rows.groups, rows.targets.amounts
            ),
            codes=self.arrays[0],
            exposure=self.exposure,
            times=self.times,
            weights=weights,
            units=self.units.blocks,
            keys=None,
            interleaves_units=rows.groups is None,
        )

    def hold_out(
        self,
        settings: Settings,
        random_state: np.random.RandomState,
        earlier_split: dict[str, Any] | None,
    ) -> HeldOut:
        """Draw the rows to hold out, or take the last in time."""
        units = self.units.held_out_rows
        if self.rows.groups is None and self.times is None:
            codes, numeric, *_ = self.arrays
            self.subjects = find_subjects(row_columns(self.encoder, codes, numeric))
            if self.subjects is not None:
                units = self.subjects.number
        is_held_out, split_rows = hold_out(
            settings,
            self.rows,
            self.times,
            random_state,
            units=units,
            earlier_split=earlier_split,
        )
        return HeldOutOfTable(is_held_out, split_rows)

    def share_of_repeats(self) -> float:
        """Return 0: units keep equal rows together."""
        return 0.0

    def warn_about_large_groups(self, holds_out: bool, has_blocks: bool) -> None:
        """Name a group that is too large to be held out, or left out of statistics."""
        large_group = None
        if holds_out:
            large_group = self.units.large_groups.get("held out")
        if has_blocks and large_group is None:
            large_group = self.units.large_groups.get("left out")
        if large_group is None:
            return
        number, size = large_group
        value = self.source.value_of_group(number)
        name = "A group" if value is None else f"The group {value!r}"
        warn_user(
            f"{name} has {size} of {len(self.rows)} rows, too many to be held out or "
            "left out of target statistics as a whole: its rows are treated as rows "
            "without a group. If it stands for many users, such as guests, give each "
            "of their rows or sessions a group of its own."
        )

    def warn_about_order(
        self, settings: Settings, schema: Schema, *, is_sorted: bool
    ) -> None:
        """Warn if validation rows are random, but the order of rows has a meaning."""
        if self.subjects is not None:
            warn_user(
                f"{self.subjects.sentence()}. Early stopping validates on the rows of "
                "other subjects than training, as with groups. Pass groups=..., with "
                "the subject of each row, or groups=range(len(X)) if each row is one."
            )
        elif not is_sorted:
            self._warn_about_drift(settings, schema)

    def _warn_about_drift(self, settings: Settings, schema: Schema) -> None:
        codes, numeric, *_ = self.arrays
        labels, weights = task_labels(
            settings, self.rows.targets, self.source.summary.scaled
        )
        drifting = find_drift(
            codes,
            numeric,
            labels,
            weights,
            encoder=schema.encoder,
            task_names=schema.targets.task_names,
        )
        if not drifting:
            return
        names = ", ".join(map(repr, drifting[:LARGEST_NUMBER_NAMED]))
        if len(drifting) > LARGEST_NUMBER_NAMED:
            names += ", ..."
        warn_user(
            f"The rows are in an order that matters: {names} differ between "
            "earlier and later rows by more than chance, but early stopping validates "
            "on random rows, which does not tell how good predictions of later rows "
            "are. If the rows are in the order of time, name a column of times by "
            "encoding_params={'time_column': ...}; X.assign(row=range(len(X))) has one "
            "that stands for their order. If not, shuffle them."
        )


class SeveralParts:
    """Rows in several parts, read again and encoded in every pass."""

    def __init__(
        self,
        source: Rows,
        encoder: TableEncoder,
        held_out: HeldOutOfParts,
        *,
        by_time: bool,
    ) -> None:
        self.source = source
        self.encoder = encoder
        self.held_out = held_out
        self.by_time = by_time
        self.unit_keys = UnitKeys(0)  # of the last pass

    def read(self) -> Iterator[EncodedPart]:
        """Read the rows, and yield them in their order."""
        summary = self.source.summary
        self.unit_keys = UnitKeys(summary.n_rows)
        for rows in self.source.parts("Encoding"):
            with named_place(rows.place):
                arrays = self.encoder.transform(rows.X)
                exposure = self.encoder.exposure_codes(rows.X)
            times = None
            if self.by_time:
                times = times_of(self.source.settings, rows.X, self.encoder)
            weights = summary.scale(rows.weights, len(rows))
            encoded = Impressions.of(*arrays).shown(exposure)
            yield EncodedPart(
                rows=rows,
                encoded=encoded.labelled(
                    rows.targets.values, weights, rows.groups, rows.targets.amounts
                ),
                codes=arrays[0],
                exposure=exposure,
                times=times,
                weights=weights,
                units=rows.groups,
                keys=self.unit_keys.of(row_hashes(*arrays)),
                interleaves_units=False,
            )

    def hold_out(
        self,
        settings: Settings,
        random_state: np.random.RandomState,
        earlier_split: dict[str, Any] | None,
    ) -> HeldOut:
        """Return what was counted for this in the first pass."""
        return self.held_out

    def share_of_repeats(self) -> float:
        """Estimate the share of the rows that have the inputs of an earlier row."""
        return float(self.unit_keys.share_of_repeats())

    def warn_about_large_groups(self, holds_out: bool, has_blocks: bool) -> None:
        """Do nothing: groups of any size are held out as a whole."""

    def warn_about_order(
        self, settings: Settings, schema: Schema, *, is_sorted: bool
    ) -> None:
        """Do nothing: the order of rows is judged if they are in memory."""
