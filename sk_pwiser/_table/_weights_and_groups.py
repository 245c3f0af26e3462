"""Weights, groups and numbers of rows, and base rates of the tasks."""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from numbers import Number
from reprlib import repr as short_repr
from typing import Any

import numpy as np
from sklearn.utils.validation import _num_samples

from sk_pwiser._columns._factorize import factorize
from sk_pwiser._columns._frames import collected, index_of, is_polars, refuse_unreadable
from sk_pwiser._table._labels import check_order, names_of_columns, read_array
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
        known = (~targets.missing).astype(np.float64)
        if weights is not None:
            known *= weights.reshape(len(weights), -1)
        weights = known
    if weights is not None and not is_part and not weights.any():
        raise ValueError("sample_weight must not be zero for every known label.")
    return targets, weights


def scale_weights(weights):
    """Return weights above 0 with a mean of 1, float32, or None for ones."""
    scale = WeightScale(weights[:1].size)
    scale.add(weights)
    return scale.apply(weights)


@dataclass
class WeightScale:
    """Scales weights, for rows in parts, so that those above 0 have a mean of 1."""

    n_tasks: int
    given: float | None = None  # mean of earlier rows, by which to divide instead
    per_task: bool = False
    has_zero: bool = False
    smallest: float = np.inf
    largest: float = 0.0
    n_positive: int = 0  # number of the weights above 0, and their sum
    total: float = 0.0
    own_mean: float | None = None  # of the weights above 0 that were added

    def add(self, weights):
        weights = _as_rows(weights)
        self.per_task |= weights.ndim == 2
        positive = weights[weights > 0]
        self.has_zero |= len(positive) < weights.size
        if len(positive):
            n_columns = 1 if weights.ndim == 2 else self.n_tasks
            with np.errstate(over="ignore"):
                self.total += positive.sum() * n_columns
            if not np.isfinite(self.total):
                raise ValueError("The sum of sample_weight must be finite.")
            self.n_positive += len(positive) * n_columns
            self.smallest = min(self.smallest, positive.min())
            self.largest = max(self.largest, positive.max())
            self.own_mean = self.total / self.n_positive
        self.mean = self.own_mean if self.given is None else self.given
        # Whether weights are scaled to 0 and 1, and whether all of them are 1.
        is_equal = self.smallest >= self.largest
        self.is_binary = is_equal and self.given in (None, self.largest)
        self.is_even = self.is_binary and not self.has_zero

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


def base_rates(y, weights=None, parents=None):
    """Return the rate of each task, above 0 and below the rate of its parent.

    Half a row is added to the ones and to the zeros, both of all rows and of the rows
    where the parent happened. By default the tasks are a funnel.
    """
    total, ones = float(len(y)), None
    if weights is None:
        ones = y.sum(axis=0, dtype=np.float64)
    elif weights.ndim == 1:
        total, ones = weights.sum(dtype=np.float64), weights.astype(float) @ y
    rates = []
    for k, parent in enumerate(parents or chain_parents(y.shape[1])):
        if ones is not None:
            own, before = ones[k], ones[parent] if parent >= 0 else total
        else:
            w = weights[:, k].astype(np.float64)
            if parent > 0:  # the label of the first task is always known
                w *= weights[:, parent] > 0
            own, total = w @ y[:, k], w.sum()
            before = w @ y[:, parent] if parent >= 0 else total
        rate = rates[parent] if parent >= 0 else 1.0
        # If labels break the funnel, a later task may have more ones.
        if own > before:
            before, rate = total, 1.0
        rates.append(rate * (own + 0.5) / (before + 1.0))
    return np.array(rates)


@dataclass
class RowSummary:
    """Labels and weights of all rows: their numbers, rates and scale.

    The labels of rows in one part are kept, those of several parts are counted by their
    combinations, with sums of weights. Weights are divided by `weight_scale`, by
    default by the mean of those above 0.
    """

    weight_scale: float | None = None
    n_rows: int = 0
    tasks: Any = None  # `Targets` without labels
    weights: Any = None  # `WeightScale`
    per_task: bool = False  # whether the weights of a row differ between its tasks
    # Labels and weights of rows in one part, and the scaled weights, or None for ones.
    whole: tuple | None = None
    scaled: np.ndarray | None = None
    of_rows: np.ndarray | None = None  # the same per row, by which columns are encoded
    # By combination: numbers of rows, and sums of the weights, one per task.
    counts: Counter = field(default_factory=Counter)
    sums: dict = field(default_factory=dict)

    def add(self, targets, weights):
        n_rows, n_tasks = targets.values.shape
        weights = np.broadcast_to(1.0, n_rows) if weights is None else weights
        self.n_rows += n_rows
        is_first = self.tasks is None
        if is_first:
            none = targets.values[:0]
            self.tasks = replace(targets, values=none, missing=None, counts=None)
            self.weights = WeightScale(n_tasks, self.weight_scale)
        self.weights.add(weights)
        self.per_task = self.weights.per_task and not self.weights.is_even
        if is_first:
            self.whole, self.scaled = (targets, weights), self.weights.apply(weights)
            self.of_rows = row_weights(self.scaled)
            return
        if self.whole is not None:
            self._count(*self.whole)
        self.whole = self.scaled = None
        self._count(targets, weights)

    def _count(self, targets, weights):
        n_rows, n_tasks = targets.values.shape
        state = targets.values.astype(np.int8)
        if targets.missing is not None:
            state = np.where(targets.missing, np.int8(2), state)
        distinct, inverse = np.unique(state, axis=0, return_inverse=True)
        found = list(map(tuple, distinct.tolist()))
        own = np.broadcast_to(weights.reshape(n_rows, -1), (n_rows, n_tasks))
        of_tasks = [np.bincount(inverse.ravel(), column) for column in own.T]
        for key, sums in zip(found, np.transpose(of_tasks), strict=True):
            self.sums[key] = self.sums.get(key, 0.0) + sums
        counts = np.bincount(inverse.ravel()).tolist()
        self.counts.update(dict(zip(found, counts, strict=True)))

    def scale(self, weights, n_rows):
        """Return the scaled weights of one of several parts, or None for ones."""
        return self.weights.apply(np.ones(n_rows) if weights is None else weights)

    def labels(self):
        """Return all labels and their scaled weights, None for ones.

        Of several parts, these are a row for each combination, with its number of rows
        and the sum of their weights.
        """
        if self.whole is not None:
            return self.whole[0], self.scaled
        state = np.array(list(self.counts))
        missing = state == 2
        targets = replace(
            self.tasks,
            values=np.where(missing, 0, state).astype(np.float32),
            missing=missing if missing.any() else None,
            counts=np.array(list(self.counts.values())),
        )
        if self.weights.is_even:
            return targets, targets.counts.astype(float)
        sums = np.array(list(self.sums.values())) / self.weights.own_mean
        return targets, sums if self.weights.per_task else sums[:, 0]

    def base_rates(self):
        targets, weights = self.labels()
        return base_rates(targets.values, weights, targets.parents)


# Ranges of labels that differ by at most this share of the rows are probably parts of
# one range, such as all rows but the first and all rows but the last.
LARGEST_SHIFT = 0.01


def check_match(X, n_samples, *, input_name="X", **others):
    """Raise if values per row do not match a table in number or in their index.

    Rows are matched by position. The same labels in another order are an error. Most
    labels in common, and these mostly in other rows, as if one table were shifted, is a
    warning.
    """
    if (n_rows := _num_samples(X)) != n_samples:
        raise ValueError(
            "X and Y have inconsistent numbers of samples: X has "
            f"{n_rows} rows, Y has {n_samples}."
        )
    index = index_of(X)
    for name, values in others.items():
        other = index_of(values)
        if index is None or other is None:
            continue
        if index.equals(other) or len(index) != len(other):
            continue
        row, n_moved = _compare_labels(index, other)
        if row is None:
            continue
        label = index[row : row + 1].tolist()[0]
        other_label = other[row : row + 1].tolist()[0]
        aligned = "equal orders"
        if index.is_unique and not n_moved:
            aligned = f"{name}.loc[{input_name}.index]"
        where = (
            f"row {row} is {label!r} in {input_name} and {other_label!r} in {name}. "
        )
        if n_moved:
            warn_user(
                f"{n_moved:,} of {len(index):,} rows of {input_name} have an index "
                f"label that {name} has in another row, as if one of them were "
                f"shifted: {where}Rows are matched by position. Select the same rows "
                f"of both, or pass {name}.to_numpy() if the positions are right."
            )
        else:
            raise ValueError(
                f"{input_name} and {name} have the same index labels in different "
                f"orders: {where}Pass {aligned} or, by position, {name}.to_numpy()."
            )


def _compare_labels(index, other):
    """Return the first row whose labels differ, and 0 if the labels are the same ones.

    Otherwise, return it with the number of labels in other rows if these are most; and
    None if the labels do not say that rows are in other places.
    """
    if index.dtype != other.dtype or index.nlevels != other.nlevels:
        index, other = (one.to_flat_index().astype(object) for one in (index, other))
        # Most of these pairs have nothing in common, which one label tells fast.
        first = other[:1]
        if not (first.isna().any() or index.isin(first).any()):
            return None, 0
    if (shift := _shift_of_ranges(index, other)) is not None:
        n_common = len(index) - shift
        return (0, n_common) if shift <= LARGEST_SHIFT * len(index) else (None, 0)
    codes, labels = index.append(other).factorize(use_na_sentinel=False)
    own_codes, other_codes = np.split(codes, 2)
    differs = own_codes != other_codes
    if not differs.any():
        return None, 0
    row = int(differs.argmax())
    own_counts = np.bincount(own_codes, minlength=len(labels))
    other_counts = np.bincount(other_codes, minlength=len(labels))
    if own_counts.all() and other_counts.all():
        return row, 0
    # Numbers may count the rows of one table and not those of the other, after a
    # filter or a new index, and repeated labels name no row.
    is_name = not isinstance(labels[0], Number) and own_counts.max() == 1
    if not is_name or other_counts.max() > 1:
        return None, 0
    n_moved = int((differs & (other_counts[own_codes] > 0)).sum())
    return (row, n_moved) if 2 * n_moved > len(index) else (None, 0)


def _shift_of_ranges(index, other):
    """Return by how many rows two ranges of numbers are shifted, None for others."""
    steps = {getattr(one, "step", None) for one in (index, other)}
    if len(steps) > 1 or None in steps or index.dtype.kind not in "iu":
        return None
    shift, rest = divmod(abs(index.start - other.start), abs(steps.pop()))
    return len(index) if rest else shift


def check_groups(groups, n_samples):
    """Return the index of each row's group, int64, or None if there are no groups."""
    if groups is None:
        return None
    groups = collected(groups)
    if not hasattr(groups, "iloc") and not is_polars(groups):
        refuse_unreadable(groups, "groups")
        # numpy would convert NaN beside text to text.
        is_list = isinstance(groups, list | tuple)
        groups = np.asarray(groups, dtype=object if is_list else None)
    if groups.shape != (n_samples,):
        raise ValueError(f"groups must have shape ({n_samples},); got {groups.shape}.")
    try:
        indices, _ = factorize(groups)
    except Exception as error:
        raise TypeError(
            f"groups must contain one value per row: {error}{_first_list(groups)}."
        ) from error
    is_missing = indices < 0
    if is_missing.any():
        raise ValueError(
            f"groups must not be missing; {is_missing.sum()} are, the first in row "
            f"{is_missing.argmax()}."
        )
    return indices.astype(np.int64)


def number_groups(indices):
    """Renumber groups in the order of their first rows, as those of files are.

    The numbers then depend neither on the library nor on rows that follow.
    """
    _, first, inverse = np.unique(indices, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse]


def sort_groups(groups, n_samples):
    """Return each row's group as a number, in the order of values if they have one."""
    indices = check_groups(groups, n_samples)
    if isinstance(groups, list | tuple):  # numpy would convert numbers to text
        groups = np.array([*groups, None], dtype=object)[:-1]
    try:
        return np.unique(groups, return_inverse=True)[1]
    except TypeError:  # numbers beside text
        return number_groups(indices)


def _first_list(groups):
    """Describe the first group that is not hashable, such as a list."""
    for row, value in enumerate(groups):
        if not isinstance(value, Hashable):
            value = getattr(value, "to_list", lambda value=value: value)()
            return f"; row {row} contains {short_repr(value)}"
    return ""
