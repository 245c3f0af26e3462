"""Fits with the encoder of another estimator."""

import numpy as np
import pytest
from markets import DATA, PARAMS, SECOND, rows
from numpy.testing import assert_array_equal
from pools import assert_same_weights, weights_of
from sklearn.exceptions import NotFittedError
from small_model import small

from sk_pwiser.networks import ESMM
from sk_pwiser.transfer import (
    check_compatible,
    fine_tune,
    fit_like,
    merge_estimators,
    select_estimators,
)


@pytest.fixture(scope="module")
def pooled():
    return small(**PARAMS).fit(DATA.data, DATA.target)


def like(source, X, Y, seen=True, **kwargs):
    return fit_like(small(**PARAMS, random_state=3), source, X, Y, seen=seen, **kwargs)


def test_markets_have_the_encoder_of_the_source(pooled):
    markets = [like(pooled, *rows(slice(0, 500))), like(pooled, *rows(SECOND))]
    check_compatible([pooled, *markets])
    for market in markets:
        assert market.n_iter_ == 2
        one, two = (m._result.schema.transform(DATA.data) for m in (market, pooled))
        assert_array_equal(one.codes, two.codes)
        assert_array_equal(one.numeric, two.numeric)
    # The fits themselves differ, and so do the rates that the biases start from.
    first, second = (market.predict_proba(DATA.data) for market in markets)
    assert not np.allclose(first, second, atol=1e-3)
    rates = [market._result.schema.base_rates for market in markets]
    assert not np.allclose(*rates, rtol=1e-3)
    # An ordinary fit has an encoder of its own: the check can fail.
    with pytest.raises(ValueError, match="differs"):
        check_compatible([pooled, small(**PARAMS).fit(*rows(SECOND))])


def test_without_statistics_it_is_an_ordinary_fit_of_the_same_codes():
    """On the source's own rows, the encoder is that of an ordinary fit."""
    params = {**PARAMS, "target_encoding": False, "max_epochs": 2}
    X, Y = rows(SECOND)
    source = small(**params).fit(X, Y)
    model = fit_like(small(**params), source, X, Y)
    assert_array_equal(model.predict_proba(X), source.predict_proba(X))


def test_the_network_may_be_another_one(pooled):
    params = {**PARAMS, "network": "esmm", "network_params": None}
    model = fit_like(small(**params), pooled, *rows(SECOND), seen=True)
    assert isinstance(model.net_.module_, ESMM)


def test_values_without_training_rows_count_as_unseen(pooled):
    X, Y = rows(SECOND)
    kept = (X["category_0"] != 3).to_numpy()
    model = like(pooled, X[kept], Y[kept])
    codes = model.column_encodings_["category_0"]["values"]
    table = weights_of(model)["input_layer.embeddings.0.weight"]
    assert_array_equal(table[codes[3]], table[1])
    assert not np.array_equal(table[codes[4]], table[1])


def test_early_stopping_and_single_tasks(pooled):
    X, Y = rows(SECOND)
    stopped = fit_like(
        small(**PARAMS, early_stopping=True),
        pooled,
        X,
        Y,
        eval_set=(X[:50], Y[:50]),
        seen=True,
    )
    assert "valid_auc_mean" in stopped.history_[0]
    click = small(**PARAMS).fit(X, Y["click"])
    assert like(click, X, Y["click"]).predict_proba(X).shape == (400, 2)


def test_arrays_have_the_tasks_of_the_source():
    source = small(**PARAMS, task_names=["view", "order"]).fit(
        DATA.data, DATA.target.to_numpy()
    )
    X, Y = rows(SECOND)
    assert like(source, X, Y.to_numpy()).task_names_ == ["view", "order"]
    with pytest.raises(ValueError, match=r"the tasks \['view', 'order'\]"):
        like(source, X, Y)


def test_errors_name_the_parameter(pooled):
    X, Y = rows(SECOND)
    with pytest.raises(TypeError, match=r"estimator must be a MultiTask.* got None"):
        fit_like(None, pooled, X, Y)
    with pytest.raises(NotFittedError, match=r"source.* is not fitted"):
        fit_like(small(), small(), X, Y)
    with pytest.raises(ValueError, match="sample_weight must be None with seen=True"):
        like(pooled, X, Y, sample_weight=np.arange(400.0))
    # Of other weights: the rows are not recognised as those of the source.
    weighted = like(pooled, X, Y, sample_weight=np.arange(400.0), seen=False)
    assert weighted.n_iter_ == 2
    unknown = Y.astype(float)
    unknown.iloc[3, 1] = np.nan
    ignoring = small(**PARAMS, missing_labels="ignore")
    with pytest.raises(ValueError, match="no label may be missing"):
        fit_like(ignoring, pooled, X, unknown, seen=True)
    with pytest.raises(ValueError, match="feature names"):
        like(pooled, X.rename(columns={"category_0": "item"}), Y)


@pytest.mark.parametrize("train", [like, fine_tune])
def test_a_source_with_weights_cannot_leave_out_its_rows(train):
    X, Y = DATA.data, DATA.target
    weights, even = np.where(X.index < 500, 1.0, 5.0), np.ones(len(X))
    sources = [
        small(**PARAMS).fit(X, Y, sample_weight=weights),
        small(**PARAMS).fit(X, Y, sample_weight=6 - weights),
        small(**PARAMS).partial_fit(X, Y).partial_fit(X, Y, sample_weight=2 * even),
    ]
    sources.append(fine_tune(sources[0], *rows(slice(0, 50), new_value="new")))
    for source in sources:
        with pytest.raises(ValueError, match="here and in the fit of the source"):
            train(source, *rows(SECOND), seen=True)
    source = small(**PARAMS).fit(X, Y, sample_weight=3 * even)
    assert train(source, *rows(SECOND), seen=True).n_iter_ == 2
    plain = small(**PARAMS, target_encoding=False).fit(X, Y, sample_weight=weights)
    assert train(plain, *rows(SECOND), seen=True).n_iter_ == 2


def test_a_source_without_categories():
    X, Y = rows(SECOND)
    X = X.iloc[:, :3]
    numeric = like(small(**PARAMS).fit(X, Y), X, Y)
    assert numeric.predict_proba(X).shape == (400, 2)


def test_rows_of_the_source_that_are_passed_as_new_give_a_warning(pooled):
    with pytest.warns(UserWarning, match="If it was, pass seen=True"):
        like(pooled, DATA.data, DATA.target, seen=False)
    with pytest.warns(UserWarning, match="If it was, pass seen=True"):
        fine_tune(pooled, DATA.data, DATA.target)


def test_labels_may_be_passed_as_y(pooled):
    X, Y = rows(SECOND)
    one, two = (
        fit_like(small(**PARAMS), pooled, X=X, **labels, seen=True)
        for labels in ({"Y": Y}, {"y": Y})
    )
    assert_same_weights(one, two)
    assert fine_tune(source=pooled, X=X, y=Y, seen=True).n_iter_ == 2
    merged = merge_estimators(pooled, [one], X, y=Y, objective=None)
    assert merged.predict_proba(X).shape == (400, 2)
    found = select_estimators([one, two], X, y=Y, n_select=1, method="greedy")
    assert found.indices.tolist() == [0]
