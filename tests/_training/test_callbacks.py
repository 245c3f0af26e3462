"""Callbacks of skorch: which run, what they receive, which are refused, interrupts."""

import copy
import json
from functools import partial

import numpy as np
import pytest
import torch
from checkpointed import InterruptsAfter
from numpy.testing import assert_array_equal
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LoadInitState,
    MlflowLogger,
    PassthroughScoring,
    ProgressBar,
    TrainEndCheckpoint,
)
from small_model import X, Y, small

from sk_pwiser.callbacks import KeepOnInterrupt
from sk_pwiser.metrics import ctr_auc_scorer

interrupts = partial(InterruptsAfter, error=KeyboardInterrupt)


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
    with pytest.raises(TypeError, match="or pairs of a string and a callback; got"):
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


@pytest.mark.parametrize(
    "warm_start", [pytest.param(False, marks=pytest.mark.slow), True]
)
@pytest.mark.parametrize(
    ("epoch", "event"),
    [
        pytest.param(0, "on_batch_end", marks=pytest.mark.slow),
        pytest.param(2, "on_epoch_begin", marks=pytest.mark.slow),
        (2, "on_batch_end"),
        (2, "in_validation"),
        (2, "on_epoch_end"),
        pytest.param(4, "on_train_end", marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_propagates_and_the_earlier_fit_stays(epoch, event, warm_start):
    model = small(early_stopping=True, warm_start=warm_start).fit(X, Y)
    before, net = model.predict_proba(X), model.net_
    n_complete = epoch + 2 * warm_start
    model.set_params(callbacks=[interrupts(n_complete, event)], max_epochs=4)
    model.set_params(n_iter_no_change=9)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert model.net_ is net
    assert model.n_iter_ == len(model.history_[:, "train_loss"]) == 2
    assert_array_equal(model.predict_proba(X), before)
    # Training goes on as if nothing had happened.
    model.set_params(callbacks=None).fit(X, Y)
    expected = small(early_stopping=True, warm_start=warm_start).fit(X, Y)
    expected.set_params(max_epochs=4, n_iter_no_change=9).fit(X, Y)
    assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


class Records(Callback):
    """Keeps the weights of all epochs."""

    def on_train_begin(self, net, **kwargs):
        self.weights = []

    def on_epoch_end(self, net, **kwargs):
        self.weights.append(copy.deepcopy(net.module_.state_dict()))


@pytest.mark.parametrize(
    ("event", "early_stopping"),
    [
        ("on_epoch_begin", False),
        ("on_batch_end", False),
        ("on_batch_end", "loss"),
        ("in_validation", "loss"),
    ],
)
@pytest.mark.parametrize("average_decay", [0, 0.9])
def test_keep_on_interrupt_keeps_complete_epochs(event, early_stopping, average_decay):
    records = Records()
    model = small(
        callbacks=[KeepOnInterrupt(), records, interrupts(2, event)],
        max_epochs=9,
        early_stopping=early_stopping,
        lr=0.05,
        optimizer_params={"average_decay": average_decay},
    )
    with pytest.warns(UserWarning, match="interrupted.* 2 complete epochs are kept"):
        net = model.fit(X, Y).net_
    assert model.n_iter_ == len(model.history_[:, "train_loss"]) == 2
    expected = records.weights[model.best_epoch_ - 1]
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, expected[name])
    assert model.callbacks[0].weights_ is None
    model.set_params(callbacks=None, warm_start=True, max_epochs=1, lr=1e-9).fit(X, Y)
    # The incomplete epoch, whose loss was lower, is not the best one.
    losses = model.history_[:, "train_loss"]
    lowest = np.minimum.accumulate(losses)
    assert model.history_[:, "train_loss_best"] == (losses == lowest).tolist()
    # Batches of the incomplete epoch do not count in the next one.
    assert model.history_[:, "train_batches_without_pairs"] == [0, 0, 0]
    assert model.history_[:, "train_weight_click"] == [1, 1, 1]


def test_keep_on_interrupt_keeps_the_losses_of_complete_epochs():
    # Of an epoch that ends after one batch, the losses are not those of an epoch.
    params = {"weighting": "dwa", "random_state": 0, "early_stopping": False}
    model = small(**params, callbacks=[KeepOnInterrupt(), interrupts(2)], max_epochs=9)
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(X, Y)
    expected = small(**params, max_epochs=2).fit(X, Y)
    one, two = (m.net_.criterion_.weighting.rates.means for m in (model, expected))
    assert torch.equal(one, two)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_keep_on_interrupt_needs_a_complete_epoch(earlier, method):
    before = earlier.predict_proba(X)
    n_complete = 2 if method == "partial_fit" else 0
    earlier.set_params(callbacks=[KeepOnInterrupt(), interrupts(n_complete)])
    with pytest.raises(KeyboardInterrupt):
        getattr(earlier, method)(X, Y)
    assert_array_equal(earlier.predict_proba(X), before)


# Loggers, checkpoints and bars of skorch: what they receive, and which are refused.


PARAMS = {"early_stopping": "loss", "max_epochs": 3, "n_iter_no_change": 9}


def figures(history):
    """Return the figures of a history, by name and epoch."""
    return {
        (key, row["epoch"]): value
        for row in history
        for key, value in row.items()
        if key not in ("batches", "epoch") and not key.endswith("_best")
    }


class Client:
    """Keeps what an MlflowClient would send."""

    def __init__(self):
        self.metrics, self.files, self.ended = {}, {}, []

    def log_metric(self, run_id, key, value, step):
        self.metrics[key, step] = value

    def log_artifact(self, run_id, path):
        self.files[path.name] = path.read_bytes()

    def set_terminated(self, run_id):
        self.ended.append(run_id)


class Run:
    class info:
        run_id = "7"


def test_mlflow_receives_figures_weights_and_history():
    client = Client()
    model = small(callbacks=[MlflowLogger(Run, client)], **PARAMS).fit(X, Y)
    assert client.metrics == figures(model.history_)
    assert ("valid_auc_conversion", 3) in client.metrics
    assert client.ended == ["7"]
    history = json.loads(client.files["history.json"])
    assert [row["train_loss"] for row in history] == model.history_[:, "train_loss"]
    assert set(client.files) > {"params.pth", "optimizer.pth", "criterion.pth"}


def test_a_logger_of_batches_is_refused():
    logger = MlflowLogger(Run, Client(), log_on_batch_end=True)
    message = "a MlflowLogger, which .* set log_on_batch_end=False"
    for callback in (logger, ("named", logger)):
        with pytest.raises(TypeError, match=message):
            small(callbacks=[callback]).fit(X, Y)


def test_checkpoints_hold_the_best_epoch_and_the_last(tmp_path):
    best = Checkpoint("valid_loss_best", dirname=tmp_path, f_history="best.json")
    each = Checkpoint(None, dirname=tmp_path, f_params="{last_epoch[epoch]}.pt")
    end = TrainEndCheckpoint(dirname=tmp_path)
    model = small(callbacks=[best, ("each", each), end], **PARAMS).fit(X, Y)
    assert {f"{epoch}.pt" for epoch in (1, 2, 3)} < {p.name for p in tmp_path.iterdir()}
    weights = torch.load(tmp_path / "params.pt")
    for name, value in model.net_.module_.state_dict().items():
        assert torch.equal(weights[name].cpu(), value.cpu())
    # Training may start from a checkpoint.
    model = small(callbacks=[LoadInitState(end)], max_epochs=1).fit(X, Y)
    assert len(model.history_) == 4


def test_progress_bars_of_skorch(capsys):
    model = small(callbacks=[ProgressBar()], max_epochs=3).fit(X, Y)
    assert "/3 [" in capsys.readouterr().err
    assert_array_equal(model.history_[:, "epoch"], [1, 2, 3])


@pytest.mark.parametrize("clipping", [GradientNormClipping(1.0), GradientNormClipping])
def test_clipping_needs_dense_gradients(clipping):
    params = {"optimizer_params": {"lazy_embeddings": True}}
    with pytest.raises(ValueError, match="not supported with GradientNormClipping in"):
        small(callbacks=[("clip", clipping)], **params).fit(X, Y)
    small(callbacks=[clipping], optimizer_params={"lazy_embeddings": "auto"}).fit(X, Y)
