"""Labels and names of the tasks that a scorer evaluates."""

import numpy as np
from sklearn.utils import check_array


def check_targets(Y):
    """Return ``Y`` as 0/1 integers (n_samples, n_tasks), and its column names."""
    names = getattr(Y, "columns", None)
    if names is None:
        names = [Y.name] if getattr(Y, "name", None) else []
    names = [str(name) for name in names]
    targets = check_array(Y, ensure_2d=False, input_name="Y")
    targets = targets.reshape(len(targets), -1)
    bad = (targets != 0) & (targets != 1)
    if bad.any():
        row, k = np.argwhere(bad)[0]
        name = repr(names[k]) if names else k
        raise ValueError(
            f"Y must hold 0 and 1 only, but column {name} has "
            f"{targets[row, k].item()!r}."
        )
    return targets.astype(np.int64), names


def find_task(task, n_tasks, *names_by_source):
    """Return the column of the task with this index or name."""
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
    raise ValueError(f"task must be one of {listed}, 'cvr' or 'mean', got {task!r}.")


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
