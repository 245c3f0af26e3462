"""The container of model files: damaged, swapped and hostile bytes."""

import hashlib
import json
import os
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sk_pwiser import _model_files as container
from sk_pwiser._model_files import read_file, write_file

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
    safe_open = pytest.importorskip("safetensors").safe_open
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
    with pytest.raises(ValueError, match="is not a file of sk_pwiser, or is damaged"):
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


def test_arrays_in_any_order_and_byte_order(tmp_path):
    array = np.arange(24, dtype=">i4").reshape(2, 3, 4)
    given = {"swapped": array, "turned": array.T, "part": array[:, 1:, ::2]}
    write_file(tmp_path / "file", None, given)
    _, found = read_file(tmp_path / "file")
    for name, expected in given.items():
        assert_array_equal(found[name], expected)
        assert found[name].dtype == np.int32
        assert found[name].flags.writeable
        assert found[name].flags.owndata


@pytest.mark.parametrize("dtype", ["longdouble", "complex64", "M8[s]", "U3", object])
def test_other_dtypes_are_refused_before_anything_is_written(tmp_path, dtype):
    with pytest.raises(TypeError, match=r"'a' has the dtype .* cannot be saved"):
        write_file(tmp_path / "file", None, {"a": np.zeros(2, dtype)})
    assert os.listdir(tmp_path) == []


def with_header(content, alter):
    """Return a file with another header and the checksum that belongs to it."""
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    header["__metadata__"]["checksum"] = container.BLANK
    alter(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    altered = len(text).to_bytes(8, "little") + text + content[size:]
    digest = hashlib.sha256(altered).hexdigest()
    return altered.replace(container.BLANK.encode(), digest.encode(), 1)


def test_a_file_with_an_equal_header_is_read(path):
    path.write_bytes(with_header(path.read_bytes(), lambda header: None))
    assert read_file(path)[0] == VALUES


@pytest.mark.parametrize(
    "alter",
    [
        lambda h: h["scalar"].update(shape=[2]),
        lambda h: h["scalar"].update(shape=[2**62, 2**62]),
        lambda h: h["scalar"].update(shape=[-1]),
        lambda h: h["scalar"].update(shape=[1.0]),
        lambda h: h["scalar"].update(shape=None),
        lambda h: h["empty"].update(shape=[2**70, 0]),
        lambda h: h["empty"].update(shape=[1] * 100 + [0]),
        lambda h: h["scalar"].update(dtype="F8_E4M3"),
        lambda h: h["scalar"].update(dtype=["F64"]),
        lambda h: h["scalar"].update(data_offsets=h['a."b']["data_offsets"]),
        lambda h: h["scalar"].update(data_offsets=[0, 2**62]),
        lambda h: h["scalar"].update(data_offsets=None),
        lambda h: h.update(other={}),
        lambda h: h.update(other=3),
        lambda h: h.update(other={"dtype": "U8", "shape": [0], "data_offsets": [3, 3]}),
        lambda h: h.pop("scalar"),
        lambda h: h.pop("json"),
        lambda h: h["__metadata__"].update(version="one"),
    ],
)
def test_hostile_headers_with_a_right_checksum_are_refused(path, alter):
    path.write_bytes(with_header(path.read_bytes(), alter))
    tracemalloc.start()
    try:
        with pytest.raises(container.DamagedFileError, match=r"model\.safetensors"):
            read_file(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def peak_of(function, *args):
    """Return the bytes that a call allocates at its peak, and what it returns."""
    tracemalloc.start()
    try:
        result = function(*args)
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def test_the_content_is_in_memory_once(tmp_path):
    arrays = {f"array {i}": np.full((1_000, 500), i, np.float32) for i in range(8)}
    n_bytes = sum(array.nbytes for array in arrays.values())
    peak, _ = peak_of(write_file, tmp_path / "file", None, arrays)
    assert peak < 0.1 * n_bytes
    peak, (_, found) = peak_of(read_file, tmp_path / "file")
    assert peak < 1.1 * n_bytes
    assert_array_equal(found["array 7"], arrays["array 7"])
