"""Values that no row of the last updates had make room for new ones."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from sk_pwiser._columns._codes import FIRST_VALUE


def with_update(column: Any, values: Sequence[Any]) -> Any:
    """Return a category column that records which values the rows of an update had.

    Without a record of earlier updates, all values count as those of the rows before
    the first one.
    """
    recorded = copy(column)
    recorded.n_updates = column.n_updates + 1
    if column.last_updates is None:
        recorded.last_updates = np.zeros(column.n_codes, dtype=np.int32)
    else:
        recorded.last_updates = column.last_updates.copy()
    codes = column.codes_
    present = [codes[value] for value in values if value in codes]
    recorded.last_updates[present] = recorded.n_updates
    return recorded


def keep_record(grown: Any, column: Any, origin: np.ndarray) -> None:
    """Set the last updates of codes with these origins in a column, if it has a record.

    New values are those of the last update.
    """
    if column.last_updates is None:
        return
    last_updates = column.last_updates[np.maximum(origin, 0)]
    is_earlier = origin >= 0
    grown.last_updates = np.where(is_earlier, last_updates, np.int32(column.n_updates))


def with_reused_codes(
    column: Any, promoted: Sequence[Any], rare_new: Sequence[Any], forget_after: int
) -> tuple[list[Any], int]:
    """Return all values in the order of their codes, and how many are frequent.

    Values that no row of the last `forget_after` updates had make room for `promoted`
    ones, which have embeddings from now on, and for new rare ones. Those go first that
    have not been used for longest, and only as many as there are others for. As few
    values as possible change their codes, and of those with embeddings none does.
    """
    n_frequent = column.n_frequent_
    slots: list[Any] = list(column.codes_)
    n_unused = column.n_updates - column.last_updates[FIRST_VALUE:]
    # The sort is stable: of values that were last used together, the first code goes.
    oldest_first = np.argsort(-n_unused, kind="stable")
    expired = oldest_first[n_unused[oldest_first] >= forget_after].tolist()
    expired_frequent = [place for place in expired if place < n_frequent]
    for place, value in zip(expired_frequent, promoted, strict=False):
        slots[place] = value
    # Further frequent values take the places of the first rare ones, which move.
    further = promoted[len(expired_frequent) :]
    stop = n_frequent + len(further)
    vacated = {
        column.codes_[value] - FIRST_VALUE
        for value in promoted
        if value in column.codes_
    }
    emptied = vacated.union(expired)
    displaced = [
        value
        for place, value in enumerate(slots[n_frequent:stop], n_frequent)
        if place not in emptied
    ]
    slots[n_frequent:stop] = further
    empty = sorted(place for place in vacated if place >= stop)
    expired_rare = [place for place in expired if place >= stop]
    moved = [*displaced, *rare_new]
    free = [*empty, *expired_rare]
    for place, value in zip(free, moved, strict=False):
        slots[place] = value
    slots += moved[len(free) :]
    # The last values take the places that are still empty.
    for place in reversed(empty[len(moved) :]):
        last = slots.pop()
        if place < len(slots):
            slots[place] = last
    return slots, stop
