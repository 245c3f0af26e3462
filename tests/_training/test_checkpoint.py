"""A resumed fit is, to the bit, the fit that was not interrupted, or is refused."""

import copy
import errno
import os
import tracemalloc
import uuid

import numpy as np
import pytest
import torch
from checkpointed import (
    Interrupted,
    InterruptsAfter,
    NoisySGD,
    WithDropout,
    history,
    interrupt,
    names,
    resume,
    weights,
)
from numpy.testing import assert_array_equal
from skorch.callbacks import Callback, EpochScoring, LRScheduler
from small_model import X, Y, refuses, small
from torch.optim.lr_scheduler import OneCycleLR

from sk_pwiser import MultiTaskCTRCVRClassifier, _model_files
from sk_pwiser._model_files import read_file, write_file
from sk_pwiser._training._checkpoints import Checkpoints
from sk_pwiser.callbacks import KeepOnInterrupt
from sk_pwiser.losses import BCE
from sk_pwiser.metrics import ctr_auc_scorer
from sk_pwiser.networks import NETWORKS
from sk_pwiser.weighting import WEIGHTINGS


def assert_same_fit(one, other):
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    assert_array_equal(history(one), history(other))
    assert (one.n_iter_, one.best_epoch_) == (other.n_iter_, other.best_epoch_)
    # The state of training is the same, too: both continue alike.
    assert_array_equal(
        copy.deepcopy(one).partial_fit(X, Y).predict_proba(X),
        copy.deepcopy(other).partial_fit(X, Y).predict_proba(X),
    )


def fixed(name):
    return {"weights": [1, 2]} if name == "fixed" else None


FITS = [
    {},
    {"early_stopping": "auc", "lr": 0.03},
    {"early_stopping": True, "optimizer_params": {"average_decay": 0}},
    {"optimizer": "sgd", "optimizer_params": {"momentum": 0.9, "clip_grad_norm": 1.0}},
    {"optimizer_params": {"lazy_embeddings": True}, "stratified_batches": True},
    {"network_params": {"dropout": 0.5}, "encoding_params": {"category_dropout": 0.3}},
    {"target_encoding": True, "numeric_encoding": "quantile", "embedding_dim": "auto"},
    {"network": WithDropout, "network_params": None, "optimizer": NoisySGD},
    {"precision": "bfloat16", "negative_sampling_rate": 0.5},
    *({"network": name, "network_params": None} for name in NETWORKS),
    *(
        {"weighting": name, "weighting_params": fixed(name)}
        for name in WEIGHTINGS
        if name != "torchjd"
    ),
]


@pytest.mark.parametrize(
    "params",
    [
        pytest.param(value, marks=() if value in FITS[:5] else pytest.mark.slow)
        for value in FITS
    ],
    ids=str,
)
def test_a_resumed_fit_equals_an_unbroken_one(params, tmp_path):
    params = {"max_epochs": 4, **params}
    interrupt(tmp_path, 2, **params)
    expected = small(**params).fit(X, Y)
    assert_same_fit(resume(tmp_path, **params), expected)


def test_an_object_of_torchjd(tmp_path):
    make = pytest.importorskip("torchjd.aggregation").UPGrad
    params = {"weighting": make(), "max_epochs": 3}
    interrupt(tmp_path, 1, **params)
    params["weighting"] = make()
    assert_same_fit(resume(tmp_path, **params), small(**params).fit(X, Y))


STOPPING = {"early_stopping": True, "lr": 0.1, "n_iter_no_change": 2, "max_epochs": 20}


@pytest.mark.slow
def test_early_stopping_at_every_epoch(tmp_path):
    expected = small(**STOPPING).fit(X, Y)
    n_epochs = expected.n_iter_
    assert expected.best_epoch_ == n_epochs - 2 < 18
    for n_complete in range(n_epochs):
        folder = tmp_path / str(n_complete)
        interrupt(folder, n_complete, "in_validation", **STOPPING)
        assert len(names(folder)) == min(n_complete, 2)
        assert_same_fit(resume(folder, **STOPPING), expected)


def test_checkpoints_change_nothing(tmp_path):
    plain = small(max_epochs=3).fit(X, Y)
    assert_same_fit(small(max_epochs=3, checkpoint_dir=tmp_path).fit(X, Y), plain)
    assert names(tmp_path) == [
        "checkpoint-00000002.safetensors",
        "checkpoint-00000003.safetensors",
    ]


def test_a_checkpoint_is_written_without_copies(tmp_path, monkeypatch):
    """Of the five tables of 6 MB each: weights, average, best epoch, and moments."""
    save, peaks = Checkpoints.save, []

    def measured(*args):
        tracemalloc.start()
        try:
            save(*args)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

    monkeypatch.setattr(Checkpoints, "save", measured)
    params = {"encoding_params": {"n_hash_buckets": 50_000}, "embedding_dim": 16}
    model = small(
        checkpoint_dir=tmp_path, early_stopping=True, max_epochs=2, **params
    ).fit(X, Y)
    (table,) = model.net_.module_.input_layer.tables
    assert (tmp_path / names(tmp_path)[-1]).stat().st_size > 5 * table.nbytes
    assert max(peaks) < 0.1 * table.nbytes


def test_several_interruptions(tmp_path):
    interrupt(tmp_path, 1, max_epochs=6)
    for n_epochs in (3, 4):
        interrupt(tmp_path, n_epochs, max_epochs=6, warm_start=True)
    assert_same_fit(resume(tmp_path, max_epochs=6), small(max_epochs=6).fit(X, Y))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_finished_fit_is_returned_as_it_is(tmp_path, early_stopping):
    params = {**STOPPING, "early_stopping": early_stopping, "max_epochs": 6}
    first = small(checkpoint_dir=tmp_path, **params).fit(X, Y)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert_same_fit(resume(tmp_path, **params), first)
    # Fewer epochs than the checkpoint has end training, too.
    assert_same_fit(resume(tmp_path, **{**params, "max_epochs": 2}), first)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_finished_fit_is_trained_on_if_max_epochs_has_grown(tmp_path):
    small(max_epochs=2, checkpoint_dir=tmp_path).fit(X, Y)
    assert_same_fit(resume(tmp_path, max_epochs=5), small(max_epochs=5).fit(X, Y))
    # But not one that early stopping has ended.
    stopped = small(**STOPPING, checkpoint_dir=tmp_path).fit(X, Y)
    assert_same_fit(resume(tmp_path, **{**STOPPING, "max_epochs": 30}), stopped)


def test_an_empty_folder_starts_anew(tmp_path):
    expected = small().fit(X, Y)
    assert_same_fit(resume(tmp_path / "new" / "folder"), expected)
    interrupt(tmp_path, 0)
    assert_same_fit(resume(tmp_path), expected)


def test_without_warm_start_a_fit_starts_anew_and_replaces_the_checkpoints(tmp_path):
    (tmp_path / "notes.txt").write_text("of the user")
    (tmp_path / ".checkpoint-00000001.safetensors.0.tmp").write_bytes(b"half")
    small(max_epochs=5, checkpoint_dir=tmp_path).fit(X, Y)
    # It may have other parameters and data.
    interrupt(tmp_path, 1, lr=0.01, x=X[:200], y=Y[:200])
    assert names(tmp_path) == ["checkpoint-00000001.safetensors", "notes.txt"]


@pytest.mark.parametrize("kind", ["None", "instance"])
def test_random_states_without_a_seed_continue(tmp_path, kind):
    def state():
        return None if kind == "None" else np.random.RandomState(3)

    params = {"early_stopping": True, "max_epochs": 5}
    # By scikit-learn's convention, None draws from the generator of numpy.
    np.random.seed(3)  # noqa: NPY002
    interrupt(tmp_path, 2, random_state=state(), **params)
    resumed = resume(tmp_path, random_state=state(), **params)
    expected = small(random_state=np.random.RandomState(3), **params).fit(X, Y)
    assert_array_equal(history(resumed), history(expected))
    assert_array_equal(resumed.predict_proba(X), expected.predict_proba(X))


def test_all_arguments_of_fit(tmp_path):
    x = X.assign(
        last=[list("abc"[: i % 4]) for i in range(len(X))],
        share=np.where(np.arange(len(X)) % 3 == 0, np.nan, 0.5),
    )
    y = Y.astype(float)
    y.iloc[::9, 1] = np.nan
    params = {"missing_labels": "ignore", "loss": "jrc", "max_epochs": 4}
    kwargs = {
        "sample_weight": np.linspace(0, 2, len(X)),
        "groups": np.arange(len(X)) // 5,
        "X_val": x[:99],
        "Y_val": y[:99],
        "groups_val": np.arange(99) // 5,
    }
    expected = small(**params).fit(x, y, **kwargs)
    model = small(checkpoint_dir=tmp_path, **params)
    model.set_params(max_epochs=2).fit(x, y, **kwargs)
    model = small(checkpoint_dir=tmp_path, warm_start=True, **params)
    model.fit(x, y, **kwargs)
    assert_array_equal(history(model), history(expected))
    assert_array_equal(model.predict_proba(x), expected.predict_proba(x))


@pytest.mark.filterwarnings("ignore:Rows with new category values")
def test_a_second_fit_that_was_interrupted(tmp_path):
    """It continued from a fit in memory, which the new process does not have."""
    first = small(checkpoint_dir=tmp_path, warm_start=True).fit(X[:250], Y[:250])
    expected = copy.deepcopy(first).set_params(checkpoint_dir=None, max_epochs=4)
    expected.fit(X, Y)
    first.set_params(max_epochs=4)
    for n_epochs in (2, 4):
        first.set_params(callbacks=[InterruptsAfter(n_epochs)])
        with pytest.raises(Interrupted):
            first.fit(X, Y)
        # Until the second fit has a checkpoint, that of the first one stays.
        assert names(tmp_path)[-1] == f"checkpoint-{n_epochs:08}.safetensors"
    assert_same_fit(resume(tmp_path, max_epochs=4), expected)


def test_keep_on_interrupt_keeps_the_epochs_before_the_crash(tmp_path):
    interrupt(tmp_path, 2, max_epochs=5)
    stop = InterruptsAfter(2, "on_batch_end", KeyboardInterrupt)
    with pytest.warns(UserWarning, match="the 2 complete epochs are kept"):
        model = resume(tmp_path, max_epochs=5, callbacks=[KeepOnInterrupt(), stop])
    expected = small(max_epochs=2).fit(X, Y)
    assert_array_equal(history(model), history(expected))
    assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


class Counts(Callback):
    """Counts epochs; its state is in the checkpoints."""

    n_epochs = 0

    def on_epoch_end(self, net, **kwargs):
        self.n_epochs += 1

    def state_dict(self):
        return {"n_epochs": self.n_epochs}

    def load_state_dict(self, state):
        self.n_epochs = state["n_epochs"]


def test_callbacks_with_a_state(tmp_path):
    interrupt(tmp_path, 2, max_epochs=4, callbacks=[Counts()])
    counts = Counts()
    resume(tmp_path, max_epochs=4, callbacks=[counts])
    assert counts.n_epochs == 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: LRScheduler("StepLR", step_size=2, gamma=0.5),
        lambda: LRScheduler(OneCycleLR, max_lr=0.1, total_steps=20, step_every="batch"),
        lambda: LRScheduler("ReduceLROnPlateau", patience=0, threshold=0.5),
    ],
    ids=["epochs", "batches", "plateau"],
)
def test_schedules_of_the_learning_rate_continue(tmp_path, make):
    interrupt(tmp_path, 3, callbacks=[make()], max_epochs=5)
    model = resume(tmp_path, callbacks=[make()], max_epochs=5)
    assert_same_fit(model, small(callbacks=[make()], max_epochs=5).fit(X, Y))


def test_a_warning_names_callbacks_that_start_anew(tmp_path):
    interrupt(tmp_path, 2, max_epochs=4)
    scoring = EpochScoring(ctr_auc_scorer, lower_is_better=False)
    with pytest.warns(UserWarning, match="callbacks holds EpochScoring, whose state"):
        resume(tmp_path, max_epochs=4, callbacks=[("ctr", scoring)])


def test_partial_fit_writes_no_checkpoint(tmp_path):
    small(checkpoint_dir=tmp_path).partial_fit(X, Y).partial_fit(X, Y)
    assert names(tmp_path) == []


def test_a_path_as_text(tmp_path):
    folder = os.fspath(tmp_path / "ü")
    model = small(checkpoint_dir=folder).fit(X, Y)
    assert model.get_params()["checkpoint_dir"] is folder
    assert_array_equal(resume(folder).predict_proba(X), model.predict_proba(X))


class OwnLoss(BCE):
    pass


@pytest.fixture
def folder(tmp_path):
    interrupt(tmp_path, 3, max_epochs=5)
    return tmp_path


def damage(path, n_bytes=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content[:n_bytes])


def check_refused(folder, message, x=X, y=Y, **kwargs):
    before = names(folder)
    params = {key: kwargs.pop(key) for key in [*kwargs] if key not in ARGUMENTS}
    model = small(checkpoint_dir=folder, warm_start=True, max_epochs=5)
    message = f"cannot resume from '.*00003.safetensors': this fit has {message}"
    model.set_params(**params)
    refuses(model, ValueError, message, X=x, Y=y, **kwargs)
    assert names(folder) == before
    assert not hasattr(model, "net_")


ARGUMENTS = ("sample_weight", "groups", "eval_set")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lr": 0.5}, "lr=0.5, where the checkpoint has 0.003"),
        ({"random_state": 1}, "random_state=1, where the checkpoint has 0"),
        ({"random_state": None}, "random_state=None, where"),
        ({"network_params__dropout": 0.1}, "network_params="),
        ({"loss": OwnLoss}, "loss=.*OwnLoss.*, where the checkpoint has 'pwiser'"),
        ({"early_stopping": True, "batch_size": 9}, "batch_size=9.*; early_stopping"),
        ({"categorical_features": ["category_0"]}, "categorical_features="),
    ],
)
def test_other_parameters_are_named(folder, encodings, params, message):
    check_refused(folder, f"other parameters: {message}", **params)
    assert encodings == []


def test_other_data_are_named(folder):
    x, y = X.copy(), Y.copy()
    x.iloc[7, 0] += 0.5
    other = int((Y["click"] != Y["click"][0]).argmax())
    y.iloc[[0, other]] = y.iloc[[other, 0]].to_numpy()
    same = "other data: after encoding, {} differ"
    check_refused(folder, same.format("X"), x=x)
    check_refused(folder, same.format("X"), x=X[::-1], y=Y.to_numpy())
    check_refused(folder, same.format("X, Y"), x=X[1:], y=Y[1:])
    check_refused(folder, same.format("Y"), y=y)
    check_refused(folder, same.format("groups"), groups=np.arange(len(X)))
    weights = np.linspace(0.5, 1.5, len(X))
    check_refused(folder, same.format("sample_weight"), sample_weight=weights)


def test_other_validation_rows_are_named(tmp_path):
    params = {"early_stopping": True, "max_epochs": 5}
    small(checkpoint_dir=tmp_path, **params).fit(X, Y, eval_set=(X[:50], Y[:50]))
    model = small(checkpoint_dir=tmp_path, warm_start=True, **params)
    with pytest.raises(ValueError, match="after encoding, the validation rows differ"):
        model.fit(X, Y, eval_set=(X[50:100], Y[50:100]))


def test_other_columns_and_tasks_are_named(folder):
    model = small(checkpoint_dir=folder, warm_start=True, max_epochs=5)
    with pytest.raises(ValueError, match="numeric_0"):
        model.fit(X.rename(columns={"numeric_0": "other"}), Y)
    with pytest.raises(ValueError, match=r"tasks .*'conversion'.* has .*'sale'"):
        model.fit(X, Y.rename(columns={"conversion": "sale"}))


def test_parameters_may_be_spelt_otherwise(folder):
    model = resume(
        folder,
        max_epochs=5,
        verbose=0,
        random_state=np.int64(0),
        network_params={"tower_units": [4], "bottom_units": [8]},
        optimizer_params={},
    )
    assert model.n_iter_ == 5


@pytest.mark.parametrize("n_bytes", [None, 1_000])
def test_of_a_damaged_file_the_one_before_is_used(folder, n_bytes):
    damage(folder / "checkpoint-00000003.safetensors", n_bytes)
    with pytest.warns(UserWarning, match="00003.safetensors' is .*damaged") as caught:
        model = resume(folder, max_epochs=5)
    assert len(caught) == 1
    assert "Training resumes from" in str(caught[0].message)
    expected = small(max_epochs=5).fit(X, Y)
    assert_array_equal(model.predict_proba(X), expected.predict_proba(X))
    assert names(folder)[0] == "checkpoint-00000004.safetensors"


def test_if_all_files_are_damaged_nothing_is_lost_silently(folder):
    for path in folder.iterdir():
        damage(path)
    message = "cannot resume: .*00003.* is damaged .*00002.* is damaged .*start anew"
    with pytest.raises(ValueError, match=message):
        resume(folder, max_epochs=5)
    small(checkpoint_dir=folder).fit(X, Y)
    assert names(folder)[-1] == "checkpoint-00000002.safetensors"


def test_a_newer_format_is_refused_by_its_number(folder, monkeypatch):
    path = folder / "checkpoint-00000003.safetensors"
    values, arrays = read_file(path)
    monkeypatch.setattr(_model_files, "FORMAT_VERSION", "2")
    write_file(path, values, arrays)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has version '2' of the format"):
        resume(folder, max_epochs=5)


def test_a_model_file_is_no_checkpoint_and_the_reverse(folder):
    path = folder / "checkpoint-00000003.safetensors"
    with pytest.raises(ValueError, match="it is a checkpoint, from which fit"):
        MultiTaskCTRCVRClassifier.load(path)
    small().fit(X, Y).save(path)
    with pytest.raises(ValueError, match="is not a valid checkpoint"):
        resume(folder, max_epochs=5)


@pytest.mark.parametrize(
    "alter",
    [
        lambda values, arrays: values.update(state={}),
        lambda values, arrays: values["state"]["net"].update(network={}),
        lambda values, arrays: values["state"]["loop"].update(callbacks=None),
        lambda values, arrays: values["state"].update(generators={"seed": "x"}),
        lambda values, arrays: arrays.update(start=np.zeros(3, np.uint8)),
    ],
)
def test_hostile_contents_with_a_right_checksum_are_refused(folder, alter):
    path = folder / "checkpoint-00000003.safetensors"
    values, arrays = read_file(path)
    alter(values, arrays)
    write_file(path, values, arrays)
    with pytest.raises(ValueError, match=r"00003\.safetensors"):
        resume(folder, max_epochs=5)


def test_a_file_is_no_folder(tmp_path, earlier, encodings):
    path = tmp_path / "file"
    path.write_text("")
    for target in (path, path / "below"):
        earlier.set_params(checkpoint_dir=target)
        message = "checkpoint_dir must be a folder to which files can be .*file"
        refuses(earlier, ValueError, message)
    assert encodings == []


def test_a_folder_that_cannot_be_written_to(tmp_path, earlier, encodings, monkeypatch):
    def refuse(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(_model_files, "open", refuse, raising=False)
    earlier.set_params(checkpoint_dir=tmp_path)
    refuses(earlier, ValueError, "checkpoint_dir must be .*Permission denied")
    assert encodings == names(tmp_path) == []


def test_values_that_no_file_can_hold_are_refused_before_training(tmp_path):
    x = X.assign(place=[uuid.UUID(int=row % 2) for row in range(len(X))])
    model = small(categorical_features=["place"], checkpoint_dir=tmp_path)
    message = r"column 'place' contains UUID\(.*X\['place'\]\.astype\(str\)"
    refuses(model, TypeError, message, X=x)


class Full:
    """A disk that is full after a number of bytes."""

    def __init__(self, path, mode):
        self.file = open(path, mode)  # noqa: SIM115

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()

    def write(self, content):
        self.file.write(content[:2000])
        self.file.flush()
        if len(content) > 2000:
            raise OSError(errno.ENOSPC, "No space left on device")

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk(tmp_path, earlier, monkeypatch):
    """The error names the file, no half file stays, and neither does the fit end."""
    monkeypatch.setattr(_model_files, "open", Full, raising=False)
    earlier.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(
        OSError, match=r"No space left on device: .*00001.safe"
    ) as found:
        earlier.fit(X, Y)
    assert found.value.errno == errno.ENOSPC
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(folder, monkeypatch):
    monkeypatch.setattr(_model_files, "open", Full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        resume(folder, max_epochs=5)
    monkeypatch.undo()
    assert names(folder) == [f"checkpoint-0000000{n}.safetensors" for n in (2, 3)]
    expected = small(max_epochs=5).fit(X, Y).predict_proba(X)
    assert_array_equal(resume(folder, max_epochs=5).predict_proba(X), expected)
