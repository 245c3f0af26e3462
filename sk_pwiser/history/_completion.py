"""Labels that come later: rows of a log get the labels that they lacked.

All numbers are sums per key, time and task, so that it does not matter which of several
rows of the same key and time gets a label.
"""

from typing import NamedTuple

import numpy as np

from sk_pwiser.history._key_log import Slices, bisect, following, ranges


class Completion(NamedTuple):
    """What became of rows with later labels, one entry per row."""

    log: object  # with the labels
    is_absent: np.ndarray  # no row of the log has the key and the time
    is_final: np.ndarray  # such rows exist, and none lacks one of these labels


def complete_log(log, code, time, labels, lists):
    """Return a log whose rows have further labels, as a `Completion`.

    `code` has the places of the keys, `n_keys` for unknown ones, and `lists`, per list,
    the index of each row's value and the task that must have happened, or None.
    """
    time = time.astype(np.result_type(time, log.time), copy=False)
    start = log.offsets[np.minimum(code, log.n_keys)]
    stop = log.offsets[np.minimum(code + 1, log.n_keys)]
    begin = bisect(log.time, start, stop, time)
    end = bisect(log.time, begin, stop, following(time))
    values, is_absent = log.labels.copy(), begin == end
    is_final = np.zeros(len(code), dtype=bool)
    for task in range(labels.shape[1]):
        asked = np.flatnonzero((labels[:, task] >= 0) & ~is_absent)
        row = free_rows(begin[asked], end[asked], values[:, task] < 0)
        is_final[asked[row < 0]] = True
        values[row[row >= 0], task] = labels[asked[row >= 0], task]
    slices = []
    for own, (places, task) in zip(log.lists, lists, strict=True):
        if task is not None:
            # Rows without the event so far were no elements.
            new = np.flatnonzero((labels[:, task] == 1) & (places >= 0) & ~is_absent)
            added = _slices(code[new], time[new], places[new], log.n_keys)
            keys = np.arange(log.n_keys)
            own = own.combined(added, (keys, keys), log.n_keys)
        slices.append(own)
    log = log.replaced(rows=Slices(log.offsets, log.time, values), lists=slices)
    return Completion(log, is_absent, is_final)


def refuse_labels(is_absent, is_final, state, plan):
    """Raise if rows are not in a state, or have their labels already."""
    reasons = []
    if is_absent.any():
        first = plan.as_time(state.end - plan.of_all.horizon)
        reasons.append(
            f"{is_absent.sum()} rows are not in the state, the first in row "
            f"{is_absent.argmax()}; it keeps the rows from {first} on, and finds them "
            f"by their keys and column {plan.time!r}"
        )
    if is_final.any():
        reasons.append(
            f"{is_final.sum()} rows have one of their labels already, the first in row "
            f"{is_final.argmax()}; pass NaN for known labels"
        )
    if reasons:
        raise ValueError(f"y cannot be filled in: {'; '.join(reasons)}.")


def _slices(code, time, value, n_keys):
    order = np.lexsort([time, code])
    counts = np.bincount(code, minlength=n_keys)
    return Slices(np.append(0, counts.cumsum()), time[order], value[order])


def free_rows(begin, end, is_free):
    """Return a free row of each of some slices, -1 where there is none.

    The slices are equal or disjoint; equal ones get different rows.
    """
    first, place, group = np.unique(begin, return_index=True, return_inverse=True)
    rows = ranges(first, end[place] - first)
    group_of_row = np.repeat(np.arange(len(first)), end[place] - first)
    rows, group_of_row = rows[is_free[rows]], group_of_row[is_free[rows]]
    order = np.argsort(group, kind="stable")
    # The k-th asked for in a slice gets its k-th free row.
    _, takers, taken = np.intersect1d(
        _numbered(group[order]),
        _numbered(group_of_row),
        assume_unique=True,
        return_indices=True,
    )
    found = np.full(len(begin), -1)
    found[order[takers]] = rows[taken]
    return found


def _numbered(groups):
    """Return a distinct integer per entry of sorted groups, by group and position."""
    place = np.arange(len(groups))
    is_first = np.append(True, groups[1:] != groups[:-1])[: len(groups)]
    start = np.maximum.accumulate(np.where(is_first, place, 0))
    return (groups << 32) + place - start
