"""Checkpoints that are damaged, of other fits, or cannot be written."""

import errno
import uuid

import numpy as np
import pytest
from checkpointed import interrupt, names, resume
from numpy.testing import assert_array_equal
from refusals import X, Y, refuses, small

from sk_pwiser import MultiTaskCTRCVRClassifier, _model_files
from sk_pwiser._model_files import read_file, write_file
from sk_pwiser.losses import BCE


class Own(BCE):
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
        ({"loss": Own}, "loss=.*Own.*, where the checkpoint has 'pwiser'"),
        ({"early_stopping": True, "batch_size": 9}, "batch_size=9.*; early_stopping"),
        ({"categorical_features": ["category_0"]}, "categorical_features="),
    ],
)
def test_other_parameters_are_named(folder, encodings, params, message):
    check_refused(folder, f"other parameters: {message}", **params)
    assert encodings == []


def test_another_number_of_rows_is_refused_before_encoding(folder, encodings):
    message = "other data: X has 299 rows, where the checkpoint has 300"
    check_refused(folder, message, x=X[1:], y=Y[1:])
    assert encodings == []


def test_other_data_are_named(folder):
    x, y = X.copy(), Y.copy()
    x.iloc[7, 0] += 0.5
    other = int((Y["click"] != Y["click"][0]).argmax())
    y.iloc[[0, other]] = y.iloc[[other, 0]].to_numpy()
    same = "other data: after encoding, {} differ"
    check_refused(folder, same.format("X"), x=x)
    check_refused(folder, same.format("X"), x=X[::-1], y=Y.to_numpy())
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


@pytest.mark.parametrize("value", [3, True, ["folder"]])
def test_other_types_are_refused(earlier, value):
    earlier.set_params(checkpoint_dir=value)
    refuses(earlier, ValueError, "The 'checkpoint_dir' parameter .* must be")


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
