"""Amounts are learnt after the events, which do not change by it."""

import pickle
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from small_model import small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._fit import _train
from sk_pwiser.metrics import normalized_gini

SPEND = {"spend": "conversion"}


def sigmoid(t):
    return 1 / (1 + np.exp(-t))


def shop(n, seed, *, n_segments=12, spread=1.0, level_seed=7):
    """Clicks say little; amounts depend on the segment. Also returns their means."""
    levels = np.random.default_rng(level_seed).normal(size=n_segments) * spread
    rng = np.random.default_rng(seed)
    segment = rng.integers(0, n_segments, n)
    x = rng.normal(size=n)
    p = sigmoid(-0.7 + 0.3 * x)
    click = (rng.random(n) < p).astype(int)
    conversion = click * (rng.random(n) < 0.4)
    mean = np.exp(2 + levels[segment])
    amount = mean * np.exp(0.3 * rng.normal(size=n) - 0.045)
    X = pd.DataFrame({"segment": [f"s{k}" for k in segment], "x": x})
    Y = pd.DataFrame(
        {"click": click, "conversion": conversion, "spend": conversion * amount}
    )
    return X, Y, p * 0.4 * mean


X, Y, TRUTH = shop(1500, 1)


def valued(**params):
    defaults = {
        "early_stopping": True,
        "max_epochs": 4,
        "lr": 0.01,
        "validation_fraction": 0.2,
        "embedding_dim": 8,
        "network_params": {"bottom_units": (16,), "tower_units": (8,)},
    }
    return small(**{"value_tasks": SPEND, **defaults, **params})


@pytest.fixture(scope="module")
def model():
    return valued().fit(X, Y)


@pytest.fixture(scope="module")
def without_epochs():
    """The same fit, whose values stop with the events."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_train, "learn_amounts", lambda *args: None)
        return valued().fit(X, Y)


def test_the_order_of_amounts_is_learnt_where_events_stop_early(model, without_epochs):
    later, _, truth = shop(4000, 2)
    after = normalized_gini(truth, model.predict_value(later))
    before = normalized_gini(truth, without_epochs.predict_value(later))
    assert model.net_.n_amount_epochs_ > 0
    assert after > 0.9
    assert before < after - 0.1


def test_events_do_not_change_by_it(model, without_epochs):
    assert_array_equal(model.predict_proba(X), without_epochs.predict_proba(X))
    assert model.n_iter_ == without_epochs.n_iter_


def test_the_same_seed_gives_the_same_amounts(model):
    assert_array_equal(valued().fit(X, Y).predict_value(X), model.predict_value(X))


def test_files_copies_and_pickles_have_the_network_of_values(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    copies = [
        MultiTaskCTRCVRClassifier.load(tmp_path / "model.safetensors"),
        pickle.loads(pickle.dumps(model)),
        deepcopy(model),
    ]
    for copied in copies:
        assert_array_equal(copied.predict_value(X), model.predict_value(X))
        network = copied.net_.module_
        assert network.value_network.input_layer is network.input_layer


def test_loaded_models_are_updated_as_the_fitted_one(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    more = shop(300, 3)[:2]
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model.safetensors").partial_fit(
        *more
    )
    assert_array_equal(
        loaded.predict_value(X), deepcopy(model).partial_fit(*more).predict_value(X)
    )


def test_updates_train_the_network_of_values(model):
    updated = deepcopy(model).partial_fit(*shop(300, 3)[:2])
    before = model.net_.module_.value_network.state_dict()
    after = updated.net_.module_.value_network.state_dict()
    assert any(not bool((before[name] == after[name]).all()) for name in before)


def test_new_values_of_updates_reach_the_shared_input_layer():
    updated = valued(encoding_params={"grow_vocabulary": True}).fit(X, Y)
    n_rows = len(updated.net_.module_.input_layer.embeddings[0].weight)
    more, labels, _ = shop(400, 4)
    more["segment"] = np.where(np.arange(400) % 2, "new", more["segment"])
    updated.partial_fit(more, labels)
    network = updated.net_.module_
    assert len(network.input_layer.embeddings[0].weight) > n_rows
    assert network.value_network.input_layer is network.input_layer
    assert np.isfinite(updated.predict_value(more)).all()


def test_refit_takes_the_epochs_of_the_first_stage():
    model = valued(refit=True).fit(X, Y)
    later, _, truth = shop(4000, 2)
    assert model.net_.n_amount_epochs_ > 0
    assert normalized_gini(truth, model.predict_value(later)) > 0.9


def test_without_validation_rows_nothing_follows():
    model = valued(early_stopping=False).fit(X, Y)
    assert model.net_.n_amount_epochs_ == 0
    assert model.net_.module_.value_network is None


def test_weights_of_counts_equal_repeated_rows():
    """Amounts of weight 0 teach nothing."""
    weight = np.ones(len(X))
    weight[: len(X) // 2] = 0
    labels = Y.copy()
    labels.loc[: len(X) // 2 - 1, "spend"] *= 1000
    model = valued().fit(X, labels, sample_weight=weight)
    half = valued().fit(X[len(X) // 2 :], Y[len(X) // 2 :])
    assert_allclose(model.predict_value(X), half.predict_value(X), rtol=1e-4)


def test_one_order_does_not_carry_the_mean_away(model):
    labels = Y.copy()
    row = int(np.flatnonzero(Y["conversion"])[0])
    labels.loc[row, "spend"] = 1e5 * Y["spend"].max()
    with pytest.warns(UserWarning, match="decides on the mean alone"):
        carried = valued().fit(X, labels)
    ratio = carried.predict_value(X).sum() / model.predict_value(X).sum()
    assert 0.8 < ratio < 1.3


def test_an_interrupt_keeps_the_events_and_the_best_amounts(monkeypatch):
    from sk_pwiser._training import _amount_epochs
    from sk_pwiser.callbacks import KeepOnInterrupt

    run_epoch = _amount_epochs._AmountTraining.run_epoch
    n_epochs = []

    def interrupted(training):
        n_epochs.append(1)
        if len(n_epochs) == 4:
            raise KeyboardInterrupt
        run_epoch(training)

    monkeypatch.setattr(_amount_epochs._AmountTraining, "run_epoch", interrupted)
    with pytest.warns(UserWarning, match="amounts as learnt so far"):
        model = valued(callbacks=[KeepOnInterrupt()]).fit(X, Y)
    assert 0 < model.net_.n_amount_epochs_ < 4
    n_epochs.clear()
    with pytest.raises(KeyboardInterrupt):
        valued().fit(X, Y)


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [4_000, 12_000])
@pytest.mark.parametrize("seed", range(3))
def test_whole_fits_order_amounts_as_a_regression_does(n_rows, seed):
    table = {"n_segments": 25, "spread": 0.8, "level_seed": 40 + seed}
    rows, labels, _ = shop(n_rows, seed, **table)
    later, _, truth = shop(10_000, 90 + seed, **table)
    model = MultiTaskCTRCVRClassifier(value_tasks=SPEND, random_state=seed)
    predicted = model.fit(rows, labels).predict_value(later)
    assert normalized_gini(truth, predicted) > 0.9
    assert abs(predicted.sum() / truth.sum() - 1) < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_currencies_in_one_column_have_their_own_levels(seed):
    rate = np.array([1.0, 90.0, 9_000.0])

    def draw(n, draw_seed):
        rows, labels, truth = shop(n, draw_seed, n_segments=20, spread=0.5)
        code = np.random.default_rng(draw_seed).integers(0, 3, n)
        rows["currency"] = np.array(["CHF", "INR", "VND"])[code]
        return (
            rows,
            labels.assign(spend=labels["spend"] * rate[code]),
            truth * rate[code],
        )

    model = MultiTaskCTRCVRClassifier(value_tasks=SPEND, random_state=seed)
    model.fit(*draw(20_000, seed)[:2])
    later, _, truth = draw(20_000, 90 + seed)
    predicted = model.predict_value(later)
    for currency in ("CHF", "INR", "VND"):
        rows = (later["currency"] == currency).to_numpy()
        assert 1 / 1.3 < predicted[rows].sum() / truth[rows].sum() < 1.3


@pytest.mark.slow
def test_half_of_the_amounts_may_be_unknown():
    rows, labels, _ = shop(15_000, 0, n_segments=25)
    later, _, truth = shop(15_000, 90, n_segments=25)
    hidden = np.random.default_rng(3).random(len(labels)) < 0.5
    labels.loc[hidden & (labels["conversion"] == 1), "spend"] = np.nan
    model = MultiTaskCTRCVRClassifier(value_tasks=SPEND, random_state=0)
    predicted = model.fit(rows, labels).predict_value(later)
    assert abs(predicted.sum() / truth.sum() - 1) < 0.15
