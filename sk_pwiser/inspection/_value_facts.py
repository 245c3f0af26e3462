"""Facts of the amounts of each value, before a fit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sk_pwiser._tasks._labels import Targets

# The share of the amounts, the largest ones, whose part of the total is shown.
LARGEST = 0.01
# From this part of the total on, they decide on means and on scores.
MOST_OF_TOTAL = 0.5
# With fewer equal amounts, the mean amount of all is as good as a model: the level of
# later rows counts for a half with as many.
FEW_AMOUNTS = 100


@dataclass(frozen=True, kw_only=True)
class ValueFacts:
    """The amounts of a value: how many there are, and how they are distributed."""

    value: str
    task: str  # under which they arise, or no text
    n_events: int  # rows with the event, all rows without a task
    n_amounts: int  # of these, those whose amount is known
    n_zeros: int
    mean: float
    median: float
    quantile_99: float
    largest: float
    # The part of the total in the largest of LARGEST.
    largest_share: float
    # The number of equal amounts whose mean would be as uncertain.
    n_effective: float


def describe_values(targets: Targets) -> list[ValueFacts]:
    """Return the facts of each value."""
    values = targets.learnt_values
    facts = []
    for column, (name, parent) in enumerate(
        zip(values.names, values.parents, strict=True)
    ):
        assert targets.amounts is not None  # there are values
        amounts = targets.amounts[:, column]
        n_events = len(amounts)
        if parent >= 0:
            n_events = int(np.count_nonzero(targets.values[:, parent] == 1))
        amounts = np.sort(amounts[~np.isnan(amounts)])
        task = "" if parent < 0 else str(targets.task_names[parent])
        facts.append(facts_of(amounts, value=name, task=task, n_events=n_events))
    return facts


def facts_of(
    amounts: np.ndarray, *, value: str, task: str, n_events: int
) -> ValueFacts:
    """Return the facts of sorted amounts."""
    mean = np.nan
    median = np.nan
    quantile_99 = np.nan
    largest = np.nan
    largest_share = np.nan
    n_effective = 0.0
    total = amounts.sum()
    if len(amounts):
        mean = float(amounts.mean())
        median = float(np.median(amounts))
        quantile_99 = float(np.quantile(amounts, 0.99))
        largest = float(amounts[-1])
    if total > 0:
        n_largest = math.ceil(LARGEST * len(amounts))
        largest_share = float(amounts[-n_largest:].sum() / total)
        # Of shares, since the squares of large amounts would overflow.
        n_effective = float(1 / np.square(amounts / total).sum())
    return ValueFacts(
        value=value,
        task=task,
        n_events=n_events,
        n_amounts=len(amounts),
        n_zeros=int(np.count_nonzero(amounts == 0)),
        mean=mean,
        median=median,
        quantile_99=quantile_99,
        largest=largest,
        largest_share=largest_share,
        n_effective=n_effective,
    )


def value_notes(values: Sequence[ValueFacts]) -> list[str]:
    """Return what the amounts mean for a fit, a sentence per problem."""
    notes = []
    for facts in values:
        n_missing = facts.n_events - facts.n_amounts
        if n_missing:
            rows = f"rows with {facts.task}" if facts.task else "rows"
            notes.append(
                f"{facts.value!r}: {n_missing:,} of {facts.n_events:,} {rows} have no "
                "amount; they count as unknown, not as 0."
            )
        if facts.n_effective < FEW_AMOUNTS:
            notes.append(
                f"{facts.value!r}: {facts.n_amounts:,} amounts tell the mean as well "
                f"as {facts.n_effective:,.0f} equal ones would. Compare with the mean "
                "amount first, by compare_models with value_tasks: a model of amounts "
                "may not be ahead."
            )
        elif facts.largest_share >= MOST_OF_TOTAL:
            notes.append(
                f"{facts.value!r}: the largest {LARGEST:.0%} of the amounts are "
                f"{facts.largest_share:.0%} of the total. They decide on means and "
                "scores: compare models over several splits, and cap amounts that do "
                "not come back."
            )
    return notes
