"""Labels of a single task, which may be any two values."""

import numpy as np
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from sk_pwiser._labels._reading import raise_if_infinite


def one_task_labels(labels, columns=None, classes=None, *, input_name="Y"):
    """Return the labels of a single task as 0 and 1, and its two classes.

    Parameters
    ----------
    labels : ndarray of shape (n_samples,)
        Any two labels, none of them missing.
    columns : list of str, default=None
        The name of the column, for messages.
    classes : array-like of shape (2,), default=None
        The two labels, needed if there may be only one of them.
    input_name : str, default="Y"
        Name of the labels, for messages.

    Returns
    -------
    values : float32 ndarray of shape (n_samples, 1)
        1 for the second class, in increasing order.
    classes : ndarray of shape (2,)
        The classes, in the user's dtype.

    Raises
    ------
    ValueError
        If there are other labels than the classes, or only one class and no `classes`.
    """
    name = 0 if columns is None else columns[0]
    where = f"column {name!r} of {input_name}"
    if labels.dtype == object:
        labels = _without_object_dtype(labels, where)
        raise_if_infinite(labels, [name], input_name)
    try:
        check_classification_targets(labels)
    except ValueError as error:
        raise ValueError(f"{error} Found in {where}.") from error
    found = np.unique(labels)
    if classes is None:
        _check_two(labels, found, where)
        classes = found
    classes = np.unique(classes)
    is_known = np.isin(labels, classes)
    if len(classes) != 2 or not is_known.all():
        raise ValueError(
            "Only binary classification is supported: expected the classes "
            f"{classes.tolist()}, got the labels {found[:5].tolist()} in {where}"
            + ("." if is_known.all() else f", in row {int(np.argmin(is_known))}.")
        )
    return (labels == classes[1]).astype(np.float32)[:, np.newaxis], classes


def _check_two(labels, found, where):
    if len(found) > 2:
        raise ValueError(
            "Only binary classification is supported. The type of the target is "
            f"{type_of_target(labels)}: {where} contains the labels "
            f"{found[:5].tolist()}."
        )
    if len(found) < 2:
        raise ValueError(
            "This estimator needs both classes of a single task; the data contains "
            f"only one class: {found.tolist()[0]!r}, in {where}."
        )


def _without_object_dtype(labels, where):
    """Return Python objects in a dtype of numbers or dates; text is left unchanged."""
    is_text = [isinstance(label, str) for label in labels]
    if all(is_text):
        return labels
    if any(is_text):
        raise ValueError(
            f"Labels must be all text or all numbers; {where} contains "
            f"{labels[is_text.index(True)]!r} and {labels[is_text.index(False)]!r}."
        )
    return np.array(labels.tolist())
