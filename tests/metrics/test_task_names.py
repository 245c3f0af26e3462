"""Tasks found by name, in the labels or in the estimator."""

import pytest
from fake_estimators import ReadsFeatures
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_pwiser.metrics import (
    ctcvr_auc_scorer,
    ctr_auc_scorer,
    cvr_auc_scorer,
    make_task_scorer,
    mean_auc_scorer,
)


def named(name):
    return make_task_scorer(roc_auc_score, name)


def test_names_from_pandas(data, model):
    pd = pytest.importorskip("pandas")
    X, Y = data
    frame = pd.DataFrame(Y, columns=["click", "name"])
    assert named("click")(model, X, frame) == ctr_auc_scorer(model, X, Y)
    assert named("name")(model, X, frame) == ctcvr_auc_scorer(model, X, Y)
    nullable = frame.astype({"click": "boolean", "name": "Int64"})
    assert mean_auc_scorer(model, X, nullable) == mean_auc_scorer(model, X, Y)
    with pytest.raises(ValueError, match=r"one of \['click', 'name'\].*got 'buy'"):
        named("buy")(model, X, frame)
    with pytest.raises(ValueError, match="column 'name' of Y contains 3"):
        ctr_auc_scorer(model, X, frame * [1, 3])
    model_1d, y = GaussianNB().fit(X, Y[:, 1]), frame["name"]
    assert named("name")(model_1d, X, y) == ctr_auc_scorer(model_1d, X, Y[:, 1])
    with pytest.raises(ValueError, match="task must be an index if"):
        named("name")(model_1d, X, y.rename(None))


def test_names_from_polars(data, model):
    pl = pytest.importorskip("polars")
    X, Y = data
    frame = pl.DataFrame({"click": Y[:, 0] == 1, "buy": Y[:, 1]})
    assert named("buy")(model, X, frame) == ctcvr_auc_scorer(model, X, Y)
    assert cvr_auc_scorer(model, X, frame) == cvr_auc_scorer(model, X, Y)


def test_names_from_arrow_tables_and_queries(data):
    pl, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    X, Y = data
    model = ReadsFeatures(names=("view", "order")).fit(X, Y)
    table = pa.table({"view": Y[:, 0], "order": Y[:, 1]})
    expected = ctcvr_auc_scorer(model, X, Y)
    for labels in (table, pl.from_arrow(table).lazy()):
        assert named("order")(model, X, labels) == expected
    with pytest.raises(ValueError, match=r"must be in the order .*'view', 'order'"):
        mean_auc_scorer(model, X, table.select(["order", "view"]))


def test_names_from_the_estimator(data):
    X, Y = data
    model = ReadsFeatures(names=("click", "buy"))
    nested = make_pipeline(FunctionTransformer(), model)
    grid = {"readsfeatures__power": [1.0]}
    search = GridSearchCV(nested, grid, scoring=ctr_auc_scorer, cv=2)
    for estimator in (model, nested, search, Pipeline([("all", search)])):
        estimator.fit(X, Y)
        assert named("buy")(estimator, X, Y) == ctcvr_auc_scorer(model, X, Y)
        with pytest.raises(ValueError, match=r"one of \['click', 'buy'\].*'view'"):
            named("view")(estimator, X, Y)
    with pytest.raises(ValueError, match=r"Y must have the 2 tasks .* got 1"):
        ctr_auc_scorer(model, X, Y[:, 0])
    with pytest.raises(ValueError, match=r"task must be an index if .* got 'buy'"):
        named("buy")(ReadsFeatures().fit(X, Y), X, Y)


def test_names_of_both(data):
    pd = pytest.importorskip("pandas")
    X, Y = data
    model = ReadsFeatures(names=("click", "conversion")).fit(X, Y)
    frame = pd.DataFrame(Y, columns=["clicked", "bought"])
    for name in ("bought", "conversion"):
        assert named(name)(model, X, frame) == ctcvr_auc_scorer(model, X, Y)
    with pytest.raises(ValueError, match=r"'bought'\] or \['click', 'conversion'\]"):
        named("view")(model, X, frame)
    frame.columns = ["conversion", "click"]
    with pytest.raises(ValueError, match=r"in the order .*\['click', 'conversion'\]"):
        mean_auc_scorer(model, X, frame)
