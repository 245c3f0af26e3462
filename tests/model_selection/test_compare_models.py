"""The estimator against models of other packages, on the same folds."""

import numpy as np
import pandas as pd
import pytest
from fake_estimators import ReadsFeatures
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.multioutput import MultiOutputClassifier
from small_model import small

from sk_pwiser import TaskView
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import (
    ctcvr_auc_scorer,
    ctr_auc_scorer,
    cvr_auc_scorer,
    mean_log_loss_scorer,
)
from sk_pwiser.model_selection import FunnelTimeSplit, compare_models
from sk_pwiser.model_selection._package_models import (
    IS_CATEGORY,
    MIN_VALUES,
    MODELS,
    PlainColumns,
    is_installed,
    named_models,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*is predicted as more probable")
FAST = ["logistic_regression", "hist_gradient_boosting"]


@pytest.fixture(scope="module")
def rows():
    data = make_ctr_cvr(800, ctr=0.4, cvr=0.4, random_state=0)
    rng = np.random.default_rng(0)
    X = data.data.assign(
        user=pd.Categorical(rng.integers(0, 300, 800)).astype(str),
        hour=np.arange(800.0),
        flag=rng.random(800) < 0.5,
    )
    X.loc[::7, "user"] = None
    X.iloc[::9, 0] = np.nan
    return X, data.target


def test_default_models_are_those_installed():
    others = ("lightgbm", "lightgbm_small_leaves", "catboost")
    others = [name for name in others if is_installed(name)]
    assert [*named_models("default", 2)] == ["sk_pwiser", *FAST, *others]


def test_models_by_name(rows):
    comparison = compare_models(*rows, models=["sk_pwiser", *FAST], cv=2)
    assert comparison.candidates == ["sk_pwiser", *FAST]
    assert list(comparison.scores)[:2] == ["click AUC", "conversion AUC"]
    assert all(np.isfinite(scores).all() for scores in comparison.scores.values())
    assert comparison.fit_times.shape == comparison.score_times.shape == (3, 2)
    assert comparison.seconds.splitlines()[2].startswith("hist_gradient_boosting: ")
    again = compare_models(*rows, models=["sk_pwiser", *FAST], cv=2)
    for name, scores in comparison.scores.items():
        assert_array_equal(again.scores[name], scores)


def test_scores_are_those_of_a_fit_by_hand(rows):
    X, Y = rows
    plain = X.select_dtypes("number").fillna(0.0)
    split = [
        (np.arange(400), np.arange(400, 800)),
        (np.arange(400, 800), np.arange(400)),
    ]
    model = MultiOutputClassifier(LogisticRegression(max_iter=2_000))
    models = {"dummy": DummyClassifier(), "own": small(), "linear": model}
    comparison = compare_models(plain, Y, models=models, cv=split)
    model.fit(plain[:400], Y[:400])
    for k, name in enumerate(Y):
        expected = roc_auc_score(
            Y[name][400:], model.predict_proba(plain[400:])[k][:, 1]
        )
        assert comparison.scores[f"{name} AUC"][2, 0] == expected
        assert comparison.scores[f"{name} AUC"][0, 0] == 0.5


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"sk_pwiser", *FAST}))
@pytest.mark.slow
def test_models_of_extra_packages(rows, name):
    if not is_installed(name):
        pytest.skip(f"the package of {name} is not installed")
    comparison = compare_models(*rows, models=[name, "logistic_regression"], cv=2)
    assert np.isfinite(comparison.scores["click AUC"]).all()


@pytest.mark.slow
def test_a_single_task_and_folds_by_time(rows):
    X, Y = rows
    by_time = FunnelTimeSplit(2, time="hour")
    models = {"network": small(), "others": FAST[1], "trees": "hist_gradient_boosting"}
    found = compare_models(X, Y[["click"]], models=models, cv=by_time)
    assert np.isfinite(found.scores["click AUC"]).all()
    assert found.fit_times.shape == (3, 2)


def test_a_task_that_never_happens_in_a_training_part(rows):
    X, Y = rows
    X = X[["numeric_0", "numeric_1"]].rename(columns={"numeric_0": "price: {net}"})
    Y = Y.assign(conversion=Y["conversion"].where(X.index < 400, 0))
    halves = [(np.arange(400), np.arange(400, 800))]
    halves += [test_and_train[::-1] for test_and_train in halves]
    trees = "lightgbm", "lightgbm_small_leaves"
    names = [*FAST, *(trees if is_installed("lightgbm") else [])]
    with pytest.warns(UndefinedMetricWarning, match="conversion AUC on 1"):
        found = compare_models(X, Y, models=names, cv=halves)
    assert np.isfinite(found.scores["click AUC"]).all()
    assert_array_equal(found.scores["conversion AUC"][:, 1], 0.5)
    model = named_models(FAST[1:], 2)[FAST[1]].fit(X[400:], Y[400:])
    assert_array_equal(model.predict_proba(X)[1][:, 1], 0.5 / 401)
    Y.iloc[500, 1] = 1  # a single row cannot be split for early stopping
    compare_models(X, Y, models=FAST, cv=halves, scoring=ctr_auc_scorer)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param("category", marks=pytest.mark.slow),
        pytest.param("object", marks=pytest.mark.slow),
        "words",
        pytest.param("polars", marks=pytest.mark.slow),
        pytest.param("arrow", marks=pytest.mark.slow),
    ],
)
def test_labels_of_every_form_give_the_same(rows, form):
    X, Y = rows
    X = X[["numeric_0", "numeric_1"]]
    if form in ("polars", "arrow"):
        y = pytest.importorskip("polars").from_pandas(Y)
        y = y if form == "polars" else y.to_arrow()
    elif form == "words":
        y = Y.replace({0: "no", 1: "yes"})
    else:
        y = Y.astype(form)
    found, expected = (compare_models(X, each, models=FAST, cv=2) for each in (y, Y))
    for name, scores in expected.scores.items():
        assert_array_equal(found.scores[name], scores)


@pytest.mark.parametrize("routing", [False, True])
def test_default_scores_on_a_sampled_log_are_those_on_the_full_one(routing):
    rng = np.random.default_rng(0)
    p = np.sort(rng.random((40_000, 2)) * 0.05)[:, ::-1]
    Y = (rng.random((40_000, 1)) < p).astype(int)
    kept = (Y[:, 0] == 1) | (rng.random(40_000) < 0.1)
    X, Y = np.column_stack([p, p[:, 1] / p[:, 0]])[kept], Y[kept]
    models = {
        "full": ReadsFeatures(negative_sampling_rate=0.1),
        "sampled": ReadsFeatures(power=0.5),
    }
    halves = [np.arange(len(X)) % 2 == k for k in (0, 1)]
    with config_context(enable_metadata_routing=routing):
        found = compare_models(X, Y, models=models, cv=[halves, halves[::-1]])
    losses = found.scores["minus log loss"]
    assert (losses[0] > losses[1] + 0.05).all()
    weight, test = np.where(Y[:, 0] == 0, 10.0, 1.0), halves[1]
    model = models["full"].fit(X, Y)
    scorers = ctr_auc_scorer, ctcvr_auc_scorer, cvr_auc_scorer, mean_log_loss_scorer
    for scorer, values in zip(scorers, found.scores.values(), strict=True):
        expected = scorer(model, X[test], Y[test], sample_weight=weight[test])
        assert values[0, 0] == pytest.approx(expected)
    models["other"] = ReadsFeatures(negative_sampling_rate=0.2)
    with pytest.raises(ValueError, match=r"equal in all models, got \[0.1, 0.2\]"):
        compare_models(X, Y, models=models, cv=2)
    view = TaskView(models["full"], "conversion")
    with pytest.raises(ValueError, match=r"one task .* negative_sampling_rate=0.1:"):
        compare_models(X, Y[:, 1], models={"view": view, "none": DummyClassifier()})


def test_columns_are_read_as_by_the_estimator(rows):
    X, _ = rows
    columns = PlainColumns().fit(X)
    table = columns.transform(X.iloc[::-1])
    assert IS_CATEGORY(table) == [*IS_CATEGORY(X), "user", "flag"]
    numbers = X.select_dtypes("number").columns
    assert_array_equal(table.select_dtypes(float).columns, numbers)
    assert set(table["user"]) == {"missing", *X["user"].dropna()}
    new = columns.transform(X.assign(user="new"))
    assert new["user"].isna().all()


def test_a_column_whose_first_number_comes_after_the_training_rows(rows):
    X, Y = rows
    X = X[["numeric_1"]].assign(hour=np.arange(800.0), late=np.arange(800.0))
    cv = FunnelTimeSplit(2, time="hour")
    expected = compare_models(X.drop(columns="late"), Y, models=FAST, cv=cv).scores
    X.loc[X.index[: next(cv.split(X, Y))[0].max() + 1], "late"] = np.nan
    found = compare_models(X, Y, models=FAST, cv=cv).scores
    for metric, scores in expected.items():
        assert_allclose(found[metric][:, 0], scores[:, 0], err_msg=metric)


def test_trees_read_rates_in_place_of_many_values(rows):
    X, Y = rows
    assert X["user"].nunique() >= MIN_VALUES
    columns = MODELS["hist_gradient_boosting"]()[:-1]
    table = columns.fit_transform(X, Y["click"])
    rates = table.pop("rates__user")
    plain = PlainColumns().fit_transform(X).drop(columns="user")
    assert_frame_equal(table.rename(columns=lambda name: name.split("__")[1]), plain)
    # Rates of new rows, from all rows, of one value and of all of them.
    found = columns.transform(X.assign(user=X["user"].where(Y["click"] == 1, "new")))
    new = found["rates__user"][Y["click"] == 0]
    assert_allclose(new, Y["click"].mean())
    assert np.corrcoef(found["rates__user"], Y["click"])[0, 1] > 0.5
    own_rate = Y["click"].groupby(X["user"].fillna("missing")).transform("mean")
    once = ~X["user"].fillna("missing").duplicated(keep=False)
    assert once.sum() > 10  # no row has its own label in its rate
    assert not np.isclose(rates, own_rate)[once].any()


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        ("all", ValueError, "models must be 'default', a sequence or a dict"),
        (["sk_pwiser"], ValueError, "at least two models"),
        (["sk_pwiser", "xgboost"], ValueError, "Got 'xgboost'"),
        (["sk_pwiser", "tabm"], ValueError, "Got 'tabm'"),
        (
            {"a": small(), "b": object()},
            TypeError,
            r"models\['b'\] must have the method",
        ),
        ({"a": small(), "b": LogisticRegression}, TypeError, r"models\['b'\]"),
    ],
)
def test_bad_models(rows, models, error, message):
    with pytest.raises(error, match=message):
        compare_models(*rows, models=models)


def test_bad_rows(rows, monkeypatch):
    X, Y = rows
    missing = Y.astype(float)
    missing.iloc[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"Y must have all labels.*; 1 are missing"):
        compare_models(X, missing, cv=2)
    with pytest.raises(ValueError, match="same index labels in different orders"):
        compare_models(X, Y.sample(frac=1, random_state=0), models=FAST, cv=2)
    lists = X.assign(tags=[["a"]] * len(X))
    with pytest.raises(ValueError, match="'tags' holds lists"):
        compare_models(lists, Y, models=FAST, cv=2)
    infinite = X.assign(numeric_0=np.inf)
    with pytest.raises(ValueError, match="'numeric_0': row 0 contains inf"):
        compare_models(infinite, Y, models=FAST, cv=2)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs a package: pip install lightgbm"):
        compare_models(X, Y, models=["lightgbm", *FAST])
    with pytest.raises(TypeError, match="X must not be sparse"):
        compare_models(csr_array(X[["numeric_1"]]), Y, models=FAST, cv=2)
