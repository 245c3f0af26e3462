"""What the calibrator reads from the classifiers that it calibrates."""

import numpy as np
from scipy.special import logit

LIMITS = np.finfo(np.float32)


def positive_probabilities(proba, n_tasks):
    """Return P(Y_k = 1) of shape (n_samples, n_tasks) from either form of a classifier.

    Raises
    ------
    ValueError
        If the shape is another one.
    """
    if isinstance(proba, list):
        shapes = {np.shape(p)[1:] for p in proba}
        if len(proba) == n_tasks and shapes == {(2,)}:
            return np.column_stack([p[:, 1] for p in proba])
        found = f"a list of {len(proba)} arrays of {sorted(shapes)} columns"
    else:
        proba = np.asarray(proba)
        n_columns = proba.shape[1] if proba.ndim == 2 else 0
        if n_tasks == 1 and n_columns == 2:
            return proba[:, 1:]
        if n_tasks == n_columns:
            return proba
        found = f"an array {proba.shape}"
    raise ValueError(
        f"predict_proba of the estimator must return an array (n_samples, {n_tasks}) "
        f"or a list of {n_tasks} arrays (n_samples, 2), got {found}."
    )


def logits_of(p):
    """Return the logits of probabilities in float64, finite at 0 and 1."""
    p = np.asarray(p, dtype=np.float64)
    return logit(np.clip(p, LIMITS.tiny, 1 - LIMITS.epsneg))


def classes_of(estimator):
    """Return the classes of a fitted estimator, of shape (n_tasks, 2) or (2,)."""
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, list):
        # One array per task; a task may have had one class only.
        return np.tile([0, 1], (len(classes), 1))
    # Others number the columns of their labels, whose classes are then not known.
    is_known = np.ndim(classes) == 2 or np.shape(classes) == (2,)
    return classes if is_known else None


def task_names_of(estimator, y, n_tasks):
    """Return the names of the tasks: the estimator's, or those of the columns."""
    names = getattr(estimator, "task_names_", None)
    if names is None:
        names = getattr(y, "columns", [f"task_{k}" for k in range(n_tasks)])
    if len(names) != n_tasks:
        raise ValueError(
            f"y must have the {len(names)} tasks of the estimator, got {n_tasks}."
        )
    return [str(name) for name in names]
