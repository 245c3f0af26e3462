"""The calibrator of a funnel: one curve per task, and the order of the tasks."""

from typing import ClassVar

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    _fit_context,
    clone,
)
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, get_tags, indexable
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from sk_pwiser.calibration._curves import METHODS
from sk_pwiser.calibration._estimators import (
    LIMITS,
    classes_of,
    logits_of,
    positive_probabilities,
    task_names_of,
)
from sk_pwiser.calibration._labels import read_labels, warn_about_constant_tasks
from sk_pwiser.metrics import mean_auc_scorer
from sk_pwiser.model_selection import FunnelStratifiedKFold


class FunnelCalibrator(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Calibrate the probabilities of every task of a multi-task classifier.

    A loss that ranks, such as PWiseR, or rates that change with time move the predicted
    probabilities away from the observed rates. The calibrator maps the logit of each
    task to a probability by a curve fitted to rows that the estimator was not trained
    on. Where a later task would exceed an earlier one, it is lowered to it, so that
    P(conversion) <= P(click) in every row.

    Parameters
    ----------
    estimator : estimator object
        A classifier of several tasks, such as
        :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`.
    method : {"isotonic", "sigmoid", "temperature"}, default="isotonic"
        The curves: an increasing function ("isotonic", for some hundred events or
        more), a sigmoid of a linear function of the logit ("sigmoid", Platt's method,
        for fewer), or the logit divided by one number ("temperature"), which corrects
        the spread of the logits and the rate together, not each by itself.
    cv : int, cross-validation generator or iterable, default=None
        None takes `estimator` as fitted, and `fit` fits the curves alone. Otherwise
        `fit` trains a clone of the estimator per split, fits the curves to the
        predictions for the rows left out, and trains the final estimator on all rows.
        An int is the number of folds of
        :class:`~sk_pwiser.model_selection.FunnelStratifiedKFold`, not shuffled.

    Attributes
    ----------
    estimator_ : estimator object
        The fitted estimator: `estimator` itself if `cv=None`.
    calibrators_ : list
        The curve of each task, None for a task that is left unchanged.
    classes_ : ndarray of shape (n_tasks, 2) or (2,)
        The labels of each task; 1-D for a single task.
    task_names_ : list of str
        Names of the tasks.
    n_tasks_ : int
        Number of tasks.
    n_features_in_ : int
        Number of columns of `X`, if the estimator has it.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if the estimator has them.

    See Also
    --------
    sklearn.calibration.CalibratedClassifierCV : For a single task, also through
        :class:`~sk_pwiser.TaskView`.

    Notes
    -----
    "isotonic" draws straight lines between the centres of the steps of
    :class:`~sklearn.isotonic.IsotonicRegression`, as Oron and Flournoy (2017) do, since
    steps lose the ranking of their rows; AUC stays the same, but for the outermost
    rows. "sigmoid" is that of :class:`~sklearn.calibration.CalibratedClassifierCV`.

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

    _parameter_constraints: ClassVar[dict] = {
        "estimator": [HasMethods(["fit", "predict_proba"])],
        "method": [StrOptions(set(METHODS))],
        "cv": ["cv_object"],
    }

    def __init__(self, estimator, *, method="isotonic", cv=None):
        self.estimator = estimator
        self.method = method
        self.cv = cv

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None):
        """Fit the curves and, unless `cv=None`, the estimator.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            Impressions. With `cv=None`, rows that the estimator was not trained on.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels: 0 or 1; any two labels for a single task. With several tasks,
            missing labels (NaN) are left out of the curve of their task.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, >= 0, in the curves and in the fits.

        Returns
        -------
        FunnelCalibrator
            The fitted calibrator.

        Raises
        ------
        ValueError
            If labels or weights are invalid, or of other tasks than the estimator's.
        sklearn.exceptions.NotFittedError
            If `cv=None` and the estimator is not fitted.

        Warns
        -----
        UserWarning
            If a task has one class only in these rows: its probabilities stay those of
            the estimator. One warning names all such tasks.
        """
        X, y, sample_weight = indexable(X, y, sample_weight)
        if self.cv is None:
            check_is_fitted(
                self.estimator,
                msg="estimator must be fitted if cv=None: fit the %(name)s, or set cv.",
            )
            labels, classes = read_labels(y, classes_of(self.estimator))
        else:
            labels, classes = read_labels(y)
        weight = np.ones(len(labels))
        if sample_weight is not None:
            weight = _check_sample_weight(
                sample_weight, labels, dtype=np.float64, ensure_non_negative=True
            )
        if self.cv is None:
            estimator, known = self.estimator, np.ones(len(labels), dtype=bool)
            p = positive_probabilities(estimator.predict_proba(X), labels.shape[1])
        else:
            estimator, p, known = self._cross_fit(X, y, labels, sample_weight)
        names = task_names_of(estimator, y, labels.shape[1])
        known &= weight > 0
        curves = self._fit_curves(logits_of(p[known]), labels[known], weight[known])
        warn_about_constant_tasks(curves, labels[known], names)
        self.estimator_, self.calibrators_ = estimator, curves
        self.classes_, self.task_names_ = classes, names
        self.n_tasks_ = len(names)
        return self

    def _cross_fit(self, X, y, labels, sample_weight):
        """Return the final estimator, predictions for left-out rows, and their mask."""
        is_known = np.zeros(len(labels), dtype=bool)
        p = np.full(labels.shape, np.nan)
        for train, test in self._splits(X, labels):
            model = self._fit_clone(X, y, sample_weight, train)
            proba = model.predict_proba(_safe_indexing(X, test))
            p[test] = positive_probabilities(proba, labels.shape[1])
            is_known[test] = True
        return self._fit_clone(X, y, sample_weight), p, is_known

    def _splits(self, X, labels):
        known = np.nan_to_num(labels)
        cv = self.cv
        if isinstance(cv, int | np.integer):
            cv = FunnelStratifiedKFold(cv, shuffle=False)
        cv = check_cv(cv, known[:, 0], classifier=True)
        return list(cv.split(X, known if labels.shape[1] > 1 else known[:, 0]))

    def _fit_clone(self, X, y, sample_weight, rows=None):
        """Fit a clone of the estimator to some rows, by default all."""
        if rows is not None:
            X, y = _safe_indexing(X, rows), _safe_indexing(y, rows)
        if sample_weight is None:
            return clone(self.estimator).fit(X, y)
        if rows is not None:
            sample_weight = _safe_indexing(sample_weight, rows)
        return clone(self.estimator).fit(X, y, sample_weight=sample_weight)

    def _fit_curves(self, logits, labels, weight):
        """Return the curve of each task, None for a task with one class only."""
        curves = []
        for z, y in zip(logits.T, labels.T, strict=True):
            known = ~np.isnan(y)
            curve = None
            if len(np.unique(y[known])) == 2:
                curve = METHODS[self.method]()
                curve.fit(z[known], y[known], weight[known])
            curves.append(curve)
        return curves

    def _predict_positive(self, X):
        """Return calibrated P(Y_k = 1): float32 of shape (n_samples, n_tasks)."""
        check_is_fitted(self)
        p = positive_probabilities(self.estimator_.predict_proba(X), self.n_tasks_)
        logits = logits_of(p)
        columns = [
            p[:, k] if curve is None else curve.predict(logits[:, k])
            for k, curve in enumerate(self.calibrators_)
        ]
        # In float32, as the estimator's: more digits would be noise.
        calibrated = np.column_stack(columns).astype(np.float32)
        calibrated = np.clip(calibrated, LIMITS.tiny, 1 - LIMITS.epsneg)
        return np.minimum.accumulate(calibrated, axis=1)

    def predict_proba(self, X):
        """Predict calibrated probabilities over impressions.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        float32 ndarray of shape (n_samples, n_tasks)
            Column k is P(Y_k = 1 | impression), never above that of an earlier task.
            For a single task, `(n_samples, 2)` with the probabilities of both classes.
        """
        positive = self._predict_positive(X)
        if self.classes_.ndim == 1:
            return np.hstack([1 - positive, positive])
        return positive

    def predict(self, X):
        """Predict labels: 1 where the calibrated probability is at least 0.5.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        ndarray of shape (n_samples, n_tasks) or (n_samples,)
            Labels, in the dtype of those in `fit`.
        """
        positive = (self._predict_positive(X) >= 0.5).astype(int)
        if self.classes_.ndim == 1:
            return self.classes_[positive[:, 0]]
        return np.take_along_axis(self.classes_, positive.T, axis=1).T

    def predict_cvr(self, X):
        """Predict P(last task | first task) from the calibrated probabilities.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        ndarray of shape (n_samples,)
            Probabilities: P(last) / P(first).

        Raises
        ------
        ValueError
            If the calibrator was fitted with a single task.
        """
        check_is_fitted(self)
        if self.n_tasks_ < 2:
            raise ValueError(
                f"predict_cvr needs two tasks or more; this fit has {self.n_tasks_}."
            )
        positive = self._predict_positive(X)
        return positive[:, -1] / positive[:, 0]

    def score(self, X, y, sample_weight=None):
        """Compute the mean ROC AUC over the tasks.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            Impressions.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            True labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            Mean of the tasks' AUC; NaN, with a warning, if a task has only one class.
        """
        check_is_fitted(self)
        return mean_auc_scorer(self, X, y, sample_weight=sample_weight)

    @property
    def n_features_in_(self):
        """Number of columns of `X`, if the estimator has it."""
        return self._fitted_estimator.n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the columns, if the estimator has them."""
        return self._fitted_estimator.feature_names_in_

    @property
    def _fitted_estimator(self):
        if not hasattr(self, "estimator_"):
            # An AttributeError, too, so that `hasattr` is False.
            raise NotFittedError("This FunnelCalibrator is not fitted yet.")
        return self.estimator_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.multi_class = False
        tags.target_tags.multi_output = True
        return tags
