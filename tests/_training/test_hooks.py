"""Loggers, checkpoints and bars of skorch: what they receive, and which are refused."""

import json

import pytest
import torch
from numpy.testing import assert_array_equal
from refusals import X, Y, small
from skorch.callbacks import (
    Checkpoint,
    GradientNormClipping,
    LoadInitState,
    MlflowLogger,
    ProgressBar,
    TensorBoard,
    TrainEndCheckpoint,
)

PARAMS = {"early_stopping": "loss", "max_epochs": 3, "n_iter_no_change": 9}


class Writer:
    """Keeps the scalars that a SummaryWriter would write."""

    def __init__(self):
        self.scalars, self.is_closed = {}, False

    def add_scalar(self, tag, scalar_value, global_step):
        self.scalars[tag, global_step] = scalar_value

    def close(self):
        self.is_closed = True


def figures(history):
    """Return the figures of a history, by name and epoch."""
    return {
        (key, row["epoch"]): value
        for row in history
        for key, value in row.items()
        if key not in ("batches", "epoch") and not key.endswith("_best")
    }


def test_tensorboard_receives_the_figures_of_all_epochs():
    writer = Writer()
    model = small(callbacks=[TensorBoard(writer)], **PARAMS).fit(X, Y)
    # skorch adds a folder: Loss/train_loss.
    found = {(tag.split("/")[-1], step): v for (tag, step), v in writer.scalars.items()}
    expected = figures(model.history_)
    assert {key: found[key] for key in expected} == expected
    assert ("valid_auc_conversion", 3) in expected
    assert writer.is_closed


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
    assert client.ended == ["7"]
    history = json.loads(client.files["history.json"])
    assert [row["train_loss"] for row in history] == model.history_[:, "train_loss"]
    assert set(client.files) > {"params.pth", "optimizer.pth", "criterion.pth"}


def test_a_logger_of_batches_is_refused():
    logger = MlflowLogger(Run, Client(), log_on_batch_end=True)
    message = "a MlflowLogger with log_on_batch_end=True, .* Set log_on_batch_end=False"
    for callback in (logger, ("named", logger)):
        with pytest.raises(TypeError, match=message):
            small(callbacks=[callback]).fit(X, Y)


def test_checkpoints_hold_the_best_epoch_and_the_last(tmp_path):
    best = Checkpoint("valid_loss_best", dirname=tmp_path, f_history="best.json")
    each = Checkpoint(None, dirname=tmp_path, f_params="{last_epoch[epoch]}.pt")
    end = TrainEndCheckpoint(dirname=tmp_path)
    callbacks = [best, ("each", each), end]
    model = small(callbacks=callbacks, **PARAMS).fit(X, Y)
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
    model = small(callbacks=[clipping], optimizer_params={"lazy_embeddings": "auto"})
    model.fit(X, Y)
