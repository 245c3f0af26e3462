"""Labels of the tasks: checked and converted before training."""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.utils import column_or_1d

from sk_pwiser._labels import (
    names_of_columns,
    one_task_labels,
    read_labels,
    zero_one_labels,
)
from sk_pwiser._table._task_names import check_distinct, choose_task_names
from sk_pwiser._utils import warn_user

# Largest error of a task's rate, by the selection of its labels, without a warning.
MAX_BIAS = 0.1


@dataclass
class Targets:
    """Checked labels of one or more tasks.

    Parameters
    ----------
    values : float32 ndarray of shape (n_samples, n_tasks)
        Labels, 0 or 1; 0 where they are missing.
    classes : ndarray of shape (n_tasks, 2) or (2,)
        The two labels of each task, in the user's dtype; 1-D for 1-D labels.
    task_names : tuple of str
        Names of the tasks.
    missing : bool ndarray of shape (n_samples, n_tasks), default=None
        Which labels are missing, never those of the first task; None if none is.
    counts : ndarray of shape (n_samples,), default=None
        Number of rows that each of these stands for; None for one.
    """

    values: np.ndarray
    classes: np.ndarray
    task_names: tuple
    missing: np.ndarray | None = None
    counts: np.ndarray | None = None

    def without_labels(self):
        """Return the classes and names alone, which are kept after training."""
        return replace(self, values=self.values[:0], missing=None, counts=None)

    def at(self, rows):
        """Return the targets of some rows."""
        missing = None if self.missing is None else self.missing[rows]
        return replace(self, values=self.values[rows], missing=missing)

    def without(self, left_out):
        """Return the targets with further labels of later tasks taken as missing.

        Parameters
        ----------
        left_out : bool ndarray of shape (n_samples, n_tasks)
            The labels. Those of the first task are kept: they decide which rows the
            next task is possible in.
        """
        missing = left_out if self.missing is None else left_out | self.missing
        missing = missing.copy()
        missing[:, 0] = False
        if not missing.any():
            return self
        return replace(self, values=np.where(missing, 0, self.values), missing=missing)

    def with_nan(self):
        """Return the labels with NaN where they are missing."""
        if self.missing is None:
            return self.values
        return np.where(self.missing, np.float32(np.nan), self.values)

    def warn_about_labels(self, constant_tasks=True, selection=True):
        """Warn about labels that break the funnel, are constant, or lack by selection.

        Parameters
        ----------
        constant_tasks : bool, default=True
            Whether to warn about tasks with a single label, which is usual in a small
            batch of rows.
        selection : bool, default=True
            Whether to warn about tasks whose labels lack more often if the task before
            happened, which biases what is learnt from all rows.
        """
        messages = list(self._broken_funnel_messages())
        if constant_tasks:
            messages += self._constant_task_messages()
        if selection and self.missing is not None:
            messages += self._selection_messages()
        for message in messages:
            warn_user(message)

    def _broken_funnel_messages(self):
        # One pass per column: an accumulation along short rows is far slower.
        stopped = np.zeros(len(self.values), dtype=bool)
        broken = np.zeros(len(self.values), dtype=bool)
        for k in range(self.values.shape[1]):
            is_one = self.values[:, k] == 1
            broken |= stopped & is_one
            stopped |= ~is_one if self.missing is None else ~is_one & self._known(k)
        n_rows = self._n_rows()
        n_broken, total = int(n_rows[broken].sum()), int(n_rows.sum())
        if n_broken:
            yield (
                f"{n_broken} of {total} rows break the funnel: a later task "
                "is 1 although an earlier one is 0. These rows contribute to the loss "
                "of each task but not to the pairwise term."
            )

    def _constant_task_messages(self):
        for k, name in enumerate(self.task_names):
            known = self.values[self._known(k), k]
            if len(known) == 0:
                yield (
                    f"Task {name!r} has no label in any row: the network learns "
                    "nothing about it."
                )
            elif (known == known[0]).all():
                yield (
                    f"Task {name!r} is {int(known[0])} in every row: the network can "
                    "learn nothing but this constant."
                )

    def _selection_messages(self):
        for k in range(1, len(self.task_names)):
            n_rows = self._n_rows()[self._known(k - 1)]
            before = self.values[self._known(k - 1), k - 1] == 1
            known = ~self.missing[self._known(k - 1), k]
            n_before, n_others = n_rows[before].sum(), n_rows[~before].sum()
            if not n_before or not n_others or not known.any():
                continue
            share = n_rows[known].sum() / n_rows.sum()
            of_before = n_rows[known & before].sum() / n_before
            of_others = n_rows[known & ~before].sum() / n_others
            error = np.sqrt(share * (1 - share) * (1 / n_before + 1 / n_others))
            ratio = of_before / share
            if abs(ratio - 1) > MAX_BIAS and abs(of_before - of_others) > 4 * error:
                name, previous = self.task_names[k], self.task_names[k - 1]
                yield (
                    f"Task {name!r} has a label in {of_before:.0%} of the rows with "
                    f"{previous!r} and in {of_others:.0%} of the others. In entire "
                    "task space, its mean probability then comes out about "
                    f"{ratio:.2f} times as high as its rate. Set network_params="
                    "{'task_space': 'conditional'}, or remove the labels of rows "
                    "with and without the task before alike, such as all recent ones."
                )

    def _n_rows(self):
        return np.ones(len(self.values), int) if self.counts is None else self.counts

    def _known(self, k):
        return slice(None) if self.missing is None else ~self.missing[:, k]


def check_targets(
    Y, task_names=None, *, default_names=None, classes=None, missing_labels="error"
):
    """Check labels and return them as :class:`Targets`.

    Parameters
    ----------
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels: 0 or 1 for several tasks, any two labels for a single task.
    task_names : sequence of str, default=None
        Names of the tasks; by default the column names of a DataFrame.
    default_names : sequence of str, default=None
        Names of the tasks if neither `task_names` nor `Y` contains any.
    classes : array-like of shape (2,), default=None
        The two labels of a single task, needed if `Y` may contain only one of them.
        Several tasks have the labels 0 and 1.
    missing_labels : {"error", "ignore"}, default="error"
        Whether labels of tasks after the first may be missing.

    Returns
    -------
    Targets

    Raises
    ------
    ValueError
        If labels are missing or not allowed, if the number of `task_names` differs from
        the number of tasks, or if two tasks have the same name.
    TypeError
        If `Y` is sparse or a scalar, or if a name in `task_names` is not a string.
    """
    check_distinct("The columns of Y", names_of_columns(Y))
    check_distinct("task_names", task_names)
    labels, missing, columns = read_labels(Y, missing_labels)
    if labels.ndim == 1 or labels.shape[1] == 1:
        values, classes = one_task_labels(column_or_1d(labels), columns, classes)
    else:
        if classes is not None and not np.array_equal(np.unique(classes), [0, 1]):
            raise ValueError(
                "classes must be 0 and 1 for several tasks; got "
                f"{np.unique(classes).tolist()}."
            )
        values, classes = _several_tasks(labels, columns)
    names = choose_task_names(values.shape[1], task_names, columns, default_names)
    return Targets(values, classes, names, missing)


def _several_tasks(labels, columns):
    values = zero_one_labels(labels, columns)
    dtype = np.dtype(int) if labels.dtype == object else labels.dtype
    classes = np.tile(np.array([0, 1]), (labels.shape[1], 1)).astype(dtype)
    return values, classes
