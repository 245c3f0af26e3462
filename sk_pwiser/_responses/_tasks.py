"""Labels and names of the tasks that are evaluated."""

import numpy as np

from sk_pwiser._labels import one_task_labels, read_labels, zero_one_labels


def check_targets(Y, missing_labels="error", classes=None):
    """Check labels as ``fit`` does.

    Parameters
    ----------
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, 0 or 1; of a single task those in `classes`.
    missing_labels : {"error", "ignore"}, default="error"
        Whether labels of tasks after the first may be missing.
    classes : array-like of shape (2,), default=None
        The classes of an estimator with a single task, if it has any.

    Returns
    -------
    targets : int64 ndarray of shape (n_samples, n_tasks)
        The labels, 1 for the second class, and 0 where they are missing.
    known : bool ndarray of shape (n_samples, n_tasks)
        Which labels are not missing.
    names : list of str
        Names of the columns, empty if they have none.
    """
    labels, missing, names = read_labels(Y, missing_labels)
    labels = labels.reshape(len(labels), -1)
    if classes is not None and labels.shape[1] == 1:
        targets, _ = one_task_labels(labels[:, 0], names, classes)
    else:
        targets = zero_one_labels(labels, names)
    targets = targets.astype(np.int64)
    known = np.ones(targets.shape, dtype=bool)
    if missing is not None:
        known = ~missing.reshape(targets.shape)
    return targets, known, names or []


def check_lengths(X, targets):
    """Raise if the table has another number of rows than the labels.

    Only the estimator can count the rows of a table that has no length, such as a
    LazyFrame of polars.
    """
    shape = getattr(X, "shape", None)
    if not shape and not hasattr(X, "__len__"):
        return
    n_rows = shape[0] if shape else len(X)
    if n_rows != len(targets):
        raise ValueError(
            f"X and Y have inconsistent numbers of samples: X has {n_rows} rows, Y has "
            f"{len(targets)}."
        )


def find_task(task, n_tasks, *names_by_source, others=", 'cvr' or 'mean'"):
    """Return the column of the task with this index or name.

    `others` ends the list of names in the message, with what the caller takes besides.
    """
    if not isinstance(task, str):
        if not -n_tasks <= task < n_tasks:
            raise ValueError(
                f"task must be an index in [-{n_tasks}, {n_tasks}) for the {n_tasks} "
                f"tasks of Y, got {task}."
            )
        return task % n_tasks
    known = [names for names in names_by_source if names]
    for names in known:
        if task in names:
            return names.index(task)
    if not known:
        raise ValueError(
            "task must be an index if Y has no column names and the estimator has no "
            f"task_names_, got {task!r}."
        )
    listed = " or ".join(str(names) for names in known)
    raise ValueError(f"task must be one of {listed}{others}, got {task!r}.")


def check_same_tasks(n_tasks, y_names, fitted_names):
    """Raise if the tasks of ``Y``, or their order, are not those of ``fit``."""
    if fitted_names and len(fitted_names) != n_tasks:
        raise ValueError(
            f"Y must have the {len(fitted_names)} tasks the estimator was fitted with, "
            f"{fitted_names}, got {n_tasks}."
        )
    if y_names != fitted_names and sorted(y_names) == sorted(fitted_names):
        raise ValueError(
            "The columns of Y must be in the order the estimator was fitted with, "
            f"{fitted_names}, got {y_names}."
        )
