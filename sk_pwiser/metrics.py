"""Scorers for one task of a funnel, for its CVR, or for the mean over its tasks.

They go into ``scoring=`` of :class:`~sklearn.model_selection.GridSearchCV` and its kin:

- ``ctr_auc_scorer``: ROC AUC of the first task.
- ``ctcvr_auc_scorer``: ROC AUC of the last task, over all rows.
- ``cvr_auc_scorer``: ROC AUC of P(last task | first task), where the first happened.
- ``mean_auc_scorer``: mean ROC AUC over the tasks.
- ``mean_log_loss_scorer``: minus the mean binary log loss over the tasks, in nats.
  Unlike scikit-learn's ``"neg_log_loss"``, which takes two tasks for two classes, it
  counts non-events, and its scale does not depend on the number of tasks.

An AUC without both classes is NaN, with an ``UndefinedMetricWarning``.
:func:`make_task_scorer` builds others.
"""

import inspect
import warnings
from numbers import Integral

import numpy as np
from sklearn import get_config
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.metadata_routing import MetadataRequest

__all__ = [
    "ctcvr_auc_scorer",
    "ctr_auc_scorer",
    "cvr_auc_scorer",
    "make_task_scorer",
    "mean_auc_scorer",
    "mean_log_loss_scorer",
]

# Rankings need both classes. Not all of these say so: without a negative, the average
# precision is silently 1.
_NEEDS_BOTH_CLASSES = (roc_auc_score, average_precision_score)


def make_task_scorer(
    metric, task, *, greater_is_better=True, response_method="predict_proba", **kwargs
):
    """Make a scorer of one task, of the CVR, or of the mean over tasks.

    Parameters
    ----------
    metric : callable
        ``metric(y_true, y_pred, **kwargs)`` on the labels and the predictions of one
        task, both of shape (n_samples,). To be pickled, as ``n_jobs`` demands, it
        must be importable.
    task : int or str
        What is scored:

        - an int: that column of ``Y``; negative ones count from the end;
        - ``"cvr"``: P(last task | first task) against the last task, over the rows
          where the first task happened;
        - ``"mean"``: the mean of the metric over all tasks;
        - any other str: the task of that name, looked up in the columns of a
          DataFrame ``Y``, then in the ``task_names_`` of the estimator. A task that
          is itself named "cvr" or "mean" is reached by its index.
    greater_is_better : bool, default=True
        False for a loss: the scorer then returns minus the metric.
    response_method : {"predict_proba", "predict"}, default="predict_proba"
        Whether the metric receives the probability of the event or the predicted
        label. ``task="cvr"`` is a probability, always.
    **kwargs : dict
        Passed to the metric.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, Y, sample_weight=None)`` returns a float.

    Raises
    ------
    TypeError
        If ``metric`` is not callable or ``task`` is neither an int nor a str.
    ValueError
        If ``response_method`` is unknown, or is "predict" with ``task="cvr"``.

    Notes
    -----
    ``Y`` is of shape (n_samples, n_tasks) or (n_samples,) and holds 0 and 1.
    ``predict_proba`` of the estimator may return an array (n_samples, n_tasks), a list
    of ``n_tasks`` arrays (n_samples, 2), or for one task (n_samples, 2). The CVR comes
    from ``predict_cvr`` of the estimator, found inside a ``Pipeline`` or a search too;
    without one it is the ratio of the last to the first probability, clipped to [0, 1]
    (0 where both are 0). It asks for at least two tasks.

    A metric that is undefined because only one class is there (or, for the CVR,
    because the first task never happened) is NaN, with one ``UndefinedMetricWarning``
    that names the task. That holds for ``roc_auc_score``, ``average_precision_score``
    and any metric that warns of it or returns NaN. The mean with such a task is NaN.

    Under metadata routing ``set_score_request(sample_weight=True)`` works as on
    scikit-learn's scorers, in place: ``copy.deepcopy`` a shared scorer first.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.metrics import brier_score_loss
    >>> from sk_pwiser.metrics import make_task_scorer
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> Y = np.array([[0, 0], [0, 0], [1, 0], [1, 1]])
    >>> forest = RandomForestClassifier(bootstrap=False, random_state=0).fit(X, Y)
    >>> scorer = make_task_scorer(brier_score_loss, -1, greater_is_better=False)
    >>> scorer
    make_task_scorer(brier_score_loss, -1, greater_is_better=False)
    >>> abs(scorer(forest, X, Y))
    0.0
    """
    if not callable(metric):
        raise TypeError(f"metric must be callable, got {metric!r}.")
    if isinstance(task, bool) or not isinstance(task, (Integral, str)):
        raise TypeError(
            "task must be a column index, a task name, 'cvr' or 'mean', got "
            f"{task!r} of type {type(task).__name__}."
        )
    if response_method not in ("predict_proba", "predict"):
        raise ValueError(
            "response_method must be 'predict_proba' or 'predict', got "
            f"{response_method!r}."
        )
    if task == "cvr" and response_method == "predict":
        raise ValueError(
            "response_method must be 'predict_proba' with task='cvr', which is a "
            "probability, got 'predict'."
        )
    return _TaskScorer(metric, task, greater_is_better, response_method, kwargs)


class _TaskScorer:
    """What :func:`make_task_scorer` returns."""

    def __init__(self, metric, task, greater_is_better, response_method, kwargs):
        self._metric = metric
        self._task = task
        self._greater_is_better = greater_is_better
        self._response_method = response_method
        self._kwargs = kwargs
        # As with scikit-learn's scorers: None is an error once weights are passed.
        self._weight_request = None

    def __call__(self, estimator, X, y, sample_weight=None):
        """Score a fitted estimator; see :func:`make_task_scorer`."""
        targets, y_names = _check_targets(y)
        weight = self._check_weight(sample_weight, targets)
        values, reasons = [], []
        for label, rows, k, predicted in self._parts(estimator, X, targets, y_names):
            used = None if weight is None else weight[rows]
            value, reason = self._evaluate(targets[rows, k], predicted, used)
            values.append(value)
            if reason:
                reasons.append(f"{label} has {reason}")
        if reasons:
            warnings.warn(
                f"{self!r} is undefined and set to nan: {'; '.join(reasons)}.",
                UndefinedMetricWarning,
                stacklevel=2,
            )
        return float(np.mean(values)) * (1 if self._greater_is_better else -1)

    def __repr__(self):
        metric = self._metric
        parts = [getattr(metric, "__name__", repr(metric)), repr(self._task)]
        if not self._greater_is_better:
            parts.append("greater_is_better=False")
        if self._response_method != "predict_proba":
            parts.append(f"response_method={self._response_method!r}")
        parts += [f"{name}={value!r}" for name, value in self._kwargs.items()]
        return f"make_task_scorer({', '.join(parts)})"

    def _parts(self, estimator, X, targets, y_names):
        """Yield each scored task's label, rows, column of targets, and predictions."""
        fitted_names = _fitted_task_names(estimator)
        n_tasks = targets.shape[1]
        _check_same_tasks(n_tasks, y_names, fitted_names)
        if self._task == "cvr":
            happened = targets[:, 0] == 1
            cvr = _predict_cvr(estimator, X, targets)
            yield "the CVR", happened, -1, cvr[happened]
            return
        names = y_names or fitted_names
        columns = range(n_tasks)
        if self._task != "mean":
            columns = [_find_task(self._task, n_tasks, y_names, fitted_names)]
        response = getattr(estimator, self._response_method)(X)
        for k in columns:
            label = f"task {k} ({names[k]!r})" if names else f"task {k}"
            if self._response_method == "predict":
                predicted = _predicted_labels(response, k, targets)
            else:
                predicted = _event_probability(response, k, targets, estimator)
            yield label, slice(None), k, predicted

    def _evaluate(self, y_true, y_pred, weight):
        """Return the metric, and why it is undefined where it is."""
        counted = y_true if weight is None else y_true[weight != 0]
        kwargs = {} if weight is None else {"sample_weight": weight}
        kwargs = {**self._kwargs, **kwargs}
        if counted.size == 0:
            return np.nan, "no rows to score"
        if counted.min() != counted.max():
            return float(self._metric(y_true, y_pred, **kwargs)), None
        reason = f"only class {counted[0]} in its {counted.size} rows"
        if getattr(self._metric, "func", self._metric) in _NEEDS_BOTH_CLASSES:
            return np.nan, reason
        # A metric that warns would return a number of its own invention.
        with warnings.catch_warnings():
            warnings.simplefilter("error", UndefinedMetricWarning)
            try:
                value = float(self._metric(y_true, y_pred, **kwargs))
            except UndefinedMetricWarning:
                value = np.nan
        return value, reason if np.isnan(value) else None

    def _check_weight(self, sample_weight, targets):
        if sample_weight is None:
            return None
        self._refuse_weight_unless_taken()
        weight = column_or_1d(sample_weight)
        check_consistent_length(targets, weight)
        return weight

    def _refuse_weight_unless_taken(self):
        if not self._accept_sample_weight():
            raise TypeError(f"The metric of {self!r} takes no sample_weight.")

    def _accept_sample_weight(self):
        # scikit-learn asks its scorers by this name whether weights may be passed.
        try:
            return "sample_weight" in inspect.signature(self._metric).parameters
        except ValueError:  # some compiled functions have no signature
            return False

    def set_score_request(self, *, sample_weight):
        """Set, in place, whether routing passes weights: a bool, None or an alias."""
        if not get_config()["enable_metadata_routing"]:
            raise RuntimeError("set_score_request needs enable_metadata_routing=True.")
        self._refuse_weight_unless_taken()
        self._request(sample_weight)  # refuses a bad alias before it is stored
        self._weight_request = sample_weight
        return self

    def get_metadata_routing(self):
        """Return the metadata that the scorer requests: ``sample_weight`` or none."""
        return self._request(self._weight_request)

    def _request(self, alias):
        request = MetadataRequest(owner=repr(self))
        if self._accept_sample_weight():
            request.score.add_request(param="sample_weight", alias=alias)
        return request


def _check_targets(Y):
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


def _find_task(task, n_tasks, *names_by_source):
    """Return the column index that an index or a name means."""
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
            f"task must be an index where Y has no column names and the estimator no "
            f"task_names_, got {task!r}."
        )
    listed = " or ".join(str(names) for names in known)
    raise ValueError(f"task must be one of {listed}, 'cvr' or 'mean', got {task!r}.")


def _check_same_tasks(n_tasks, y_names, fitted_names):
    """Refuse other tasks than the fitted ones, or their order: all would be mixed."""
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


def _layers(estimator):
    """Yield the estimator, then what it wraps: a search's best, a pipeline's last."""
    while estimator is not None:
        yield estimator
        if isinstance(estimator, Pipeline):
            estimator = estimator[-1]
        else:
            estimator = getattr(estimator, "best_estimator_", None)


def _fitted_task_names(estimator):
    for layer in _layers(estimator):
        if hasattr(layer, "task_names_"):
            return [str(name) for name in layer.task_names_]
    return []


def _predict_cvr(estimator, X, targets):
    """Return P(last task | first task), from ``predict_cvr`` where there is one."""
    if targets.shape[1] == 1:
        raise ValueError(
            "task='cvr' must have at least two tasks in Y, got one: P(last task | "
            "first task) is then 1 for every row."
        )
    layers = list(_layers(estimator))
    for i, layer in enumerate(layers):
        if not hasattr(layer, "predict_cvr"):
            continue
        # Pipelines pass on no method but those they know: walk through them.
        for outer in layers[:i]:
            if isinstance(outer, Pipeline) and len(outer) > 1:
                X = outer[:-1].transform(X)
        cvr = column_or_1d(layer.predict_cvr(X), dtype=np.float64)
        check_consistent_length(targets, cvr)
        return cvr
    proba = estimator.predict_proba(X)
    first = _event_probability(proba, 0, targets, estimator)
    last = _event_probability(proba, targets.shape[1] - 1, targets, estimator)
    limit = np.where(last > 0, 1.0, 0.0)
    ratio = np.divide(last, first, out=limit, where=first > 0)
    return np.clip(ratio, 0.0, 1.0)


def _event_probability(proba, k, targets, estimator):
    """Return P(Y_k = 1) from either form of a multi-output ``predict_proba``."""
    n_samples, n_tasks = targets.shape
    per_task = isinstance(proba, list) and len(proba) == n_tasks
    block = np.asarray(proba[k] if per_task else proba, dtype=np.float64)
    if per_task or n_tasks == 1:
        if block.shape == (n_samples, 2):
            return block[:, 1]
        if block.shape == (n_samples, 1):
            # Fitted on one class, the only column is the probability of that class.
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


ctr_auc_scorer = make_task_scorer(roc_auc_score, 0)
ctcvr_auc_scorer = make_task_scorer(roc_auc_score, -1)
cvr_auc_scorer = make_task_scorer(roc_auc_score, "cvr")
mean_auc_scorer = make_task_scorer(roc_auc_score, "mean")
# With the labels given, a task without events still has a log loss.
mean_log_loss_scorer = make_task_scorer(
    log_loss, "mean", greater_is_better=False, labels=[0, 1]
)
