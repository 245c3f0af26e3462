"""Labels: what is accepted, what they are converted to, errors and warnings."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from numpy.testing import assert_array_equal

from sk_pwiser._tasks._labels import check_targets, read_labels

Y = np.array([[0, 0], [1, 0], [1, 1], [1, 0]])
FRAME = pd.DataFrame(Y, columns=["view", "buy"])


@pytest.mark.parametrize(
    ("labels", "dtype", "names"),
    [
        (Y, int, None),
        (Y.tolist(), int, None),
        (Y.astype(bool), bool, None),
        (Y.astype(float), float, None),
        (Y.astype(np.uint8), np.uint8, None),
        (Y.astype(object), int, None),
        (torch.tensor(Y), int, None),
        (FRAME, int, ["view", "buy"]),
        (FRAME.astype(bool), bool, ["view", "buy"]),
        (FRAME.astype("category"), int, ["view", "buy"]),
        (FRAME.set_axis([3, 4], axis=1), int, ["3", "4"]),
        # scikit-learn converts nullable dtypes to floats.
        (FRAME.astype("Int64"), int, ["view", "buy"]),
        (FRAME.astype("boolean"), bool, ["view", "buy"]),
        (FRAME.astype({"view": "Int64", "buy": bool}), int, ["view", "buy"]),
        (FRAME.astype({"view": "Int64", "buy": float}), float, ["view", "buy"]),
        (FRAME.astype("Float64"), float, ["view", "buy"]),
        (FRAME.astype(pd.ArrowDtype(pa.int64())), int, ["view", "buy"]),
        (pl.DataFrame(Y, schema=["view", "buy"]), int, ["view", "buy"]),
        (pl.DataFrame(Y.astype(bool), schema=["view", "buy"]), bool, ["view", "buy"]),
    ],
)
def test_labels_of_two_tasks(labels, dtype, names):
    targets = check_targets(labels)
    assert targets.values.dtype == np.float32
    assert_array_equal(targets.values, Y)
    assert_array_equal(targets.classes, [[0, 1], [0, 1]])
    assert targets.classes.dtype == dtype
    assert targets.task_names == tuple(names or ("click", "conversion"))


ONE = np.array([0, 1, 1, 0])


@pytest.mark.parametrize(
    ("labels", "classes", "dtype"),
    [
        (ONE, [0, 1], int),
        (ONE.tolist(), [0, 1], int),
        (ONE.astype(bool), [False, True], bool),
        (ONE.astype(float), [0, 1], float),
        (ONE[:, np.newaxis], [0, 1], int),
        (4 * ONE + 3, [3, 7], int),
        (np.where(ONE, "yes", "no"), ["no", "yes"], "<U3"),
        (np.where(ONE, "yes", "no").astype(object), ["no", "yes"], object),
        (ONE.astype(object), [0, 1], int),
        (pd.Series(ONE), [0, 1], int),
        (pd.Series(4 * ONE + 3, dtype="Int64"), [3, 7], int),
        (pd.Series(ONE, dtype="boolean"), [False, True], bool),
        (pd.Series(ONE, dtype=pd.ArrowDtype(pa.int16())), [0, 1], np.int16),
        (pd.Series(np.where(ONE, "b", "a")), ["a", "b"], object),
        (pd.Series(np.where(ONE, "b", "a"), dtype="string"), ["a", "b"], object),
        (
            pd.Series(pd.Categorical.from_codes(ONE + 1, ["unused", "a", "b"])),
            ["a", "b"],
            object,
        ),
        (pd.DataFrame({"buy": ONE}), [0, 1], int),
        (pl.Series(ONE), [0, 1], int),
        (pl.Series(ONE).cast(pl.Boolean), [False, True], bool),
        (pl.Series(ONE).cast(pl.Decimal(1, 0)), [0, 1], float),
        (pl.Series(np.where(ONE, "b", "a")), ["a", "b"], "<U1"),
    ],
)
def test_labels_of_one_task(labels, classes, dtype):
    targets = check_targets(labels)
    assert_array_equal(targets.values, ONE[:, np.newaxis])
    assert targets.values.dtype == np.float32
    assert_array_equal(targets.classes, classes)
    assert targets.classes.shape == (2,)
    assert targets.classes.dtype == dtype


def test_task_names():
    assert check_targets(ONE).task_names == ("task_0",)
    assert check_targets(pd.Series(ONE, name="buy")).task_names == ("buy",)
    assert check_targets(pl.Series("buy", ONE)).task_names == ("buy",)
    assert check_targets(pd.DataFrame({"buy": ONE})).task_names == ("buy",)
    three = np.column_stack([Y, Y[:, 1]])
    assert check_targets(three).task_names == ("task_0", "task_1", "task_2")
    # Names given by the user come first, then those of the columns, then defaults.
    names = {"task_names": np.array(["a", "b"]), "default_names": ["c", "d"]}
    assert check_targets(FRAME, **names).task_names == ("a", "b")
    assert check_targets(FRAME, default_names=["c", "d"]).task_names == ("view", "buy")
    assert check_targets(Y, default_names=["c", "d"]).task_names == ("c", "d")
    # The columns of an Arrow table are arrays, not names.
    table = pa.table({"a": Y[:, 0], "b": Y[:, 1]})
    for form in (table, table.to_batches()[0], pl.from_arrow(table).lazy()):
        assert check_targets(form).task_names == ("a", "b")


MISSING = np.array([[False, False], [False, True], [False, True], [False, False]])
FORMS = [
    (np.where(MISSING, np.nan, Y), float),
    (np.where(MISSING, np.nan, Y.astype(object)), object),
    (np.where(MISSING, None, Y), object),
    (np.where(MISSING, None, Y).tolist(), object),
    (np.where(MISSING, pd.NA, Y), object),
    (FRAME.mask(MISSING), float),
    (FRAME.astype("Int64").mask(MISSING), int),
    (FRAME.astype("boolean").mask(MISSING), bool),
    (FRAME.astype(pd.ArrowDtype(pa.int64())).mask(MISSING), int),
    (FRAME.astype(object).mask(MISSING), object),
    (pl.DataFrame({"view": [0, 1, 1, 1], "buy": [0, None, None, 0]}), float),
    (pl.DataFrame({"view": [0.0, 1, 1, 1], "buy": [0.0, np.nan, None, 0]}), float),
    (pl.LazyFrame({"view": [0, 1, 1, 1], "buy": [0, None, None, 0]}), float),
    (pa.table({"view": [0, 1, 1, 1], "buy": [0, None, None, 0]}), float),
]


@pytest.mark.parametrize(("form", "dtype"), FORMS)
def test_missing_labels_are_found_or_refused(form, dtype):
    found = read_labels(form, "ignore")
    assert_array_equal(found.missing, MISSING)
    assert_array_equal(found.values.astype(int), np.where(MISSING, 0, Y))
    assert found.values.dtype == dtype
    assert found.columns in (None, ["view", "buy"])
    name = "'buy'" if found.columns else 1
    message = (
        f"Input Y contains NaN: 2 in column {name}, the first in row 1. With "
        "missing_labels='ignore'"
    )
    with pytest.raises(ValueError, match=message):
        read_labels(form)


def test_the_first_task_may_lack_labels_as_well():
    singles = [0, 1, np.nan], [[0], [1], [np.nan]], ["a", "b", None]
    series = pd.Series([0, 1, None], dtype="Int64"), pl.Series([0, 1, None])
    for labels in (*singles, *series, pl.Series(["a", "b", None])):
        message = r"NaN: 1 in column 0, .* in row 2\. With missing_labels='ignore'"
        with pytest.raises(ValueError, match=message):
            read_labels(labels)
        targets = check_targets(labels, missing_labels="ignore")
        assert_array_equal(targets.with_nan()[:, 0], [0, 1, np.nan])
    first = FRAME.mask(MISSING[:, ::-1])
    with pytest.raises(ValueError, match=r"NaN: 2 in column 'view', .* in row 1"):
        read_labels(first)
    targets = check_targets(first, missing_labels="ignore", task_parents=None)
    assert_array_equal(targets.missing, MISSING[:, ::-1])


def test_nothing_is_missing():
    for form in (Y, FRAME, FRAME.astype("Int64"), Y.astype(float), Y.tolist()):
        assert read_labels(form, "ignore").missing is None


def test_labels_are_not_changed():
    array = np.where(MISSING, np.float32(np.nan), Y)
    array.flags.writeable = False
    before = array.copy()
    targets = check_targets(array, missing_labels="ignore")
    assert_array_equal(array, before)
    frame = FRAME.astype("Int64").mask(MISSING)
    before = frame.copy(deep=True)
    check_targets(frame, missing_labels="ignore")
    pd.testing.assert_frame_equal(frame, before)
    assert targets.values.shape == (4, 2)


WORDS = [("no", "yes"), ("NO", "Yes "), ("False", "true"), ("0", "1"), (0, "1.0")]


@pytest.mark.parametrize(("zero", "one"), WORDS)
def test_words_of_several_tasks_are_read_in_any_case(zero, one):
    numbers = np.array([[0, 0], [1, 0], [1, 1], [0, 0]])
    words = pd.DataFrame(numbers, columns=["a", "b"]).replace({0: zero, 1: one})
    half = words.assign(a=numbers[:, 0])  # beside a column of numbers
    tables = [words, half, words.astype(object), words.to_numpy()]
    if isinstance(zero, str):
        tables.append(pl.from_pandas(half))
    for Y in tables:
        targets = check_targets(Y)
        assert_array_equal(targets.values, numbers)
        assert targets.classes.tolist() == [[0, 1], [0, 1]]
        assert targets.classes.dtype == int
    words = words.astype(object)
    words.loc[3, "b"] = None
    targets = check_targets(words, missing_labels="ignore")
    assert targets.missing.tolist() == [[False] * 2] * 3 + [[False, True]]


@pytest.mark.parametrize("labels", [["Yes", "no"], [" yes", "no"], ["TRUE", "false"]])
def test_words_of_one_task_in_the_wrong_order(labels):
    with pytest.raises(ValueError, match="written in one way; column 0 of Y contains"):
        check_targets(labels)


def test_labels_of_one_task_if_only_one_of_two_classes_occurs():
    targets = check_targets(["b", "b"], classes=["b", "a"])
    assert targets.classes.tolist() == ["a", "b"]
    assert targets.values.tolist() == [[1.0], [1.0]]
    for labels, classes in ((["c"], ["a", "b"]), ([0, 1], [0]), ([0], ["0", "1"])):
        with pytest.raises(ValueError, match=r"expected the classes .* got the lab"):
            check_targets(labels, classes=classes)
