"""Warm starts from a pool, with interpolation between markets."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pools import frozen_bytes, weights_of, with_noise
from refusals import X, Y, small

from sk_pwiser.transfer import distill, market_mixup


@pytest.fixture(scope="module")
def pool():
    first = small(max_epochs=20).fit(X, Y)
    return [first, with_noise(first, 0.2, 0)]


def assert_same(first, second):
    first, second = weights_of(first), weights_of(second)
    for name in first:
        assert_array_equal(first[name], second[name], err_msg=name)


def test_the_student_learns_the_mean_of_the_pool(pool):
    rows, held_out = X[:200], X[200:]
    target = np.mean([model.predict_proba(held_out) for model in pool], axis=0)
    student = small(max_epochs=60, random_state=1)
    for share in (0.0, 0.5):
        model = market_mixup(pool, rows, share=share, student=student)
        found = model.predict_proba(held_out)
        errors = np.abs(found - target).mean()
        assert errors < 0.5 * np.abs(target - target.mean(axis=0)).mean()
        assert model.get_params() == student.get_params()


def test_the_target_of_a_row_is_the_prediction_of_its_market(pool):
    markets = np.zeros(len(X), dtype=int)
    student = small(random_state=2)
    assert_same(
        market_mixup(pool, X, markets=markets, student=student),
        market_mixup(pool[:1], X, student=student),
    )
    assert_same(
        market_mixup(pool, X, markets=markets + 1, student=student),
        market_mixup(pool[1:], X, student=student),
    )


def test_the_market_may_be_a_column(pool):
    markets, student = np.arange(len(X)) % 2, small(random_state=2)
    table = X.assign(tab=markets)
    teachers = [small(max_epochs=1, random_state=s).fit(table, Y) for s in (0, 1)]
    assert_same(
        market_mixup(teachers, table, markets="tab", student=student),
        market_mixup(teachers, table, markets=markets, student=student),
    )
    with pytest.raises(ValueError, match="markets='city' is not a column of X"):
        market_mixup(pool, X, markets="city", student=student)


def test_rows_of_a_market_of_weight_0_are_left_out(pool):
    markets = (np.arange(len(X)) >= 200).astype(int)
    student = small(random_state=2)
    models = (
        market_mixup(pool, X, markets=markets, weights=[1, 0], student=student),
        market_mixup(pool[:1], X[:200], student=student),
    )
    assert_allclose(*(model.predict_proba(X) for model in models), rtol=1e-4)


def test_the_share_of_mixed_batches_changes_the_student(pool):
    student = small(random_state=2)
    mixed = [market_mixup(pool, X, share=s, student=student) for s in (0.0, 1.0, 1.0)]
    assert_same(mixed[1], mixed[2])
    assert np.abs(mixed[0].predict_proba(X) - mixed[1].predict_proba(X)).max() > 1e-4
    # Without mixing, training is that of distillation up to the order of the rows.
    plain = distill(pool, X, student=student).predict_proba(X)
    assert np.abs(mixed[0].predict_proba(X) - plain).mean() < 0.03


@pytest.mark.parametrize("network", ["stem", "ple"])
def test_networks_with_several_tables_take_mixed_inputs(pool, network):
    student = small(network=network, network_params=None, max_epochs=1)
    model = market_mixup(pool, X, share=1.0, student=student)
    assert not model.net_.module_.input_layer._forward_hooks


def test_the_estimators_are_not_changed(pool):
    student = small().fit(X, Y)
    before = [frozen_bytes(each) for each in (*pool, student)]
    market_mixup(pool, X, student=student)
    assert [frozen_bytes(each) for each in (*pool, student)] == before


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"estimators": []}, ValueError, "it is empty"),
        ({"X": X[:0]}, ValueError, "X must have at least one row"),
        ({"concentration": 0}, ValueError, "concentration must be finite and > 0"),
        ({"share": 1.5}, ValueError, "share must be finite and >= 0 and <= 1"),
        ({"weights": [1]}, ValueError, "one number per estimator, 2"),
        ({"markets": np.arange(len(X))}, ValueError, "0 to 1; got 0 to 299"),
        (
            {"markets": np.zeros(len(X), dtype=int), "weights": [0, 1]},
            ValueError,
            "weights must be > 0 for an estimator in markets",
        ),
        ({"student": None}, TypeError, "student must be a MultiTask"),
        (
            {"student": small(compile=True)},
            ValueError,
            "must have compile=False",
        ),
    ],
)
def test_invalid_arguments_are_refused(pool, change, error, message):
    arguments = {"estimators": pool, "X": X, "student": small(), **change}
    with pytest.raises(error, match=message):
        market_mixup(**arguments)
