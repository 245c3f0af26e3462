"""Which rows belong together: units that neither validation rows nor blocks part."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sk_pwiser._rows._blocks import SHARE_OF_REPEATS
from sk_pwiser._rows._checked_rows import CheckedRows
from sk_pwiser._rows._hold_out import largest_part
from sk_pwiser._rows._row_units import (
    MOST_EQUAL_ROWS,
    equal_row_units,
    has_group_column,
    row_hashes,
    split_large_units,
    warn_about_few_cells,
)


@dataclass(frozen=True, kw_only=True)
class KeptUnits:
    """The units of rows in one part, a number per row, None for single rows."""

    held_out_rows: np.ndarray | None
    blocks: np.ndarray | None
    # The number and the rows of the largest group that is parted all the same, or None,
    # when rows are "held out" and when their blocks are "left out" of statistics.
    large_groups: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)


def find_units(
    rows: CheckedRows,
    codes: np.ndarray,
    numeric: np.ndarray,
    bags: Any,
    *,
    category_names: list[Any],
    validation_fraction: float,
    n_blocks: int,
    has_counts: bool,
) -> KeptUnits:
    """Find the rows that belong together: groups or, without them, equal rows.

    Rows with equal inputs would tell each other's labels: copies of a row do, and so do
    the rows of a table of counts, one per outcome. The numeric inputs are those without
    target statistics; with `has_counts`, the weights are counts of rows.
    """
    n_rows = len(rows)
    hashes = row_hashes(codes, numeric, bags)
    equal_rows = equal_row_units(hashes, MOST_EQUAL_ROWS)
    units_of_blocks = equal_rows
    if equal_rows is not None:
        # With a few, the order of the rows is worth more.
        share_of_repeats = 1 - (equal_rows.max() + 1) / n_rows
        if share_of_repeats < SHARE_OF_REPEATS:
            units_of_blocks = None
        elif has_counts:
            warn_about_few_cells(codes, equal_rows, category_names)
    if rows.groups is None:
        return KeptUnits(held_out_rows=equal_rows, blocks=units_of_blocks)
    largest_held_out = largest_part(validation_fraction) * n_rows
    held_out_units, not_held_out = split_large_units(rows.groups, largest_held_out)
    not_left_out = None
    # Otherwise predictions are for users who come back: if the statistics of their rows
    # left out all of these, their column would not tell anything in training.
    if not has_group_column(codes, rows.groups):
        largest_left_out = 2 / min(n_blocks, n_rows) * n_rows
        units_of_blocks, not_left_out = split_large_units(rows.groups, largest_left_out)
    return KeptUnits(
        held_out_rows=held_out_units,
        blocks=units_of_blocks,
        large_groups={"held out": not_held_out, "left out": not_left_out},
    )
