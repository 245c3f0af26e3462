import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser._table._labels import (
    check_groups,
    check_row_weights,
    check_targets,
    takes_lower_case_y,
)

Y = np.array([[0, 0], [1, 0], [1, 1], [1, 0]])
FRAME = pd.DataFrame(Y, columns=["view", "buy"])


@pytest.mark.parametrize(
    ("labels", "dtype", "names"),
    [
        (Y, int, None),
        (Y.tolist(), int, None),
        (Y.astype(bool), bool, None),
        (Y.astype(float), float, None),
        (Y.astype(np.float32), np.float32, None),
        (Y.astype(np.uint8), np.uint8, None),
        (Y.astype(object), int, None),
        (np.asfortranarray(Y), int, None),
        (torch.tensor(Y), int, None),
        (FRAME, int, ["view", "buy"]),
        (FRAME.astype(bool), bool, ["view", "buy"]),
        (FRAME.astype("category"), int, ["view", "buy"]),
        (FRAME.set_axis([3, 4], axis=1), int, ["3", "4"]),
        # scikit-learn makes floats of these.
        (FRAME.astype("Int64"), int, ["view", "buy"]),
        (FRAME.astype("Int8"), np.int8, ["view", "buy"]),
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
        (2 * ONE - 1, [-1, 1], int),
        (np.where(ONE, "yes", "no"), ["no", "yes"], "<U3"),
        (np.where(ONE, "yes", "no").astype(object), ["no", "yes"], object),
        (ONE.astype(object), [0, 1], int),
        (ONE.astype(bool).astype(object), [False, True], bool),
        (pd.Series(ONE), [0, 1], int),
        (pd.Series(ONE, dtype="Int64"), [0, 1], int),
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


def test_names_of_tasks():
    assert check_targets(ONE).task_names == ("task_0",)
    assert check_targets(pd.Series(ONE, name="buy")).task_names == ("buy",)
    assert check_targets(pl.Series("buy", ONE)).task_names == ("buy",)
    assert check_targets(pd.DataFrame({"buy": ONE})).task_names == ("buy",)
    three = np.column_stack([Y, Y[:, 1]])
    assert check_targets(three).task_names == ("task_0", "task_1", "task_2")
    # Given names come first, then those of the columns, then the defaults.
    names = {"task_names": np.array(["a", "b"]), "default_names": ["c", "d"]}
    assert check_targets(FRAME, **names).task_names == ("a", "b")
    assert check_targets(FRAME, default_names=["c", "d"]).task_names == ("view", "buy")
    assert check_targets(Y, default_names=["c", "d"]).task_names == ("c", "d")
    # The columns of an Arrow table are arrays, not names.
    table = pa.table({"a": Y[:, 0], "b": Y[:, 1]})
    assert check_targets(table).task_names == ("click", "conversion")


@pytest.mark.parametrize(
    ("labels", "names", "error", "message"),
    [
        (Y, ["a", "b", "c"], ValueError, r"2 columns, but task_names names 3: \['a', "),
        (np.column_stack([Y, Y]), ["a", "b"], ValueError, "4 columns, but .* names 2"),
        (ONE, ["a", "b"], ValueError, "1 columns, but task_names names 2"),
        (Y, [], ValueError, "task_names names 0"),
        (Y, ["a", "a"], ValueError, "task_names must differ, but 'a' is there twice"),
        (Y, [0, 1], TypeError, r"task_names must be strings; got \[0, 1\]"),
        (Y, [None, "a"], TypeError, r"task_names must be strings; got \[None, 'a'\]"),
        (
            FRAME.set_axis(["a", "a"], axis=1),
            None,
            ValueError,
            "columns of Y must differ, but 'a' is there twice",
        ),
    ],
)
def test_wrong_names_of_tasks(labels, names, error, message):
    with pytest.raises(error, match=message):
        check_targets(labels, names)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Y * 2, "column 0 of Y holds 2 in row 1"),
        (Y * [1, -1], "column 1 of Y holds -1 in row 2"),
        (Y * 0.5, "column 0 of Y holds 0.5 in row 1"),
        (np.where(Y, "1", "0"), "column 0 of Y holds '0' in row 0"),
        (np.where(Y, "1", "0").astype(object), "column 0 of Y holds '0' in row 0"),
        (FRAME * [1, 3], "column 'buy' of Y holds 3 in row 2"),
        (FRAME.astype("Int64") * 3, "column 'view' of Y holds 3 in row 1"),
        (FRAME.astype(str), "column 'view' of Y holds '0' in row 0"),
        (pl.DataFrame({"a": [0, 1], "b": [0.0, 0.5]}), "column 'b' of Y holds 0.5 in"),
        (Y.astype("datetime64[D]"), "column 0 of Y holds datetime.date"),
    ],
)
def test_labels_of_several_tasks_are_0_or_1(labels, message):
    with pytest.raises(ValueError, match=f"Labels must be 0 or 1; {message}"):
        check_targets(labels)


HOLES = np.array([[False, False], [False, True], [False, True], [False, False]])


@pytest.mark.parametrize(
    ("labels", "column"),
    [
        (np.where(HOLES, np.nan, Y), 1),
        (np.where(HOLES, np.nan, Y.astype(object)), 1),
        (np.where(HOLES, None, Y), 1),
        (np.where(HOLES, pd.NA, Y), 1),
        (FRAME.mask(HOLES), "'buy'"),
        (FRAME.astype("Int64").mask(HOLES), "'buy'"),
        (FRAME.astype("boolean").mask(HOLES), "'buy'"),
        (FRAME.astype(pd.ArrowDtype(pa.int64())).mask(HOLES), "'buy'"),
        (FRAME.astype(object).mask(HOLES), "'buy'"),
        (pl.DataFrame({"a": [0, 1, 1], "b": [0, None, None]}), "'b'"),
        (pl.DataFrame({"a": [0, 1, 1], "b": [True, None, None]}), "'b'"),
        (pl.DataFrame({"a": [0.0, 1, 1], "b": [0.0, float("nan"), None]}), "'b'"),
        ([0, np.nan, np.nan, 1], 0),
        (["a", None, None, "b"], 0),
        (pd.Series(["a", None, None, "b"], name="buy"), "'buy'"),
        (pd.Series([0, None, None, 1], dtype="Int64", name="buy"), "'buy'"),
        (pl.Series("buy", [0, None, None, 1]), "'buy'"),
        (pl.Series("buy", ["a", None, None, "b"]), "'buy'"),
    ],
)
def test_missing_labels_are_named_and_counted(labels, column):
    with pytest.raises(ValueError, match=f"Input Y contains NaN: 2 in column {column}"):
        check_targets(labels)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (None, ValueError, "requires y to be passed, but the target y is None"),
        (np.where(Y, np.inf, 0), ValueError, "Input Y contains infinity"),
        ([0, 1, -np.inf], ValueError, "Input Y contains infinity"),
        (np.zeros((2, 2, 2)), ValueError, "dim 3"),
        (np.zeros((0, 2)), ValueError, r"0 sample\(s\) .* required by Y"),
        ([], ValueError, r"0 sample\(s\) .* required by Y"),
        (np.zeros((3, 0)), ValueError, r"0 feature\(s\) .* required by Y"),
        (sp.csr_array(Y), TypeError, "Sparse data was passed for Y"),
        (Y * 1j, ValueError, "Complex data"),
        ([[0], [0, 1]], ValueError, "inhomogeneous"),
        (1, TypeError, "at least 1 dimension"),
        ("click", TypeError, "at least 1 dimension"),
        ([0, 1, 2], ValueError, r"binary .* multiclass, with the labels \[0, 1, 2\]"),
        ([0.5, 1.5], ValueError, "Unknown label type: continuous"),
        ([0, 0], ValueError, "needs both classes .* only one class: 0"),
        (["no", "no"], ValueError, "needs both classes .* only one class: 'no'"),
        (
            pd.Series(["no"] * 2),
            ValueError,
            "needs both classes .* only one class: 'no'",
        ),
        (
            np.array(["a", 1, 1], dtype=object),
            ValueError,
            "must be all text or all numbers; Y holds 'a' and 1",
        ),
    ],
)
def test_what_are_no_labels(labels, error, message):
    with pytest.raises(error, match=message):
        check_targets(labels)


def test_labels_of_one_task_where_a_part_holds_one_of_them():
    targets = check_targets(["b", "b"], classes=["b", "a"])
    assert targets.classes.tolist() == ["a", "b"]
    assert targets.values.tolist() == [[1.0], [1.0]]
    for labels, classes in ((["c"], ["a", "b"]), ([0, 1], [0]), ([0], ["0", "1"])):
        with pytest.raises(ValueError, match=r"expected the classes .* got the lab"):
            check_targets(labels, classes=classes)


def test_labels_are_left_as_they_are():
    labels = Y.astype(np.float32)
    labels.flags.writeable = False
    targets = check_targets(labels)
    assert targets.without_labels().values.shape == (0, 2)
    assert targets.values.shape == (4, 2)
    frame = FRAME.astype("Int64")
    before = frame.copy(deep=True)
    check_targets(frame)
    pd.testing.assert_frame_equal(frame, before)


def warnings_of(labels, **params):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_targets(labels).warn_of_oddities(**params)
    assert {w.category for w in caught} <= {UserWarning}
    return [str(w.message) for w in caught]


def test_broken_funnels_and_constant_tasks_are_warned_of():
    assert warnings_of(Y) == []
    three = np.array([[0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 0], [1, 1, 0]])
    [message] = warnings_of(three)
    # Row by row: a 1 stands behind a 0 in the first three.
    assert message.startswith("3 of 6 rows break the funnel")
    assert warnings_of(three, constant_tasks=False) == [message]
    [one, zero] = warnings_of(FRAME.assign(view=1, buy=0))
    assert one.startswith("Task 'view' is 1 in every row")
    assert zero.startswith("Task 'buy' is 0 in every row")
    assert warnings_of(FRAME.assign(view=1, buy=0), constant_tasks=False) == []
    [broken, zero] = warnings_of(FRAME.assign(view=0, buy=[1, 0, 0, 0]))
    assert broken.startswith("1 of 4 rows")
    assert zero.startswith("Task 'view' is 0 in every row")


@pytest.mark.parametrize(
    "weights",
    [
        [1, 2, 3, 2],
        np.array([0.5, 1.0, 1.5, 1.0], dtype=np.float32),
        pd.Series([1, 2, 3, 2], index=[9, 8, 7, 6]),
        pd.Series([1, 2, 3, 2], dtype="Int64"),
        pl.Series([1, 2, 3, 2]),
        np.array([5e307, 1e308, 1.5e308, 1e308]),
        np.array([1, 2, 3, 2]) * 1e-310,
    ],
)
def test_row_weights_have_mean_1_whatever_their_scale(weights):
    result = check_row_weights(weights, 4)
    assert result.dtype == np.float32
    assert_allclose(result, [0.5, 1.0, 1.5, 1.0], rtol=1e-5)


def test_row_weights_may_be_none_bool_or_partly_zero():
    assert check_row_weights(None, 3) is None
    assert check_row_weights([True, False, True], 3).tolist() == [1.5, 0.0, 1.5]
    assert check_row_weights([0, 0, 3], 3).tolist() == [0.0, 0.0, 3.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 1], r"must have shape \(3,\); got \(2,\)"),
        ([[1], [1], [1]], r"must have shape \(3,\); got \(3, 1\)"),
        (pd.DataFrame({"w": [1, 1, 1]}), r"must have shape \(3,\); got \(3, 1\)"),
        ([1, -0.5, 1], "must be >= 0; it holds -0.5"),
        ([0, 0, 0], "must not be zero for every row"),
        ([1, np.nan, 1], "must hold a finite number a row.* NaN"),
        ([1, None, 1], "must hold a finite number a row.* NaN"),
        (
            pd.Series([1, None, 1], dtype="Float64"),
            "must hold a finite number a row.* NaN",
        ),
        ([1, np.inf, 1], "must hold a finite number a row.* infinity"),
        (["a", "b", "c"], "must hold a finite number a row.* 'a'"),
        ("balanced", "must hold a finite number a row.* 'balanced'"),
        (2.0, "must hold a finite number a row"),
        ([1j, 1, 1], "must hold a finite number a row"),
    ],
)
def test_wrong_row_weights(weights, message):
    with pytest.raises(ValueError, match=f"sample_weight {message}"):
        check_row_weights(weights, 3)


FAR = [2**53, 2**53 + 1, 2**53]


@pytest.mark.parametrize(
    "groups",
    [
        FAR,
        np.array(FAR),
        pd.Series(FAR),
        pd.Series(FAR, dtype="Int64"),
        pl.Series(FAR),
        ["u", "v", "u"],
        pd.Series(["u", "v", "u"]),
        pd.Series(["u", "v", "u"], dtype="category"),
        pl.Series(["u", "v", "u"]),
        np.array(["u", 1, "u"], dtype=object),
    ],
)
def test_groups_become_numbers(groups):
    numbers = check_groups(groups, 3)
    assert numbers.dtype == np.int64
    assert numbers[0] == numbers[2] != numbers[1]


def test_wrong_groups():
    assert check_groups(None, 3) is None
    for groups in ([1, 2], [[1], [2], [3]], 5, "abc", np.eye(3)):
        shape = str(np.shape(groups)).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(ValueError, match=rf"groups .* shape \(3,\); got {shape}"):
            check_groups(groups, 3)
    for groups in (
        [1, np.nan, np.nan],
        pd.Series(["u", None, None]),
        pd.Series([1, None, None], dtype="Int64"),
        pl.Series(["u", None, None]),
        np.array([1, None, None]),
    ):
        with pytest.raises(ValueError, match="groups must be known; 2 are missing"):
            check_groups(groups, 3)


def test_labels_go_by_either_case():
    class Model:
        @takes_lower_case_y
        def fit(self, X, Y, other=None):
            """Fit."""
            return X, Y, other

    for result in (Model().fit(1, y=2), Model().fit(1, Y=2), Model().fit(1, 2)):
        assert result == (1, 2, None)
    assert Model.fit.__doc__ == "Fit."
    with pytest.raises(TypeError, match="multiple values"):
        Model().fit(1, 2, y=3)
