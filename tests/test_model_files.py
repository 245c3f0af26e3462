"""Model files: damaged, swapped and hostile bytes, and objects as plain values."""

import datetime
import hashlib
import json
import os
import tracemalloc
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from sk_pwiser import _model_files
from sk_pwiser._model_files import PlainForm, read_file, write_file

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
        altered = bytearray(content)
        altered[position] ^= 1
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


def test_another_version_is_refused_by_version(path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_model_files, "FORMAT_VERSION", "2")
        write_file(path, VALUES, ARRAYS)
    with pytest.raises(ValueError, match=r"has version '2' .* up to '1'"):
        read_file(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
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


@pytest.fixture
def traced():
    """Count the bytes that are allocated."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def with_header(content, alter):
    """Return a file with another header and the checksum that belongs to it."""
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    header["__metadata__"]["checksum"] = _model_files.BLANK
    alter(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    altered = len(text).to_bytes(8, "little") + text + content[size:]
    digest = hashlib.sha256(altered).hexdigest()
    return altered.replace(_model_files.BLANK.encode(), digest.encode(), 1)


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
@pytest.mark.usefixtures("traced")
def test_hostile_headers_with_a_right_checksum_are_refused(path, alter):
    path.write_bytes(with_header(path.read_bytes(), alter))
    tracemalloc.reset_peak()
    with pytest.raises(_model_files.DamagedFileError, match=r"model\.safetensors"):
        read_file(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20


@pytest.mark.usefixtures("traced")
def test_the_content_is_in_memory_once(tmp_path):
    arrays = {f"array {i}": np.full((1_000, 500), i, np.float32) for i in range(8)}
    n_bytes = sum(array.nbytes for array in arrays.values())
    before, _ = tracemalloc.get_traced_memory()
    write_file(tmp_path / "file", None, arrays)
    assert tracemalloc.get_traced_memory()[1] < before + 0.1 * n_bytes
    tracemalloc.reset_peak()
    _, found = read_file(tmp_path / "file")
    assert tracemalloc.get_traced_memory()[1] < before + 1.1 * n_bytes
    assert_array_equal(found["array 7"], arrays["array 7"])


class Pair(NamedTuple):
    left: object
    right: object


@dataclass(frozen=True)
class Piece:
    value: object

    def __post_init__(self):
        raise AssertionError("restored without a call of the class")


FORM = PlainForm([Pair, Piece])


def again(value):
    values, arrays = FORM.encode(value, "x")
    return FORM.decode(json.loads(json.dumps(values)), arrays)


def piece(value):
    made = Piece.__new__(Piece)
    made.__dict__["value"] = value
    return made


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0.1, 2**80, "text\ud800", [1, (2, [3]), {4}, frozenset({"a"})]),
        {"a": 1, 2: "b", None: (), 3.5: [], ("k", 1): 0},
        *({"~": "object", "class": "Piece"}, {1: "int", "1": "text"}, Decimal("1.10")),
        *(Pair(1, Pair("a", (1,))), np.float32(0.1), np.str_("a"), np.int64(-7)),
        *(np.bool_(True), b"\x00a", datetime.date(2024, 2, 29)),
        datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        *(datetime.timedelta(-1, 5, 7), np.datetime64("2020-01-01")),
        *(np.datetime64(1, "ns"), np.timedelta64(3, "h"), pd.Timestamp("2024-01-01")),
        pd.Timestamp("2024-01-01 00:00:00.000000001", tz="Europe/Berlin"),
        pd.Interval(-np.inf, 0.1, closed="left"),
        pd.Interval(np.float64(1), np.float64(2)),
        pd.Interval(pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02")),
        piece({"a": [1]}),
    ],
)
def test_values_come_back(value):
    found = again(value)
    assert found == value
    assert type(found) is type(value)
    try:
        assert {value: 1}.get(found) == 1  # a category that is looked up
    except TypeError:
        assert isinstance(value, list | dict | tuple | Piece)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.arange(3, dtype=">i4"),
        np.array(3, dtype=np.uint8),
        np.array([["a", "bcd"]]),
        np.array(["a", None, 3, (1, 2)], dtype=object),
        np.empty((0, 2)),
    ],
)
def test_arrays_come_back(array):
    found = again({"a": array})["a"]
    assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.shape == array.shape
    assert found.flags.writeable


@pytest.mark.usefixtures("traced")
def test_the_width_of_texts_takes_no_memory():
    """A file may name any width, at no cost of bytes."""
    values, arrays = FORM.encode(np.array(["a", "bcd"]), "x")
    tracemalloc.reset_peak()
    for width in (3, 100, 2**28):
        array = FORM.decode(values | {"dtype": f"<U{width}"}, arrays)
        assert_array_equal(array, ["a", "bcd"])
    assert tracemalloc.get_traced_memory()[1] < 2**20


@pytest.mark.parametrize("damage", [b"", b"no model", None])
def test_errors_of_damaged_files_say_what_to_do(path, damage):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\0" if damage is None else damage)
    with pytest.raises(ValueError, match=r"Copy it again .*, or save it again\.$"):
        read_file(path)


def test_no_two_parts_share_an_array():
    values, arrays = FORM.encode({"a": np.zeros(3)}, "x")
    values["b"] = values["a"]
    with pytest.raises(ValueError, match="cannot be restored"):
        FORM.decode(values, arrays)


def test_arrays_of_equal_names_are_distinct():
    found = again({1: np.array([1]), "1": np.array([2])})
    assert {key: array.item() for key, array in found.items()} == {1: 1, "1": 2}


@pytest.mark.parametrize(
    "value", [print, object(), {"a": [1j]}, uuid.UUID(int=1), PlainForm([])]
)
def test_what_cannot_be_saved_is_named(value):
    with pytest.raises(TypeError, match=r"model\.part.* cannot be saved"):
        FORM.encode({"part": value}, "model")


@pytest.mark.parametrize(
    "values",
    [
        {"~": "object", "class": "os.system", "items": {}},
        {"~": "object", "class": "Popen", "items": {"args": "true"}},
        {"~": "object", "class": "Piece", "items": [1]},
        {"~": "object", "class": "Pair", "items": {"up": 1}},
        {"~": "object", "class": ["Piece"], "items": {}},
        {"~": "eval", "items": "1"},
        {"~": "array", "name": "absent"},
        {"~": "array"},
        {"~": "scalar", "dtype": "V8", "items": 1},
        {"~": "scalar", "dtype": "no", "items": 1},
        {"~": "objects", "dtype": "O", "shape": [9], "items": [1]},
        {"~": "decimal", "items": "x"},
        {"~": "dict", "items": [[[], 1]]},
    ],
)
def test_hostile_values_are_refused(values):
    with pytest.raises(ValueError, match=r"."):
        FORM.decode({"a": [values]}, {})
