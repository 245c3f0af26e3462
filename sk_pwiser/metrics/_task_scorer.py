"""Scorers for one task, for the CVR or for the mean over tasks."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.metrics._scorer import _BaseScorer
from sklearn.utils.metadata_routing import MetadataRequest

from sk_pwiser import _responses
from sk_pwiser._columns._frames import collected, column_of
from sk_pwiser._tasks._groups import check_groups
from sk_pwiser._tasks._weights import check_weights
from sk_pwiser.metrics._metrics import grouped_auc

# These metrics need both classes, but do not always warn: without negatives, the
# average precision is 1.
_NEEDS_BOTH_CLASSES = (roc_auc_score, average_precision_score)
# Filters of warnings belong to the process: of two threads that overlap, one would
# restore those that the other one has set for a metric.
_FILTERING = RLock()


def make_task_scorer(
    metric: Callable[..., Any],
    task: int | str,
    *,
    greater_is_better: bool = True,
    **kwargs: Any,
) -> "TaskScorer":
    """Make a scorer for one task, for the CVR, or for the mean over tasks.

    Parameters
    ----------
    metric : callable
        ``metric(y_true, y_prob, **kwargs)`` receives the labels and the probabilities
        of one task, both of shape (n_samples,). To pickle the scorer, which ``n_jobs``
        requires, the metric must be importable.
    task : int or str
        The task to score:

        - an int: the column of ``Y`` with this index; negative indices count from the
          end;
        - ``"cvr"``: the last task, predicted by P(last task | first task), over the
          rows where the first task is 1;
        - ``"mean"``: the mean of the metric over all tasks;
        - any other str: the task with this name, looked up in the columns of a
          DataFrame ``Y``, then in the ``task_names_`` of the estimator. A task named
          "cvr" or "mean" is scored by its index.
    greater_is_better : bool, default=True
        Whether a higher value of the metric is better. If False, the scorer returns
        minus the metric.
    **kwargs : dict
        Passed to the metric.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, Y, sample_weight=None)`` returns a float. Weights are of
        shape (n_samples,), or (n_samples, n_tasks) for weights per task.

    Raises
    ------
    TypeError
        If ``metric`` is not callable or ``task`` is neither an int nor a str.
    ValueError
        Raised by the scorer if one of several tasks has the name "cvr" or "mean" and
        ``task`` is this name.

    Notes
    -----
    ``Y``, of shape (n_samples, n_tasks) or (n_samples,), contains 0 and 1. For a single
    task it may contain the two ``classes_`` of the estimator instead; the second is the
    event. The metric receives 0 and 1. If the estimator has
    ``missing_labels="ignore"``, labels may be missing; the score of a task leaves out
    the rows without a label. Labels and weights are checked as in ``fit``, with the
    same errors.

    ``predict_proba`` of the estimator may return an array of shape (n_samples,
    n_tasks), a list of ``n_tasks`` arrays of shape (n_samples, 2), or for one task an
    array of shape (n_samples, 2). The CVR is computed by ``predict_cvr`` of the
    estimator, which may be inside a ``Pipeline`` or a search. For other estimators, it
    is the ratio of the last to the first probability, clipped to [0, 1] (0 where both
    are 0). It needs at least two tasks.

    A metric is undefined if ``Y`` has only one class or, for the CVR, if the first task
    is 0 in every row. The score is then NaN, with one ``UndefinedMetricWarning`` that
    names the task. This applies to ``roc_auc_score``, ``average_precision_score`` and
    every metric that issues this warning or returns NaN. The mean over tasks is NaN if
    the score of a task is NaN.

    In a ``scoring`` with several scorers, ``predict_proba`` and ``predict_cvr`` are
    called once for all of them.

    With metadata routing, ``set_score_request(sample_weight=True)`` works like the
    method of scikit-learn's scorers, and changes the scorer in place.

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
    return TaskScorer(metric, _responses.check_task(task), greater_is_better, kwargs)


# scikit-learn lets only instances of its private base class share predictions.
class TaskScorer(_BaseScorer):
    """The scorer that :func:`make_task_scorer` returns."""

    def __init__(
        self,
        metric: Callable[..., Any],
        task: int | str,
        greater_is_better: bool,
        kwargs: Mapping[str, Any],
    ) -> None:
        sign = 1 if greater_is_better else -1
        super().__init__(metric, sign, kwargs, "predict_proba")
        self._task = task
        if task == "cvr":
            # The CVR uses the first of these methods that the estimator has.
            self._response_method = ("predict_cvr", "predict_proba")
        self._metadata_request = MetadataRequest(owner=repr(self))
        if self._accept_sample_weight():
            # As in scikit-learn's scorers, None is an error if weights are passed.
            self._metadata_request.score.add_request(param="sample_weight", alias=None)

    def __call__(
        self, estimator: Any, X: Any, y: Any, sample_weight: Any = None
    ) -> float:
        """Score a fitted estimator; see :func:`make_task_scorer`."""
        return self._score(None, estimator, X, y, sample_weight=sample_weight)

    def __repr__(self) -> str:
        metric = self._score_func
        arguments = [getattr(metric, "__name__", repr(metric)), repr(self._task)]
        if self._sign < 0:
            arguments.append("greater_is_better=False")
        arguments += [f"{name}={value!r}" for name, value in self._kwargs.items()]
        return f"make_task_scorer({', '.join(arguments)})"

    def _score(
        self, method_caller: Any, estimator: Any, X: Any, y: Any, **metadata: Any
    ) -> float:
        """Score with the predictions of the other scorers of the same call."""
        X = collected(X)
        y = collected(y)
        predictions = _responses.Predictions(estimator, X, shared_cache(method_caller))
        targets, is_known, y_names = predictions.read_targets(y, **metadata)
        fitted_names = predictions.task_names()
        names = y_names or fitted_names
        row_values = self._check_metadata(X, targets, names or None, **metadata)
        values = []
        reasons = []
        for label, is_scored, k, predicted in self._scored_tasks(
            predictions, targets, y_names, fitted_names
        ):
            # A missing label is neither 0 nor 1: the row is left out for this task
            # only.
            rows = is_scored & is_known[:, k]
            task_values = None
            if row_values is not None:
                is_per_task = row_values.ndim > 1
                task_values = (row_values[:, k] if is_per_task else row_values)[rows]
            value, reason = self._evaluate(
                targets[rows, k], predicted[rows], task_values
            )
            values.append(value)
            if reason:
                reasons.append(f"{label} has {reason}")
        if reasons:
            warnings.warn(
                f"{self!r} is undefined and set to nan: {'; '.join(reasons)}.",
                UndefinedMetricWarning,
                stacklevel=3,
            )
        return float(np.mean(values)) * self._sign

    def _scored_tasks(
        self,
        predictions: _responses.Predictions,
        targets: npt.NDArray[Any],
        y_names: list[str],
        fitted_names: list[str],
    ) -> Iterator[tuple[str, npt.NDArray[np.bool_], int, npt.NDArray[Any]]]:
        """Yield each scored task's label, rows, column of targets, and predictions."""
        n_tasks = targets.shape[1]
        names = y_names or fitted_names
        if n_tasks > 1 and self._task in {"cvr", "mean"} & {*(fitted_names or names)}:
            raise ValueError(
                f"task={self._task!r} is ambiguous, because a task has this name. "
                "Rename the column of Y; to score the task itself, give its index."
            )
        if self._task == "cvr":
            happened = targets[:, predictions.first_of_cvr(n_tasks)] == 1
            yield "the CVR", happened, -1, predictions.cvr(targets)
            return
        columns = list(range(n_tasks))
        if self._task != "mean":
            columns = [_responses.find_task(self._task, n_tasks, y_names, fitted_names)]
        for k in columns:
            label = f"task {k} ({names[k]!r})" if names else f"task {k}"
            predicted = predictions.of_task(k, targets)
            yield label, np.ones(len(targets), dtype=bool), k, predicted

    def _evaluate(
        self,
        y_true: npt.NDArray[Any],
        y_pred: npt.NDArray[Any],
        weight: npt.NDArray[Any] | None,
    ) -> tuple[float, str | None]:
        """Return the metric and, if it is undefined, the reason."""
        kwargs = dict(self._kwargs)
        weighted = y_true
        if weight is not None:
            kwargs["sample_weight"] = weight
            # Rows of weight 0 do not count as a class.
            weighted = y_true[weight != 0]
        if weighted.size == 0:
            return np.nan, "no rows to score"
        if weighted.min() != weighted.max():
            return float(self._score_func(y_true, y_pred, **kwargs)), None
        reason = f"only class {weighted[0]} in its {weighted.size} rows"
        # The metric inside a functools.partial.
        metric = getattr(self._score_func, "func", self._score_func)
        if metric in _NEEDS_BOTH_CLASSES:
            return np.nan, reason
        # A metric that issues the warning may return an arbitrary number.
        with _FILTERING, warnings.catch_warnings():
            warnings.simplefilter("error", UndefinedMetricWarning)
            try:
                value = float(self._score_func(y_true, y_pred, **kwargs))
            except UndefinedMetricWarning:
                value = np.nan
        return value, reason if np.isnan(value) else None

    def _check_metadata(
        self,
        X: Any,
        targets: npt.NDArray[Any],
        names: list[str] | None,
        sample_weight: Any = None,
    ) -> npt.NDArray[Any] | None:
        """Return one value per row, or per row and task, for the metric, or None."""
        if sample_weight is None:
            return None
        if not self._accept_sample_weight():
            raise TypeError(f"The metric of {self!r} takes no sample_weight.")
        n_samples, n_tasks = targets.shape
        weights: npt.NDArray[Any] = check_weights(
            sample_weight, n_samples, n_tasks, names
        )
        return weights

    def _accept_sample_weight(self) -> bool:
        # scikit-learn calls this method before it passes weights.
        try:
            return "sample_weight" in inspect.signature(self._score_func).parameters
        except ValueError:  # some compiled functions have no signature
            return False


def shared_cache(method_caller: Any) -> dict[Any, Any]:
    """Return the dict that the scorers of one ``scoring`` share, or a new one."""
    # scikit-learn passes partial(_cached_call, cache) to each of several scorers, but
    # the function itself reduces probabilities of several tasks to one column.
    match getattr(method_caller, "args", ()):
        case (dict() as cache,):
            return cache
    return {}


def make_grouped_auc_scorer(
    task: int | str, *, groups: str | None = None
) -> "_GroupedAUCScorer":
    """Make a scorer of the mean ROC AUC within groups, for one task or their mean.

    Parameters
    ----------
    task : int or str
        The task to score: its index, its name, ``"cvr"`` or ``"mean"``, as in
        :func:`make_task_scorer`.
    groups : str, default=None
        The column of ``X`` with the group of each row. If None, the groups are passed
        to the scorer, by the caller or by metadata routing.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, Y, groups=None)`` returns a float, see
        :func:`grouped_auc`. It is NaN, with an ``UndefinedMetricWarning``, if no group
        has both classes.

    Raises
    ------
    TypeError
        If ``task`` is neither an int nor a str, or ``groups`` is not a str.

    See Also
    --------
    grouped_auc : The metric.

    Notes
    -----
    With metadata routing the scorer requests ``groups``, which searches and
    ``cross_validate`` then pass to it and to splitters such as
    :class:`~sk_pwiser.model_selection.FunnelGroupKFold`; ``set_score_request`` gives it
    another name, in place. A scorer that reads a column requests nothing.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sk_pwiser.metrics import make_grouped_auc_scorer
    >>> X = pd.DataFrame({"user": [1, 1, 2, 2], "price": [1.0, 2.0, 1.0, 2.0]})
    >>> y = np.array([1, 0, 1, 0])
    >>> model = LogisticRegression().fit(X, y)
    >>> make_grouped_auc_scorer(0, groups="user")(model, X, y)
    1.0
    """
    if groups is not None and not isinstance(groups, str):
        raise TypeError(
            f"groups must be None or the name of a column of X; got {groups!r}."
        )
    return _GroupedAUCScorer(_responses.check_task(task), groups)


class _GroupedAUCScorer(TaskScorer):
    """The scorer that :func:`make_grouped_auc_scorer` returns."""

    def __init__(self, task: int | str, column: str | None) -> None:
        self._column = column
        super().__init__(grouped_auc, task, True, {})
        if column is None:
            # Groups are always needed, so that routing passes them without being told.
            self._metadata_request.score.add_request(param="groups", alias=True)

    def __call__(self, estimator: Any, X: Any, y: Any, groups: Any = None) -> float:
        """Score a fitted estimator; see :func:`make_grouped_auc_scorer`."""
        return self._score(None, estimator, X, y, groups=groups)

    def __repr__(self) -> str:
        column = "" if self._column is None else f", groups={self._column!r}"
        return f"make_grouped_auc_scorer({self._task!r}{column})"

    def _check_metadata(
        self,
        X: Any,
        targets: npt.NDArray[Any],
        names: list[str] | None,
        groups: Any = None,
    ) -> npt.NDArray[Any]:
        """Return the group of each row."""
        if self._column is not None:
            if groups is not None:
                raise ValueError(
                    f"groups must be None, since {self!r} reads them from X."
                )
            groups = column_of(X, "groups", self._column)
        elif groups is None:
            raise ValueError(
                f"{self!r} needs groups: pass them to it, name a column of X, or pass "
                "params={'groups': ...} with enable_metadata_routing=True."
            )
        codes: npt.NDArray[Any] = check_groups(groups, len(targets))
        return codes

    def _evaluate(
        self,
        y_true: npt.NDArray[Any],
        y_pred: npt.NDArray[Any],
        groups: npt.NDArray[Any] | None,
    ) -> tuple[float, str | None]:
        """Return the AUC within groups and, if it is undefined, the reason."""
        if not len(y_true):
            return np.nan, "no rows to score"
        with _FILTERING, warnings.catch_warnings():
            # The scorer warns once for all tasks, with their names.
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            value = grouped_auc(y_true, y_pred, groups)
        return value, "no group with both classes" if np.isnan(value) else None


def _make(
    description: str, metric: Callable[..., Any], task: int | str, **kwargs: Any
) -> TaskScorer:
    """Make a scorer with a docstring, which IPython and the API pages show."""
    scorer = make_task_scorer(metric, task, **kwargs)
    scorer.__doc__ = f"""{description}

    A scorer of :func:`make_task_scorer`, called as ``scorer(estimator, X, Y,
    sample_weight=None)``.
    """
    return scorer


ctr_auc_scorer = _make("ROC AUC of the first task.", roc_auc_score, 0)
ctcvr_auc_scorer = _make("ROC AUC of the last task, over all rows.", roc_auc_score, -1)
cvr_auc_scorer = _make(
    "ROC AUC of P(last task | first task), over rows where the first task is 1.",
    roc_auc_score,
    "cvr",
)
mean_auc_scorer = _make("Mean ROC AUC over the tasks.", roc_auc_score, "mean")
ctr_average_precision_scorer = _make(
    "Average precision of the first task.", average_precision_score, 0
)
ctcvr_average_precision_scorer = _make(
    "Average precision of the last task, over all rows.", average_precision_score, -1
)

# With `labels`, the log loss is also defined for a task without events.
_LOG_LOSS: dict[str, Any] = {"greater_is_better": False, "labels": [0, 1]}
ctr_log_loss_scorer = _make(
    "Minus the binary log loss of the first task, in nats.", log_loss, 0, **_LOG_LOSS
)
ctcvr_log_loss_scorer = _make(
    "Minus the binary log loss of the last task, in nats.", log_loss, -1, **_LOG_LOSS
)
mean_log_loss_scorer = _make(
    "Minus the mean log loss over the tasks, in nats.", log_loss, "mean", **_LOG_LOSS
)
