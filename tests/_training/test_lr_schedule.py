"""The default schedule of the learning rate: warm-up, a constant rate, a decay."""

import pickle

import numpy as np
import pandas as pd
import pytest
from checkpointed import Interrupted, InterruptsAfter, history, interrupt, resume
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit
from skorch.callbacks import Callback, LRScheduler
from small_model import N, X, Y, small
from torch.optim.lr_scheduler import StepLR

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._lr_schedule import (
    MOST_EPOCHS,
    PATIENCE_STEPS,
    WARM_UP_SHARE,
    WARM_UP_STEPS,
)
from sk_pwiser._training._net import MultiTaskNet

STEPS = N // 100  # per epoch
LR = 0.01
HELD = {"early_stopping": True, "max_epochs": 40, "batch_size": 20, "lr": LR}


def scheduled(**params):
    return small(**{"lr": LR, "lr_schedule": "warmup_stable_decay", **params})


class Rates(Callback):
    """Records the rate of each step, and the weights around each epoch."""

    def __init__(self):
        self.rates, self.before, self.after = [], [], []

    def on_epoch_begin(self, net, **kwargs):
        self.rates.append([])

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:
            if not self.rates[-1]:
                self.before.append(weights_of(net))
            self.rates[-1].append(net.optimizer_.param_groups[0]["lr"])

    def on_epoch_end(self, net, **kwargs):
        self.after.append(weights_of(net))


def weights_of(net):
    return [p.detach().cpu().clone().numpy() for p in net.module_.parameters()]


def rates_of_groups(model):
    return {group["lr"] for group in model.net_.optimizer_.param_groups}


def test_a_known_number_of_steps_ends_at_zero():
    rates = Rates()
    model = scheduled(max_epochs=6, callbacks=[rates]).fit(X, Y)
    total = 6 * STEPS
    steps = np.arange(total) + 0.5
    rise = steps / min(WARM_UP_STEPS, WARM_UP_SHARE * total)
    expected = LR * np.minimum(1, np.minimum(rise, (total - steps) / (total / 3)))
    assert_allclose(np.concatenate(rates.rates), expected, rtol=1e-9)
    assert_allclose(model.history_[:, "lr"], expected[STEPS - 1 :: STEPS], rtol=1e-9)
    assert rates_of_groups(model) == {LR}
    assert "last one planned" in model.stop_reason_


@pytest.fixture
def held():
    rates = Rates()
    params = {"optimizer_params": {"average_decay": 0.9}}
    return scheduled(**HELD, **params, callbacks=[rates]).fit(X, Y), rates


def test_the_rate_is_held_until_the_validation_loss_rises(held):
    model, rates = held
    by_epoch = [np.array(each) for each in rates.rates]
    last_held = max(e for e, each in enumerate(by_epoch) if each[-1] == LR)
    assert 0 < last_held < len(by_epoch) - 1
    flat = np.concatenate(by_epoch)
    n_held = sum(map(len, by_epoch[: last_held + 1]))
    assert_allclose(flat[WARM_UP_STEPS:n_held], LR)
    # The decay is linear, of whole epochs, and would end at 0.
    falls = flat[n_held - 1 :]
    assert_allclose(np.diff(falls)[1:], np.diff(falls)[1], rtol=1e-6)
    assert round(LR / -np.diff(falls)[1]) % len(by_epoch[0]) == 0
    losses = model.history_[:, "valid_loss"]
    assert model.best_epoch_ == 1 + np.argmin(losses)


def test_the_decay_begins_with_the_weights_of_the_best_epoch(held):
    model, rates = held
    first = 1 + max(e for e, each in enumerate(rates.rates) if each[-1] == LR)
    best = int(np.argmin(model.history_[:first, "valid_loss"]))
    assert best < first - 1  # the loss had risen
    for before, after in zip(rates.before[first], rates.after[best], strict=True):
        assert_array_equal(before, after)


def test_the_reason_of_the_end_names_the_decay():
    model = scheduled(**{**HELD, "n_iter_no_change": 8}).fit(X, Y)
    n_held = 1 + max(np.flatnonzero(np.isclose(model.history_[:, "lr"], LR)))
    assert n_held < model.n_iter_ < 40
    message = f"held until epoch {n_held}, has decayed to 0; the weights are those of"
    assert message in model.stop_reason_


def give_losses(monkeypatch, losses):
    """Let the validation have these losses; the last one stays."""
    record = MultiTaskNet._record_loss

    def record_given(net, prefix, loss):
        if prefix == "valid":
            loss = losses[min(len(net.history), len(losses)) - 1]
        record(net, prefix, loss)

    monkeypatch.setattr(MultiTaskNet, "_record_loss", record_given)


@pytest.mark.parametrize(
    ("losses", "n_held"),
    [
        ([1.0, 0.99, 0.9895, 0.98, 0.981], 5),  # a small gain, then one over two epochs
        ([1.0, 0.99, 0.9895, 0.9891], 4),  # two small gains
        ([1.0, 0.99, 0.9901], 3),  # no gain
        pytest.param(0.9 ** np.arange(30), MOST_EPOCHS, marks=pytest.mark.slow),
    ],
)
def test_the_rate_is_held_until_no_gain_or_two_small_ones(monkeypatch, losses, n_held):
    give_losses(monkeypatch, losses)
    # An epoch is longer than the patience in steps.
    model = scheduled(**{**HELD, "batch_size": 3}).fit(X, Y)
    assert 0.9 * N / 3 > PATIENCE_STEPS
    assert f"held until epoch {n_held}," in model.stop_reason_


@pytest.mark.parametrize(
    ("losses", "n_held"),
    [
        ([1.0, 1.1], 1 + 10),  # best in the warm-up: 30 steps after it
        ([1.0, 0.9, 0.8, 0.7, 0.71], 4 + 10),
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.41], 7 + 3),  # after it: three epochs
    ],
)
def test_a_best_epoch_in_the_warm_up_has_more_patience(monkeypatch, losses, n_held):
    give_losses(monkeypatch, losses)
    # An epoch has three steps, and the warm-up takes six of the 60 epochs.
    model = scheduled(**{**HELD, "batch_size": 100, "max_epochs": 60}).fit(X, Y)
    assert f"of epoch {np.argmin(losses) + 1}" in model.stop_reason_
    assert model.net_.stopping.n_held == n_held


@pytest.mark.parametrize(
    ("n_rows", "n_items", "least"), [(3_000, 700, 0.68), (20_000, 5_000, 0.66)]
)
def test_embeddings_of_values_with_few_rows_are_learnt(n_rows, n_items, least):
    """Too strong a decay leaves them at 0, and the fit ends with the numbers alone."""
    rng = np.random.default_rng(0)
    effects, item = rng.normal(size=n_items), rng.integers(n_items, size=2 * n_rows)
    x = rng.normal(size=(len(item), 1))
    logits = effects[item, np.newaxis] + 0.5 * x - [1.5, 0.5]
    y = (rng.random((len(item), 2)) < expit(logits)).cumprod(axis=1)
    rows = pd.DataFrame({"item": item.astype(str), "x": x[:, 0]})
    model = MultiTaskCTRCVRClassifier(target_encoding=False, random_state=0)
    model.fit(rows[:n_rows], y[:n_rows])
    assert model.score(rows[n_rows:], y[n_rows:]) > least


def test_epochs_without_improvement_end_the_decay(monkeypatch):
    give_losses(monkeypatch, [1.0, 1.1])
    model = scheduled(**{**HELD, "n_iter_no_change": 2}).fit(X, Y)
    assert model.history_[-1, "lr"] > LR / 4
    assert "has not improved for 2 epochs" in model.stop_reason_


@pytest.mark.parametrize("n_epochs", [2, 3])
def test_few_epochs_suffice_for_a_decay(n_epochs):
    model = scheduled(**{**HELD, "max_epochs": n_epochs, "lr": 1e-3}).fit(X, Y)
    *held, last = model.history_[:, "lr"]
    assert held == [1e-3] * (n_epochs - 1)
    assert last < 1e-4


@pytest.mark.parametrize(
    ("early_stopping", "n_epochs"),
    [
        pytest.param(False, 5, marks=pytest.mark.slow),
        pytest.param(True, 1, marks=pytest.mark.slow),
        (True, 8),
    ],
)
def test_a_resumed_fit_equals_an_uninterrupted_one(tmp_path, early_stopping, n_epochs):
    params = {**HELD, "max_epochs": 9, "early_stopping": early_stopping}
    params["lr_schedule"] = "warmup_stable_decay"
    params["n_iter_no_change"] = 4
    whole = small(**params).fit(X, Y)
    interrupt(tmp_path, n_epochs, **params)
    resumed = resume(tmp_path, **params)
    assert_array_equal(history(resumed), history(whole))
    assert_array_equal(resumed.predict_proba(X), whole.predict_proba(X))


def test_a_resumed_fit_with_more_epochs_decays_later(tmp_path):
    params = {"lr": LR, "lr_schedule": "warmup_stable_decay"}
    small(**params, checkpoint_dir=tmp_path, max_epochs=2).fit(X, Y)
    rates = resume(tmp_path, **params, max_epochs=6).history_[:, "lr"]
    assert rates[2:4] == [LR, LR]


def test_a_further_fit_begins_at_the_full_rate_and_updates_at_a_lower_one():
    rates = Rates()
    model = scheduled(warm_start=True, callbacks=[rates], max_epochs=3).fit(X, Y)
    model.fit(X, Y)
    assert_allclose(rates.rates[:3], rates.rates[3:])
    model.partial_fit(X, Y)
    steps = 6 * STEPS + np.arange(STEPS)  # those of the two fits count
    assert_allclose(rates.rates[6], 3 * LR / np.sqrt(1 + steps))
    assert rates_of_groups(model) == {LR}


def test_updates_of_a_long_fit_have_short_steps():
    rates = Rates()
    model = scheduled(max_epochs=8, batch_size=20, callbacks=[rates]).fit(X, Y)
    model.partial_fit(X, Y)
    assert_allclose(rates.rates[-1], 0.3 * LR)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_rate_of_updates_falls_with_the_steps_of_the_model(optimizer):
    rates = Rates()
    model = scheduled(callbacks=[rates], optimizer=optimizer, batch_size=N)
    for _ in range(3):
        model.partial_fit(X, Y)
    model = pickle.loads(pickle.dumps(model)).partial_fit(X, Y)
    rates = model.callbacks[0]
    expected = 3 * LR / np.sqrt(1 + np.arange(4))
    assert_allclose(np.ravel(rates.rates), expected)


def test_updates_after_loading_have_the_rates_of_others(tmp_path):
    model = scheduled(max_epochs=3).fit(X, Y).partial_fit(X, Y)
    model.save(tmp_path / "model.safetensors")
    loaded = type(model).load(tmp_path / "model.safetensors")
    copies = [loaded, pickle.loads(pickle.dumps(model))]
    model.partial_fit(X, Y)
    for copy in copies:
        copy.partial_fit(X, Y)
        assert_array_equal(copy.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("entry", ["instance", "named", "class"])
def test_a_schedule_of_skorch_replaces_it(entry):
    halving = LRScheduler(StepLR, step_size=1, gamma=0.5)
    callback = {"instance": halving, "named": ("rate", halving), "class": LRScheduler}
    model = scheduled(callbacks=[callback[entry]]).fit(X, Y)
    assert "lr" not in model.history_[0]
    if entry != "class":
        assert_allclose(model.history_[:, "event_lr"], [LR, LR / 2])


def test_a_fit_that_fails_in_the_decay_leaves_the_earlier_one():
    model = scheduled(max_epochs=2).fit(X, Y)
    p = model.predict_proba(X)
    fails = InterruptsAfter(8, "on_epoch_begin")
    model.set_params(callbacks=[fails], warm_start=True, max_epochs=8)
    with pytest.raises(Interrupted):
        model.fit(X, Y)
    assert_array_equal(model.predict_proba(X), p)
    assert rates_of_groups(model) == {LR}
