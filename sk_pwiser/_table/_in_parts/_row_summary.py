"""Labels and weights of all rows of a dataset, summed up part by part."""

import numpy as np

from sk_pwiser._table._base_rates import base_rates
from sk_pwiser._table._labels import Targets


class RowSummary:
    """Numbers of rows per combination of labels, and the scale of the weights.

    There are few combinations, and all that is said of labels follows from their
    numbers: rates, and warnings.
    """

    def __init__(self):
        self.n_rows = 0
        self.first = None
        self.states, self.counts, self.sums = {}, [], []
        # Of the weights above 0.
        self.total, self.n_positive, self.limits = 0.0, 0, (np.inf, 0.0)
        self.has_weights = self.per_task = self.has_zero = False

    def add(self, targets, weights):
        """Add rows.

        Parameters
        ----------
        targets : Targets
            Their labels.
        weights : float64 ndarray of shape (n_rows,) or (n_rows, n_tasks), or None
            Their weights.
        """
        if self.first is None:
            self.first = targets.without_labels()
        n_rows, n_tasks = targets.values.shape
        self.n_rows += n_rows
        state = targets.values.astype(np.int8)
        if targets.missing is not None:
            state = np.where(targets.missing, np.int8(2), state)
        distinct, inverse = np.unique(state, axis=0, return_inverse=True)
        places = np.array([self._place(row) for row in map(tuple, distinct.tolist())])
        own = np.ones(n_rows) if weights is None else weights
        own = np.broadcast_to(own.reshape(n_rows, -1), (n_rows, n_tasks))
        for task in range(n_tasks):
            sums = np.bincount(inverse.ravel(), own[:, task], len(distinct))
            for place, value in zip(places, sums.tolist(), strict=True):
                self.sums[place][task] += value
        counts = np.bincount(inverse.ravel(), minlength=len(distinct))
        for place, count in zip(places, counts.tolist(), strict=True):
            self.counts[place] += count
        self._add_weights(weights, n_rows)

    def _place(self, state):
        if state not in self.states:
            self.states[state] = len(self.states)
            self.counts.append(0)
            self.sums.append([0.0] * len(state))
        return self.states[state]

    def _add_weights(self, weights, n_rows):
        if weights is None:
            weights = np.ones(n_rows)
        else:
            self.has_weights = True
        if weights.ndim == 2 and (weights == weights[:, :1]).all():
            weights = weights[:, 0]
        self.per_task |= weights.ndim == 2
        positive = weights[weights > 0]
        self.has_zero |= len(positive) < weights.size
        if len(positive):
            low, high = self.limits
            self.limits = min(low, positive.min()), max(high, positive.max())
        # One weight per row stands for those of all tasks.
        n_columns = 1 if weights.ndim == 2 else self.n_tasks
        self.total += positive.sum() * n_columns
        self.n_positive += len(positive) * n_columns

    @property
    def n_tasks(self):
        """Number of tasks."""
        return len(self.first.task_names)

    @property
    def is_equal(self):
        """Whether all weights above 0 are equal."""
        return self.limits[0] == self.limits[1]

    @property
    def is_unweighted(self):
        """Whether all weights are equal."""
        return not self.has_weights or (self.is_equal and not self.has_zero)

    def scale(self, weights, n_rows):
        """Scale the weights of some rows, as `scale_weights` does those of all rows.

        Parameters
        ----------
        weights : float64 ndarray of shape (n_rows,) or (n_rows, n_tasks), or None
            Weights of the rows.
        n_rows : int
            Number of rows.

        Returns
        -------
        float32 ndarray of shape (n_rows,) or (n_rows, n_tasks), or None
        """
        if self.is_unweighted:
            return None
        if weights is None:
            weights = np.ones(n_rows)
        if self.per_task:
            shape = n_rows, self.n_tasks
            weights = np.broadcast_to(weights.reshape(n_rows, -1), shape)
        elif weights.ndim == 2:
            weights = weights[:, 0]
        if self.is_equal:
            return (weights > 0).astype(np.float32)
        return (weights / (self.total / self.n_positive)).astype(np.float32)

    def targets(self):
        """Return one row of labels for each combination, with its number of rows."""
        state = np.array(list(self.states))
        missing = state == 2
        return Targets(
            np.where(missing, 0, state).astype(np.float32),
            self.first.classes,
            self.first.task_names,
            missing if missing.any() else None,
            np.array(self.counts),
        )

    def base_rates(self):
        """Return the tasks' rates of ones, as `base_rates` does for all rows."""
        y = self.targets().values
        if self.is_unweighted:
            return base_rates(y, np.array(self.counts, dtype=float))
        sums = np.array(self.sums) / (self.total / self.n_positive)
        return base_rates(y, sums if self.per_task else sums[:, 0])
