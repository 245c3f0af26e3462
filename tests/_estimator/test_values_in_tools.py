"""Labels with columns of amounts in tools, tables and pipelines: the same values."""

from functools import partial

import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from small_model import small

from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import mean_auc_scorer
from sk_pwiser.model_selection import (
    FunnelGroupKFold,
    FunnelStratifiedKFold,
    FunnelTimeSplit,
)

N = 600
LOG = make_ctr_cvr(N, ctr=0.5, cvr=0.5, random_state=0)
RNG = np.random.default_rng(0)
X = LOG.data
EVENTS = LOG.target
SPEND = np.where(EVENTS["conversion"] == 1, RNG.gamma(2, 20, N), 0)
Y = EVENTS.assign(spend=SPEND)
VALUE_TASKS = {"spend": "conversion"}
USERS = np.arange(N) // 5


def valued(**params):
    return small(**{"value_tasks": VALUE_TASKS, "max_epochs": 1, **params})


@pytest.fixture(scope="module")
def expected(_estimators_on_device):
    return valued().fit(X, Y).predict_value(X)


def labels_of_every_kind():
    polars = pytest.importorskip("polars")
    pyarrow = pytest.importorskip("pyarrow")
    yield polars.from_pandas(Y), VALUE_TASKS
    yield polars.from_pandas(Y).lazy(), VALUE_TASKS
    yield pyarrow.Table.from_pandas(Y), VALUE_TASKS
    yield Y.convert_dtypes(dtype_backend="pyarrow"), VALUE_TASKS
    yield scipy.sparse.csr_array(Y.to_numpy(float)), {2: 1}
    yield Y.to_numpy().tolist(), {-1: 1}
    yield Y[["spend", "click", "conversion"]], {0: "conversion"}
    yield Y.assign(spend=Y["spend"].where(Y["conversion"] == 1)), VALUE_TASKS


def test_labels_of_every_kind_give_the_same_values(expected):
    for labels, value_tasks in labels_of_every_kind():
        model = valued(value_tasks=value_tasks).fit(X, labels)
        assert_allclose(model.predict_value(X), expected, rtol=1e-6)
        assert model.score(X, labels) == model.score(X, EVENTS)


@pytest.mark.parametrize(
    ("cv", "groups"),
    [
        (FunnelStratifiedKFold(2, random_state=0, value_columns=VALUE_TASKS), None),
        (FunnelGroupKFold(2, random_state=0, value_columns=["spend"]), USERS),
        (FunnelTimeSplit(2, time=np.arange(N), value_columns=[2]), None),
        (2, None),
    ],
)
def test_cross_validation_trains_values(cv, groups):
    results = cross_validate(
        valued(),
        X,
        Y,
        cv=cv,
        groups=groups,
        scoring=mean_auc_scorer,
        return_estimator=True,
        return_indices=True,
        error_score="raise",
    )
    rows = results["indices"]["train"][0]
    by_hand = valued().fit(X.iloc[rows], Y.iloc[rows])
    found = results["estimator"][0].predict_value(X)
    assert_allclose(found, by_hand.predict_value(X), rtol=1e-6)
    test = results["indices"]["test"][0]
    assert results["test_score"][0] == by_hand.score(X.iloc[test], EVENTS.iloc[test])


def test_a_search_over_losses_of_values():
    cv = FunnelStratifiedKFold(2, random_state=0, value_columns=VALUE_TASKS)
    grid = {"value_loss": ["gamma", "lognormal"]}
    search = GridSearchCV(valued(), grid, scoring=mean_auc_scorer, cv=cv).fit(X, Y)
    best = valued(**search.best_params_).fit(X, Y)
    found = search.best_estimator_.predict_value(X)
    assert_allclose(found, best.predict_value(X), rtol=1e-6)


def test_predictions_of_folds():
    """scikit-learn numbers the labels for `predict_proba`: amounts would be ranks."""
    with pytest.raises(ValueError, match="columns of Y have no names"):
        cross_val_predict(valued(), X, Y, cv=2, method="predict_proba")
    labels = cross_val_predict(valued(), X, Y, cv=2)
    assert labels.shape == (N, 2)
    views = {
        name: cross_val_predict(
            valued().task(name), X, Y[name], params={"tasks": Y}, cv=2, method=method
        )
        for name, method in {"spend": "predict", "conversion": "predict_proba"}.items()
    }
    assert views["conversion"].shape == (N, 2)
    assert views["spend"].shape == (N,)


def test_pipelines(expected):
    pipeline = make_pipeline(FunctionTransformer(lambda X: X.copy()), valued())
    pipeline.fit(X, Y)
    assert_array_equal(pipeline[-1].predict_value(X), expected)
    assert mean_auc_scorer(pipeline, X, Y) == mean_auc_scorer(pipeline, X, EVENTS)
    calibrated = FunnelCalibrator(pipeline, method="sigmoid").fit(X, Y)
    alone = FunnelCalibrator(pipeline[-1], method="sigmoid").fit(X, Y)
    assert_allclose(calibrated.predict_value(X), alone.predict_value(X), rtol=1e-5)
    scores = cross_val_score(pipeline, X, Y, cv=2, error_score="raise")
    assert_allclose(scores, cross_val_score(valued(), X, Y, cv=2), rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (EVENTS, "'spend', which Y lacks"),
        (Y["conversion"], "a column per event and per value"),
        (Y.rename(columns={"spend": "spent"}), "Did you mean 'spent'"),
        (Y[["spend"]], "a column of an event beside"),
        (Y.assign(spend=-1.0), "must not be negative; column 'spend' of Y contains -1"),
        (Y.assign(spend="9 EUR"), "'spend' of Y contains '9 EUR' in row 0"),
        (Y.assign(click=Y["click"] + 1), "column 'click' of Y contains 2"),
        (Y.assign(watch=1.5), "column 'watch' of Y contains 1.5 in row 0"),
        (Y.rename(columns={"click": "conversion"}), "conversion"),
        (Y.drop(columns="conversion"), "the task 'conversion' for column 'spend'"),
        (Y[:-1], "600"),
        (Y.assign(click=np.nan), "column 'click'"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit", "eval_set"])
def test_wrong_labels_are_refused_by_name(labels, message, method):
    model = valued()
    call = {
        "fit": partial(model.fit, X, labels),
        "partial_fit": partial(model.partial_fit, X, labels),
        "eval_set": partial(model.fit, X, Y, eval_set=(X, labels)),
    }[method]
    with pytest.raises(ValueError, match=message):
        call()
    assert not hasattr(model, "classes_")
