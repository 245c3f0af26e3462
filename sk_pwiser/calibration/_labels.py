"""Labels of the rows of the calibration."""

import warnings

import numpy as np
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target


def read_labels(y, classes=None):
    """Return labels as floats (n_samples, n_tasks), NaN if missing, and the classes.

    Parameters
    ----------
    y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels: 0, 1 or NaN; for a single task any two labels, none of them missing.
    classes : ndarray of shape (n_tasks, 2) or (2,), default=None
        The classes that the estimator was fitted with.

    Returns
    -------
    labels : ndarray of shape (n_samples, n_tasks)
    classes : ndarray of shape (n_tasks, 2) or (2,)

    Raises
    ------
    ValueError
        If there are other labels, or another number of tasks than before.
    """
    if y is None:
        raise ValueError(
            "FunnelCalibrator requires y to be passed, but the target y is None."
        )
    labels = _read(y)
    if labels.dtype == object:
        labels = _read(np.array(labels.tolist()))  # objects may hide infinity
    if labels.ndim == 1 or labels.shape[1] == 1:
        assert_all_finite(labels, input_name="y")
        return _one_task(column_or_1d(labels), classes)
    n_tasks = labels.shape[1]
    # Some classifiers number the columns of their labels, in one dimension.
    if np.ndim(classes) == 2 and len(classes) != n_tasks:
        raise ValueError(
            f"y must have the {len(classes)} tasks of the estimator, got {n_tasks}."
        )
    dtype = labels.dtype if labels.dtype != object else np.dtype(int)
    values = labels.astype(np.float64)
    is_wrong = ~(np.isin(values, [0, 1]) | np.isnan(values))
    if is_wrong.any():
        row, k = np.argwhere(is_wrong)[0]
        raise ValueError(
            f"y must hold 0 and 1 only, but column {k} has {values[row, k]:g}."
        )
    return values, np.tile(np.array([0, 1], dtype=dtype), (n_tasks, 1))


def _read(y):
    return check_array(
        y, ensure_2d=False, dtype=None, ensure_all_finite="allow-nan", input_name="y"
    )


def _one_task(labels, classes):
    check_classification_targets(labels)
    if classes is None:
        classes = np.unique(labels)
        if len(classes) > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{type_of_target(labels)}."
            )
    if np.ndim(classes) != 1:
        raise ValueError(
            f"y must have the {len(classes)} tasks of the estimator, got 1."
        )
    unknown = ~np.isin(labels, classes)
    if unknown.any():
        raise ValueError(
            f"y must hold the classes {np.asarray(classes).tolist()} only, got "
            f"{labels[unknown.argmax()]!r}."
        )
    return (labels == classes[-1]).astype(np.float64)[:, np.newaxis], classes


def warn_about_constant_tasks(curves, labels, names):
    """Warn once about all tasks without a curve, at the caller of the caller."""
    unchanged = [
        f"{name!r} (label {y[~np.isnan(y)][0]:g})"
        if np.isfinite(y).any()
        else f"{name!r} (no label)"
        for name, curve, y in zip(names, curves, labels.T, strict=True)
        if curve is None
    ]
    if unchanged:
        warnings.warn(
            "Only one class in the rows of the calibration for "
            f"{', '.join(unchanged)}: the probabilities stay those of the estimator.",
            UserWarning,
            stacklevel=3,
        )
