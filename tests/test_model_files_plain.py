"""Objects as plain values and arrays."""

import datetime
import json
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from sk_pwiser._model_files import PlainForm


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
        None,
        True,
        0.1,
        2**80,
        "text\ud800",
        [1, (2, [3]), {4}, frozenset({"a"})],
        {"a": 1, 2: "b", None: (), 3.5: [], ("k", 1): 0},
        {"~": "object", "class": "Piece"},
        {1: "int", "1": "text"},
        Decimal("1.10"),
        Pair(1, Pair("a", (1,))),
        np.float32(0.1),
        np.str_("a"),
        np.int64(-7),
        np.bool_(True),
        b"\x00a",
        datetime.date(2024, 2, 29),
        datetime.time(1, 2, 3, 4),
        datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        datetime.timedelta(-1, 5, 7),
        np.datetime64("2020-01-01"),
        np.datetime64(1, "ns"),
        np.timedelta64(3, "h"),
        pd.Timestamp("2024-01-01"),
        pd.Timestamp("2024-01-01 00:00:00.000000001", tz="Europe/Berlin"),
        pd.Timedelta(1, "ns"),
        pd.Period("2024-01", freq="M"),
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
