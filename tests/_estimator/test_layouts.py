"""Tables of another layout than in fit, and columns whose values are all unseen."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_array_equal
from small_model import X, Y, small, warnings_in

NAMES = list(X.columns)


def test_columns_in_another_order_are_found_by_name(trained_once):
    model, expected = trained_once
    assert_array_equal(model.predict_proba(X[NAMES[::-1]]), expected)
    assert model.score(X[NAMES[::-1]], Y) == model.score(X, Y)
    table = pl.from_pandas(X.astype({c: str for c in NAMES if "category" in c}))
    model = small().fit(table, Y)
    found = model.predict_proba(table.select(NAMES[::-1]))
    assert_array_equal(found, model.predict_proba(table))


def test_further_columns_are_ignored_with_one_warning(trained_once):
    model, expected = trained_once
    further = X.assign(day=1, hour=2)[["hour", *NAMES[::-1], "day"]]
    message = "X has 2 column(s) not seen in fit, which are ignored: 'hour', 'day'."
    assert warnings_in(model.predict_proba, further) == [message]
    with pytest.warns(UserWarning, match="not seen in fit"):
        assert_array_equal(model.predict_proba(further), expected)


def test_later_fits_find_columns_by_name():
    times = {"encoding_params": {"time_column": NAMES[0]}, "target_encoding": True}
    times["encoding_params"]["target_encoding_min_values"] = 2
    in_order, by_name = (
        small(warm_start=True, **times)
        .fit(X, Y)
        .fit(X[names], Y)
        .partial_fit(X[names], Y)
        .predict_proba(X)
        for names in (NAMES, NAMES[::-1])
    )
    assert_array_equal(in_order, by_name)


N = 400
RNG = np.random.default_rng(0)
DEVICES = RNG.choice(["phone", "tablet", "tv"], N)
TABLE = pd.DataFrame({"device": DEVICES, "user": RNG.integers(0, 10_000, N)})
TABLE["user"] = TABLE["user"].astype(str)
LABELS = pd.DataFrame({"click": RNG.integers(0, 2, N), "conversion": 0})
LABELS["conversion"] = LABELS["click"] * RNG.integers(0, 2, N)


@pytest.fixture(scope="module", params=[False, ["device", "user"]])
def by_device(request):
    return small(target_encoding=request.param).fit(TABLE, LABELS)


@pytest.mark.parametrize("change", [lambda v: v + " ", str.upper])
def test_a_column_with_another_spelling_is_named(by_device, change):
    changed = TABLE.assign(device=TABLE["device"].map(change))
    [message] = warnings_in(by_device.predict_proba, changed)
    assert "not seen in fit in 'device' (100%)" in message
    # A few known values are not enough to be sure.
    mostly = changed.assign(device=changed["device"].where(np.arange(N) > 15, "phone"))
    [message] = warnings_in(by_device.predict_proba, mostly)
    assert "'device' (96%)" in message


def test_no_warning_in_ordinary_use(by_device):
    new_users = TABLE.assign(user=[f"new {i}" for i in range(N)])
    one_value = TABLE.assign(device="console")
    few_rows = TABLE.assign(device=TABLE["device"] + " ").head(19)
    missing = TABLE.assign(device=None)
    part = TABLE.assign(
        device=TABLE["device"].where(np.arange(N) % 10 == 0, TABLE["device"] + " ")
    )
    for table in (TABLE, new_users, one_value, few_rows, missing, part):
        assert warnings_in(by_device.predict_proba, table) == []


@pytest.mark.parametrize(("column", "n_values"), [("user_id", 40), ("shop", 400)])
def test_users_of_another_fold_are_not_misspelt(column, n_values):
    """New ids are usual in folds by group; another spelling of known ones is not."""
    values = np.random.default_rng(0).integers(0, n_values, N)
    table = pd.DataFrame({column: [f"U{n}" for n in values]})
    half = values < n_values // 2
    model = small().fit(table[half], LABELS[half])
    assert warnings_in(model.predict_proba, table[~half]) == []
    lower = table[half].apply(lambda values: values.str.lower())
    [message] = warnings_in(model.predict_proba, lower)
    assert f"{column!r} (100%)" in message
