"""Amounts of the past of keys: hand-made cases, files and faults."""

import math

import numpy as np
import pandas as pd
import pytest
from impressions_over_time import make_log
from numpy.testing import assert_allclose

from sk_pwiser._model_files import read_file, write_file
from sk_pwiser.history import HistoryFeatures, StoredHistory


def small(**params):
    params = {"values": {"spend": "buy"}} | params
    return HistoryFeatures(["user"], time="t", passthrough=False, **params)


def small_log():
    X = pd.DataFrame({"user": list("aabbab"), "t": [0, 1, 2, 2, 3, 9]})
    Y = pd.DataFrame(
        {
            "buy": [1, 0, 1, 1, 1, np.nan],
            "spend": [10.0, np.nan, 2.0, np.nan, 30.0, np.nan],
        }
    )
    return X, Y


def log_with_spend(n=600, seed=0):
    X, Y = make_log(n, ctr=0.4, cvr=0.6, seed=seed)
    rng = np.random.default_rng(seed)
    spend = rng.lognormal(3, 1, n) * (1 + X["user"] % 5)
    is_known = (Y["conversion"] == 1) & (rng.random(n) < 0.8)
    return X, Y.assign(spend=spend.where(is_known))


def make_with_spend(**params):
    settings = {
        "time": "time",
        "label_delay": {"click": 0, "conversion": "6h"},
        "windows": ["1d"],
        "half_lives": ["12h"],
        "values": {"spend": "conversion"},
    }
    return HistoryFeatures(["user", ("user", "item")], **(settings | params))


def test_a_log_by_hand():
    """The row at 3 sees the amounts 10 of its user, and 10 and 2 of all."""
    X, Y = small_log()
    table = small(smoothing=1.0).fit_transform(X, Y)
    mean = (10 + 2) / 2
    row = table.iloc[4]
    assert_allclose(row["user__log_spend"], math.log1p(10 / mean), rtol=1e-6)
    shrunk_mean = (10 / mean + 1) / (1 + 1)
    assert_allclose(row["user__spend_log_mean"], math.log(shrunk_mean), rtol=1e-5)
    # The second sale of user b at 2 has no known amount.
    last = table.iloc[5]
    mean = (10 + 2 + 30) / 3
    assert_allclose(last["user__log_spend"], math.log1p(2 / mean), rtol=1e-6)
    assert_allclose(last["user__log_buy"], math.log1p(2), rtol=1e-6)


def test_names_and_places_of_values():
    X, Y = small_log()
    named = small().fit_transform(X, Y)
    labels = Y[["spend", "buy"]].to_numpy()
    by_place = small(values={0: 0}).fit_transform(X, labels)
    assert_allclose(by_place["user__log_value_0"], named["user__log_spend"])
    assert_allclose(by_place["user__value_0_log_mean"], named["user__spend_log_mean"])
    assert small().fit(X).get_feature_names_out().tolist() == [
        "user__since_impression",
        "user__log_impressions",
    ]


def test_amounts_in_another_unit_give_the_same_numbers():
    X, Y = log_with_spend()
    expected = make_with_spend().fit_transform(X, Y)
    found = make_with_spend().fit_transform(X, Y.assign(spend=Y["spend"] * 1e-7))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-6)


def test_the_order_of_rows_does_not_matter():
    X, Y = log_with_spend()
    expected = make_with_spend().fit_transform(X, Y)
    order = np.random.default_rng(0).permutation(len(X))
    found = make_with_spend().fit_transform(X.iloc[order], Y.iloc[order])
    pd.testing.assert_frame_equal(found.loc[X.index], expected, rtol=1e-5, atol=1e-6)


def test_late_rows_are_merged():
    X, Y = log_with_spend()
    is_late = np.arange(len(X)) % 7 == 0
    history = make_with_spend().fit(X[~is_late], Y[~is_late])
    history.update(X[is_late], Y[is_late], overlap="merge")
    later = X[::20].assign(time=X["time"].max() + pd.Timedelta("5h"))
    expected = make_with_spend().fit(X, Y).transform(later)
    pd.testing.assert_frame_equal(history.transform(later), expected, rtol=1e-5)


@pytest.mark.parametrize("max_age", [None, "1d"])
def test_rows_of_a_table_and_of_servers(max_age, tmp_path):
    X, Y = log_with_spend()
    history = make_with_spend(max_age=max_age).fit(X[:400], Y[:400])
    history.save(tmp_path / "history")
    loaded = HistoryFeatures.load(tmp_path / "history")
    stored = StoredHistory.write(history, {})
    for server in (history, loaded, stored):
        server.update(X[400:], Y[400:])
    whole = make_with_spend(max_age=max_age).fit(X, Y)
    later = X[::20].assign(time=X["time"].max() + pd.Timedelta("5h"))
    expected = whole.transform(later)
    names = [name for name in expected if "spend" in name]
    assert (expected.filter(like="user__").filter(like="spend") != 0).any().all()
    for server in (history, loaded, stored):
        rows = pd.DataFrame(map(server.transform_row, later.to_dict("records")))
        assert_allclose(rows[names], expected[names], rtol=1e-5, atol=1e-6)


def test_only_recent_amounts_are_kept():
    """Those that no window and no delay needs are sums."""
    n = 2000
    X = pd.DataFrame({"user": np.arange(n) % 10, "t": np.arange(n)})
    Y = pd.DataFrame({"buy": np.ones(n), "spend": np.arange(1.0, n + 1)})
    history = small(windows=[50], label_delay=20).fit(X[:100], Y[:100])
    for start in range(100, n, 100):
        history.update(X[start : start + 100], Y[start : start + 100])
    state = history._state.whole(history._learnt[1])
    for log in (*state.logs, state.everything):
        assert sum(len(amounts.time) for amounts in log.amounts) <= 51
    row = history.transform_row({"user": 3, "t": n + 30})
    # All amounts are known ten instants after the last one.
    relative = X["t"][X["user"] == 3].add(1).sum() / Y["spend"].mean()
    assert_allclose(row["user__log_spend"], math.log1p(relative), rtol=1e-6)
    recent = [t for t in range(3, n, 10) if n + 30 - t <= 50]
    relative = sum(t + 1 for t in recent) / Y["spend"].mean()
    assert_allclose(row["user__log_spend_50"], math.log1p(relative), rtol=1e-6)


def test_files_of_the_form_without_values(tmp_path):
    """Those of version 0.1.0 have neither the parameter nor the amounts of keys."""
    X, Y = log_with_spend()
    Y = Y.drop(columns="spend")
    history = make_with_spend(values=None).fit(X, Y)
    history.save(tmp_path / "new")
    values, arrays = read_file(tmp_path / "new")
    values["form"] = 5
    assert "amounts" in str(values)
    _without_values(values)
    assert "amounts" not in str(values)
    assert "'values': None" not in str(values)
    write_file(tmp_path / "old", values, arrays)
    old = HistoryFeatures.load(tmp_path / "old")
    later = X[::20].assign(time=X["time"].max() + pd.Timedelta("5h"))
    pd.testing.assert_frame_equal(old.transform(later), history.transform(later))
    assert old.get_params() == history.get_params()


def _without_values(content):
    """Remove the fields of values from the plain values of a file."""
    if isinstance(content, list):
        for entry in content:
            _without_values(entry)
    if isinstance(content, dict):
        for name in ("values", "amounts"):
            if not content.get(name, True):
                del content[name]
        for entry in content.values():
            _without_values(entry)


@pytest.mark.parametrize("in_store", [False, True])
def test_an_amount_is_completed_with_its_event(in_store):
    X, Y = small_log()
    history = small(label_delay=20).fit(X[:5], Y[:5] * np.nan)
    server = StoredHistory.write(history, {}) if in_store else history
    row = {"user": "a", "t": 30}
    before = server.transform_row(row)
    with pytest.raises(ValueError, match="column 'spend' of y contains 10 in row 0"):
        server.complete(X[:5], Y[:5].assign(buy=np.nan))
    np.testing.assert_equal(server.transform_row(row), before)
    server.complete(X[:5], Y[:5])
    expected = small(label_delay=20).fit(X[:5], Y[:5]).transform_row(row)
    assert expected["user__log_spend"] > 0
    assert_allclose(list(server.transform_row(row).values()), list(expected.values()))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ("spend", TypeError, "values must map columns of labels to the tasks"),
        ({"spend": None}, ValueError, "values must name the task under which amounts"),
        ({"price": "buy"}, ValueError, "values has the column 'price', which y lacks"),
        ({"spend": "by"}, ValueError, "values has the task 'by' for column 'spend'"),
        ({"spend": "buy", -1: "buy"}, ValueError, "values names column 1 of y twice"),
    ],
)
def test_wrong_values(values, error, message):
    with pytest.raises(error, match=message):
        small(values=values).fit(*small_log())


def test_wrong_amounts_change_nothing():
    X, Y = small_log()
    history = small().fit(X[:5], Y[:5])
    before = history.transform_row({"user": "b", "t": 10})
    wrong = pd.DataFrame({"buy": [1], "spend": [-1.0]})
    with pytest.raises(ValueError, match="column 'spend' of y contains -1 in row 0"):
        history.update(X[5:], wrong)
    with pytest.raises(ValueError, match="values has the column 'spend', which y"):
        history.update(X[5:], pd.DataFrame({"buy": [1], "price": [1.0]}))
    np.testing.assert_equal(history.transform_row({"user": "b", "t": 10}), before)
