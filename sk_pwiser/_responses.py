"""Labels and predictions of any estimator, task by task, for scorers and displays."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import chain
from numbers import Integral
from operator import methodcaller
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.validation import _num_samples

from sk_pwiser._columns._factorize import factorize
from sk_pwiser._tasks import _amounts, _labels, _tree
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._utils import _checks


def check_targets(
    Y: Any, missing_labels: str = "error", classes: npt.ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Check labels as ``fit`` does; return targets, known labels, and names or []."""
    labels, missing, names = _labels.read_labels(Y, missing_labels)
    labels = labels.reshape(len(labels), -1)
    if classes is not None and labels.shape[1] == 1:
        targets, _ = _labels.one_task_labels(labels[:, 0], names, classes)
    else:
        targets = _labels.zero_one_labels(labels, names)
    if missing is None:
        missing = np.zeros(targets.shape, dtype=bool)
    return targets.astype(np.int64), ~missing.reshape(targets.shape), names or []


def rows_of_values(column: Any, name: Any = None) -> dict[str, np.ndarray]:
    """Return the rows of each value, by its text, without missing values."""
    codes, values = factorize(column if hasattr(column, "name") else np.asarray(column))
    # Of values with equal text, such as 1 and "1", the first one stands for all.
    code_of_text: dict[str, int] = {}
    first_codes = [
        code_of_text.setdefault(str(value), code) for code, value in enumerate(values)
    ]
    codes = np.array([*first_codes, -1], dtype=np.intp)[codes]
    # A Series of polars without a name has an empty one.
    prefix = "" if name is None or str(name) == "" else f"{name}="
    order = np.argsort(codes, kind="stable")
    distinct_codes, starts = np.unique(codes[order], return_index=True)
    rows_by_code = np.split(order, starts[1:])
    return {
        f"{prefix}{values[code]}": rows
        for code, rows in zip(distinct_codes, rows_by_code, strict=False)
        if code >= 0
    }


def check_rows(X: Any, n_samples: int, **per_row: Any) -> None:
    """Check lengths and indices as ``fit`` does, unless a table has no length."""
    try:
        _num_samples(X)
    except TypeError:
        return
    check_match(X, n_samples, **per_row)


# What may stand for a task beside its index and its name, in messages.
ALTERNATIVES = ", 'cvr' or 'mean'"


def check_task(task: object, alternatives: str = ALTERNATIVES) -> int | str:
    """Return a task, an index as a plain int; raise if it is neither int nor str."""
    if isinstance(task, bool) or not isinstance(task, Integral | str):
        raise TypeError(
            f"task must be the index or the name of a task{alternatives}; got "
            f"{task!r} of type {type(task).__name__}."
        )
    return task if isinstance(task, str) else int(task)


def find_task(
    task: int | str,
    n_tasks: int,
    *names_by_source: Sequence[str],
    alternatives: str = ALTERNATIVES,
) -> int:
    """Return the column of a task, a name by the first names that have it."""
    name_lists = [list(names) for names in names_by_source if len(names)]
    for names in name_lists:
        if task in names:
            return names.index(task)
    if not isinstance(task, str) and -n_tasks <= task < n_tasks:
        return task % n_tasks
    distinct_lists = dict.fromkeys(map(str, name_lists))
    choices = f"one of {' or '.join(distinct_lists)}, " if name_lists else ""
    hint = _checks.did_you_mean(task, chain.from_iterable(name_lists))
    raise ValueError(
        f"task must be {choices}an index in [-{n_tasks}, {n_tasks}){alternatives}; "
        f"got {task!r}.{hint}"
    )


def check_same_tasks(
    n_tasks: int, y_names: Sequence[str], fitted_names: Sequence[str]
) -> None:
    """Raise if labels have other tasks than those of a fit."""
    if fitted_names and len(fitted_names) != n_tasks:
        raise ValueError(
            f"Y must have the {len(fitted_names)} tasks the estimator was fitted with, "
            f"{fitted_names}, got {n_tasks}."
        )
    _labels.check_order("The columns of Y", y_names, fitted_names)


# How predictions that are being computed read how their rows were shown: "reference",
# "logged" where the table says it, or "shown", which requires it.
_EXPOSURE: ContextVar[str] = ContextVar("exposure", default="reference")


def exposure_of_predictions() -> str:
    """Return how predictions that are being computed read how rows were shown."""
    return _EXPOSURE.get()


@contextmanager
def exposure_as(kind: str) -> Iterator[None]:
    """Read how rows were shown in a `with` block, in any estimator within others.

    Labels were logged as the rows were shown: what is compared with them is "logged".
    """
    token = _EXPOSURE.set(kind)
    try:
        yield
    finally:
        _EXPOSURE.reset(token)


class Predictions:
    """Predictions of an estimator; those with one `cache` call each method once."""

    def __init__(self, estimator: Any, X: Any, cache: dict[Any, Any]) -> None:
        self._estimator = estimator
        self._X = X
        self._cache = cache

    def _find(self, name: str, default: Any) -> Any:
        """Return the attribute of the outermost estimator that has it."""
        for layer in nested_estimators(self._estimator):
            if hasattr(layer, name):
                return getattr(layer, name)
        return default

    def task_names(self) -> list[str]:
        """Return the ``task_names_`` of the fitted estimator, or an empty list."""
        return [str(name) for name in self._find("task_names_", ())]

    def n_tasks(self) -> int | None:
        """Return the number of tasks of the fitted estimator, None if unknown."""
        return len(self.task_names()) or None

    def value_tasks(self) -> Any:
        """Return the parameter `value_tasks` of the estimator, or None."""
        return self._find("value_tasks", None)

    def value_names(self) -> list[str]:
        """Return the ``value_names_`` of the fitted estimator, or an empty list."""
        return [str(name) for name in self._find("value_names_", ())]

    def classes(self) -> np.ndarray | None:
        """Return the two classes of an estimator of a single task, otherwise None."""
        for layer in nested_estimators(self._estimator):
            classes = getattr(layer, "classes_", None)
            if getattr(classes, "shape", None) == (2,):
                return classes
        return None

    def read_targets(
        self, Y: Any, **per_row: Any
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return `check_targets` of labels that match the rows and the tasks."""
        missing_labels = self._find("missing_labels", "error")
        Y = _amounts.without_amounts(Y, self.value_tasks(), self.n_tasks())
        targets, is_known, names = check_targets(Y, missing_labels, self.classes())
        check_rows(self._X, len(targets), Y=Y, **per_row)
        check_same_tasks(targets.shape[1], names, self.task_names())
        return targets, is_known, names

    def observed_amounts(self, Y: Any, value_tasks: Mapping[Any, Any]) -> np.ndarray:
        """Return amounts per impression, `(n_samples, n_values)`.

        They are 0 without the event under which they arise, and NaN if they are
        unknown.
        """
        targets, is_known, columns = self.read_targets(Y)
        names = self.task_names() or columns
        events = np.where(is_known, targets, np.nan)
        amounts = _amounts.amounts_beside_events(Y, value_tasks, names, events)
        value_names = tuple(map(str, value_tasks))
        values = _amounts.find_values(value_tasks, value_names, names)
        for index, parent in enumerate(values.parents):
            if parent >= 0:
                amounts[events[:, parent] == 0, index] = 0.0
        return amounts

    def amount_weights(
        self,
        Y: Any,
        value_tasks: Mapping[Any, Any],
        observed: np.ndarray,
        sample_weight: Any = None,
    ) -> np.ndarray:
        """Return weights of the rows of `observed_amounts`, of the same shape.

        They are 0 where the amount is unknown. Rows with the event and a known amount
        stand for those with the event and an unknown one: totals would otherwise lack
        the latter, but not the predictions of the rows without the event.
        """
        targets, is_known, columns = self.read_targets(Y)
        names = self.task_names() or columns
        happened = (targets == 1) & is_known
        value_names = tuple(map(str, value_tasks))
        values = _amounts.find_values(value_tasks, value_names, names)
        row_weight = np.ones(len(observed))
        if sample_weight is not None:
            row_weight = np.asarray(sample_weight, dtype=np.float64)
        has_amount = ~np.isnan(observed)
        weights = row_weight[:, np.newaxis] * has_amount
        for index, parent in enumerate(values.parents):
            if parent < 0:
                continue
            with_event = happened[:, parent]
            with_amount = with_event & has_amount[:, index]
            known_weight = row_weight[with_amount].sum()
            if known_weight > 0:
                factor = row_weight[with_event].sum() / known_weight
                weights[with_amount, index] *= factor
        return weights

    def of_task(self, k: int, targets: np.ndarray) -> np.ndarray:
        """Return the probabilities of the event of a task."""
        proba = self._call("predict_proba", methodcaller("predict_proba", self._X))
        return _event_probability(proba, k, targets.shape, self._estimator)

    def task_parents(self, n_tasks: int) -> tuple[int, ...]:
        """Return the index of each task's parent; a funnel's by default."""
        parents = self._find("task_parents_", None)
        if parents is None:
            return _tree.chain_parents(n_tasks)
        return _tree.read_task_parents(parents, list(parents))

    def first_of_cvr(self, n_tasks: int) -> int:
        """Return the index of the first task of P(last task | first task)."""
        first = _tree.path_to(n_tasks - 1, self.task_parents(n_tasks))[0]
        if first == n_tasks - 1:
            raise ValueError(
                "task='cvr' must have at least two tasks in Y, and the last one must "
                "presuppose another one: it means P(last task | first task)."
            )
        return first

    def cvr(self, targets: np.ndarray) -> np.ndarray:
        """Return P(last task | first task), by the estimator's method if it has one."""
        n_tasks = targets.shape[1]
        first = self.first_of_cvr(n_tasks)
        response = self._call("predict_cvr", partial(_predict_cvr, X=self._X))
        if response is not None:
            cvr = column_or_1d(response, dtype=np.float64)
            check_consistent_length(targets, cvr)
            return cvr
        p_first = self.of_task(first, targets)
        p_last = self.of_task(n_tasks - 1, targets)
        # The ratio where the first probability is 0.
        limit = np.where(p_last > 0, 1.0, 0.0)
        ratio = np.divide(p_last, p_first, out=limit, where=p_first > 0)
        return np.clip(ratio, 0.0, 1.0)

    def _call(self, method: str, function: Callable[[Any], Any]) -> Any:
        # scikit-learn stores reduced predictions under the names of the methods.
        key = ("sk_pwiser", method)
        if key not in self._cache:
            with exposure_as("logged"):
                self._cache[key] = function(self._estimator)
        return self._cache[key]


def nested_estimators(estimator: Any) -> Iterator[Any]:
    """Yield an estimator and those in it: the best of a search, a pipeline's last."""
    while estimator is not None:
        yield estimator
        if isinstance(estimator, Pipeline):
            estimator = estimator[-1]
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        else:
            estimator = getattr(estimator, "best_estimator_", None)


def _predict_cvr(estimator: Any, X: Any) -> Any:
    """Return `predict_cvr` of an estimator or of one in it, None without any."""
    layers = list(nested_estimators(estimator))
    for i, layer in enumerate(layers):
        if not hasattr(layer, "predict_cvr"):
            continue
        # A pipeline does not have this method, so its transformers are applied here.
        for outer in layers[:i]:
            if isinstance(outer, Pipeline) and len(outer) > 1:
                X = outer[:-1].transform(X)
        return layer.predict_cvr(X)
    return None


def positive_probabilities(estimator: Any, X: Any, n_tasks: int) -> np.ndarray:
    """Return P(Y_k = 1) from any form of `predict_proba`, (n_samples, n_tasks)."""
    proba = estimator.predict_proba(X)
    n_samples = len(proba[0] if isinstance(proba, list) else proba)
    shape = (n_samples, n_tasks)
    return np.column_stack(
        [_event_probability(proba, k, shape, estimator) for k in range(n_tasks)]
    )


def _event_probability(
    proba: Any, k: int, shape: tuple[int, int], estimator: Any
) -> np.ndarray:
    """Return P(Y_k = 1) from either form of a multi-output ``predict_proba``."""
    n_samples, n_tasks = shape
    per_task = isinstance(proba, list) and len(proba) == n_tasks
    block = np.asarray(proba[k] if per_task else proba, dtype=np.float64)
    if per_task or n_tasks == 1:
        if block.shape == (n_samples, 2):
            return block[:, 1]
        if block.shape == (n_samples, 1):
            # After a fit on one class, the only column is the probability of the class.
            classes = getattr(estimator, "classes_", [0, 1])
            seen = np.ravel(classes[k] if per_task else classes).astype(object)
            seen = _labels.read_words(seen)
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


def find_paths(params: Iterable[str], name: str) -> list[str]:
    """Return the names in `get_params()` of a parameter, of any nested estimator."""
    return [key for key in params if key == name or key.endswith(f"__{name}")]


def given_task_names(params: Mapping[str, Any]) -> Any:
    """Return the parameter `task_names` of an estimator, or of one in it, or None."""
    for key in find_paths(params, "task_names"):
        if params[key] is not None:
            return params[key]
    return None


def planned_tasks(estimator: Any, Y: Any) -> tuple[list[str], tuple[int, ...]]:
    """Return the names of the tasks that `fit` would choose, and their parents."""
    params = estimator.get_params()
    shape = getattr(Y, "shape", None) or np.asarray(Y).shape
    n_tasks = shape[1] if len(shape) > 1 else 1
    names = list(
        _labels.choose_task_names(
            n_tasks, given_task_names(params), _labels.names_of_columns(Y), None
        )
    )
    paths = find_paths(params, "task_parents")
    task_parents = params[paths[0]] if paths else _tree.CHAIN
    return names, _tree.read_task_parents(task_parents, names)
