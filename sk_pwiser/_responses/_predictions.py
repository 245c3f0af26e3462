"""Predictions of an estimator in the form of each task."""

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import check_consistent_length, column_or_1d


class Predictions:
    """Predictions of one estimator for one ``X``, in the form of each task.

    Parameters
    ----------
    estimator : object
        A fitted estimator.
    X : array-like
        The rows.
    cache : dict
        Receives what the methods of the estimator return, so that later instances with
        the same cache do not call them again.
    """

    def __init__(self, estimator, X, cache):
        self._estimator = estimator
        self._X = X
        self._cache = cache

    def task_names(self):
        """Return the ``task_names_`` of the fitted estimator, or an empty list."""
        for layer in nested_estimators(self._estimator):
            if hasattr(layer, "task_names_"):
                return [str(name) for name in layer.task_names_]
        return []

    def missing_labels(self):
        """Return what a missing label is to the estimator: "error" or "ignore"."""
        for layer in nested_estimators(self._estimator):
            if hasattr(layer, "missing_labels"):
                return layer.missing_labels
        return "error"

    def classes(self):
        """Return the two classes of an estimator with a single task, else None."""
        for layer in nested_estimators(self._estimator):
            classes = getattr(layer, "classes_", None)
            if isinstance(classes, np.ndarray) and classes.shape == (2,):
                return classes
        return None

    def of_task(self, k, targets, method):
        """Return the predicted labels or probabilities of the task in column ``k``.

        Labels of a single task are 1 for the second class, as in ``targets``.
        """
        if method == "predict":
            labels = _predicted_labels(self._call(method), k, targets)
            classes = self.classes()
            if targets.shape[1] > 1 or classes is None:
                return labels
            return (labels == classes[1]).astype(np.int64)
        proba = self._call(method)
        return event_probability(proba, k, targets.shape, self._estimator)

    def cvr(self, targets):
        """Return P(last task | first task), by ``predict_cvr`` if there is one."""
        if targets.shape[1] == 1:
            raise ValueError(
                "task='cvr' must have at least two tasks in Y, got one: P(last task | "
                "first task) is then 1 for every row."
            )
        response = self._call("predict_cvr", _predict_cvr)
        if response is not None:
            cvr = column_or_1d(response, dtype=np.float64)
            check_consistent_length(targets, cvr)
            return cvr
        first = self.of_task(0, targets, "predict_proba")
        last = self.of_task(targets.shape[1] - 1, targets, "predict_proba")
        limit = np.where(last > 0, 1.0, 0.0)
        ratio = np.divide(last, first, out=limit, where=first > 0)
        return np.clip(ratio, 0.0, 1.0)

    def _call(self, method, function=None):
        # scikit-learn stores its own, reduced, responses under the plain names.
        key = ("sk_pwiser", method)
        if key not in self._cache:
            if function is None:
                self._cache[key] = getattr(self._estimator, method)(self._X)
            else:
                self._cache[key] = function(self._estimator, self._X)
        return self._cache[key]


def nested_estimators(estimator):
    """Yield the estimator and, one inside the other, the estimators that it wraps.

    A search wraps its best estimator, a pipeline its last step.
    """
    while estimator is not None:
        yield estimator
        if isinstance(estimator, Pipeline):
            estimator = estimator[-1]
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        else:
            estimator = getattr(estimator, "best_estimator_", None)


def _predict_cvr(estimator, X):
    """Return ``predict_cvr`` of the outermost layer that has it, else None."""
    layers = list(nested_estimators(estimator))
    for i, layer in enumerate(layers):
        if not hasattr(layer, "predict_cvr"):
            continue
        # A pipeline offers only scikit-learn's own methods of its last step, so its
        # transformers are applied here.
        for outer in layers[:i]:
            if isinstance(outer, Pipeline) and len(outer) > 1:
                X = outer[:-1].transform(X)
        return layer.predict_cvr(X)
    return None


def event_probability(proba, k, shape, estimator):
    """Return P(Y_k = 1) from either form of a multi-output ``predict_proba``.

    Parameters
    ----------
    proba : ndarray or list of ndarray
        The predictions of the estimator.
    k : int
        Column of the task.
    shape : tuple of int
        Numbers of rows and tasks.
    estimator : object
        The estimator, whose classes are read if it saw one class only.

    Raises
    ------
    ValueError
        If the predictions have another form or shape.
    """
    n_samples, n_tasks = shape
    per_task = isinstance(proba, list) and len(proba) == n_tasks
    block = np.asarray(proba[k] if per_task else proba, dtype=np.float64)
    if per_task or n_tasks == 1:
        if block.shape == (n_samples, 2):
            return block[:, 1]
        if block.shape == (n_samples, 1):
            # After a fit on one class, the only column is the probability of it.
            classes = getattr(estimator, "classes_", [0, 1])
            seen = np.ravel(classes[k] if per_task else classes)
            if len(seen) == 1:
                return np.full(n_samples, float(seen[0] == 1))
            return block[:, 0]
    elif block.shape == (n_samples, n_tasks):
        return block[:, k]
    raise ValueError(
        f"predict_proba must return an array ({n_samples}, {n_tasks}), or a list of "
        f"{n_tasks} arrays ({n_samples}, 2), for the {n_tasks} tasks of Y, got "
        f"{'a list of arrays' if per_task else 'an array'} {block.shape}."
    )


def _predicted_labels(labels, k, targets):
    labels = np.asarray(labels).reshape(len(labels), -1)
    if labels.shape != targets.shape:
        raise ValueError(
            f"predict must return shape {targets.shape}, as Y, got {labels.shape}."
        )
    return labels[:, k]
