"""Rows of one subject, such as the years of a person, that stand together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit

from sk_pwiser._rows._row_units import has_group_column
from sk_pwiser._utils._integers import ceil_div

# With fewer rows, there are no subjects to be told from chance.
FEWEST_ROWS = 1_000
# Pairs of rows by which subjects are looked for.
SAMPLED_PAIRS = 20_000
# Rows are compared with the next ones, and with those that are so many rows later:
# these are other subjects, but have the same place in a log or in sorted rows.
FAR = 200
# A column may tell subjects apart if this share of the rows that are far apart differ
# in it, ...
LEAST_DIFFERENCE = 0.2
# ... and if neighbours differ by at most this share of that.
LARGEST_SHARE_OF_NEIGHBOURS = 0.7
# So many columns must tell them apart, ...
FEWEST_COLUMNS = 3
# ... and two subjects agree in all of these with at most this chance.
LARGEST_CHANCE = 0.05
# At least this share of all columns is closer in neighbours than far apart: rows that
# are sorted by a column share this one, and what depends on it.
LEAST_SHARE_OF_COLUMNS = 0.5
# Rows of one subject agree in the columns that tell subjects apart, on average and in
# each, by these shares, ...
LEAST_AGREEMENT = 0.9
LEAST_AGREEMENT_EACH = 0.8
# ... and at most this share of the pairs of neighbours may belong together or not.
LARGEST_DOUBT = 0.05
# Where another subject begins, columns differ as often as far apart, by these shares:
# on average and each. In rows sorted by several columns, these change in turn.
LEAST_MEAN_CHANGE = 0.85
LEAST_CHANGE = 0.5
# There are so many subjects, with these numbers of rows.
FEWEST_SUBJECTS = 50
FEWEST_ROWS_EACH = 1.5
MOST_ROWS_EACH = 50
LARGEST_SHARE_OF_ROWS = 0.05
# Chances of agreement are kept so far from 0 and 1.
SMALLEST_CHANCE = 1e-3
# Steps of expectation maximisation, and the chance of agreement that it begins with.
N_STEPS = 20
FIRST_AGREEMENT = 0.95
# Columns that a message names.
LARGEST_NUMBER_NAMED = 4


@dataclass(frozen=True, kw_only=True)
class Subjects:
    """Which rows are of one subject, and by which columns."""

    number: np.ndarray  # of the subject of each row
    names: list[Any]  # of the columns that are constant in its rows, the clearest first
    first_row: int  # of an example
    last_row: int

    def sentence(self) -> str:
        """Return what the rows look like."""
        names = ", ".join(map(repr, self.names[:LARGEST_NUMBER_NAMED]))
        if len(self.names) > LARGEST_NUMBER_NAMED:
            names += ", ..."
        return (
            f"Rows {self.first_row} to {self.last_row} look like one subject, such as "
            f"a person, and the rows like {self.number[-1] + 1} in all: in the rows of "
            f"one, {names} mostly stay the same"
        )


class RowColumn(NamedTuple):
    """A column of rows: codes of its values, or numbers."""

    name: Any
    values: np.ndarray
    is_number: bool


def find_subjects(columns: Sequence[RowColumn]) -> Subjects | None:
    """Return the subjects of rows in their order, or None if there is any doubt.

    Neighbours that agree in columns in which rows far apart differ, in all of them at
    once, are of one subject: the model of record linkage of Fellegi and Sunter (1969),
    whose chances of agreement are learnt by expectation maximisation (Winkler, 1988).
    Copies of a row say nothing, nor do columns by which the rows are sorted. If a
    category column has the subjects themselves, predictions are for those that come
    back: there are none, then.
    """
    n_rows = len(columns[0].values) if columns else 0
    if n_rows < FEWEST_ROWS:
        return None
    far = FarColumns.of(columns)
    telling = far.telling()
    if telling is None:
        return None
    telling = _without_sort_keys(columns, telling)
    is_copy = np.ones(n_rows - 1, dtype=bool)
    for column in columns:
        is_copy &= _is_equal(column.values)
    found = _same_subject(columns, telling, far, is_copy)
    if found is None:
        return None
    is_same, telling = found
    number = np.append(0, np.cumsum(~is_same))
    sizes = np.bincount(number)
    mean_size = n_rows / len(sizes)
    if not (
        len(sizes) >= FEWEST_SUBJECTS
        and FEWEST_ROWS_EACH <= mean_size <= MOST_ROWS_EACH
        and sizes.max() <= LARGEST_SHARE_OF_ROWS * n_rows
    ):
        return None
    codes = [column.values for column in columns if not column.is_number]
    if codes and has_group_column(np.stack(codes, axis=1).astype(np.intp), number):
        return None
    clearest = np.argsort(-far.difference[telling], kind="stable")
    example = int(np.argmax(sizes >= np.ceil(mean_size)))
    first_row = int(sizes[:example].sum())
    return Subjects(
        number=number,
        names=[columns[telling[index]].name for index in clearest],
        first_row=first_row,
        last_row=first_row + int(sizes[example]) - 1,
    )


@dataclass(frozen=True, kw_only=True)
class FarColumns:
    """How often rows far apart differ in each column, and neighbours less often."""

    difference: np.ndarray  # share of rows far apart that differ
    share: np.ndarray  # of it, that of neighbours
    distance_share: np.ndarray  # of the distance far apart, that of neighbours

    @classmethod
    def of(cls, columns: Sequence[RowColumn]) -> "FarColumns":
        """Compare some of the rows with the next ones, and with those far from them."""
        n_rows = len(columns[0].values)
        step = ceil_div(n_rows, SAMPLED_PAIRS)
        first = np.arange(0, n_rows - FAR, step)
        facts = []
        for column in columns:
            values = column.values[first]
            near = column.values[first + 1]
            far = column.values[first + FAR]
            difference = np.mean(values != far)
            share = np.mean(values != near) / max(difference, SMALLEST_CHANCE)
            distance_share = share
            if column.is_number:
                distance = np.abs(values - far).mean(dtype=float)
                if distance > 0:
                    distance_share = np.abs(values - near).mean(dtype=float) / distance
            facts.append([difference, share, distance_share])
        difference, share, distance_share = np.array(facts).T
        return cls(difference=difference, share=share, distance_share=distance_share)

    def telling(self) -> np.ndarray | None:
        """Return the columns that may tell subjects apart, None if these are too few.

        Most columns must be closer in neighbours than in rows far apart.
        """
        differs = self.difference >= LEAST_DIFFERENCE
        is_close = self.distance_share <= LARGEST_SHARE_OF_NEIGHBOURS
        n_close = np.count_nonzero(differs & is_close)
        if n_close < LEAST_SHARE_OF_COLUMNS * np.count_nonzero(differs):
            return None
        telling = np.flatnonzero(differs & (self.share <= LARGEST_SHARE_OF_NEIGHBOURS))
        return telling if self.is_enough(telling) else None

    def is_enough(self, telling: np.ndarray) -> bool:
        """Return whether columns tell most subjects apart."""
        chance = np.prod(1 - self.difference[telling])
        return len(telling) >= FEWEST_COLUMNS and bool(chance <= LARGEST_CHANCE)


def _is_equal(values: np.ndarray) -> np.ndarray:
    """Return whether each row has the value of the next one."""
    equal: np.ndarray = values[1:] == values[:-1]
    return equal


def _without_sort_keys(columns: Sequence[RowColumn], telling: np.ndarray) -> np.ndarray:
    """Leave out the columns by which rows are sorted, one within the other."""
    steps = {
        j: np.sign(np.diff(column.values.astype(float)))
        for j, column in enumerate(columns)
    }
    is_border = np.zeros(len(columns[0].values) - 1, dtype=bool)
    keys: set[int] = set()
    has_new = True
    while has_new:
        has_new = False
        for j, moves in steps.items():
            inner = moves[~is_border]
            # A column that is constant within the keys so far depends on them.
            if j in keys or not inner.any() or (inner.min() < 0 < inner.max()):
                continue
            keys.add(j)
            is_border = is_border | (moves != 0)
            has_new = True
    return np.array([j for j in telling.tolist() if j not in keys], dtype=np.intp)


def _same_subject(
    columns: Sequence[RowColumn],
    telling: np.ndarray,
    far: FarColumns,
    is_copy: np.ndarray,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return whether each row is of the subject of the next one, and what tells so.

    The columns that are `telling` may be those of persons and of their families. Then
    a family is the subject, if its columns tell families apart, or else a person.
    """
    if not far.is_enough(telling):
        return None
    agree = np.stack([_is_equal(columns[j].values) for j in telling], axis=1)
    judged = agree[~is_copy].astype(np.float64)
    if not len(judged):
        return None
    by_chance = 1 - far.difference[telling]
    chance = _chance_of_same(judged, by_chance)
    is_other = chance < 0.5
    if not is_other.any() or is_other.all():
        return None
    agreement = judged[~is_other].mean(axis=0)
    changes = (1 - judged[is_other].mean(axis=0)) / (1 - by_chance)
    # Those that change less often than subjects come first, and more often last.
    is_slow = changes < LEAST_CHANGE
    is_fast = agreement < LEAST_AGREEMENT_EACH
    if is_slow.any() or is_fast.any():
        coarser = is_slow if is_slow.any() else ~is_fast
        of_coarser = _same_subject(columns, telling[coarser], far, is_copy)
        if of_coarser is not None:
            return of_coarser
        return _same_subject(columns, telling[~coarser], far, is_copy)
    doubt = np.mean((chance > 0.1) & (chance < 0.9))
    if (
        doubt > LARGEST_DOUBT
        or agreement.mean() < LEAST_AGREEMENT
        or changes.mean() < LEAST_MEAN_CHANGE
    ):
        return None
    is_same = np.ones(len(agree), dtype=bool)
    is_same[~is_copy] = ~is_other
    return is_same, telling


def _chance_of_same(agree: np.ndarray, by_chance: np.ndarray) -> np.ndarray:
    """Return the chances that pairs of neighbours are of one subject.

    `agree` says in which columns they agree, which others do `by_chance`.
    """
    first = SMALLEST_CHANCE
    last = 1 - SMALLEST_CHANCE
    by_chance = np.clip(by_chance, first, last)
    of_subject = np.full(len(by_chance), FIRST_AGREEMENT)
    share_same = 0.5
    for _ in range(N_STEPS):
        weight_agree = np.log(of_subject / by_chance)
        weight_differ = np.log((1 - of_subject) / (1 - by_chance))
        log_odds = agree @ (weight_agree - weight_differ) + weight_differ.sum()
        chance: np.ndarray = expit(log_odds + logit(share_same))
        share_same = np.clip(chance.mean(), first, last)
        of_subject = np.clip(chance @ agree / max(chance.sum(), 1.0), first, last)
    return chance
