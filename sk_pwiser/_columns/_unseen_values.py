"""Warnings about category values that fit has not seen."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sk_pwiser._columns._base import Lookup
from sk_pwiser._columns._codes import UNSEEN
from sk_pwiser._columns._misread import has_id_name
from sk_pwiser._columns._value_kinds import MANY_VALUES, N_CHECKED
from sk_pwiser._utils._warnings import warn_user

# A warning about unseen values needs at least this share of the rows with known values,
UNSEEN_SHARE = 0.95
# this number of rows
UNSEEN_ROWS = 20
# and this number of distinct unseen values.
UNSEEN_VALUES = 2
# New values are usual if more of the rows in fit had a value that was rare or single.
USUAL_SHARE = 0.5


def warn_about_unseen(lookups: Sequence[Lookup]) -> None:
    """Warn about columns most of whose values are unseen."""
    unseen_columns = []
    for lookup in lookups:
        column = lookup.vocabulary
        codes = lookup.codes
        if len(codes.indices) < UNSEEN_ROWS:
            continue
        n_unseen = np.count_nonzero(codes.table[:-1] == UNSEEN)
        if n_unseen < UNSEEN_VALUES or column.usual_share_ > USUAL_SHARE:
            continue
        n_known = int(np.count_nonzero(codes.indices >= 0))
        n_new = int(np.count_nonzero(codes.are_new()))
        share = n_new / max(n_known, 1)
        is_usual = n_known < UNSEEN_ROWS or share < UNSEEN_SHARE
        if not is_usual and not _expects_unseen(column, lookup.values):
            place = " of the elements" if column.place == "element" else ""
            unseen_columns.append(f"{column.name!r} ({share:.0%}{place})")
    if unseen_columns:
        warn_user(
            "Almost all rows have a value that was not seen in fit in "
            f"{', '.join(unseen_columns)}: check the spelling, the case and the white "
            "space."
        )


def _expects_unseen(column: Any, cells: Any) -> bool:
    """Return whether ids, or one of many values, are new, and not spelt otherwise."""
    if len(column.codes_) < MANY_VALUES and not has_id_name(column.name):
        return False
    values = column.count(cells)[0][:N_CHECKED]
    texts = [value.strip() for value in values if isinstance(value, str)]
    spellings = (str.strip, str.lower, str.upper, str.title)
    spelt_texts = {spell(text) for text in texts for spell in spellings}
    return column.codes_.keys().isdisjoint(spelt_texts)


def warn_about_new_values(lookups: Sequence[Lookup], n_samples: int) -> None:
    """Warn once about category values that are encoded as unseen values."""
    new_columns = []
    for lookup in lookups:
        n_rows = len(lookup.rows(np.flatnonzero(lookup.codes.are_new())))
        # In tenths: a text that changes with every update is shown with every update.
        tenths = math.ceil(10 * (n_rows / n_samples))
        share = f"up to {tenths}0 % of the rows" if tenths < 10 else "most rows"
        if n_rows:
            new_columns.append(f"{lookup.vocabulary.name!r} in {share}")
    if new_columns:
        warn_user(
            f"Rows with new category values: {', '.join(new_columns)}. These are "
            "encoded as unseen values; encoding_params={'grow_vocabulary': True} adds "
            "them."
        )
