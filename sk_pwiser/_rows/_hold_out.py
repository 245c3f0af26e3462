"""Which rows are held out for early stopping: the last in time, or drawn by depth."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np

from sk_pwiser._rows._blocks import Blocks, last_edge
from sk_pwiser._rows._checked_rows import CheckedRows
from sk_pwiser._rows._group_values import GroupValues
from sk_pwiser._rows._row_sample import RowSample
from sk_pwiser._rows._row_units import mix_bits
from sk_pwiser._settings import Settings
from sk_pwiser._tasks._stratify import funnel_holdout, funnel_strata, holdout_sizes
from sk_pwiser._utils._random import LARGEST_SEED

# Units of rows that begin among the last rows are held out as a whole if they have at
# least this share of them: sessions do, users who come back do not. The latter are
# parted, since new users alone would not stand for the last rows.
SHARE_OF_WHOLE_UNITS = 0.9

# numpy draws from the hypergeometric distribution for fewer rows than this.
LARGEST_POPULATION = 10**9


class HeldOut(Protocol):
    """Says of the next rows of a pass which are held out; the same in every pass."""

    holds_out: bool  # whether any rows are held out

    @property
    def split_rows(self) -> dict[str, Any] | None:
        """Of which rows they were drawn at random, as `find_split` returns it."""

    def start(self) -> None:
        """Start a pass over the rows."""

    def draw(
        self, rows: CheckedRows, times: np.ndarray | None, keys: np.ndarray | None
    ) -> np.ndarray:
        """Return which of the next rows are held out."""


class NothingHeldOut:
    """All rows are trained on."""

    holds_out = False
    split_rows: dict[str, Any] | None = None

    def start(self) -> None:
        """Start a pass over the rows."""

    def draw(
        self, rows: CheckedRows, times: np.ndarray | None, keys: np.ndarray | None
    ) -> np.ndarray:
        """Return that none of the rows is held out."""
        return np.zeros(len(rows), dtype=bool)


class HeldOutOfTable:
    """The held-out rows of rows in one part, which are drawn once."""

    holds_out = True

    def __init__(
        self, is_held_out: np.ndarray, split_rows: dict[str, Any] | None
    ) -> None:
        self.is_held_out = is_held_out
        self.split_rows = split_rows

    def start(self) -> None:
        """Start a pass over the rows."""

    def draw(
        self, rows: CheckedRows, times: np.ndarray | None, keys: np.ndarray | None
    ) -> np.ndarray:
        """Return which of all rows are held out."""
        return self.is_held_out


def random_state_at(state: dict[str, Any]) -> np.random.RandomState:
    """Return a new random state at the position of another one."""
    random_state = np.random.RandomState()
    random_state.set_state(state)
    return random_state


def hold_out(
    settings: Settings,
    rows: CheckedRows,
    times: np.ndarray | None,
    random_state: np.random.RandomState,
    *,
    units: np.ndarray | None = None,
    earlier_split: dict[str, Any] | None = None,  # `split_rows` of an earlier fit
) -> tuple[np.ndarray, dict[str, Any] | None]:
    """Return which of all rows are held out, and `split_rows` if drawn at random.

    They are the last in time, or drawn by `funnel_holdout`. Rows of the same of the
    `units` are not parted, except by time.
    """
    labels = rows.targets.with_nan()
    share = settings.validation_fraction
    draw = {
        "test_size": share,
        "random_state": random_state,
        "task_parents": rows.targets.parents,
    }
    if times is not None:
        is_held, edge_rows, share = held_by_time(times, share, units)
        if len(edge_rows):
            edge_units = None if units is None else units[edge_rows]
            draw["test_size"] = share
            _, drawn = funnel_holdout(labels[edge_rows], groups=edge_units, **draw)
            is_held[edge_rows[drawn]] = True
        return is_held, None

    is_held = np.zeros(len(rows), dtype=bool)
    split_rows = find_split(settings, rows, units, earlier_split)
    start = 0
    for end in split_rows["ends"]:
        chosen = np.arange(start, end)
        n_units = len(chosen)
        chosen_units = None
        if units is not None:
            # Rows follow those of their unit among earlier rows.
            earlier_units = units[:start]
            held_out_units = earlier_units[is_held[:start]]
            is_held[chosen] = np.isin(units[chosen], held_out_units)
            chosen = chosen[~np.isin(units[chosen], earlier_units)]
            chosen_units = units[chosen]
            n_units = len(np.unique(chosen_units))
        # A single new row or unit cannot be divided; that of a first fit is an error.
        if start == 0 or n_units >= 2:
            _, drawn = funnel_holdout(labels[chosen], groups=chosen_units, **draw)
            is_held[chosen[drawn]] = True
        start = end
    return is_held, split_rows


def find_split(
    settings: Settings,
    rows: CheckedRows,
    units: np.ndarray | None,
    earlier_split: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the ends of the parts from which rows are drawn in turn, and a digest.

    Rows that follow those of the earlier fit are a part of their own. From the earlier
    rows, the same ones as before are held out, so that none was trained on.
    """
    ends = [] if earlier_split is None else list(earlier_split["ends"])
    digests = {}  # of what determines the split of the first rows with a seed
    for n_rows in {*ends[-1:], len(rows)}:
        header = n_rows, float(settings.validation_fraction), rows.targets.parents
        digest = blake2b(repr(header).encode(), digest_size=16)
        for values in (rows.targets.with_nan(), units):
            if values is not None:
                digest.update(values[:n_rows].tobytes())
        digests[n_rows] = digest.hexdigest()
    if earlier_split is not None and earlier_split["digest"] != digests[ends[-1]]:
        ends = []
    if len(rows) not in ends[-1:]:
        ends.append(len(rows))
    return {"ends": ends, "digest": digests[len(rows)]}


def held_by_time(
    times: np.ndarray, share: float, units: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return whether each row, with its time and unit, is among the last in time.

    Many rows may have the same time, so that no cut between two times is near the
    share. Then the rows of that time are returned as well, with the share of them to
    draw. Rows before the cut are never held out.
    """
    edge = np.quantile(times, 1 - share, method="higher")
    is_later = times > edge
    at_edge = np.flatnonzero(times == edge)
    n_later = np.count_nonzero(is_later)
    n_edge = len(at_edge)
    is_far = n_later + n_edge > largest_part(share) * len(times)
    if is_far and n_later >= share / 2 * len(times):
        return whole_units(is_later, units), at_edge[:0], share
    can_divide = len(at_edge if units is None else np.unique(units[at_edge])) > 1
    if n_edge == len(times) or (is_far and can_divide):
        return is_later, at_edge, (share * len(times) - n_later) / n_edge
    is_late = times >= last_edge(times, share)
    return whole_units(is_late, units), at_edge[:0], share


def whole_units(is_late: np.ndarray, units: np.ndarray | None) -> np.ndarray:
    """Leave out late rows of units that begin earlier, if they are few of them."""
    if units is None:
        return is_late
    _, number = np.unique(units, return_inverse=True)
    begins_earlier = np.bincount(number, ~is_late) > 0
    is_whole = is_late & ~begins_earlier[number]
    n_late = np.count_nonzero(is_late)
    if np.count_nonzero(is_whole) < SHARE_OF_WHOLE_UNITS * n_late:
        return is_late
    return is_whole


def largest_part(share: float) -> float:
    """Return twice a share of the rows, or a share that halves the other part."""
    return min(2 * share, (1 + share) / 2)


class HeldOutOfParts:
    """Chooses validation rows of rows in parts: the last in time or at random.

    The first pass counts the rows per funnel depth, and the second draws as many of
    each as `funnel_holdout` would of all rows at once. Groups are held out as a whole,
    by their deepest row in the part in which they begin or, with times, by their first
    row. Every pass over the rows holds out the same ones.
    """

    holds_out = True

    def __init__(
        self, settings: Settings, blocks: Blocks, random_state: np.random.RandomState
    ) -> None:
        self.share = settings.validation_fraction
        self.blocks = blocks
        self.random_state = random_state
        self.first_state = random_state.get_state()
        self.counts = np.zeros(0, dtype=np.int64)  # of rows per stratum
        self.n_units = 0  # rows, or groups
        self.chosen = GroupValues()  # whether groups are held out
        self.begins = GroupValues()  # the first times of groups
        # Of these times, by which groups are held out.
        self.sample = RowSample(blocks.sample.n_rows, blocks.sample.generator)
        self.edge_share = 1.0  # of the groups that begin at the edge, drawn at random

    def count(self, rows: CheckedRows, times: np.ndarray | None = None) -> None:
        """Count rows of the first pass."""
        self._choose(rows, self._add)
        if times is not None and rows.groups is not None:
            begins = self.begins.of(rows.groups, times, np.minimum)
            self.sample.add(begins, None)

    def _add(self, strata: np.ndarray, sizes: np.ndarray | None) -> np.ndarray:
        added = np.bincount(strata, sizes, minlength=len(self.counts)).astype(np.int64)
        added[: len(self.counts)] += self.counts
        self.counts = added
        self.n_units += len(strata)
        return np.zeros(len(strata), dtype=bool)

    @property
    def split_rows(self) -> dict[str, Any] | None:
        """That all rows were drawn from, None if they are the last in time."""
        if self.blocks.by_time:
            return None
        return {"ends": [self.blocks.n_rows], "digest": ""}

    def start(self) -> None:
        """Start a further pass, which reads the same parts as the first one."""
        self.random_state.set_state(self.first_state)
        times = self.blocks.sampled if self.blocks.by_time else None
        self.edge = None if times is None else last_edge(times, self.share)
        if self.sample.n_kept:
            begins, _ = self.sample.finish()
            is_later, at_edge, share = held_by_time(begins, self.share)
            self.edge = begins[at_edge if len(at_edge) else is_later].min()
            self.edge_share = share if len(at_edge) else 1.0
        self.key_seed = np.uint64(self.random_state.randint(LARGEST_SEED))
        self.chosen = GroupValues()
        self.stratum_of, self.n_held = holdout_sizes(self.counts, self.share)
        if self.n_units < 2:  # a single group is not divided
            self.n_held[:] = 0
        self.n_left = np.zeros_like(self.n_held)
        np.add.at(self.n_left, self.stratum_of, self.counts)

    def draw(
        self,
        rows: CheckedRows,
        times: np.ndarray | None,
        keys: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return which of the next rows are held out.

        Rows with equal `keys`, of `UnitKeys`, are on one side but for a few whose keys
        are at the edge of the share.
        """
        if self.edge is None:
            self.keys = None
            if keys is not None and rows.groups is None:
                self.keys = mix_bits(keys + self.key_seed)
            return self._choose(rows, self._draw)
        times = np.asarray(times)
        if rows.groups is None:
            return times >= self.edge
        return self.chosen.of(rows.groups, times, np.minimum, self._is_late)

    def _is_late(self, begins: np.ndarray, _: Any) -> np.ndarray:
        is_drawn = self.random_state.random(len(begins)) < self.edge_share
        return (begins > self.edge) | ((begins == self.edge) & is_drawn)

    def _choose(
        self, rows: CheckedRows, choose: Callable[..., np.ndarray]
    ) -> np.ndarray:
        strata = funnel_strata(rows.targets.with_nan(), rows.targets.parents)
        if rows.groups is None:
            return choose(strata, None)
        return self.chosen.of(rows.groups, strata, np.maximum, choose)

    def _draw(self, strata: np.ndarray, sizes: np.ndarray | None) -> np.ndarray:
        """Return which of the next rows, or groups of these sizes, are held out."""
        strata = self.stratum_of[strata]
        is_held = np.zeros(len(strata), dtype=bool)
        for stratum in np.unique(strata).tolist():
            members = np.flatnonzero(strata == stratum)
            if sizes is None:
                chosen = self._draw_rows(members, stratum)
            else:
                chosen = self._draw_groups(members, sizes[members], stratum)
            is_held[chosen] = True
        return is_held

    def _draw_rows(self, members: np.ndarray, stratum: int) -> np.ndarray:
        """Draw some of the next rows."""
        n_rows = len(members)
        n_held = int(self.n_held[stratum])
        n_left = int(self.n_left[stratum])
        if n_left < LARGEST_POPULATION:
            n_chosen = self.random_state.hypergeometric(n_held, n_left - n_held, n_rows)
        else:
            # With so many rows, draws with replacement give about the same number.
            n_chosen = self.random_state.binomial(n_rows, n_held / n_left)
            n_chosen = min(max(n_chosen, n_rows - n_left + n_held), n_held)
        self.n_held[stratum] -= n_chosen
        self.n_left[stratum] -= n_rows
        if self.keys is None:
            return self.random_state.choice(members, n_chosen, replace=False)
        # The smallest random keys: in all parts and at all depths about the same ones.
        return members[np.argsort(self.keys[members], kind="stable")[:n_chosen]]

    def _draw_groups(
        self, members: np.ndarray, sizes: np.ndarray, stratum: int
    ) -> np.ndarray:
        """Draw some of the next groups, each with the share of rows that is left.

        As in `choose_groups`, groups that would exceed it by more than half of their
        rows are passed over.
        """
        n_held = int(self.n_held[stratum])
        n_left = int(self.n_left[stratum])
        chosen = []
        draws = self.random_state.random(len(members)).tolist()
        groups = zip(members.tolist(), sizes.tolist(), draws, strict=True)
        for group, size, draw in groups:
            if draw * n_left < n_held and size / 2 <= n_held:
                chosen.append(group)
                n_held = max(n_held - size, 0)
            n_left -= size
        self.n_held[stratum] = n_held
        self.n_left[stratum] = n_left
        return np.array(chosen, dtype=np.intp)
