"""Scores of a search by the value of a numeric parameter."""

from numbers import Real

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._responses import Predictions
from sk_pwiser.inspection._axes import (
    DOTTED,
    GREY,
    import_pyplot,
    row_of_axes,
    style,
    task_color,
)

# The axis is logarithmic if the largest value above 0 is this many times the smallest.
WIDE = 10


class WeightSearchDisplay:
    """Cross-validated scores by `pwiser_weight`, with standard errors.

    `from_search` creates the display, with one plot per scorer. A vertical line marks
    the value that the search has selected. A weight of 0, which is plain cross-entropy,
    is drawn at the left of a logarithmic axis.

    Parameters
    ----------
    param_name : str
        Name of the parameter.
    values : ndarray of shape (n_values,)
        Values of the parameter, in increasing order.
    scores, standard_errors : dict of str to ndarray of shape (n_values,)
        Mean score over the folds and its standard error, by scorer.
    best_value : float, default=None
        The selected value.
    task_names : list of str, default=()
        Names of the tasks. A scorer named after a task has the colour of the task.

    Attributes
    ----------
    containers_ : list of matplotlib ErrorbarContainer
        The scores, one per scorer.
    axes_ : ndarray of matplotlib Axes
        The axes, one per scorer.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    sk_pwiser.model_selection.compare_losses : Computes differences to a baseline on the
        same folds, which are more precise than these scores.

    Notes
    -----
    The standard errors of a search are those of
    :class:`~sk_pwiser.model_selection.LossComparison`, which are larger than those of
    independent folds, since folds share training rows. `cv` is taken to be a K-fold. A
    difference between two weights can be significant even if their intervals overlap,
    since a fold that is hard for one weight is usually hard for all.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import WeightSearchDisplay
    >>> from sk_pwiser.metrics import ctcvr_auc_scorer, ctr_auc_scorer
    >>> data = make_ctr_cvr(2_000, ctr=0.3, cvr=0.3, random_state=0)
    >>> search = GridSearchCV(
    ...     MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0),
    ...     {"pwiser_weight": [0, 0.3, 3]},
    ...     scoring={"click": ctr_auc_scorer, "conversion": ctcvr_auc_scorer},
    ...     refit="conversion",
    ...     cv=2,
    ... )
    >>> display = WeightSearchDisplay.from_search(search.fit(data.data, data.target))
    >>> display.values.tolist(), list(display.scores)
    ([0.0, 0.3, 3.0], ['click', 'conversion'])
    """

    def __init__(
        self,
        *,
        param_name,
        values,
        scores,
        standard_errors,
        best_value=None,
        task_names=(),
    ):
        self.param_name = param_name
        self.values = values
        self.scores = scores
        self.standard_errors = standard_errors
        self.best_value = best_value
        self.task_names = task_names

    @classmethod
    def from_search(
        cls, search, *, param="pwiser_weight", scoring=None, ax=None, **kwargs
    ):
        """Draw the scores of a fitted search.

        Parameters
        ----------
        search : estimator object
            A fitted :class:`~sklearn.model_selection.GridSearchCV` or similar. If the
            search has several parameters, only candidates with the selected values of
            the other parameters are drawn.
        param : str, default="pwiser_weight"
            A numeric parameter of the search. For a parameter inside a pipeline, such
            as "classifier__pwiser_weight", the last part of the name is enough.
        scoring : str or list of str, default=None
            Names of the scorers to draw; None draws all.
        ax : matplotlib Axes or array-like of Axes, default=None
            The axes to draw on, one per scorer; None creates a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        WeightSearchDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the search has no such parameter or scorer, if the parameter is not
            numeric, or if the search has several parameters and `refit=False`.
        sklearn.exceptions.NotFittedError
            If the search is not fitted.
        ImportError
            If matplotlib is not installed.
        """
        import_pyplot(cls.__name__)
        check_is_fitted(search, "cv_results_")
        results = search.cv_results_
        param_name = _find_param(results, param)
        names = _find_scorers(results, scoring)
        best = getattr(search, "best_index_", None)
        rows, values = _slice(results, param_name, best)
        scores, errors = {}, {}
        for name in names:
            scores[name] = np.asarray(results[f"mean_test_{name}"])[rows]
            errors[name] = _standard_errors(results, name, search.n_splits_)[rows]
        display = cls(
            param_name=param_name.rpartition("__")[2],
            values=values,
            scores=scores,
            standard_errors=errors,
            best_value=None if best is None else results["params"][best][param_name],
            task_names=Predictions(search, None, {}).task_names(),
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw the scores.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            The axes to draw on, one per scorer; None creates a new figure.
        **kwargs : dict
            Properties of all curves, passed to matplotlib's `errorbar`.

        Returns
        -------
        WeightSearchDisplay
            The display.

        Raises
        ------
        ValueError
            If `ax` does not contain one axes per scorer.
        """
        self.axes_ = row_of_axes(ax, len(self.scores), "WeightSearchDisplay")
        self.containers_ = []
        order = list(dict.fromkeys([*self.task_names, *self.scores]))
        for one, (name, scores) in zip(self.axes_, self.scores.items(), strict=True):
            properties = style(kwargs, color=task_color(order.index(name)), marker="o")
            error, properties = self.standard_errors[name], {"capsize": 3} | properties
            drawn = one.errorbar(self.values, scores, error, **properties)
            self.containers_.append(drawn)
            if self.best_value is not None:
                one.axvline(self.best_value, color=GREY, linestyle=DOTTED)
            one.set(title=name, xlabel=self.param_name, ylabel="Score")
            _set_scale(one, self.values)
        self.figure_ = self.axes_[0].figure
        return self


def _standard_errors(results, name, n_splits):
    """Return the standard error of the mean score of each candidate of a search."""
    folds = np.array([results[f"split{k}_test_{name}"] for k in range(n_splits)])
    if n_splits == 1:
        return np.full(folds.shape[1], np.nan)
    # Nadeau and Bengio (2003), section 4.1: training sets overlap. A K-fold has
    # 1 / (K - 1) test rows per training row.
    factor = 1 / n_splits + 1 / (n_splits - 1)
    return np.sqrt(factor * folds.var(axis=0, ddof=1))


def _find_param(results, param):
    names = [key.removeprefix("param_") for key in results if key.startswith("param_")]
    found = [name for name in names if name == param] or [
        name for name in names if name.endswith(f"__{param}")
    ]
    if len(found) != 1:
        raise ValueError(f"param must be one of {names}, got {param!r}.")
    return found[0]


def _find_scorers(results, scoring):
    prefix = "mean_test_"
    names = [key.removeprefix(prefix) for key in results if key.startswith(prefix)]
    chosen = [scoring] if isinstance(scoring, str) else scoring or names
    if unknown := [name for name in chosen if name not in names]:
        raise ValueError(f"scoring must be among {names}, got {unknown[0]!r}.")
    return list(chosen)


def _slice(results, param_name, best):
    """Return candidates that differ from the best in one parameter, and its values."""
    candidates = results["params"]
    # Successive halving repeats candidates with more resources, such as rows or epochs.
    resources = results.get("n_resources", [None] * len(candidates))
    others = [
        ({name: v for name, v in params.items() if name != param_name}, resource)
        for params, resource in zip(candidates, resources, strict=True)
    ]
    if best is None and any(each != others[0] for each in others):
        raise ValueError(
            "search must select a candidate if it has several parameters; set refit."
        )
    reference = others[0 if best is None else best]
    rows = [
        i
        for i, params in enumerate(candidates)
        if param_name in params and others[i] == reference
    ]
    values = [candidates[i][param_name] for i in rows]
    for value in values:
        if not isinstance(value, Real) or isinstance(value, bool):
            raise ValueError(
                f"param must be numeric, but {param_name!r} has the value {value!r}."
            )
    order = np.argsort(values, kind="stable")
    return np.array(rows)[order], np.array(values, dtype=float)[order]


def _set_scale(ax, values):
    """Choose a scale that separates all values, and put the ticks at the values."""
    from matplotlib.ticker import NullLocator

    above = values[values > 0]
    if len(above) and above[-1] >= WIDE * above[0] and values[0] >= 0:
        if len(above) == len(values):
            ax.set_xscale("log")
        else:
            ax.set_xscale("symlog", linthresh=above[0], linscale=0.5)
            ax.set_xlim(left=-0.3 * above[0])
        ax.set_xlim(right=1.4 * above[-1])
    ticks = values if len(values) <= 8 else values[:: -(-len(values) // 8)]
    ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
