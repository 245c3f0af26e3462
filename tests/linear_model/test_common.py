"""scikit-learn's own checks of the linear estimators."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from linear_problems import MIXED, mixed_problem
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier
from sklearn.utils import _safe_indexing
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_param_validation,
    estimator_checks_generator,
)
from sklearn.utils.fixes import parse_version

from sk_pwiser.linear_model import (
    CPMultiTaskLogistic,
    MultiTaskSparseLinear,
    MultiTaskSparseLinearCV,
    multi_task_sparse_path,
)
from sk_pwiser.model_selection import FunnelStratifiedKFold, FunnelTimeSplit

ESTIMATORS = {
    "cp": CPMultiTaskLogistic(),
    "cp als": CPMultiTaskLogistic(loss="squared_error", solver="als"),
    "sparse": MultiTaskSparseLinear(),
    "sparse regression": MultiTaskSparseLinear(task_types="regression"),
    "sparse cv": MultiTaskSparseLinearCV(alphas=4, cv=3, random_state=0),
    "sparse cv regression": MultiTaskSparseLinearCV(
        alphas=4, cv=3, task_types="regression", random_state=0
    ),
}
FAST = {"cp", "sparse"}
# The checks of weights take the class of the first row, which their two fits do not
# have in common, for 0.
SWAPS_CLASSES = parse_version(sklearn.__version__) < parse_version("1.7")


def cases():
    for label, estimator in ESTIMATORS.items():
        for instance, check in estimator_checks_generator(estimator, legacy=True):
            name = getattr(check, "func", check).__name__
            marks = [] if label in FAST else [pytest.mark.slow]
            is_of_weights = name.startswith("check_sample_weight_equivalence")
            if SWAPS_CLASSES and is_classifier(estimator) and is_of_weights:
                reason = "scikit-learn 1.6 swaps the classes of one of the two fits"
                marks.append(pytest.mark.xfail(reason=reason))
            yield pytest.param(instance, check, id=f"{label}-{name}", marks=marks)


# The checks' labels are random: tasks are constant, and folds have few rows.
@pytest.mark.filterwarnings("ignore:Task .* in every row:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore:.*depth.*:UserWarning")
@pytest.mark.parametrize(("estimator", "check"), cases())
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize(
    "check", [check_param_validation, check_dataframe_column_names_consistency]
)
def test_checks_that_scikit_learn_keeps_for_itself(estimator, check):
    check(type(estimator).__name__, estimator)


RNG = np.random.default_rng(0)
X = pd.DataFrame(RNG.standard_normal((300, 4)), columns=list("abcd"))
CLICK = (X["a"] + RNG.standard_normal(300) > 1).astype(int).rename("click")
Y = pd.DataFrame({"click": CLICK, "buy": CLICK & (X["b"] > 0)})
THREE = ["cp", "sparse", "sparse cv"]


@pytest.mark.parametrize("name", THREE)
def test_an_earlier_fit_stays_usable_after_a_bad_one(name):
    model = clone(ESTIMATORS[name]).fit(X, Y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="Labels must be 0 or 1"):
        model.fit(X[["a", "b"]], Y.replace(1, 2))
    assert_array_equal(model.predict_proba(X), before)


@pytest.mark.parametrize("name", THREE)
@pytest.mark.parametrize(
    ("y", "error"),
    [
        (CLICK.where(X["a"] < 1), "Input y contains NaN: .* in column 'click'"),
        (CLICK * 2, "expected the classes"),
        (CLICK.map({0: "no", 1: "yes"}), "expected the classes"),
        (CLICK[:-1], "X has 300 rows, Y has 299"),
    ],
    ids=["missing", "another class", "text", "rows"],
)
def test_score_takes_no_label_of_a_single_task_for_the_other(name, y, error):
    model = clone(ESTIMATORS[name]).fit(X, CLICK)
    with pytest.raises(ValueError, match=error):
        model.score(X, y)


@pytest.mark.parametrize("name", THREE)
def test_score_checks_tasks_rows_and_weights(name):
    model = clone(ESTIMATORS[name]).fit(X, Y)
    lazy = (pl.from_pandas(table).lazy() for table in (X, Y))
    assert model.score(X, Y) == model.score(X, Y.to_numpy()) == model.score(*lazy)
    with pytest.raises(ValueError, match="in the order of the tasks"):
        model.score(X, Y[["buy", "click"]])
    with pytest.raises(ValueError, match="X has 300 rows, Y has 299"):
        model.score(X, Y[:-1])
    weight = np.column_stack([np.ones(300), np.zeros(300)])
    with pytest.raises(ValueError, match="label of task 'buy'"):
        model.score(X, Y, sample_weight=weight)


@pytest.mark.parametrize("name", THREE)
def test_rows_in_another_order_are_refused(name):
    model, shuffled = clone(ESTIMATORS[name]), X.sample(frac=1, random_state=0)
    weight = pd.Series(1.0, shuffled.index)
    for arguments in ((shuffled, Y), (X, Y, weight)):
        with pytest.raises(ValueError, match="same index labels in different orders"):
            model.fit(*arguments)
    with pytest.raises(ValueError, match="same index labels in different orders"):
        model.fit(X, Y).score(shuffled, Y)
    with pytest.raises(ValueError, match="same index labels in different orders"):
        multi_task_sparse_path(shuffled, Y)


@pytest.mark.parametrize(
    "cv",
    [
        FunnelTimeSplit(2, time="d"),
        FunnelStratifiedKFold(2, task_parents={"buy": "click"}),
    ],
    ids=["time", "tree"],
)
@pytest.mark.parametrize("has_values", [False, True])
def test_splitters_find_columns_and_tasks_by_name(cv, has_values):
    y = Y.assign(value=X["c"]) if has_values else Y
    types = ["binary", "binary", "regression"] if has_values else "binary"
    model = MultiTaskSparseLinearCV(alphas=3, cv=cv, task_types=types)
    assert model.fit(X, y).scores_.shape == (3, 2, y.shape[1])


def precise(name):
    """Return an estimator, data, and the tolerances of its predictions for labels."""
    if name == "sparse":
        params = {"alpha": 0.1, "task_types": MIXED, "tol": 1e-11, "max_iter": 100_000}
        model = MultiTaskSparseLinear(**params, missing_labels="ignore")
        return model, *mixed_problem(), (1e-8, 1e-8)
    model = CPMultiTaskLogistic(
        group_modes=["d"],
        missing_labels="ignore",
        tol=1e-9,
        max_iter=10_000,
        random_state=0,
    )
    table = X.assign(d=np.arange(300) % 4)
    # The features are centred at the mean of other rows, which the penalty sees.
    return model, table, Y.to_numpy(dtype=float), (1e-5, 1e-3)


@pytest.mark.parametrize("name", ["cp", "sparse"])
def test_weights_are_repeated_rows_and_labels(name):
    model, table, y, (of_rows, of_labels) = precise(name)
    rng, n_tasks = np.random.default_rng(0), y.shape[1]
    counts = rng.integers(0, 4, len(y))
    rows = np.repeat(np.arange(len(y)), counts)
    weighted = clone(model).fit(table, y, sample_weight=counts)
    repeated = clone(model).fit(_safe_indexing(table, rows), y[rows])
    p = repeated.predict_proba(table)
    assert_allclose(weighted.predict_proba(table), p, atol=of_rows)
    # One count per row and task: a repeated row has the label of one task only.
    counts = rng.integers(0, 4, y.shape)
    rows = [np.repeat(np.arange(len(y)), counts[:, k]) for k in range(n_tasks)]
    labels = [np.full((len(of_task), n_tasks), np.nan) for of_task in rows]
    for k, of_task in enumerate(rows):
        labels[k][:, k] = y[of_task, k]
    weighted = clone(model).fit(table, y, sample_weight=counts)
    rows = np.concatenate(rows)
    repeated = clone(model).fit(_safe_indexing(table, rows), np.vstack(labels))
    p = repeated.predict_proba(table)
    assert_allclose(weighted.predict_proba(table), p, atol=of_labels)
