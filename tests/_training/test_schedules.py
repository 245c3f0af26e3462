"""Schedules of the learning rate, by epoch and by batch, in one training and more."""

import copy
import pickle
from itertools import product

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from skorch.callbacks import LRScheduler
from small_model import N, X, Y, small
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

BATCHES = N // 100  # per epoch
LR = 3e-3


def warm_up(step):
    return min(1.0, (step + 1) / 7)


def warm_up_then_cosine(optimizer, last_epoch):
    rise = LinearLR(optimizer, start_factor=0.2, total_iters=4)
    fall = CosineAnnealingLR(optimizer, T_max=10)
    return SequentialLR(optimizer, [rise, fall], milestones=[4])


SCHEDULES = {
    "step": (LRScheduler, {"policy": StepLR, "step_size": 2, "gamma": 0.5}),
    "by name": (LRScheduler, {"policy": "StepLR", "step_size": 1, "gamma": 0.9}),
    "cosine": (LRScheduler, {"policy": CosineAnnealingLR, "T_max": 4}),
    "one cycle": (
        LRScheduler,
        {
            "policy": OneCycleLR,
            "max_lr": 0.01,
            "total_steps": 6 * BATCHES + 1,
            "step_every": "batch",
        },
    ),
    "warm-up": (
        LRScheduler,
        {"policy": LambdaLR, "lr_lambda": warm_up, "step_every": "batch"},
    ),
    "warm-up, cosine": (
        LRScheduler,
        {"policy": warm_up_then_cosine, "step_every": "batch"},
    ),
}


class Rates(LRScheduler):
    """A schedule that keeps the rate of every training step."""

    def on_batch_begin(self, net, training, **kwargs):
        if training:
            self.rates_ = [*getattr(self, "rates_", [])]
            self.rates_.append(net.optimizer_.param_groups[0]["lr"])


def expected_rates(params, n_epochs, lr=LR):
    """Return the rate of every step by torch alone."""
    params = dict(params)
    policy, by_batch = params.pop("policy"), params.pop("step_every", "") == "batch"
    policy = getattr(torch.optim.lr_scheduler, policy) if policy == "StepLR" else policy
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=lr)
    schedule, rates = policy(optimizer, last_epoch=-1, **params), []
    for _ in range(n_epochs):
        for _ in range(BATCHES):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if by_batch:
                schedule.step()
        if not by_batch:
            schedule.step()
    return rates


# A schedule by epochs and one by batches decide how fits continue.
FORMS = product(["step", "warm-up"], ["warm start", "partial fits", "a pickle"])


@pytest.mark.parametrize(
    ("name", "form"), [*((name, "one") for name in SCHEDULES), *FORMS]
)
def test_rates_are_those_of_torch(name, form):
    _, params = SCHEDULES[name]
    callback = Rates(**params)
    n_calls = 1 if form == "one" else 3
    model = small(callbacks=[callback], max_epochs=6 // n_calls, warm_start=True)
    for _ in range(6 if form == "partial fits" else n_calls):
        if form == "a pickle":
            model = pickle.loads(pickle.dumps(model))
        (model.partial_fit if form == "partial fits" else model.fit)(X, Y)
    rates = model.callbacks[0].rates_
    assert_allclose(rates, expected_rates(params, 6), rtol=1e-12)
    last = rates[BATCHES - 1 :: BATCHES]
    assert_allclose(model.history_[:, "event_lr"], last, rtol=1e-12)
    assert len(set(np.round(rates, 9))) > 2


def test_a_schedule_does_what_its_rates_say():
    # Halved from the second epoch on, by a schedule and by hand.
    schedule = LRScheduler(LambdaLR, lr_lambda=lambda epoch: 1.0 if epoch < 1 else 0.5)
    model = small(callbacks=[schedule]).fit(X, Y)
    by_hand = small(max_epochs=1, warm_start=True).fit(X, Y)
    by_hand.set_params(lr=LR / 2).fit(X, Y)
    first, second = model.history_[:, "train_loss"]
    assert by_hand.history_[0, "train_loss"] == first
    assert by_hand.history_[1, "train_loss"] == pytest.approx(second, rel=1e-3)
    plain = small().fit(X, Y).history_[:, "train_loss"]
    assert plain[0] == first
    assert plain[1] != second


@pytest.mark.parametrize("change", ["lr", "callback", "none"])
def test_another_rate_or_callback_starts_anew(change):
    params = {"policy": StepLR, "step_size": 1, "gamma": 0.5}
    model = small(callbacks=[Rates(**params)], warm_start=True).fit(X, Y)
    assert_allclose(model.history_[:, "event_lr"], [LR, LR / 2])
    if change == "lr":
        model.set_params(lr=0.01).fit(X, Y)
        assert_allclose(model.history_[:, "event_lr"][2:], [0.01, 0.005])
    elif change == "callback":
        model.set_params(callbacks=[Rates(**params)]).fit(X, Y)
        assert_allclose(model.history_[:, "event_lr"][2:], [LR, LR / 2])
    else:
        model.set_params(callbacks=None).fit(X, Y)
        assert {group["lr"] for group in model.net_.optimizer_.param_groups} == {LR}


def test_a_schedule_may_be_added_later():
    model = small(warm_start=True).fit(X, Y)
    schedule = LRScheduler(StepLR, step_size=1, gamma=0.5)
    model.set_params(callbacks=[schedule], optimizer="sgd").fit(X, Y)
    assert model.history_[2:, "event_lr"] == [LR, LR / 2]


def test_a_failed_update_leaves_the_schedule(monkeypatch):
    schedule = Rates(StepLR, step_size=1, gamma=0.5)
    model = small(callbacks=[schedule]).partial_fit(X, Y)
    expected = copy.deepcopy(model).partial_fit(X, Y)
    # At the end, after the rate of the next epoch was set.
    monkeypatch.setattr(Rates, "on_train_end", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.partial_fit(X, Y)
    monkeypatch.undo()
    model.partial_fit(X, Y)
    assert model.history_[:, "event_lr"] == [LR, LR / 2]
    assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


def test_plateaus():
    schedule = LRScheduler(
        ReduceLROnPlateau, monitor="valid_loss", patience=0, threshold=0.99999
    )
    params = {"early_stopping": "loss", "n_iter_no_change": 9, "max_epochs": 4}
    model = small(callbacks=[schedule], **params).fit(X, Y)
    # The first epoch is the best; each further one is no such improvement.
    assert_allclose(model.history_[:, "event_lr"], [LR, LR, LR / 10, LR / 100])


def test_rates_of_embeddings_follow_the_schedule():
    schedule = LRScheduler(StepLR, step_size=1, gamma=0.5)
    params = {"embedding_lr": 0.01, "lazy_embeddings": True}
    model = small(callbacks=[schedule], optimizer_params=params).fit(X, Y)
    rates = {group["lr"] for group in model.net_.optimizer_.param_groups}
    assert rates == {LR / 4, 0.01 / 4}
