"""Fits of several models on the same folds, with the same seeds, and their scores."""

import copy
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import config_context, get_config
from sklearn.base import clone
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import check_scoring, roc_auc_score
from sklearn.model_selection import check_cv, cross_validate
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params, _num_samples

from sk_pwiser import _responses
from sk_pwiser._columns._frames import collected, column_of, refuse_parts, selectable
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._tasks._tree import path_to
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.metrics import cvr_auc_scorer, make_task_scorer, mean_log_loss_scorer
from sk_pwiser.model_selection._folds import (
    FunnelStratifiedKFold,
    warn_about_random_folds,
)
from sk_pwiser.model_selection._model_comparison import (
    RATIO,
    ModelComparison,
    as_printed,
)
from sk_pwiser.model_selection._value_scores import (
    labels_of_events,
    value_scoring,
    value_tasks_of,
)

# Training and test rows.
Split = tuple[np.ndarray, np.ndarray]
# The text of a warning and its category.
Message = tuple[str, type[Warning]]

# Largest number of values of the column `by`, which all have scores of their own.
MAX_VALUES = 100


@dataclass(frozen=True, kw_only=True)
class FitAndScores:
    """The scores of a fit on the test rows of a fold."""

    scores: dict[str, float]
    fit_time: float  # in seconds, as the next one
    score_time: float
    messages: list[Message]  # of another process than the caller's


def cross_validate_models(
    models: Mapping[str, Any],
    X: Any,
    Y: Any,
    *,
    cv: Any,
    scoring: Any,
    groups: npt.ArrayLike | None,
    by: Any,
    params: Mapping[str, Any] | None,
    n_jobs: int | None,
    verbose: int,
    random_state: int | np.random.RandomState | None,
) -> ModelComparison:
    """Fit and score models, given by name, on every fold; see `compare_models`."""
    refuse_parts(X)
    X, Y, groups = indexable(*map(selectable, (X, Y, groups)))
    params = {name: collected(value) for name, value in (params or {}).items()}
    check_match(X, _num_samples(Y), Y=Y, groups=groups)
    # A fit cannot compare their indices, since folds select rows by position.
    per_row = {
        name: params[name] for name in ("sample_weight", "groups") if name in params
    }
    check_match(X, _num_samples(Y), **per_row)
    estimators = list(models.values())
    value_tasks = value_tasks_of(estimators)
    events = labels_of_events(Y, value_tasks) if value_tasks else Y
    scoring_name = scoring if isinstance(scoring, str) else "score"
    if scoring is None:
        scoring = scoring_of_models(estimators, Y, events, value_tasks)
    # An unknown scorer would otherwise raise after the first fit.
    scorer = check_scoring(estimators[0], scoring=scoring)
    values, value_of_row = read_values(X, by)
    seed = random_state
    if not isinstance(random_state, Integral):
        seed = check_random_state(random_state).randint(2**31 - 1)
    splits = list(
        make_splits(estimators[0], X, events, cv=cv, groups=groups, seed=seed)
    )
    if len(splits) < 2:
        raise ValueError(f"cv must give at least 2 splits, got {len(splits)}: {cv!r}.")
    warn_about_random_folds(estimators, X, cv, splits, groups)
    # One seed per fold, for all candidates: their starts do not add to the differences.
    seeds = check_random_state(seed).randint(2**31 - 1, size=len(splits))
    caller = os.getpid()

    def jobs() -> Iterator[Any]:
        # Folds are the outer loop, so that the candidates of a fold finish together.
        for split, seed_of_fold in zip(splits, seeds, strict=True):
            _, test = split
            scorer_by_value = ScorerByValue(
                scorer, scoring_name, values, value_of_row[test]
            )
            for model in map(clone, estimators):
                set_seeds(model, int(seed_of_fold))
                yield delayed(fit_and_score)(
                    model,
                    X,
                    Y,
                    split=split,
                    scorer=scorer_by_value,
                    params=params,
                    caller=caller,
                )

    results = run_jobs(
        jobs(), list(models), len(splits), n_jobs=n_jobs, verbose=verbose
    )
    return comparison_of(results, list(models), splits, seeds)


def run_jobs(
    jobs: Iterable[Any],
    names: Sequence[str],
    n_splits: int,
    *,
    n_jobs: int | None,
    verbose: int,
) -> list[FitAndScores]:
    """Run fits in parallel, and repeat their warnings once."""
    # A generator returns each fit when it ends, but not every backend supports it.
    parallel = Parallel(n_jobs=n_jobs, return_as="generator" if verbose else "list")
    results = []
    with warnings.catch_warnings(record=True) as caught:
        for result in parallel(jobs):
            results.append(result)
            if verbose:
                print(progress(results, names, n_splits), flush=True)
    messages = [message for result in results for message in result.messages]
    warn_once([*messages, *map(message_of, caught)])
    return results


def comparison_of(
    results: Sequence[FitAndScores],
    names: list[str],
    splits: Sequence[Split],
    seeds: np.ndarray,
) -> ModelComparison:
    """Return the comparison of the results of all folds, the models of each in turn."""
    # From the order of the jobs to one row per candidate.
    shape = (len(splits), len(names))
    scores_by_metric = {
        metric: np.reshape([result.scores[metric] for result in results], shape).T
        for metric in results[0].scores
    }
    ratios = {
        metric.removeprefix(RATIO): scores_by_metric.pop(metric)
        for metric in list(scores_by_metric)
        if metric.startswith(RATIO)
    }
    warn_about_undefined(scores_by_metric, len(splits))
    return ModelComparison(
        names,
        scores_by_metric,
        ratios=ratios or None,
        test_train_ratio=float(
            np.mean([len(test) / len(train) for train, test in splits])
        ),
        seeds=seeds,
        fit_times=np.reshape([result.fit_time for result in results], shape).T,
        score_times=np.reshape([result.score_time for result in results], shape).T,
    )


def warn_about_undefined(
    scores_by_metric: Mapping[str, np.ndarray], n_splits: int
) -> None:
    """Warn once about metrics without a finite score on some of the folds."""
    undefined = []
    for metric, scores in scores_by_metric.items():
        n_undefined = int((~np.isfinite(scores)).any(axis=0).sum())
        if n_undefined:
            undefined.append(f"{metric} on {n_undefined}")
    if undefined:
        warn_user(
            f"Some of the {n_splits} folds have no finite score and are left out: "
            f"{', '.join(undefined)}. Use fewer folds or more rows.",
            UndefinedMetricWarning,
        )


def scoring_of_models(
    estimators: Sequence[Any], Y: Any, events: Any, value_tasks: Mapping[Any, Any]
) -> Any:
    """Return the default scores, those on the full log if the models have a rate.

    `events` are the labels without columns of amounts. Models that predict no
    probabilities are compared by the amounts alone.
    """
    scoring: dict[str, Any] = {}
    if all(hasattr(estimator, "predict_proba") for estimator in estimators):
        scoring = default_scoring(estimators[0], events)
    if get_config()["enable_metadata_routing"]:
        scoring = copy.deepcopy(scoring)
        # As without routing, weights are those of fits only.
        for scorer in scoring.values():
            scorer.set_score_request(sample_weight=False)
    scoring |= value_scoring(Y, value_tasks)
    rate = sampling_rate(estimators)
    if rate == 1:
        return scoring
    return partial(score_full_log, scoring=scoring, rate=rate)


def default_scoring(estimator: Any, Y: Any) -> dict[str, Any]:
    """Return scorers by name: the AUC of each task and of the CVR, and the log loss."""
    names, parents = _responses.planned_tasks(estimator, Y)
    scoring = {
        f"{name} AUC": make_task_scorer(roc_auc_score, k)
        for k, name in enumerate(names)
    }
    path = path_to(len(names) - 1, parents)
    if path[0] == 0 and len(path) > 1:
        name = "CVR AUC"
        if name in scoring:  # a task has the name "CVR"
            name = f"AUC of {names[-1]} given {names[0]}"
        scoring[name] = cvr_auc_scorer
    scoring["minus log loss"] = mean_log_loss_scorer
    return scoring


def sampling_rate(estimators: Iterable[Any]) -> float:
    """Return the rate at which rows without a click were kept, 1 for a full log."""
    rates: set[float] = set()
    for estimator in estimators:
        params = estimator.get_params()
        # A view has the parameters task and estimator.
        tasks = _responses.find_paths(params, "task")
        views = tuple(f"{task.removesuffix('task')}estimator__" for task in tasks)
        for path in _responses.find_paths(params, "negative_sampling_rate"):
            rate = params[path]
            if not isinstance(rate, Real) or rate == 1:
                continue
            rates.add(float(rate))
            if path.startswith(views):
                raise ValueError(
                    "The labels of one task alone do not tell which rows have no "
                    f"click, for negative_sampling_rate={rate}: compare the estimator "
                    "of all tasks instead of its TaskView, or set scoring."
                )
    if len(rates) > 1:
        raise ValueError(
            f"negative_sampling_rate must be equal in all models, got {sorted(rates)}: "
            "labels are those of one log. Or set scoring."
        )
    return rates.pop() if rates else 1


def score_full_log(estimator: Any, X: Any, Y: Any, *, scoring: Any, rate: float) -> Any:
    """Score on a log in which a share of the rows without a click was kept.

    Such rows count 1 / rate times, so that probabilities of the full log are compared
    with its rates.
    """
    targets, *_ = _responses.Predictions(estimator, X, {}).read_targets(Y)
    weight = np.where(targets[:, 0] == 0, 1 / rate, 1.0)
    scorer = check_scoring(estimator, scoring=scoring)
    # The weights are passed as such, whatever the scorers request.
    with config_context(enable_metadata_routing=False):
        return scorer(estimator, X, Y, sample_weight=weight)


def make_splits(
    estimator: Any, X: Any, Y: Any, *, cv: Any, groups: Any, seed: int
) -> Iterator[Split]:
    """Yield the indices of training and test rows, which may be given as masks."""
    cv = 5 if cv is None else cv
    if isinstance(cv, Integral):
        if isinstance(cv, bool) or cv < 2:
            raise ValueError(f"cv must be an int >= 2 or a splitter, got {cv!r}.")
        _, parents = _responses.planned_tasks(estimator, Y)
        cv = FunnelStratifiedKFold(
            int(cv), random_state=int(seed), task_parents=dict(enumerate(parents))
        )
    for train, test in check_cv(cv).split(X, Y, groups):
        yield row_indices(train), row_indices(test)


def row_indices(rows: npt.ArrayLike) -> np.ndarray:
    """Return the indices of rows, which may be given as a mask."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows


def set_seeds(estimator: Any, seed: int) -> None:
    """Set every ``random_state`` of a nested estimator that is not deprecated."""
    params = estimator.get_params()
    paths = _responses.find_paths(params, "random_state")
    settable_paths = [path for path in paths if str(params[path]) != "deprecated"]
    estimator.set_params(**dict.fromkeys(settable_paths, seed))


def read_values(X: Any, by: Any) -> tuple[list[str], np.ndarray]:
    """Return the texts of the values of a column, and the value of each row by index.

    The index of rows without a value is -1.
    """
    rows_of_value = {}
    if by is not None:
        rows_of_value = _responses.rows_of_values(column_of(X, "by", by), by)
    if len(rows_of_value) > MAX_VALUES:
        raise ValueError(
            f"by={by!r} must have at most {MAX_VALUES} values; it has "
            f"{len(rows_of_value):,}."
        )
    # As a code per row, which a fold selects like other values of its rows.
    value_of_row = np.full(_num_samples(X), -1)
    for k, rows in enumerate(rows_of_value.values()):
        value_of_row[rows] = k
    return list(rows_of_value), value_of_row


class ScorerByValue:
    """A scorer of test rows that also scores the rows of each value of a column.

    Metadata such as groups are those of the rows.
    """

    def __init__(
        self,
        scorer: Callable[..., Any],
        name: str,
        values: Sequence[str],
        value_of_row: np.ndarray,
    ) -> None:
        self.scorer = scorer
        self.name = name
        self.values = values
        self.value_of_row = value_of_row

    def get_metadata_routing(self) -> Any:
        return get_routing_for_object(self.scorer)

    def _accept_sample_weight(self) -> bool:
        return getattr(self.scorer, "_accept_sample_weight", lambda: False)()

    def __call__(
        self, estimator: Any, X: Any, Y: Any, **metadata: Any
    ) -> dict[str, float]:
        stored = StoredPredictions(estimator, X)
        scores = self._score(stored.at(X, slice(None)), X, Y, metadata)
        all_scores = dict(scores)
        for k, value in enumerate(self.values):
            rows = np.flatnonzero(self.value_of_row == k)
            scores_of_value = {}
            if len(rows):
                X_value = _safe_indexing(X, rows)
                Y_value = _safe_indexing(Y, rows)
                metadata_of_value = _check_method_params(X, metadata, rows)
                predictions = stored.at(X_value, rows)
                scores_of_value = self._score(
                    predictions, X_value, Y_value, metadata_of_value
                )
            for name in scores:
                all_scores[f"{name}, {value}"] = scores_of_value.get(name, np.nan)
        return all_scores

    def _score(
        self, estimator: Any, X: Any, Y: Any, metadata: Mapping[str, Any]
    ) -> dict[str, float]:
        scores = self.scorer(estimator, X, Y, **metadata)
        return scores if isinstance(scores, dict) else {self.name: scores}


class StoredPredictions:
    """Predictions of all test rows, for scorers of a part of them.

    Each method of the estimator is called once, not once per part.
    """

    methods = (
        "predict_proba",
        "predict",
        "decision_function",
        "predict_cvr",
        "predict_value",
    )

    def __init__(self, estimator: Any, X: Any) -> None:
        self.estimator = estimator
        self.X = X
        self.predictions: dict[str, Any] = {}  # by the name of the method

    def at(self, X: Any, rows: slice | np.ndarray) -> Any:
        """Return a copy of the estimator that looks up its predictions for `X`."""
        estimator = copy.copy(self.estimator)
        for name in self.methods:
            if hasattr(self.estimator, name):
                method = getattr(self.estimator, name)
                setattr(estimator, name, self._look_up(method, X, rows))
        return estimator

    def _look_up(
        self, method: Callable[..., Any], X_of_rows: Any, rows: slice | np.ndarray
    ) -> Callable[..., Any]:
        """Return a method that looks up its predictions for a table of these rows."""

        @wraps(method)  # scikit-learn reads its name
        def predict(X: Any) -> Any:
            if X is not X_of_rows:
                return method(X)
            if method.__name__ not in self.predictions:
                self.predictions[method.__name__] = method(self.X)
            predictions = self.predictions[method.__name__]
            if isinstance(predictions, list):  # one array per task
                return [_safe_indexing(array, rows) for array in predictions]
            return _safe_indexing(predictions, rows)

        return predict


def fit_and_score(
    estimator: Any,
    X: Any,
    Y: Any,
    *,
    split: Split,
    scorer: Callable[..., Any],
    params: Mapping[str, Any],
    caller: int,
) -> FitAndScores:
    """Return the `FitAndScores` of a fit on the training rows of a split.

    `caller` is the number of the process that compares the models.
    """
    # The caller records those of its threads, of which one would restore the recorder
    # of another.
    recorder: Any = nullcontext([])
    if os.getpid() != caller:
        recorder = warnings.catch_warnings(record=True)
    with recorder as caught:
        # One warning reports the undefined scores of all fits.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        results = cross_validate(
            estimator,
            X,
            Y,
            cv=[split],
            scoring=scorer,
            params=params,
            error_score="raise",
        )
    fit_time = results.pop("fit_time")[0]
    score_time = results.pop("score_time")[0]
    return FitAndScores(
        scores={key.removeprefix("test_"): value[0] for key, value in results.items()},
        fit_time=fit_time,
        score_time=score_time,
        messages=[message_of(warning) for warning in caught],
    )


def message_of(warning: warnings.WarningMessage) -> Message:
    """Return what does not depend on the module and the line of a worker."""
    return str(warning.message), warning.category


def warn_once(messages: Iterable[Message]) -> None:
    """Repeat warnings of fits; of those that differ in numbers only, the first one."""
    first_messages: dict[Message, str] = {}
    for message, category in messages:
        without_numbers = re.sub(r"-?\d[\d.,]*", "0", message)
        first_messages.setdefault((without_numbers, category), message)
    for (_, category), message in first_messages.items():
        warn_user(message, category)


def progress(
    results: Sequence[FitAndScores], names: Sequence[str], n_splits: int
) -> str:
    """Return the line of the last fit: its fold, model, scores and seconds."""
    result = results[-1]
    fold, k = divmod(len(results) - 1, len(names))
    scores = []
    for metric, score in result.scores.items():
        name, sign = as_printed(metric)
        scores.append(f"{name} {sign * score:.4f}")
    return (
        f"fold {fold + 1} of {n_splits}, {names[k]}: {', '.join(scores)} "
        f"({result.fit_time:.1f} s)"
    )
