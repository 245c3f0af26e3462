"""Compare losses on the same folds and with the same seeds."""

import warnings
from numbers import Integral

import joblib  # type: ignore[import-untyped]
import numpy as np
from sklearn import config_context, get_config
from sklearn.base import clone
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import check_scoring, roc_auc_score
from sklearn.model_selection import check_cv, cross_validate
from sklearn.utils import check_random_state, indexable

from sk_pwiser.metrics import cvr_auc_scorer, make_task_scorer, mean_log_loss_scorer
from sk_pwiser.model_selection._candidates import build_candidates
from sk_pwiser.model_selection._comparison import LossComparison
from sk_pwiser.model_selection._folds import FunnelStratifiedKFold


def compare_losses(
    estimator,
    X,
    Y,
    *,
    losses=("bce", "pwiser"),
    weights=None,
    cv=5,
    scoring=None,
    groups=None,
    params=None,
    n_jobs=None,
    verbose=0,
    random_state=0,
):
    """Compare losses by cross-validation on the same folds and with the same seeds.

    Each candidate is a loss, or a loss with one weight. All candidates are fitted on
    the training rows of each fold with the same ``random_state`` and scored on its test
    rows. The result contains their differences to the first candidate with intervals.

    Parameters
    ----------
    estimator : estimator object
        A classifier with the parameter ``loss``, or a Pipeline or search that contains
        one. It is cloned and not changed.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions.
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, 0 or 1; the tasks in funnel order, the click first.
    losses : sequence of str or class, default=("bce", "pwiser")
        Values of the parameter ``loss``. The first one is the baseline.
        ``loss_params`` of the estimator applies to its own loss only; the other losses
        get their defaults.
    weights : sequence of float, default=None
        Values of ``pwiser_weight``, each of them a candidate, for the losses that take
        it: "pwiser", and classes that list it in ``estimator_parameters``. None keeps
        the value of the estimator.
    cv : int, splitter or iterable of (train, test), default=5
        An int is the number of folds of :class:`FunnelStratifiedKFold`, at least 2. A
        splitter, such as ``TimeSeriesSplit`` or ``RepeatedKFold``, or an iterable of
        row indices must give at least two splits.
    scoring : str, callable, list, tuple or dict, default=None
        Scores, as in :class:`~sklearn.model_selection.GridSearchCV`; larger is better.
        None stands for the ROC AUC of each task ("click AUC", "conversion AUC"), with
        several tasks that of P(last task | first task) ("CVR AUC"), and minus the mean
        log loss ("neg log loss").
    groups : array-like of shape (n_samples,), default=None
        Group of each row for splitters that use it. Losses receive groups by
        ``params={"groups": groups}``.
    params : dict, default=None
        Parameters of ``fit``, such as ``sample_weight``. Those of length n_samples are
        split with the rows.
    n_jobs : int, default=None
        Number of fits that run in parallel, by joblib. None means 1, unless there is a
        :class:`joblib.parallel_config` context; -1 means all processors.
    verbose : int, default=0
        1 prints one line after each fit.
    random_state : int, RandomState instance or None, default=0
        Seed of the folds, if ``cv`` is an int, and of the fits: each fold has a seed,
        which replaces every ``random_state`` of the estimator for all candidates. With
        None the folds and seeds differ from call to call; they are the same for all
        candidates of one call in any case.

    Returns
    -------
    LossComparison
        Table of differences with intervals, verdicts and a plot.

    Raises
    ------
    ValueError, TypeError
        If the estimator has no parameter ``loss`` or rejects a candidate, if a weight
        is negative, if there are fewer than two candidates or splits, or if ``scoring``
        is unknown. Errors of ``fit`` are raised unchanged.

    Warns
    -----
    UndefinedMetricWarning
        If a score is undefined on a fold, for example because its test rows contain no
        conversion. The fold is left out of the comparison in this metric.

    See Also
    --------
    LossComparison : The result; it describes how the intervals are computed.
    sklearn.model_selection.GridSearchCV : Selects parameters, without intervals.

    Notes
    -----
    Folds of rows in random order give optimistic scores if the rows of one user or one
    day resemble each other. ``cv=TimeSeriesSplit()`` on rows in the order of time, or a
    splitter by groups, shows the differences that future rows have.

    A weight that is selected by this comparison has an optimistic difference; evaluate
    it on further rows.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.model_selection import compare_losses
    >>> data = make_ctr_cvr(600, ctr=0.4, cvr=0.4, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=2)
    >>> comparison = compare_losses(model, data.data, data.target, cv=2, weights=[0.3])
    >>> comparison.candidates
    ['bce', 'pwiser (weight 0.3)']
    >>> list(comparison.verdicts)
    ['click AUC', 'conversion AUC', 'CVR AUC', 'neg log loss']
    """
    candidates = build_candidates(estimator, losses, weights)
    X, Y, groups = indexable(X, Y, groups)
    if scoring is None:
        scoring = default_scoring(estimator, Y)
    check_scoring(estimator, scoring=scoring)
    seed = random_state
    if not isinstance(random_state, Integral):
        seed = check_random_state(random_state).randint(2**31 - 1)
    splits = list(make_splits(cv, X, Y, groups, seed))
    if len(splits) < 2:
        raise ValueError(f"cv must give at least 2 splits, got {len(splits)}: {cv!r}.")
    seeds = check_random_state(seed).randint(2**31 - 1, size=len(splits))

    def jobs():
        # Folds are the outer loop, so that the candidates of a fold finish together.
        for split, of_split in zip(splits, seeds, strict=True):
            for candidate in candidates:
                model = clone(estimator).set_params(**candidate.params)
                set_seeds(model, int(of_split))
                yield joblib.delayed(fit_and_score)(
                    get_config(), model, X, Y, split, scoring, params
                )

    # A generator returns each fit as it ends, but not every backend supports it.
    parallel = joblib.Parallel(
        n_jobs=n_jobs, return_as="generator" if verbose else "list"
    )
    results = []
    for scores, seconds in parallel(jobs()):
        results.append((scores, seconds))
        if verbose:
            print(progress(results, candidates, len(splits)), flush=True)

    shape = (len(splits), len(candidates))
    by_metric = {
        name: np.reshape([scores[name] for scores, _ in results], shape).T
        for name in results[0][0]
    }
    warn_undefined(by_metric)
    return LossComparison(
        [candidate.name for candidate in candidates],
        by_metric,
        test_train_ratio=np.mean([len(test) / len(train) for train, test in splits]),
        params=[candidate.params for candidate in candidates],
        seeds=seeds,
        fit_times=np.reshape([seconds for _, seconds in results], shape).T,
    )


def default_scoring(estimator, Y):
    """Return scorers by name: one AUC per task, that of the CVR, and the log loss."""
    names = task_names(estimator, Y)
    scoring = {
        f"{name} AUC": make_task_scorer(roc_auc_score, k)
        for k, name in enumerate(names)
    }
    if len(names) > 1:
        # The name may belong to a task.
        given = f"AUC of {names[-1]} given {names[0]}"
        scoring[given if "CVR AUC" in scoring else "CVR AUC"] = cvr_auc_scorer
    scoring["neg log loss"] = mean_log_loss_scorer
    return scoring


def task_names(estimator, Y):
    """Return the names of the tasks, as a fitted estimator would have them."""
    for key, value in estimator.get_params().items():
        if (key == "task_names" or key.endswith("__task_names")) and value is not None:
            return list(value)
    if hasattr(Y, "columns"):
        return [str(name) for name in Y.columns]
    n_tasks = 1 if np.ndim(Y) == 1 else np.shape(Y)[1]
    if n_tasks == 1 and getattr(Y, "name", None):
        return [str(Y.name)]
    if n_tasks == 2:
        return ["click", "conversion"]
    return [f"task_{k}" for k in range(n_tasks)]


def make_splits(cv, X, Y, groups, seed):
    """Return the training and test rows of each fold."""
    if cv is None:
        cv = 5
    if isinstance(cv, Integral):
        if isinstance(cv, bool) or cv < 2:
            raise ValueError(f"cv must be an int >= 2 or a splitter, got {cv!r}.")
        cv = FunnelStratifiedKFold(int(cv), random_state=int(seed))
    return check_cv(cv).split(X, Y, groups)


def set_seeds(estimator, seed):
    """Set every ``random_state`` of a nested estimator."""
    names = [
        key
        for key in estimator.get_params()
        if key == "random_state" or key.endswith("__random_state")
    ]
    estimator.set_params(**dict.fromkeys(names, seed))


def fit_and_score(config, estimator, X, Y, split, scoring, params):
    """Fit on the training rows of one split; return the test scores and the seconds."""
    # Workers do not inherit scikit-learn's configuration. Undefined scores are
    # reported once for all fits instead of once for each.
    with config_context(**config), warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        found = cross_validate(
            estimator,
            X,
            Y,
            cv=[split],
            scoring=scoring,
            params=params,
            error_score="raise",
        )
    scores = {
        key.removeprefix("test_"): value[0]
        for key, value in found.items()
        if key.startswith("test_")
    }
    if isinstance(scoring, str):
        scores = {scoring: scores["score"]}
    return scores, found["fit_time"][0]


def progress(results, candidates, n_splits):
    """Return a line that describes the latest fit."""
    scores, seconds = results[-1]
    fold, k = divmod(len(results) - 1, len(candidates))
    values = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    return (
        f"fold {fold + 1} of {n_splits}, {candidates[k].name}: {values} "
        f"({seconds:.1f} s)"
    )


def warn_undefined(by_metric):
    """Warn once about the folds on which a score is not finite."""
    counts = {
        name: int((~np.isfinite(values)).any(axis=0).sum())
        for name, values in by_metric.items()
    }
    n_splits = next(iter(by_metric.values())).shape[1]
    undefined = [f"{name} on {n}" for name, n in counts.items() if n]
    if undefined:
        warnings.warn(
            f"Some of the {n_splits} folds have no finite score and are left out: "
            f"{', '.join(undefined)}. The test rows of such a fold usually contain no "
            "event of a task; use fewer folds or more rows.",
            UndefinedMetricWarning,
            stacklevel=3,
        )
