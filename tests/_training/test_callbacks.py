"""Callbacks of skorch: which run, which are refused, and interrupts."""

import copy

import pytest
import torch
from refusals import X, Y, refuses, small
from skorch.callbacks import (
    BatchScoring,
    Callback,
    EarlyStopping,
    EpochScoring,
    PassthroughScoring,
)

from sk_pwiser.metrics import ctr_auc_scorer


@pytest.mark.parametrize(
    "callback",
    [
        BatchScoring(ctr_auc_scorer),
        ("named", BatchScoring(ctr_auc_scorer)),
        PassthroughScoring("train_loss"),
        ("named", PassthroughScoring("train_loss")),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_callbacks_that_average_over_batches_are_refused(
    earlier, encodings, callback, method
):
    earlier.set_params(callbacks=[callback])
    kind = type(callback[1] if isinstance(callback, tuple) else callback).__name__
    with pytest.raises(TypeError, match=f"holds a {kind}, .* Use EpochScoring"):
        getattr(earlier, method)(X, Y)
    assert encodings == []


def test_names_of_callbacks_are_strings(earlier):
    earlier.set_params(callbacks=[(1, EpochScoring(ctr_auc_scorer))])
    with pytest.raises(TypeError, match="must name callbacks by strings; got 1"):
        earlier.fit(X, Y)


def test_epoch_scoring():
    valid, train = (
        EpochScoring(
            ctr_auc_scorer, name=name, lower_is_better=False, on_train=on_train
        )
        for name, on_train in (("valid_ctr", False), ("train_ctr", True))
    )
    callbacks = [("valid", valid), ("train", train)]
    params = {"max_epochs": 9, "early_stopping": True, "lr": 0.03}
    model = small(callbacks=callbacks, **params).fit(X, Y)
    assert model.history_[:, "valid_ctr"] == pytest.approx(
        model.history_[:, "valid_auc_click"],
        abs=0.005,  # probabilities may tie where logits differ
    )
    first, *_, last = model.history_[:, "train_ctr"]
    assert 0 < first < last < 1
    # It changes nothing else.
    plain = small(**params).fit(X, Y)
    assert plain.history_[:, "train_loss"] == model.history_[:, "train_loss"]


def test_early_stopping_of_skorch_stops_after_the_epoch():
    # It raises KeyboardInterrupt at the end of an epoch.
    stopping = EarlyStopping("train_loss", patience=2, threshold=10.0, sink=len)
    model = small(callbacks=[stopping], max_epochs=9).fit(X, Y)
    assert model.n_iter_ < 9
    assert len(model.history_[:, "train_loss"]) == model.n_iter_


class Interrupts(Callback):
    """Stands for a user who interrupts training in a batch of some epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise KeyboardInterrupt


def test_an_interrupt_in_the_first_epoch_propagates(earlier):
    earlier.set_params(callbacks=[Interrupts(1)])
    with pytest.raises(KeyboardInterrupt):
        earlier.fit(X, Y)
    earlier.set_params(callbacks=[Interrupts(3)], warm_start=True)
    with pytest.raises(KeyboardInterrupt):
        earlier.fit(X, Y)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_later_interrupt_keeps_complete_epochs(early_stopping):
    model = small(
        callbacks=[Interrupts(3)], max_epochs=9, early_stopping=early_stopping
    )
    model.fit(X, Y)
    assert model.n_iter_ == len(model.history_[:, "train_loss"]) == 2
    model.set_params(callbacks=None, warm_start=True, max_epochs=1).fit(X, Y)
    # Batches of the incomplete epoch do not count in the next one.
    assert model.history_[:, "train_batches_without_pairs"] == [0, 0, 0]
    assert model.history_[:, "train_weight_click"] == [1, 1, 1]


def test_an_interrupt_restores_the_weights_of_the_best_epoch():
    weights = []

    class Records(Callback):
        def on_epoch_end(self, net, **kwargs):
            weights.append(copy.deepcopy(net.module_.state_dict()))

    model = small(
        callbacks=[Records(), Interrupts(3)],
        max_epochs=9,
        early_stopping="loss",
        optimizer_params={"average_decay": 0},
    )
    net = model.fit(X, Y).net_
    best = weights[int(net.history[-1, "valid_loss_best"])]
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, best[name])


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_progress_bars(method, capsys):
    model = small(verbose=2, early_stopping=method == "fit")
    getattr(model, method)(X, Y)
    printed = capsys.readouterr()
    assert "it/s" in printed.err or "/3 [" in printed.err or "/4 [" in printed.err
    assert "train_loss" in printed.out
    assert [row["batches"] for row in model.history_] == [[]] * model.n_iter_


def test_a_callback_that_raises_keeps_the_earlier_fit(earlier):
    # `refuses` adds a callback that raises at the first event.
    for warm_start in (False, True):
        earlier.set_params(warm_start=warm_start, network_params__dropout=2.0)
        refuses(earlier, ValueError, "dropout")
