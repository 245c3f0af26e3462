"""Labels that come later: found rows of a log get the labels that they lacked.

Rows of the same key and time are equal for all numbers, so that the rows that get
labels are chosen by time and by the labels that are known already.
"""

from typing import NamedTuple

import numpy as np

from sk_pwiser.history._key_log import Slices, bisect, following, ranges


class Completion(NamedTuple):
    """What became of rows with later labels, one entry per row."""

    log: object  # with the labels
    is_absent: np.ndarray  # no row of the log has the key and the time
    is_final: np.ndarray  # such rows exist, and none lacks these labels


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
    row = match(begin, end, log.labels, labels)
    is_found, is_absent = row >= 0, begin == end
    values = log.labels.copy()
    found = row[is_found]
    before = values[found]
    values[found] = np.where(before >= 0, before, labels[is_found])
    slices = []
    for own, (places, task) in zip(log.lists, lists, strict=True):
        if task is not None:
            # Rows without the event so far were no elements.
            is_new = (before[:, task] < 0) & (values[found, task] == 1)
            is_new &= places[is_found] >= 0
            rows = np.flatnonzero(is_found)[is_new]
            new = _slices(code[rows], time[rows], places[rows], log.n_keys)
            keys = np.arange(log.n_keys)
            own = own.combined(new, (keys, keys), log.n_keys)
        slices.append(own)
    log = log.replaced(rows=Slices(log.offsets, log.time, values), lists=slices)
    return Completion(log, is_absent, ~is_found & ~is_absent)


def _slices(code, time, value, n_keys):
    order = np.lexsort([time, code])
    counts = np.bincount(code, minlength=n_keys)
    return Slices(np.append(0, counts.cumsum()), time[order], value[order])


def match(begin, end, known, given):
    """Return the row of `begin[i]:end[i]` that takes the labels `given[i]`, or -1.

    A row takes labels if it lacks one of them and has no other value of the others. No
    row is taken twice, and rows with more equal labels are taken first.
    """
    found = np.full(len(begin), -1)
    is_present = end > begin
    if not is_present.all():
        found[is_present] = match(
            begin[is_present], end[is_present], known, given[is_present]
        )
        return found
    # The slices are equal or disjoint.
    first, place, group = np.unique(begin, return_index=True, return_inverse=True)
    sizes = end[place] - first
    rows = ranges(first, sizes)
    group_of_row = np.repeat(np.arange(len(first)), sizes)
    is_free = np.ones(len(rows), dtype=bool)
    of_rows, pattern_of_row = np.unique(known[rows], axis=0, return_inverse=True)
    of_given, pattern = np.unique(given, axis=0, return_inverse=True)
    pairs = []
    for p, own in enumerate(of_rows):
        for g, wanted in enumerate(of_given):
            is_given, is_known = wanted >= 0, own >= 0
            both = is_given & is_known
            if (own[both] == wanted[both]).all() and (is_given & ~is_known).any():
                pairs.append((-int(both.sum()), p, g))
    for _, p, g in sorted(pairs):
        rows_of_pair = np.flatnonzero(is_free & (pattern_of_row.ravel() == p))
        asked = np.flatnonzero((found < 0) & (pattern.ravel() == g))
        asked = asked[np.argsort(group[asked], kind="stable")]
        # The k-th of these rows of a group takes the labels that are k-th in the group.
        in_group = _numbered(group_of_row[rows_of_pair])
        wanted = _numbered(group[asked])
        _, taken, takers = np.intersect1d(
            in_group, wanted, assume_unique=True, return_indices=True
        )
        found[asked[takers]] = rows[rows_of_pair[taken]]
        is_free[rows_of_pair[taken]] = False
    return found


def _numbered(groups):
    """Return a distinct integer per entry of sorted groups, by group and position."""
    place = np.arange(len(groups))
    is_first = np.append(True, groups[1:] != groups[:-1])[: len(groups)]
    start = np.maximum.accumulate(np.where(is_first, place, 0))
    return (groups << 32) + place - start
