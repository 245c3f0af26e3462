"""One value of a multi-task classifier, as an ordinary regressor."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._columns._frames import collected
from sk_pwiser._estimator._funnel_view import ADVICE, FunnelView
from sk_pwiser._responses import Predictions, check_rows
from sk_pwiser._tasks._amounts import amounts_beside_events, read_column, split_columns
from sk_pwiser._tasks._labels import names_of_columns
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._tasks._weights import check_weights


class ValueView(RegressorMixin, FunnelView):
    """One value of a multi-task classifier, as an ordinary regressor.

    Tools for regressors, such as partial dependence, permutation importance, error
    displays and explainers, take the view in place of the estimator.

    Predictions are means over impressions, E[amount | impression], with amounts of 0 in
    rows without the event under which they arise.

    A view of a fitted estimator predicts at once, with the networks and the memory of
    that estimator. A view of an unfitted one, or a clone of any view, is a
    meta-estimator: its `fit` trains a clone of the estimator on all tasks and values.

    Parameters
    ----------
    estimator : estimator object
        A :class:`~sk_pwiser.MultiTaskCTRCVRClassifier` with `value_tasks`, fitted or
        not, or a :class:`~sk_pwiser.calibration.FunnelCalibrator` of one.
    value : str
        Name of the value, as in `value_names_` of the fitted estimator: that of its
        column in `Y`, or "value_2" for the column 2 of an array.

    Attributes
    ----------
    estimator_ : estimator object
        The fitted clone of `estimator`, if `fit` was called on the view.

    See Also
    --------
    MultiTaskCTRCVRClassifier.task : Makes a view.
    TaskView : One task, as an ordinary binary classifier.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> data = make_ctr_cvr(2_000, ctr=0.3, random_state=0)
    >>> X = data.data
    >>> Y = data.target.assign(spend=20 * data.target["conversion"])
    >>> model = MultiTaskCTRCVRClassifier(
    ...     value_tasks={"spend": "conversion"}, max_epochs=2, random_state=0
    ... )
    >>> model.fit(X, Y).task("spend").predict(X).shape
    (2000,)

    Scikit-learn's tools pass on the labels of all tasks, from which the view learns:

    >>> scores = cross_val_score(
    ...     model.task("spend"), X, Y["spend"], params={"tasks": Y}, cv=2
    ... )
    >>> scores.shape
    (2,)
    """

    def __init__(self, estimator: Any, value: str) -> None:
        self.estimator = estimator
        self.value = value

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: npt.ArrayLike | None = None,
        tasks: Any = None,
        **fit_params: Any,
    ) -> Self:
        """Train a clone of the estimator on all tasks and values.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        y : array-like of shape (n_samples, n_columns) or (n_samples,)
            Labels of all tasks, with the columns of all amounts; or the amounts of this
            value, if `tasks` has all of them.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks.
        tasks : array-like of shape (n_samples, n_columns), default=None
            Labels of all tasks, with the columns of all amounts. Tools of scikit-learn
            that take one column pass it on as a parameter of `fit`, and split it like
            the rows.
        **fit_params : dict
            Further arguments of the estimator's `fit`, such as `groups`. With metadata
            routing, `fit` of the estimator gets those that it requests.

        Returns
        -------
        ValueView
            The fitted view.

        Raises
        ------
        ValueError
            If the view is one of a fitted estimator, if the labels of all tasks are
            missing or differ from `y`, or if there is no such value.
        """
        self._check_unfitted()
        Y = self._check_labels(y, tasks)
        self.estimator_ = self._fit_clone(X, Y, sample_weight, fit_params)
        return self

    def _check_labels(self, y: Any, tasks: Any) -> Any:
        """Return the labels of all tasks, with the amounts."""
        y = collected(y)
        tasks = collected(tasks)
        if tasks is None and np.ndim(y) < 2:
            raise ValueError(
                "A view of one value learns from the labels of all tasks and their "
                "amounts: pass them as y, with all columns, or as tasks, "
                'also through tools: cross_val_score(view, X, y, params={"tasks": Y}).'
            )
        if tasks is not None and np.ndim(tasks) != 2:
            raise ValueError(
                f"tasks must be of shape (n_samples, n_columns); got {np.shape(tasks)}."
            )
        Y = y if tasks is None else tasks
        value_tasks = self._value_tasks(self.estimator)
        _, amounts, names = split_columns(Y, value_tasks, names_of_columns(Y))
        column = self._find(names)
        if tasks is not None:
            self._check_same_amounts(y, tasks, amounts[column])
        return Y

    def _check_same_amounts(self, y: Any, tasks: Any, column: Any) -> None:
        """Raise if the amounts of the value are not its column in those of all tasks.

        Missing amounts may be 0: most metrics of regressors take no missing ones.
        """
        rule = f"y must be the column {self.value!r} of tasks, that of the value"
        expected = read_column(column, f"column {self.value!r} of Y")
        n_samples = len(expected)
        if np.shape(y) not in ((n_samples,), (n_samples, 1)):
            raise ValueError(
                f"{rule}; y has the shape {np.shape(y)} and tasks {np.shape(tasks)}: "
                f"{ADVICE}"
            )
        check_match(tasks, n_samples, input_name="tasks", y=y)
        amounts = read_column(y, f"column {self.value!r} of y")
        differs = np.nan_to_num(amounts) != np.nan_to_num(expected)
        differs &= ~np.isnan(expected)
        if differs.any():
            row = int(differs.argmax())
            raise ValueError(
                f"{rule}; row {row} is {amounts[row]:g} in y and {expected[row]:g} in "
                f"tasks: {ADVICE}"
            )

    def _value_tasks(self, estimator: Any) -> Mapping[Any, Any]:
        """Return the parameter `value_tasks` of the estimator."""
        value_tasks = Predictions(estimator, None, {}).value_tasks()
        if not value_tasks:
            raise ValueError(
                f"A view of the value {self.value!r} needs an estimator with "
                f"value_tasks; got {estimator!r}."
            )
        return value_tasks

    def _find(self, names: Sequence[str]) -> int:
        """Return the index of the value."""
        if self.value not in names:
            raise ValueError(f"value must be one of {list(names)}; got {self.value!r}.")
        return list(names).index(self.value)

    @property
    def _shown(self) -> str:
        return self.value

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        return tags

    @property
    def _column(self) -> int:
        return self._find(self._fitted.value_names_)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the mean amounts per impression.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        ndarray of shape (n_samples,)
            Mean amounts, in the unit of the labels, as float64.

        Raises
        ------
        ValueError, TypeError
            If the columns of `X` are not those seen in fit.
        """
        # Read before the prediction, so that an unknown value costs no time.
        column = self._column
        values = self._fitted.predict_value(X)
        return values if values.ndim == 1 else values[:, column]

    def score(
        self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None
    ) -> float:
        """Compute the coefficient of determination, R^2, over impressions.

        Since most amounts are 0 and few are large, it is far below 1 also for good
        models: compare models by :func:`~sk_pwiser.metrics.normalized_gini`, too.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
            Amounts, 0 in rows without the event; or the labels of all tasks with the
            columns of amounts, of which rows with an unknown amount are left out.
        sample_weight : array-like of shape (n_samples,) or, with the labels of all \
                tasks, (n_samples, n_tasks), default=None
            Weights of the rows.

        Returns
        -------
        float
            R^2 of the predictions; NaN, with a warning, for fewer than two rows.
        """
        check_is_fitted(self)
        y = collected(y)
        if np.ndim(y) > 1 and np.shape(y)[1] > 1:
            amounts, weight = self._amounts_of_labels(X, y, sample_weight)
        else:
            amounts = read_column(y, f"column {self.value!r} of y")
            check_rows(X, len(amounts), y=y, sample_weight=sample_weight)
            weight = np.ones(len(amounts))
            if sample_weight is not None:
                weight = check_weights(sample_weight, len(amounts), 1, None)
            if np.isnan(amounts).any():
                row = int(np.isnan(amounts).argmax())
                raise ValueError(
                    f"y has no amount in row {row}: pass 0 for rows without the event, "
                    "or y=Y, the labels of all tasks with the columns of amounts."
                )
        is_known = ~np.isnan(amounts)
        predicted = self.predict(X)
        return r2_score(
            amounts[is_known],
            predicted[is_known],
            sample_weight=weight.reshape(-1)[is_known],
        )

    def _amounts_of_labels(
        self, X: Any, Y: Any, sample_weight: npt.ArrayLike | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the amounts of all rows, NaN where they are unknown, and weights."""
        estimator = self._fitted
        targets, is_known, _ = Predictions(estimator, X, {}).read_targets(
            Y, sample_weight=sample_weight
        )
        events = np.where(is_known, targets, np.nan)
        names = estimator.task_names_
        value_tasks = self._value_tasks(estimator)
        amounts = amounts_beside_events(Y, value_tasks, names, events)[:, self._column]
        task = estimator.value_parents_[self.value]
        parent = 0
        happened = np.ones(len(events), dtype=bool)
        if task is not None:
            parent = names.index(task)
            happened = events[:, parent] != 0
        if happened.any() and np.isnan(amounts).all():
            raise ValueError(f"y must have the column {self.value!r} with amounts.")
        amounts[~happened] = 0.0
        weight = np.ones((len(events), 1))
        if sample_weight is not None:
            weight = check_weights(sample_weight, len(events), len(names), names)
            weight = weight.reshape(len(events), -1)
        return amounts, weight[:, parent if weight.shape[1] > 1 else 0]
