"""Fitting, predictions and scikit-learn's tools, by examples."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.compose import ColumnTransformer
from sklearn.metrics import get_scorer, roc_auc_score
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import ctr_auc_scorer, cvr_auc_scorer
from sk_pwiser.model_selection import FunnelStratifiedKFold


@pytest.fixture(scope="module")
def impressions():
    return make_ctr_cvr(6_000, ctr=0.3, cvr=0.4, n_categories=10, random_state=0)


def small(**params):
    defaults = {
        "network_params": {"bottom_units": (16,), "tower_units": (8,)},
        "batch_size": 256,
        "max_epochs": 3,
        "random_state": 0,
    }
    return MultiTaskCTRCVRClassifier(**{**defaults, **params})


@pytest.fixture(scope="module")
def fitted(impressions):
    model = small(max_epochs=10, early_stopping=False)
    return model.fit(impressions.data, impressions.target)


@pytest.mark.parametrize(
    ("network", "loss"),
    [("shared_bottom", "bce"), ("mmoe", "pwiser"), ("single_task", "bce")],
)
def test_learns_both_tasks_from_a_raw_dataframe(impressions, network, loss):
    X, Y = impressions.data, impressions.target.to_numpy()
    params = {"network_params": None, "early_stopping": True, "max_epochs": 6}
    model = small(network=network, loss=loss, **params)
    model.fit(X[:4000], Y[:4000])
    scores = model.predict_proba(X[4000:])
    true = np.column_stack([impressions.ctr, impressions.ctr * impressions.cvr])[4000:]
    for k in range(2):
        best = roc_auc_score(Y[4000:, k], true[:, k])
        assert roc_auc_score(Y[4000:, k], scores[:, k]) > best - 0.07
    assert_allclose(scores.mean(axis=0), Y[4000:].mean(axis=0), rtol=0.25)


def test_predictions_have_the_documented_shapes_and_scales(fitted, impressions):
    X = impressions.data
    p = fitted.predict_proba(X)
    assert p.shape == (6000, 2)
    assert p.dtype == np.float32
    assert ((p > 0) & (p < 1)).all()
    assert_array_equal(fitted.predict(X), (p >= 0.5).astype(int))
    assert_allclose(fitted.predict_cvr(X), np.minimum(p[:, 1] / p[:, 0], 1), rtol=1e-5)
    assert fitted.score(X, impressions.target) == pytest.approx(
        roc_auc_score(impressions.target, p)
    )
    assert not hasattr(fitted, "decision_function")


@pytest.mark.filterwarnings("ignore:Task .* is predicted as more probable")
def test_three_tasks(impressions):
    paid = impressions.target["conversion"] * (np.arange(6000) % 2)
    Y = impressions.target.assign(paid=paid)
    X = impressions.data
    loss = {"loss": "pwiser", "loss_params": {"margins": (1.0, 0.5, 2.0)}}
    model = small(**loss, max_epochs=6, random_state=1)
    p = model.fit(X, Y).predict_proba(X)
    assert model.task_names_ == ["click", "conversion", "paid"]
    assert model.classes_.tolist() == [[0, 1]] * 3
    # Each column has the rate of its own task and ranks it.
    assert_allclose(p.mean(axis=0), Y.mean(), rtol=0.2)
    assert min(roc_auc_score(Y, p, average=None)) > 0.68
    assert model.score(X, Y) == pytest.approx(roc_auc_score(Y, p))
    assert_allclose(model.predict_cvr(X), np.minimum(p[:, 2] / p[:, 0], 1), rtol=1e-5)
    # Each margin belongs to one of the lower depths.
    model.set_params(loss_params={"margins": (2.0, 0.5, 1.0)})
    assert not np.allclose(model.fit(X, Y).predict_proba(X), p, rtol=1e-3)


def test_built_in_scorers_do_not_take_two_tasks_for_two_classes(impressions):
    # With classes_ = [0, 1] they would: the AUC scorers then fail or score one column.
    model = small().fit(impressions.data, impressions.target)
    Y, p = impressions.target.to_numpy(), model.predict_proba(impressions.data)
    mean = np.mean([roc_auc_score(Y[:, k], p[:, k]) for k in range(2)])
    assert get_scorer("roc_auc")(model, impressions.data, Y) == pytest.approx(mean)


def test_pipeline_with_a_column_transformer(impressions):
    numeric = [c for c in impressions.data if c.startswith("numeric")]
    columns = ColumnTransformer(
        [("scale", StandardScaler(), numeric)], remainder="passthrough"
    ).set_output(transform="pandas")
    pipeline = make_pipeline(columns, small(max_epochs=5))
    scores = cross_validate(
        pipeline,
        impressions.data,
        impressions.target,
        scoring={"ctr": ctr_auc_scorer, "cvr": cvr_auc_scorer},
        cv=FunnelStratifiedKFold(2, random_state=0),
    )
    assert scores["test_ctr"].min() > 0.6
    pipeline.fit(impressions.data, impressions.target)
    kinds = [each.kind for each in pipeline[-1].column_encodings_.values()]
    assert kinds.count("category") == impressions.data.shape[1] - len(numeric)


@pytest.mark.filterwarnings("ignore:Rows with new category values")
def test_partial_fit_learns_from_consecutive_parts(impressions):
    X, Y = impressions.data, impressions.target
    model = small()
    for _ in range(4):
        for start in range(0, 6000, 2000):
            rows = slice(start, start + 2000)
            model.partial_fit(X[rows], Y[rows])
    assert model.n_iter_ == 12
    assert model.score(X, Y) > 0.7
    single = small().partial_fit(X[:100], np.zeros(100), classes=[0, 1])
    assert single.partial_fit(X, Y["click"]).predict(X[:5]).shape == (5,)


def test_nothing_is_printed_by_default(impressions, capsys):
    small(early_stopping=True).fit(impressions.data[:600], impressions.target[:600])
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_bfloat16_scores_are_close_to_those_of_float32(impressions):
    X, Y = impressions.data, impressions.target
    models = [
        small(precision=p, max_epochs=6).fit(X, Y) for p in ("float32", "bfloat16")
    ]
    assert models[0].score(X, Y) == pytest.approx(models[1].score(X, Y), abs=0.02)
    assert models[1].predict_proba(X).dtype == np.float32


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_accelerator_agrees_with_the_cpu(accelerator, impressions, precision):
    X, Y = impressions.data, impressions.target
    on_gpu = small(device=accelerator, precision=precision, max_epochs=6).fit(X, Y)
    on_cpu = small(device="cpu", max_epochs=6).fit(X, Y)
    assert next(on_gpu.net_.module_.parameters()).device.type == accelerator.type
    assert on_gpu.score(X, Y) == pytest.approx(on_cpu.score(X, Y), abs=0.02)
    copy = pickle.loads(pickle.dumps(on_gpu))
    assert_allclose(copy.predict_proba(X), on_gpu.predict_proba(X), rtol=1e-5)
