"""The container of model files: damaged, swapped and hostile bytes."""

import os

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sk_pwiser._files import _container as container
from sk_pwiser._files import read_file, write_file

pytest.importorskip("safetensors")

VALUES = {"text": "naïve \ud800", "numbers": [1, -0.0, 1e300, float("inf"), 2**70]}
ARRAYS = {
    'a."b': np.arange(6, dtype=np.float32).reshape(2, 3),
    "empty": np.empty((0, 3), dtype=np.int64),
    "scalar": np.array(2.5),
    "flags": np.array([True, False]),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    write_file(path, VALUES, ARRAYS)
    return path


def test_what_was_written_is_read(path):
    values, arrays = read_file(path)
    assert values == VALUES
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        assert_array_equal(array, ARRAYS[name])
        assert (array.dtype, array.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)


def test_the_file_is_one_of_safetensors(path):
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        assert file.metadata()["version"] == "1"
        assert_array_equal(file.get_tensor("scalar"), 2.5)


def test_every_single_byte_is_checked(path):
    content = path.read_bytes()
    for position in range(len(content)):
        for bit in (1, 128):
            altered = bytearray(content)
            altered[position] ^= bit
            path.write_bytes(altered)
            with pytest.raises(ValueError, match=r"model\.safetensors"):
                read_file(path)


def test_every_truncation_is_found(path):
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="damaged"):
            read_file(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ValueError, match="damaged or was altered"):
        read_file(path)


def test_swapped_halves_are_found(path, tmp_path):
    other = tmp_path / "other.safetensors"
    write_file(other, VALUES, {**ARRAYS, "scalar": np.array(3.5)})
    one, two = path.read_bytes(), other.read_bytes()
    size = 8 + int.from_bytes(one[:8], "little")
    path.write_bytes(one[:size] + two[size:])
    with pytest.raises(ValueError, match="checksum does not match"):
        read_file(path)


def test_another_version_is_refused_by_version(path, monkeypatch):
    monkeypatch.setattr(container, "FORMAT_VERSION", "2")
    write_file(path, VALUES, ARRAYS)
    monkeypatch.undo()
    with pytest.raises(
        ValueError, match=r"has version '2' .* reads versions up to '1'"
    ):
        read_file(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04.",
        (3).to_bytes(8, "little") + b"[1]",
        (2).to_bytes(8, "little") + b"{}",
        (2**63).to_bytes(8, "little") + b"{}",
        (6000).to_bytes(8, "little") + b"[" * 6000,
        (31).to_bytes(8, "little") + b'{"__metadata__":{"format":"x"}}',
    ],
)
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no file of sk_pwiser, or damaged"):
        read_file(path)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failing_write_leaves_the_earlier_file(path, monkeypatch, failing):
    def fails(*args):
        raise OSError("no space")

    before = path.read_bytes()
    monkeypatch.setattr(os, failing, fails)
    with pytest.raises(OSError, match="no space"):
        write_file(path, {}, {})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
