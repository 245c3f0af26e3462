"""Histories on disk: what comes back, and what is refused."""

from datetime import timedelta

import impressions_over_time
import numpy as np
import pandas as pd
import pytest

from sk_pwiser._model_files import write_file
from sk_pwiser.history import HistoryFeatures


def make_log(n=400, days=0, seed=0):
    """Return impressions of ten days from a day on; some labels are missing."""
    X, Y = impressions_over_time.make_log(n, ctr=0.3, cvr=0.3, seed=seed)
    time = (X["time"] + pd.Timedelta(days=days)).dt.tz_localize("UTC")
    missing = np.random.default_rng(seed).random((n, 2)) < 0.1
    return X.assign(time=time), Y.astype(float).mask(missing)


def make():
    return HistoryFeatures(
        ["user", ("user", "item")],
        time="time",
        label_delay={"click": 0, "conversion": timedelta(hours=2)},
        windows=[np.timedelta64(1, "D")],
        half_lives=("12h",),
        lists=[{"column": "item", "task": "click", "ages": "values", "n": 3}],
        max_age="3d",
    )


def read_back(history, path):
    history.save(path)
    return HistoryFeatures.load(path)


def test_what_comes_back_continues(tmp_path):
    X, Y = make_log()
    later = make_log(200, days=10, seed=1)
    last, _ = make_log(50, days=32, seed=2)
    history = make().fit(X, Y)
    path = tmp_path / "history"
    loaded = read_back(history, path)
    assert loaded.end_ == history.end_
    assert loaded.get_params() == history.get_params()
    assert loaded.task_names_ == history.task_names_
    assert list(loaded.get_feature_names_out()) == list(history.get_feature_names_out())
    for _ in range(2):
        expected = history.replay(*later, update=True)
        pd.testing.assert_frame_equal(loaded.replay(*later, update=True), expected)
        pd.testing.assert_frame_equal(loaded.transform(last), history.transform(last))
        later = make_log(100, days=21, seed=3)
        loaded = read_back(loaded, path)


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "history.safetensors"
    values = {"class": "Other", "result": {"~": "object", "class": "X", "items": {}}}
    write_file(path, values, {})
    with pytest.raises(ValueError, match="it is one of 'Other'"):
        HistoryFeatures.load(path)


def test_values_that_a_file_cannot_hold(tmp_path):
    X, Y = make_log(20)
    X["user"] = [frozenset([object()])] * 20
    history = HistoryFeatures(["user"], time="time").fit(X, Y)
    with pytest.raises(TypeError, match="cannot be saved"):
        history.save(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_durations_of_pandas(tmp_path):
    X, Y = make_log(20)
    windows = [pd.Timedelta("3h") + pd.Timedelta(1)]
    history = HistoryFeatures(["user"], time="time", windows=windows).fit(X, Y)
    assert read_back(history, tmp_path / "file").windows == history.windows


def test_integers_beyond_int64_stay_exact(tmp_path):
    ids, path = [2**63 + 1, 3, 2**63 + 2], tmp_path / "history"
    lists = [{"column": "user", "n": 2}]
    history = HistoryFeatures(["user"], time="t", passthrough=False, lists=lists)
    history.fit(pd.DataFrame({"user": ids, "t": [1, 2, 3]}))
    loaded = read_back(history, path)
    for each in (history, loaded):
        found = each.transform(pd.DataFrame({"user": ids, "t": 5}))
        assert found["user__since_impression"].tolist() == [4, 3, 2]
        assert found["user__last_user"].tolist() == [[i] for i in ids]
        row = each.transform_row({"user": 2**63 + 1, "t": 5})
        assert row["user__last_user"] == ids[:1]


@pytest.mark.parametrize("form", ["memory", "file"])
def test_kinds_of_dropped_values_are_remembered(form, tmp_path):
    """Keys of two kinds were accepted, and are so after all keys of one are dropped."""
    users = np.array(["a", 1, 2, 3], dtype=object)
    X = pd.DataFrame({"user": users, "t": [9, 0, 0, 0]})
    history = HistoryFeatures(["user"], time="t", max_age=3).fit(X)
    assert history._state.indices["user"].values == ["a"]
    path = tmp_path / "history"
    if form == "file":
        history.save(path)
        history = HistoryFeatures.load(path)
    history.update(pd.DataFrame({"user": [4], "t": [10]}))
    assert history.transform_row({"user": 4, "t": 12})["user__since_impression"] == 2
