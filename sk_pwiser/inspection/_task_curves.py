"""The constructors of the displays that draw one curve per task and model."""

from sk_pwiser.inspection._axes import import_pyplot
from sk_pwiser.inspection._task_rows import read_estimators, read_predictions


class TaskCurvesDisplay:
    """Base class of displays of rankings: a subclass computes and draws its curves."""

    @classmethod
    def from_estimator(
        cls, estimator, X, Y, *, sample_weight=None, cvr=False, ax=None, **kwargs
    ):
        """Draw the curves of the predictions of fitted estimators.

        Parameters
        ----------
        estimator : estimator object or dict
            A fitted estimator of several tasks, such as
            :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`, also inside a pipeline or a
            search. A dict from names to estimators draws each in a line style of its
            own.
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels, 0 or 1.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks.
        cvr : bool, default=False
            Whether to add a curve of P(last task | first task), over the rows in which
            the first task is 1.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        display : object of this class
            The display, drawn.

        Raises
        ------
        ValueError
            If labels or weights are invalid, or are not of the estimator's tasks.
        sklearn.exceptions.NotFittedError
            If an estimator is not fitted.
        ImportError
            If matplotlib is not installed.

        Warns
        -----
        UndefinedMetricWarning
            If a task has one class only: its curve is empty.
        """
        import_pyplot(cls.__name__)
        rows = read_estimators(estimator, X, Y, cvr=cvr, sample_weight=sample_weight)
        return cls._from_rows(rows).plot(ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        Y,
        P,
        *,
        task_names=None,
        sample_weight=None,
        cvr=False,
        ax=None,
        **kwargs,
    ):
        """Draw the curves of given probabilities.

        Parameters
        ----------
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels, 0 or 1. Those of tasks after the first may be missing.
        P : array-like of shape (n_samples, n_tasks) or (n_samples,), list or dict
            Probabilities over impressions as `predict_proba` returns them: an array,
            or a list of arrays of shape (n_samples, 2). A dict from names of models to
            probabilities draws each model in a line style of its own.
        task_names : list of str, default=None
            Names of the tasks; by default the columns of `Y`.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks.
        cvr : bool, default=False
            Whether to add a curve of P(last task | first task), the quotient of the
            probabilities, over the rows in which the first task is 1.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        display : object of this class
            The display, drawn.

        Raises
        ------
        ValueError
            If labels, probabilities, names or weights are invalid, or do not fit
            together.
        ImportError
            If matplotlib is not installed.

        Warns
        -----
        UndefinedMetricWarning
            If a task has one class only: its curve is empty.
        """
        import_pyplot(cls.__name__)
        rows = read_predictions(
            Y, P, task_names=task_names, cvr=cvr, sample_weight=sample_weight
        )
        return cls._from_rows(rows).plot(ax, **kwargs)
