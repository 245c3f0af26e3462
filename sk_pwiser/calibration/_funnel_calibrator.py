"""The calibrator of several tasks: one curve per task, and the order of the tasks."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy.special import logit
from sklearn import get_config
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    clone,
)
from sklearn.model_selection import check_cv
from sklearn.model_selection._split import GroupsConsumerMixin
from sklearn.utils import _safe_indexing, get_tags, indexable, metadata_routing
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_method_params, check_is_fitted

from sk_pwiser import _responses
from sk_pwiser._columns import _frames
from sk_pwiser._estimator._parameter_checks import checks_parameters
from sk_pwiser._estimator._prediction_mixin import PredictionMixin
from sk_pwiser._model_files import PlainForm, read_file, write_file
from sk_pwiser._tasks import _amounts, _tree
from sk_pwiser._tasks._labels import binary_labels, read_labels
from sk_pwiser._tasks._weights import check_weights
from sk_pwiser._utils import _checks, _warnings
from sk_pwiser._utils._doc_links import DocLink
from sk_pwiser.calibration import _curves, _value_levels
from sk_pwiser.model_selection import FunnelStratifiedKFold, warn_about_random_folds

# Training and test rows.
Split = tuple[np.ndarray, np.ndarray]

LIMITS = np.finfo(np.float32)
# Fitted attributes in a file, beside the estimator.
FITTED = (
    "calibrators_",
    "shifts_",
    "by_",
    "classes_",
    "task_names_",
    "n_tasks_",
    "task_parents_",
    "value_names_",
    "value_parents_",
    "value_factors_",
    "value_shifts_",
)
# Those of files that were written before there were values.
FITTED_WITHOUT_VALUES: dict[str, Any] = {
    "value_names_": [],
    "value_parents_": {},
    "value_factors_": np.ones(0),
    "value_shifts_": {},
}


class FunnelCalibrator(
    DocLink,
    PredictionMixin,
    ClassifierMixin,
    MetaEstimatorMixin,
    BaseEstimator,
):
    """Calibrate the probabilities of every task of a multi-task classifier.

    A loss that ranks, such as PWiseR, or rates that change with time move the predicted
    probabilities away from the observed rates. The calibrator maps the logit of each
    task to a probability by a curve fitted to rows that the estimator was not trained
    on. A later task that would then be more likely than an earlier one is lowered to
    it, so that P(conversion) <= P(click) in every row.

    Parameters
    ----------
    estimator : estimator object
        A classifier of several tasks, such as
        :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`.
    method : {"isotonic", "sigmoid"}, default="isotonic"
        The curves: an increasing function ("isotonic", for some hundred events or
        more), or a sigmoid of a linear function of the logit ("sigmoid", Platt's
        method, for fewer).
    cv : int, cross-validation generator or iterable, default=None
        With None, `estimator` must be fitted, and `fit` fits only the curves.
        Otherwise `fit` trains a clone of the estimator per split, fits the curves to
        the predictions for the rows left out, and trains the final estimator on all
        rows. An int is the number of folds of
        :class:`~sk_pwiser.model_selection.FunnelStratifiedKFold`, shuffled with
        `random_state=0`.
    ordered : bool, default=True
        Whether a task is at most as likely as the task that it presupposes. This is the
        task before it, or the one named by the `task_parents_` of an estimator that has
        them. With False, no probability is lowered; missing labels are completed in
        either case, see `fit`. For tasks that are no funnel, set `task_parents` of the
        estimator.
    negative_sampling_rate : float or "auto", default="auto"
        Share of the rows without a click (the first task) that the log has kept, in
        (0, 1]. The rows passed to `fit` are expected to be of this sampled log. Rows
        without a click then count 1 / rate times in the curves, so that calibrated
        probabilities are those of the full log. "auto" is the estimator's own
        parameter of this name, or 1 if it has none. Pass 1 if the estimator was
        trained on a sampled log, but the calibration rows come from the full log.
    by : str, default=None
        Name of a column of `X`, such as the market. The log-odds of each of its values
        are shifted, per task, from the common curve towards the rate of the value, as
        far as its number of events supports this. Values that are missing or were not
        in `fit` keep the common curve. An array has no such column: pass a table with
        names. Predicted amounts are shifted, too.

    Attributes
    ----------
    estimator_ : estimator object
        The fitted estimator: `estimator` itself if `cv=None`. If it is trained again,
        the curves no longer fit, and predictions warn.
    calibrators_ : list
        The curve of each task, None for a task that is left unchanged.
    shifts_ : dict
        The shifts of the values of the column `by`: from a value to an ndarray of shape
        (n_tasks,), in log-odds. Empty without `by`.
    by_ : str or None
        The name of the column of these values.
    classes_ : ndarray of shape (n_tasks, 2) or (2,)
        The labels of each task; 1-D for a single task.
    task_names_ : list of str
        Names of the tasks.
    task_parents_ : dict of str to (str or None)
        The task that each task presupposes, None if there is none.
    n_tasks_ : int
        Number of tasks.
    value_names_ : list of str
        Names of the columns of amounts of an estimator with `value_tasks`.
    value_parents_ : dict of str to (str or None)
        The task under which the amounts of each value arise, None if there is none.
    value_factors_ : ndarray of shape (n_values,)
        Factors of the mean amounts of the estimator.
    value_shifts_ : dict
        Further factors by the values of the column `by`: from a value to an ndarray of
        shape (n_values,) of their logarithms. Empty without `by`.

    See Also
    --------
    sklearn.calibration.CalibratedClassifierCV : For a single task, also through
        :class:`~sk_pwiser.TaskView`.

    Notes
    -----
    "isotonic" draws straight lines, in log-odds, between the centres of the steps of
    :class:`~sklearn.isotonic.IsotonicRegression`, similar to Oron and Flournoy (2017),
    since steps lose the ranking of their rows. AUC stays the same, except for the rows
    outside the outermost centres. "sigmoid" equals that of
    :class:`~sklearn.calibration.CalibratedClassifierCV` for rows of equal weight.

    The shifts of `by` are the modes of their posterior distribution: the prior is
    normal with mean 0, and its variance maximises the marginal likelihood of the
    labels (empirical Bayes). They change the order of rows only between values.

    Both methods also calibrate an estimator whose probabilities are those of the
    sampled log.

    The mean amounts of an estimator with `value_tasks` are multiplied by one factor per
    value, by which their total in the rows with the event would be that of the
    calibration rows. Its logarithm is shrunk by n / (n + 100), where n is the number of
    amounts; with `by`, the remaining factor of each value of the column as well.

    References
    ----------
    Oron and Flournoy (2017). "Centered isotonic regression: point and interval
    estimation for dose-response studies." Statistics in Biopharmaceutical Research
    9(3). :doi:`10.1080/19466315.2017.1286256`

    Platt (1999). "Probabilistic outputs for support vector machines and comparisons to
    regularized likelihood methods." Advances in Large Margin Classifiers.

    Guo, Pleiss, Sun and Weinberger (2017). "On calibration of modern neural networks."
    ICML. :arxiv:`1706.04599`

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.calibration import FunnelCalibrator
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> data = make_ctr_cvr(4_000, ctr=0.3, random_state=0)
    >>> X, Y = data.data, data.target
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0)
    >>> model.fit(X[:2000], Y[:2000]).predict_proba(X[3000:]).shape
    (1000, 2)
    >>> calibrated = FunnelCalibrator(model, method="sigmoid")
    >>> calibrated.fit(X[2000:3000], Y[2000:3000]).predict_proba(X[3000:]).shape
    (1000, 2)
    """

    # Read by the scorers: missing labels take no part in the curves and scores.
    missing_labels = "ignore"

    # Fitted attributes, which `_set_fitted` assigns, beside those of predictions.
    estimator_: Any
    calibrators_: list[_curves.Curve | None]
    by_: str | None
    _shifts: tuple[list[Any], np.ndarray]  # values of `by`, and a row of shifts each
    _value_shifts: tuple[list[Any], np.ndarray]  # the same for amounts
    value_names_: list[str]
    value_parents_: dict[str, str | None]
    value_factors_: np.ndarray
    _calibrated: Any  # identifies the training of the estimator

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [HasMethods(["fit", "predict_proba"])],
        "method": [StrOptions(set(_curves.METHODS))],
        "cv": ["cv_object"],
        "ordered": ["boolean"],
        "negative_sampling_rate": [
            StrOptions({"auto"}),
            Interval(Real, 0, 1, closed="right"),
        ],
        "by": [str, None],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        method: str = "isotonic",
        cv: Any = None,
        ordered: bool = True,
        negative_sampling_rate: float | str = "auto",
        by: str | None = None,
    ) -> None:
        self.estimator = estimator
        self.method = method
        self.cv = cv
        self.ordered = ordered
        self.negative_sampling_rate = negative_sampling_rate
        self.by = by

    @_checks.accept_any_case_of_y
    @checks_parameters(also_nested=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: npt.ArrayLike | None = None,
        **fit_params: Any,
    ) -> Self:
        """Fit the curves and, unless `cv=None`, the estimator.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            Impressions. With `cv=None`, rows that the estimator was not trained on.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels: 0 or 1; any two labels for a single task. They may be missing (NaN).
            A missing label is 0 where the task that it presupposes is 0; where that one
            is 1, the known labels stand for the missing ones. If the task presupposes
            no other one, or its label is missing as well, such rows take no part in its
            curve. It may have the columns of amounts of an estimator with
            `value_tasks`, to which the levels of predicted amounts are then fitted.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks, >= 0, in the curves and in
            the fits. Only their ratios matter to the curves. They are multiplied by the
            weights that follow from `negative_sampling_rate`, so leave those out. A
            label of weight 0 takes no part, and no other label stands for it.
        **fit_params : dict
            Further arguments of the estimator's `fit`, such as `groups` or `X_val`. If
            they have one entry per row, each fit gets those of its rows, unless the
            name ends in `_val`. `groups` are also passed to a `cv` that keeps groups
            whole. With metadata routing, the estimator and `cv` get what they request.

        Returns
        -------
        FunnelCalibrator
            The fitted calibrator.

        Raises
        ------
        ValueError
            If labels or weights are invalid, the estimator has other tasks, or it is a
            view of one task of an estimator with a `negative_sampling_rate`. If there
            are further arguments with `cv=None`, where no estimator is fitted.

        Warns
        -----
        UserWarning
            If a task has one class only in these rows: its probabilities stay those of
            the estimator. If it has fewer than 50 events and `method="isotonic"`. If
            higher probabilities go with fewer events, as they can if there are few:
            `method="sigmoid"` corrects the rate alone. If labels break
            the order of the tasks, and `ordered=True` or labels are missing. Each is
            one warning that names all such tasks. If `cv` trains on rows from after the
            start of its test part, although the estimator has a `time_column` or a
            :class:`~sk_pwiser.history.HistoryFeatures`, or `X` columns of these.
        """
        _frames.refuse_parts(X)
        X, y, sample_weight = map(_frames.selectable, (X, y, sample_weight))
        X, y, sample_weight = indexable(X, y, sample_weight)
        if self.cv is None:
            check_is_fitted(
                self.estimator,
                msg="estimator must be fitted if cv=None: fit the %(name)s, or set cv.",
            )
        fit_arguments, split_arguments = self._route(sample_weight, fit_params)
        labels, classes, columns = self._read_labels(y)
        amounts = self._read_amounts(y, labels)
        _responses.check_rows(X, len(labels), y=y, sample_weight=sample_weight)
        groups = _curves.read_groups(X, self.by)
        # Before any training, so that an unsuitable column costs no time.
        index = self._index_groups(groups)
        # Missing labels have weights, too, for known ones will stand for them.
        weight = np.ones(labels.shape)
        if sample_weight is not None:
            n_samples, n_tasks = labels.shape
            checked_weight = check_weights(sample_weight, n_samples, n_tasks, columns)
            weight *= checked_weight.reshape(n_samples, -1)
        if self.cv is None:
            estimator = self.estimator
            X_of_estimator = _curves.without_groups(X, self.by, estimator)
            with _responses.exposure_as("logged"):
                logits = _positive_logits(estimator, X_of_estimator, labels.shape[1])
            means = np.full(amounts.shape, np.nan)
            if not np.isnan(amounts).all():
                means = _value_levels.mean_amounts(estimator, X_of_estimator)
        else:
            splits = self._splits(X, y, labels, split_arguments)
            logits, means = self._cross_predict(
                X,
                y,
                labels,
                weight,
                n_values=amounts.shape[1],
                splits=splits,
                fit_arguments=fit_arguments,
            )
            estimator = self._fit_clone(X, y, fit_arguments)
        row_weight = weight.copy()
        # Rows that no split has left out, and tasks that a fold could not learn.
        weight[np.isnan(logits)] = 0.0
        predictions = _responses.Predictions(estimator, None, {})
        numbered = [f"task_{k}" for k in range(labels.shape[1])]
        names = predictions.task_names() or columns or numbered
        parents = predictions.task_parents(len(names))
        if self.ordered or np.isnan(labels).any():
            _warn_about_order(labels, weight, names, parents)
        # Each kept row without a click stands for 1 / rate rows of the full log.
        sampling_rate = self._sampling_rate(estimator)
        weight[labels[:, 0] == 0] /= sampling_rate
        row_weight[labels[:, 0] == 0] /= sampling_rate
        all_labels, all_weight, _ = _complete(labels, weight, parents)
        curves = self._fit_curves(logits, all_labels, all_weight, names)
        shifts = {}
        if groups is not None:
            group = np.array([index[value] for value in groups])
            all_labels, all_weight = _complete_groups(labels, weight, parents, group)
            shifts = _curves.fit_shifts(
                logits, all_labels, all_weight, curves=curves, group=group, index=index
            )
        value_parents = _value_levels.value_parents_of(estimator)
        value_rows = _value_levels.ValueRows(
            amounts=amounts,
            means=means,
            weight=_value_levels.weights_of_values(
                row_weight, list(value_parents.values()), names
            ),
        )
        log_factors = value_rows.log_factors()
        value_shifts = {}
        if groups is not None and value_parents:
            value_shifts = value_rows.log_factors_by_group(index, group, log_factors)
        return self._set_fitted(
            estimator_=estimator,
            calibrators_=curves,
            shifts_=shifts,
            value_shifts_=value_shifts,
            value_names_=list(value_parents),
            value_parents_=value_parents,
            value_factors_=np.exp(log_factors),
            by_=self.by,
            classes_=classes,
            task_names_=names,
            n_tasks_=len(names),
            task_parents_=_tree.parents_by_name(parents, names),
        )

    def _set_fitted(
        self,
        *,
        estimator_: Any,
        shifts_: Mapping[Any, np.ndarray],
        value_shifts_: Mapping[Any, np.ndarray],
        **attributes: Any,
    ) -> Self:
        """Set the fitted attributes, all in one assignment.

        An error before it leaves an earlier fit as it was, and so does Ctrl-C, which
        between two assignments would leave those of two fits.
        """
        self.__dict__ = vars(self) | {
            "estimator_": estimator_,
            "_calibrated": _last_training(estimator_),
            # Not a dictionary: skops reads its keys True and False as one.
            "_shifts": (list(shifts_), np.array(list(shifts_.values()))),
            "_value_shifts": (
                list(value_shifts_),
                np.array(list(value_shifts_.values())),
            ),
            **attributes,
        }
        return self

    def _read_labels(self, y: Any) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
        """Return labels (n_samples, n_tasks), NaN if missing, classes and columns."""
        planned = _responses.Predictions(self.estimator, None, {})
        y = _amounts.without_amounts(y, planned.value_tasks(), planned.n_tasks())
        values, missing, columns = read_labels(y, "ignore", input_name="y")
        classes = None  # of a fitted estimator of one task
        if self.cv is None:
            n_tasks = 1 if values.ndim == 1 else values.shape[1]
            predictions = _responses.Predictions(self.estimator, None, {})
            names = predictions.task_names()
            classes = predictions.classes()
            n_expected = len(names) or self._count_classes() or n_tasks
            if n_tasks != n_expected:
                raise ValueError(
                    f"y must have the {n_expected} tasks of the estimator, got "
                    f"{n_tasks}."
                )
            _responses.check_same_tasks(n_tasks, columns or [], names)
        labels, classes = binary_labels(
            values, columns, classes, missing=missing, input_name="y"
        )
        labels = labels.astype(np.float64)
        if missing is not None:
            labels[missing.reshape(labels.shape)] = np.nan
        return labels, classes, columns

    def _read_amounts(self, y: Any, labels: np.ndarray) -> np.ndarray:
        """Return amounts (n_samples, n_values), NaN where there is none to learn."""
        is_fitted = self.cv is None
        value_tasks = _value_levels.value_tasks_of(self.estimator, fitted=is_fitted)
        if not value_tasks:
            return np.empty((len(labels), 0))
        planned = _responses.Predictions(self.estimator, None, {})
        names = planned.task_names()
        if not is_fitted:
            event_labels = _amounts.without_amounts(y, value_tasks, labels.shape[1])
            names, _ = _responses.planned_tasks(self.estimator, event_labels)
        return _amounts.amounts_beside_events(y, value_tasks, names, labels)

    @property
    def value_tasks(self) -> dict[Any, Any] | None:
        """The parameter `value_tasks` of the estimator; scorers read it."""
        return _responses.Predictions(self.estimator, None, {}).value_tasks()

    def _count_classes(self) -> int:
        """Return the number of tasks by the classes of the estimator, 0 if unknown."""
        classes: Any = getattr(self.estimator, "classes_", None)
        # One array or row per task, unless the classes are numbers of columns.
        is_per_task = isinstance(classes, list) or np.ndim(classes) == 2
        return len(classes) if is_per_task else 0

    def _route(
        self, sample_weight: Any, fit_params: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return the arguments of the estimator's fits, and those of `cv.split`."""
        if self.cv is None and fit_params:
            raise ValueError(
                f"{', '.join(fit_params)}: arguments of the estimator's fit have no "
                "effect with cv=None, which fits only the curves."
            )
        params = {name: _frames.collected(value) for name, value in fit_params.items()}
        if sample_weight is not None:
            params["sample_weight"] = sample_weight
        if self.cv is not None and get_config()["enable_metadata_routing"]:
            routed = metadata_routing.process_routing(self, "fit", **params)
            return routed.estimator.fit, routed.splitter.split
        split_arguments = {}
        if isinstance(self.cv, GroupsConsumerMixin) and "groups" in params:
            split_arguments["groups"] = params["groups"]
        return params, split_arguments

    def get_metadata_routing(self) -> Any:
        """Return the metadata that the estimator and `cv` request.

        Returns
        -------
        MetadataRouter
            The requests of `fit` and `score`.
        """
        to_fit = metadata_routing.MethodMapping().add(caller="fit", callee="fit")
        to_split = metadata_routing.MethodMapping().add(caller="fit", callee="split")
        return (
            metadata_routing.MetadataRouter(owner=type(self).__name__)
            .add_self_request(self)
            .add(estimator=self.estimator, method_mapping=to_fit)
            .add(splitter=self.cv, method_mapping=to_split)
        )

    def _cross_predict(
        self,
        X: Any,
        y: Any,
        labels: np.ndarray,
        weight: np.ndarray,
        *,
        n_values: int,
        splits: Iterable[Split],
        fit_arguments: Mapping[str, Any],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and mean amounts of rows by a clone that has not seen them.

        There is a clone per split. They are NaN for rows that are in no test part, and
        logits for tasks that the clone could not learn.
        """
        logits = np.full(labels.shape, np.nan)
        means = np.full((len(labels), n_values), np.nan)
        splits = list(splits)
        warn_about_random_folds([self.estimator], X, self.cv, splits)
        for train, test in splits:
            model = self._fit_clone(X, y, fit_arguments, train)
            X_test = _safe_indexing(X, test)
            with _responses.exposure_as("logged"):
                test_logits = _positive_logits(model, X_test, labels.shape[1])
            if n_values:
                means[test] = _value_levels.mean_amounts(model, X_test)
            # A clone that has seen one class only predicts a constant, which fits no
            # curve.
            for k, task_labels in enumerate(labels[train].T):
                is_seen = ~np.isnan(task_labels) & (weight[train, k] > 0)
                if len(np.unique(task_labels[is_seen])) == 2:
                    logits[test, k] = test_logits[:, k]
        return logits, means

    def _splits(
        self, X: Any, y: Any, labels: np.ndarray, split_arguments: Mapping[str, Any]
    ) -> Iterator[Split]:
        """Return the training and test rows of `cv`."""
        # Splitters of other packages refuse missing labels.
        completed = np.nan_to_num(labels)
        if isinstance(self.cv, int | np.integer):
            event_labels = _amounts.without_amounts(
                y, self.value_tasks, labels.shape[1]
            )
            _, parents = _responses.planned_tasks(self.estimator, event_labels)
            # In rows sorted by a market, unshuffled folds would hold its events and its
            # other rows in different shares, and training would learn wrong rates.
            folds = FunnelStratifiedKFold(
                int(self.cv), random_state=0, task_parents=dict(enumerate(parents))
            )
            return folds.split(np.zeros(len(completed)), completed)
        completed = completed if completed.shape[1] > 1 else completed[:, 0]
        cv = check_cv(self.cv, completed, classifier=True)
        # Those of this package find the tasks by name and take missing labels.
        labels_of_cv = y if hasattr(cv, "task_parents") else completed
        return cv.split(X, labels_of_cv, **split_arguments)

    def _fit_clone(
        self,
        X: Any,
        y: Any,
        fit_arguments: Mapping[str, Any],
        rows: np.ndarray | None = None,
    ) -> Any:
        """Return a clone of the estimator, fitted to some rows, by default to all."""
        if rows is not None:
            # Validation rows are others, even if there are as many of them.
            validation_arguments = {
                name: value
                for name, value in fit_arguments.items()
                if name.endswith("_val")
            }
            row_arguments = _check_method_params(X, fit_arguments, indices=rows)
            fit_arguments = row_arguments | validation_arguments
            X = _safe_indexing(X, rows)
            y = _safe_indexing(y, rows)
        return clone(self.estimator).fit(X, y, **fit_arguments)

    def _sampling_rate(self, estimator: Any) -> float:
        """Return the share of rows without a click in the log of the fit."""
        if not isinstance(self.negative_sampling_rate, str):  # "auto"
            return self.negative_sampling_rate
        for layer in _responses.nested_estimators(estimator):
            if isinstance(layer, FunnelCalibrator):
                return layer._sampling_rate(layer.estimator_)
            if hasattr(layer, "negative_sampling_rate"):
                # The parameter of a fitted estimator may have been set since the fit.
                result = getattr(layer, "_result", None)
                settings = getattr(result, "settings", layer)
                return settings.negative_sampling_rate
            inner = getattr(layer, "estimator", None)
            rate = getattr(inner, "negative_sampling_rate", 1.0)
            if isinstance(inner, FunnelCalibrator):
                rate = inner._sampling_rate(getattr(inner, "estimator_", inner))
            if hasattr(layer, "task") and rate != 1:
                raise ValueError(
                    f"The labels of the task {layer.task!r} alone do not tell which "
                    f"rows have no click, for negative_sampling_rate={rate}: take a "
                    f"TaskView of the calibrated {type(inner).__name__}, or pass "
                    "weights to fit and set negative_sampling_rate=1."
                )
        return 1.0

    def _fit_curves(
        self,
        logits: np.ndarray,
        labels: np.ndarray,
        weight: np.ndarray,
        names: Sequence[str],
    ) -> list[_curves.Curve | None]:
        """Return the curve of each task, None if its probabilities stay."""
        curves: list[_curves.Curve | None] = []
        # Tasks for warnings.
        with_one_class = []
        falling = []
        with_few_events = []
        for k, name in enumerate(names):
            rows = weight[:, k] > 0
            task_labels = labels[rows, k]
            task_weight = weight[rows, k]
            classes = np.unique(task_labels)
            if len(classes) < 2:
                label = f"label {classes[0]:g}" if len(classes) else "no label"
                with_one_class.append(f"{name!r} ({label})")
                curves.append(None)
                continue
            curve = _curves.METHODS[self.method]()
            relative_weight = task_weight / task_weight.max()
            curves.append(curve.fit(logits[rows, k], task_labels, relative_weight))
            n_events = int(task_labels.sum())
            if not curve.rises_:
                falling.append(f"{name!r} ({n_events} events)")
            # Where most rows have the event, those without it count.
            n_rarer = min(n_events, int((1 - task_labels).sum()))
            if n_rarer < curve.fewest_events:
                with_few_events.append(f"{name!r} ({n_rarer})")
        if with_one_class:
            _warnings.warn_user(
                "Only one class in the rows of the calibration for "
                f"{', '.join(with_one_class)}: the estimator's probabilities stay."
            )
        if falling:
            _warnings.warn_user(
                "In the calibration rows, higher probabilities go with fewer events "
                f"for {', '.join(falling)}: the rate is corrected, the ranking stays."
            )
        if with_few_events:
            _warnings.warn_user(
                f"Too few events for method={self.method!r}: "
                f"{', '.join(with_few_events)}. With "
                f"fewer than {_curves.FEWEST_EVENTS}, method='sigmoid' is closer to "
                "the true rates; probabilities of rare events tend to be too high here."
            )
        return curves

    def _known_groups(self, X: Any) -> list[Any] | None:
        """Return the groups of new rows; they must be of the kind that `fit` saw."""
        groups = _curves.read_groups(X, self.by_)
        _frames.check_same_kind(f"by={self.by_!r}", set(groups or ()), self.shifts_)
        return groups

    def _index_groups(self, groups: list[Any] | None) -> dict[Any, int]:
        """Return the index of each value of `by`, before the estimator is trained."""
        if groups is None:
            return {}
        try:
            index = {value: i for i, value in enumerate(dict.fromkeys(groups))}
        except TypeError as error:
            raise TypeError(
                f"by={self.by!r} must be a column of single values: {error}."
            ) from error
        if 2 * len(index) > len(groups) > 1:
            raise ValueError(
                f"by={self.by!r} has {len(index)} values in {len(groups)} rows; name a "
                "column whose values group the rows, such as markets."
            )
        return index

    @property
    def shifts_(self) -> dict[Any, np.ndarray]:
        """The shifts of the values of the column `by`."""
        values, shifts = self._shifts
        return dict(zip(values, shifts, strict=True))

    def _predict_logits(self, X: Any) -> np.ndarray:
        """Return calibrated log-odds: float64 of shape (n_samples, n_tasks)."""
        check_is_fitted(self)
        self._check_training()
        X = _frames.collected(X)
        groups = self._known_groups(X)
        X = _curves.without_groups(X, self.by_, self.estimator_)
        with self._exposure():
            logits = _positive_logits(self.estimator_, X, self.n_tasks_)
        return self._calibrate(logits, groups)

    @property
    def value_shifts_(self) -> dict[Any, np.ndarray]:
        """The logarithms of factors of amounts by the values of the column `by`."""
        values, shifts = self._value_shifts
        return dict(zip(values, shifts, strict=True))

    def predict_value(self, X: Any, *, given_event: bool = False) -> np.ndarray:
        """Predict the mean amounts of the values.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            Impressions.
        given_event : bool, default=False
            Whether to predict the mean amount given the event under which it arises,
            E[amount | event]. By default the mean per impression: the calibrated
            probability of the event times this.

        Returns
        -------
        ndarray of shape (n_samples, n_values) or (n_samples,)
            Mean amounts, in the unit of `y`, as float64; 1-D for one value. Those of
            the estimator given the event, times the factors of the calibration rows.

        Raises
        ------
        ValueError
            If the estimator was fitted without `value_tasks`.
        ValueError, TypeError
            If the columns of `X` are not those seen in fit.
        """
        check_is_fitted(self)
        if not self.value_names_:
            raise ValueError(
                "predict_value needs an estimator that was fitted with value_tasks."
            )
        self._check_training()
        X = _frames.collected(X)
        groups = self._known_groups(X)
        X = _curves.without_groups(X, self.by_, self.estimator_)
        means = _value_levels.mean_amounts(self.estimator_, X)
        means *= np.exp(self._log_factors(groups))
        if not given_event:
            with self._exposure():
                logits = _positive_logits(self.estimator_, X, self.n_tasks_)
            log_p = -np.logaddexp(0, -self._calibrate(logits, groups))
            for value, task in enumerate(self.value_parents_.values()):
                if task is not None:
                    means[:, value] *= np.exp(log_p[:, self.task_names_.index(task)])
        return means[:, 0] if len(self.value_names_) == 1 else means

    def _log_factors(self, groups: list[Any] | None) -> np.ndarray:
        """Return the logarithms of the factors of amounts, of each row with groups."""
        common = np.log(self.value_factors_)
        if groups is None:
            return common
        shifts = self.value_shifts_
        no_shift = np.zeros(len(common))
        return common + np.array([shifts.get(value, no_shift) for value in groups])

    def _check_training(self) -> None:
        """Warn if the estimator is no longer the one that the curves were fitted to."""
        if _last_training(self.estimator_) != self._calibrated:
            _warnings.warn_user(
                "The estimator was trained after FunnelCalibrator.fit. Fit the "
                "calibrator again, or calibrate a copy, copy.deepcopy(estimator)."
            )

    def _calibrate(self, logits: np.ndarray, groups: list[Any] | None) -> np.ndarray:
        """Calibrate log-odds in place, add the shifts of the groups, and order them."""
        for k, curve in enumerate(self.calibrators_):
            if curve is not None:
                logits[:, k] = curve.transform(logits[:, k])
        if groups is not None:
            shifts = self.shifts_
            no_shift = np.zeros(self.n_tasks_)
            logits += np.array([shifts.get(value, no_shift) for value in groups])
        parents = _tree.read_task_parents(self.task_parents_, self.task_names_)
        for k, parent in enumerate(parents if self.ordered else ()):
            if parent >= 0:
                # Parents come first, so that a lowered task lowers those after it.
                logits[:, k] = np.minimum(logits[:, k], logits[:, parent])
        return logits

    def _recombined_logits(
        self, *tables: Any, as_logged: bool = False
    ) -> tuple[list[Any], np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Return names, hashes and a function as those of the estimator, calibrated."""
        check_is_fitted(self)
        self._check_training()
        inputs = [
            _curves.without_groups(table, self.by_, self.estimator_) for table in tables
        ]
        names, hashes, uncalibrated_logits = self.estimator_._recombined_logits(
            *inputs, as_logged=as_logged
        )
        n_inputs = len(names)
        if self.by_ is None:

            def logits(sources: np.ndarray) -> np.ndarray:
                return self._calibrate_all(uncalibrated_logits(sources), None)

            return names, hashes, logits

        groups = [
            group for table in tables for group in self._known_groups(table) or ()
        ]
        if self.by_ in names:
            column_of_groups = names.index(self.by_)
        else:
            column_of_groups = n_inputs
            index = {
                group: number for number, group in enumerate(dict.fromkeys(groups))
            }
            numbers = np.array([index[group] for group in groups], dtype=np.uint64)
            names = [*names, self.by_]
            hashes = np.column_stack([hashes, numbers])

        def logits_of_groups(sources: np.ndarray) -> np.ndarray:
            row_groups = [groups[row] for row in sources[:, column_of_groups]]
            return self._calibrate_all(
                uncalibrated_logits(sources[:, :n_inputs]), row_groups
            )

        return names, hashes, logits_of_groups

    def _calibrate_all(
        self, outputs: np.ndarray, groups: list[Any] | None
    ) -> np.ndarray:
        """Return calibrated log-odds, and the logarithms of mean amounts after them."""
        outputs = outputs.astype(np.float64)
        logits = self._calibrate(outputs[:, : self.n_tasks_], groups)
        if not self.value_names_:
            return logits
        log_means = outputs[:, self.n_tasks_ :] + self._log_factors(groups)
        return np.hstack([logits, log_means])

    task = available_if(lambda self: hasattr(self.estimator, "task"))(
        PredictionMixin.task
    )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted calibrator and its estimator to a file without code.

        Parameters
        ----------
        path : str or path-like
            The file, in the format of
            :meth:`~sk_pwiser.MultiTaskCTRCVRClassifier.save`. One that exists is
            replaced.

        Raises
        ------
        ValueError, TypeError
            If the estimator is no :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`, or if
            it or `cv` cannot be saved without code. No file is written.
        """
        # Not at the top: these load torch, which calibrators of other models lack.
        from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
        from sk_pwiser._estimator._saving import requests_of, to_plain

        check_is_fitted(self)
        if not isinstance(self.estimator_, MultiTaskCTRCVRClassifier):
            raise TypeError(
                "Only a calibrated MultiTaskCTRCVRClassifier can be saved; got "
                f"{self.estimator_!r}. Use pickle or skops for others."
            )
        self._check_training()
        params = self.get_params(deep=False)
        del params["estimator"]
        content = {
            "class": type(self).__name__,
            "params": params,
            "fitted": {name: getattr(self, name) for name in FITTED},
            "requests": requests_of(self),
        }
        form = PlainForm(_curves.METHODS.values())
        values, arrays = form.encode(content, "calibrator")
        estimator_values, estimator_arrays = to_plain(self.estimator_)
        values["estimator"] = estimator_values
        write_file(path, values, arrays | estimator_arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a calibrator from a file that `save` wrote; nothing in it is executed.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        FunnelCalibrator
            The fitted calibrator with its fitted estimator.

        Raises
        ------
        ValueError
            If the file is damaged, altered, or not one of a calibrator.
        """
        from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
        from sk_pwiser._estimator._saving import from_plain, set_requests

        values, arrays = read_file(path)
        name = repr(str(path))
        try:
            if values["class"] != cls.__name__:
                raise ValueError(f"it is a model of {values['class']!r}")
            estimator_values = values.pop("estimator")
            content = PlainForm(_curves.METHODS.values()).decode(values, arrays)
            calibrator = cls(None, **content["params"])
            set_requests(calibrator, content.get("requests", {}))
            fitted = FITTED_WITHOUT_VALUES | content["fitted"]
            attributes = {name: fitted[name] for name in FITTED}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{name} is not a valid file of a {cls.__name__}: {error}"
            ) from error
        estimator = from_plain(
            MultiTaskCTRCVRClassifier, estimator_values, arrays, name
        )
        calibrator.estimator = estimator
        return calibrator._set_fitted(estimator_=estimator, **attributes)

    @property
    def n_features_in_(self) -> int:
        """Number of columns of `X`, if the estimator has it."""
        check_is_fitted(self)  # its error is an AttributeError, too
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns, if the estimator has them."""
        check_is_fitted(self)
        return self.estimator_.feature_names_in_

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "calibrators_" in state:
            # Those of version 0.1.0 lack what has come since.
            state = {
                "value_names_": [],
                "value_parents_": {},
                "value_factors_": np.ones(0),
                "_value_shifts": ([], np.ones(0)),
                "_calibrated": _last_training(state["estimator_"]),
                **state,
            }
        super().__setstate__(state)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags


def _positive_logits(estimator: Any, X: Any, n_tasks: int) -> np.ndarray:
    """Return the log-odds of the tasks: float64 (n_samples, n_tasks), all finite."""
    if hasattr(estimator, "predict_logits"):
        # A copy, since calibration changes it, and an estimator may keep its own.
        logits = np.array(estimator.predict_logits(X), dtype=np.float64)
        return logits.reshape(len(logits), -1)
    p = _responses.positive_probabilities(estimator, X, n_tasks)
    return logit(np.clip(p, LIMITS.tiny, 1 - LIMITS.epsneg))


def _last_training(estimator: Any) -> Any:
    """Return what differs between two trainings of an estimator, None of other ones."""
    for layer in _responses.nested_estimators(estimator):
        trained = layer
        if not hasattr(layer, "_result"):  # a view of one task has its estimator
            trained = getattr(layer, "estimator", None)
        if hasattr(trained, "_result"):
            # A copy has the same duration of its last epoch, another training has not.
            return trained._result.net.history[-1, ("epoch", "train_loss", "dur")]
    return None


def _complete(
    labels: np.ndarray, weight: np.ndarray, parents: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels with those that follow from others, and weights for the unknown.

    The last array says for which rows and tasks no known label stands.

    A task did not happen if the one that it presupposes did not. Otherwise the known
    labels of the rows where that one happened, or the last one before it with any, have
    the weights of the unknown labels there, too: known conversions are often those of
    older clicks.
    """
    labels = labels.copy()
    weight = weight.copy()
    is_open = np.zeros(labels.shape, dtype=bool)
    for k, parent in enumerate(parents):
        if parent < 0:
            continue
        # Views: changes are those of the tables.
        task_labels = labels[:, k]
        task_weight = weight[:, k]
        task_labels[np.isnan(task_labels) & (labels[:, parent] == 0)] = 0.0
        is_known = ~np.isnan(task_labels)
        waits = ~is_known
        for ancestor in reversed(_tree.path_to(parent, parents)):
            happened = labels[:, ancestor] == 1
            known_weight = task_weight[happened & is_known].sum()
            if known_weight > 0:
                waiting_weight = task_weight[happened & waits].sum()
                task_weight[happened & is_known] *= 1 + waiting_weight / known_weight
                waits &= ~happened
        is_open[:, k] = waits & (task_weight > 0)
    return labels, np.where(np.isnan(labels), 0.0, weight), is_open


def _complete_groups(
    labels: np.ndarray, weight: np.ndarray, parents: Sequence[int], group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Complete the labels of each group by the known ones of the group.

    Those of all groups would move the unknown events of one group to the others. If a
    group has no known label of a task, it does not take part in the shifts of the task.
    """
    labels = labels.copy()
    weight = weight.copy()
    order = np.argsort(group, kind="stable")
    first_rows = np.flatnonzero(np.diff(group[order])) + 1
    for rows in np.split(order, first_rows):
        group_labels, group_weight, is_open = _complete(
            labels[rows], weight[rows], parents
        )
        group_weight[:, is_open.any(axis=0)] = 0.0
        labels[rows] = group_labels
        weight[rows] = group_weight
    return labels, weight


def _warn_about_order(
    labels: np.ndarray, weight: np.ndarray, names: Sequence[str], parents: Sequence[int]
) -> None:
    """Warn once about rows with a task, but without one that it presupposes."""
    breaks = []
    for k, later in enumerate(names):
        rows = labels[(weight[:, k] > 0) & (labels[:, k] == 1)]
        counts = (rows == 0).sum(axis=0)
        breaks += [
            f"{later!r} without {names[j]!r} in {counts[j]} rows"
            for j in _tree.path_to(k, parents)[:-1]
            if counts[j]
        ]
    if breaks:
        _warnings.warn_user(
            "Labels break the order of the tasks, which completes missing labels and, "
            f"with ordered=True, limits probabilities: {', '.join(breaks)}. If the "
            "tasks are no funnel, set task_parents of the estimator or ordered=False."
        )
