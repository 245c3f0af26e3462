"""The validation rows of early stopping: the last in time, or drawn."""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np

from sk_pwiser._funnel import funnel_holdout, funnel_strata, holdout_sizes
from sk_pwiser._table._blocks import Blocks, GroupValues, last_edge
from sk_pwiser._training._batches import TrainingRows
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import warn_user

# numpy draws from the hypergeometric distribution for fewer rows than this.
LARGEST_POPULATION = 10**9


class HoldOut:
    """Chooses the validation rows of early stopping: the last in time or at random.

    All rows at once are divided by `funnel_holdout`. For rows in parts, the first pass
    counts the rows per funnel depth, and the second draws as many of each as it would.
    Groups are held out as a whole, by their deepest or last row in the part in which
    they begin. Every pass over the rows holds out the same ones.
    """

    def __init__(
        self,
        settings: Settings,
        blocks: Blocks,
        random_state: np.random.RandomState,
        known: Mapping[str, Any] | None = None,  # `split_rows` of an earlier fit
    ) -> None:
        self.settings = settings
        self.blocks = blocks
        self.random_state = random_state
        self.first_state = random_state.get_state()
        self.known = known
        self.counts = np.zeros(0, dtype=np.int64)
        self.groups = GroupValues()
        self.split_rows: dict[str, Any] | None = None  # of rows drawn at random

    def count(self, rows: Any) -> None:
        """Count rows of the first pass."""
        self._choose(rows, self._add)

    def _add(self, strata: np.ndarray) -> np.ndarray:
        added = np.bincount(strata, minlength=len(self.counts))
        added[: len(self.counts)] += self.counts
        self.counts = added
        return np.zeros(len(strata), dtype=bool)

    def start(self) -> None:
        """Start a further pass, which reads the same parts as the first one."""
        self.random_state.set_state(self.first_state)
        if not len(self.counts):
            return
        share = self.settings.validation_fraction
        if not self.blocks.by_time:
            self.split_rows = {"ends": [self.blocks.n_rows], "digest": ""}
        self.edge = self.blocks.last_edge(share)
        self.groups = GroupValues()
        self.stratum_of, self.n_held = holdout_sizes(self.counts, share)
        self.n_left = np.zeros_like(self.n_held)
        np.add.at(self.n_left, self.stratum_of, self.counts)

    def draw(self, rows: Any, times: np.ndarray | None) -> np.ndarray:
        """Return which of the next rows are held out."""
        if len(rows) == self.blocks.n_rows:
            return self._draw_at_once(rows, times)
        if self.edge is None:
            return self._choose(rows, self._draw)
        is_held = np.asarray(times) >= self.edge
        if rows.groups is not None:
            is_held = self.groups.of(rows.groups, is_held, np.maximum, np.asarray)
        return is_held

    def _draw_at_once(self, rows: Any, times: np.ndarray | None) -> np.ndarray:
        labels, groups = rows.targets.with_nan(), rows.groups
        share, is_held = self.settings.validation_fraction, np.zeros(len(rows), bool)
        if times is None:
            self.split_rows = find_split(self.settings, rows, self.known)
            parts = np.split(np.arange(len(rows)), self.split_rows["ends"][:-1])
        else:
            is_held, edge, share = held_by_time(times, share, groups)
            parts = [edge] if len(edge) else []
        for number, part in enumerate(parts):
            units = part
            if groups is not None:
                # The rows of a group follow those of it in an earlier part.
                before = groups[: part[0]]
                is_held[part] = np.isin(groups[part], before[is_held[: part[0]]])
                part = part[~np.isin(groups[part], before)]
                units = np.unique(groups[part])
            if number and len(units) < 2:
                continue
            _, drawn = funnel_holdout(
                labels[part],
                test_size=share,
                random_state=self.random_state,
                groups=None if groups is None else groups[part],
                task_parents=rows.targets.parents,
            )
            is_held[part[drawn]] = True
        return is_held

    def _choose(self, rows: Any, choose: Callable[..., np.ndarray]) -> np.ndarray:
        strata = funnel_strata(rows.targets.with_nan(), rows.targets.parents)
        if rows.groups is None:
            return choose(strata)
        return self.groups.of(rows.groups, strata, np.maximum, choose)

    def _draw(self, strata: np.ndarray) -> np.ndarray:
        strata = self.stratum_of[strata]
        is_held = np.zeros(len(strata), dtype=bool)
        for stratum in np.unique(strata).tolist():
            rows = np.flatnonzero(strata == stratum)
            n_held, n_left = int(self.n_held[stratum]), int(self.n_left[stratum])
            n_chosen = self._share(n_held, n_left - n_held, len(rows))
            is_held[self.random_state.choice(rows, n_chosen, replace=False)] = True
            self.n_held[stratum] -= n_chosen
            self.n_left[stratum] -= len(rows)
        return is_held

    def _share(self, n_held: int, n_kept: int, n_rows: int) -> int:
        if n_held + n_kept < LARGEST_POPULATION:
            return self.random_state.hypergeometric(n_held, n_kept, n_rows)
        # With so many rows, draws with replacement give about the same number.
        n_chosen = self.random_state.binomial(n_rows, n_held / (n_held + n_kept))
        return min(max(n_chosen, n_rows - n_kept), n_held)


def find_split(settings: Settings, rows: Any, earlier: Any) -> dict[str, Any]:
    """Return the ends of the parts from which rows are drawn in turn, and a digest.

    Rows that follow those of the earlier fit are a part of their own. From the earlier
    rows, the same ones as before are held out, so that none was trained on.
    """
    ends = [] if earlier is None else list(earlier["ends"])
    if ends and earlier["digest"] != _digest(settings, rows, ends[-1]):
        ends = []
    if len(rows) not in ends[-1:]:
        ends.append(len(rows))
    return {"ends": ends, "digest": _digest(settings, rows, len(rows))}


def _digest(settings: Settings, rows: Any, n_rows: int) -> str:
    """Return a digest of what determines the split of the first rows with a seed."""
    known = n_rows, float(settings.validation_fraction), rows.targets.parents
    digest = blake2b(repr(known).encode(), digest_size=16)
    for values in (rows.targets.with_nan(), rows.groups):
        if values is not None:
            digest.update(values[:n_rows].tobytes())
    return digest.hexdigest()


def held_by_time(
    times: np.ndarray, share: float, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return whether each row, with its time and group, is among the last in time.

    Many rows may have the same time, so that no cut between two times is near the
    share. Then the rows of that time are returned as well, with the share of them to
    draw.
    """
    if groups is not None:
        _, number = np.unique(groups, return_inverse=True)
        latest = np.full(number.max() + 1, -np.inf)
        np.maximum.at(latest, number, times)
        times = latest[number]
    edge = np.quantile(times, 1 - share, method="higher")
    is_later, at_edge = times > edge, np.flatnonzero(times == edge)
    n_later, n_edge = np.count_nonzero(is_later), len(at_edge)
    is_one = len(at_edge if groups is None else np.unique(groups[at_edge])) == 1
    is_far = n_later + n_edge > largest_part(share) * len(times)
    if is_far and n_later >= share / 2 * len(times):
        return is_later, at_edge[:0], share
    if n_edge == len(times) or (is_far and not is_one):
        return is_later, at_edge, (share * len(times) - n_later) / n_edge
    edge = last_edge(times, share)
    return times >= edge, at_edge[:0], share


def largest_part(share: float) -> float:
    """Return twice a share of the rows, or a share that halves the other part."""
    return min(2 * share, (1 + share) / 2)


def warn_about_trained(earlier: Any, split_rows: Mapping[str, Any]) -> None:
    """Warn if rows may be held out that the earlier fit was trained on."""
    before, ends = earlier.split_rows, split_rows["ends"]
    if earlier.split_state is None:
        reason = "it held out no rows"
    elif before is None:
        reason = "it held out its last rows in time"
    elif before == split_rows or before["ends"] == ends[:-1]:
        return
    else:
        reason = (
            f"its {before['ends'][-1]} rows, with equal labels, groups and "
            f"validation_fraction, are not known to be the first of these {ends[-1]}"
        )
    warn_user(
        "Early stopping may decide on rows that the earlier fit was trained on, since "
        f"{reason}. Pass new rows as X_val or eval_set, or set early_stopping=False."
    )


def warn_about_share(settings: Settings, n_train: int, n_valid: int) -> None:
    """Warn if the last rows in time are far more or fewer than asked for."""
    share, n_rows = settings.validation_fraction, n_train + n_valid
    if not share / 2 <= n_valid / n_rows <= max(largest_part(share), 1 / n_rows):
        warn_user(
            f"By time_column={settings.encoding_params['time_column']!r}, the last "
            f"{n_valid} of {n_rows} rows are held out; validation_fraction={share} "
            f"asks for about {round(share * n_rows)}. Use finer times or an eval_set."
        )


def warn_about_absent(valid: TrainingRows, task_names: tuple[str, ...]) -> None:
    """Warn if the last rows in time have no event of a task."""
    has_event = (valid.labels() > 0).any(dim=0)
    absent = [task for task, has in zip(task_names, has_event, strict=True) if not has]
    if absent:
        warn_user(
            "The last rows by time_column, on which early stopping decides, have no "
            f"event of {', '.join(map(repr, absent))}. Use a larger "
            "validation_fraction or an eval_set."
        )
