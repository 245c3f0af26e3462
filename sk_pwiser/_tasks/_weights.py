"""Weights of rows and tasks, and base rates of the tasks."""

from dataclasses import dataclass

import numpy as np

from sk_pwiser._columns._frames import collected
from sk_pwiser._tasks._labels import check_order, names_of_columns, read_array
from sk_pwiser._tasks._tree import chain_parents
from sk_pwiser._utils._warnings import warn_user


def check_weights(sample_weight, n_samples, n_tasks=1, task_names=None):
    """Return weights as float64, 1-D if those of each row are equal for all tasks."""
    if getattr(getattr(sample_weight, "dtype", None), "kind", "") in ("m", "M"):
        raise ValueError(
            "sample_weight must contain one finite number per row; its dtype is "
            f"{sample_weight.dtype}."
        )
    sample_weight = collected(sample_weight)
    weights = read_array(
        sample_weight,
        "sample_weight",
        "must contain one finite number per row.",
        dtype=np.float64,
        error=ValueError,
    )
    if weights.shape not in ((n_samples,), (n_samples, n_tasks)):
        allowed = f"({n_samples},)"
        if n_tasks > 1:
            allowed += f", or ({n_samples}, {n_tasks}) for weights per task"
        raise ValueError(
            f"sample_weight must have shape {allowed}; got {weights.shape}."
        )
    columns = names_of_columns(sample_weight) if weights.ndim == 2 else None
    if columns is not None and task_names is not None:
        check_order("The columns of sample_weight", columns, map(str, task_names))
    is_wrong = ~(np.isfinite(weights) & (weights >= 0))
    if is_wrong.any():
        row, *column = np.argwhere(is_wrong)[0].tolist()
        where = f"row {row}"
        if column:
            name = column[0] if task_names is None else task_names[column[0]]
            where += f" for task {name!r}"
        raise ValueError(
            "sample_weight must contain one finite number >= 0 per row; it is "
            f"{weights[row, *column]} in {where}."
        )
    return _as_rows(weights)


def n_unlabelled(targets):
    """Return the number of rows without the label of any task."""
    if targets.missing is None:
        return 0
    return int(targets.missing.all(axis=1).sum())


def warn_about_left_out(n_rows, n_all, rows_name):
    """Warn about rows that are left out since they have no label."""
    if n_rows:
        warn_user(
            f"{n_rows:,} of {n_all:,} rows in {rows_name} have no label of any task "
            "and are left out."
        )


def combine_weights(targets, sample_weight, *, is_part=False):
    """Check weights, and return labels, missing where these are 0, and joint weights.

    All weights may be 0 only if there are further rows (`is_part`).
    """
    weights = None
    if sample_weight is not None:
        weights = check_weights(
            sample_weight, *targets.values.shape, targets.task_names
        )
        if weights.ndim == 2:
            targets = targets.without(weights == 0)
    if targets.missing is not None:
        label_weights = (~targets.missing).astype(np.float64)
        if weights is not None:
            label_weights *= weights.reshape(len(weights), -1)
        weights = label_weights
    if weights is not None and not is_part and not weights.any():
        if sample_weight is None:
            raise ValueError("Y has no label in any row.")
        raise ValueError("sample_weight must not be zero for every known label.")
    return targets, weights


def scale_weights(weights):
    """Return weights above 0 with a mean of 1, float32, or None for ones."""
    scale = WeightScale(weights[:1].size)
    scale.add(weights)
    return scale.apply(weights)


# Counts of rows are whole numbers with at least this mean.
SMALLEST_MEAN_COUNT = 2.0
# Above this sum, not all whole numbers are floats: all large ones are whole.
LARGEST_TOTAL_COUNT = 2.0**53


@dataclass
class WeightScale:
    """Scales weights, for rows in parts, so that those above 0 have a mean of 1.

    Weights may be counts: a weight of w stands for w equal rows. What depends on the
    number of rows then depends on the number of those that they stand for.
    """

    n_tasks: int
    earlier_mean: float | None = None  # of earlier rows, by which to divide instead
    earlier_are_counts: bool = False  # whether the weights of earlier rows were counts
    is_whole: bool = True  # whether all weights are whole numbers
    per_task: bool = False
    has_zero: bool = False
    smallest: float = np.inf
    largest: float = 0.0
    n_positive: int = 0  # number of the weights above 0, and their sum
    total: float = 0.0
    added_mean: float | None = None  # of the weights above 0 that were added

    def add(self, weights):
        weights = _as_rows(weights)
        self.per_task |= weights.ndim == 2
        positive = weights[weights > 0]
        self.has_zero |= len(positive) < weights.size
        if len(positive):
            n_columns = 1 if weights.ndim == 2 else self.n_tasks
            with np.errstate(over="ignore"):
                self.total += positive.sum() * n_columns
            self.is_whole &= bool((positive % 1 == 0).all())
            if not np.isfinite(self.total):
                raise ValueError("The sum of sample_weight must be finite.")
            self.n_positive += len(positive) * n_columns
            self.smallest = min(self.smallest, positive.min())
            self.largest = max(self.largest, positive.max())
            self.added_mean = self.total / self.n_positive
        self.mean = self.added_mean if self.earlier_mean is None else self.earlier_mean
        # Whether weights are scaled to 0 and 1, and whether all of them are 1.
        is_equal = self.smallest >= self.largest
        self.is_binary = is_equal and self.earlier_mean in (None, self.largest)
        self.is_even = self.is_binary and not self.has_zero

    @property
    def are_counts(self):
        """Whether the weights look like numbers of rows; equal ones say nothing."""
        # Earlier rows without weights, whose scale is 1, stand for themselves.
        if self.earlier_mean not in (None, 1.0):
            return self.earlier_are_counts
        if self.added_mean is None or self.is_binary:
            return False
        is_usual = (
            self.added_mean >= SMALLEST_MEAN_COUNT and self.total <= LARGEST_TOTAL_COUNT
        )
        return self.is_whole and is_usual

    def apply(self, weights):
        """Return scaled weights, or None if all that were added are scaled to 1."""
        if self.is_even:
            return None
        if self.per_task:
            shape = len(weights), self.n_tasks
            weights = np.broadcast_to(weights.reshape(len(weights), -1), shape)
        else:
            weights = _as_rows(weights)
        if self.is_binary:
            return (weights > 0).astype(np.float32)
        return (weights / self.mean).astype(np.float32)


def _as_rows(weights):
    """Return one weight per row if the weights of each row are equal for all tasks."""
    if weights.ndim == 2 and (weights == weights[:, :1]).all():
        return weights[:, 0]
    return weights


def row_weights(weights):
    """Return the largest weight of each row, None if these are equal."""
    if weights is None or weights.ndim == 1:
        return weights
    largest = weights.max(axis=1)
    return None if (largest == largest[0]).all() else largest


# Of the events of its parent, if no row has the labels of both tasks.
LARGEST_SHARE = 0.99


def base_rates(y, weights=None, parents=None):
    """Return the rate of each task, above 0 and below the rate of its parent.

    Half a row is added to the ones and to the zeros, both of all rows and of the rows
    where the parent happened. By default the tasks are a funnel.
    """
    total = float(len(y))
    if weights is None:
        n_events = y.sum(axis=0, dtype=np.float64)
    elif weights.ndim == 1:
        total = weights.sum(dtype=np.float64)
        n_events = weights.astype(float) @ y
    rates = []
    for k, parent in enumerate(parents or chain_parents(y.shape[1])):
        if weights is None or weights.ndim == 1:
            n_happened = n_events[k]
            n_eligible = n_events[parent] if parent >= 0 else total
        else:
            w = weights[:, k].astype(np.float64)
            if parent >= 0:
                has_both = w * (weights[:, parent] > 0)
                if not has_both.any() and w.any():
                    # Such as in two logs, each with one of the labels.
                    rate = (w @ y[:, k] + 0.5) / (w.sum() + 1.0)
                    rates.append(min(rate, LARGEST_SHARE * rates[parent]))
                    continue
                w = has_both
            n_happened = w @ y[:, k]
            total = w.sum()
            n_eligible = w @ y[:, parent] if parent >= 0 else total
        parent_rate = rates[parent] if parent >= 0 else 1.0
        # If labels break the funnel, a later task may have more events.
        if n_happened > n_eligible:
            n_eligible = total
            parent_rate = 1.0
        rates.append(parent_rate * (n_happened + 0.5) / (n_eligible + 1.0))
    return np.array(rates)
