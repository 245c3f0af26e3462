"""Histories on disk: what comes back, and what is refused."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from sk_pwiser.history import HistoryFeatures


def make_log(n=400, start=0, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "user": rng.integers(0, 20, n),
            "page": [f"page {i}" for i in rng.integers(0, 9, n)],
            "time": pd.Timestamp("2026-01-01", tz="UTC")
            + pd.to_timedelta(
                start + np.sort(rng.integers(0, 5 * 86_400, n)), unit="s"
            ),
        }
    )
    click = rng.random(n) < 0.3
    Y = pd.DataFrame({"click": click, "conversion": click & (rng.random(n) < 0.3)})
    return X, Y.astype(float).mask(rng.random((n, 2)) < 0.1)


def make():
    return HistoryFeatures(
        ["user", ("user", "page")],
        time="time",
        label_delay={"conversion": timedelta(hours=2)},
        windows=[np.timedelta64(1, "D")],
        half_lives=("12h",),
        lists=[{"column": "page", "task": "click", "ages": "values", "n": 3}],
        max_age="3d",
    )


def read_back(history, form, path):
    if form == "file":
        history.save(path)
        return HistoryFeatures.load(path)
    history.write_parquet(path)
    return HistoryFeatures.read_parquet(path)


@pytest.mark.parametrize("form", ["file", "parquet"])
def test_what_comes_back_continues(form, tmp_path):
    X, Y = make_log()
    later = make_log(200, start=5 * 86_400, seed=1)
    last, _ = make_log(50, start=16 * 86_400, seed=2)
    history = make().fit(X, Y)
    path = tmp_path / "history"
    loaded = read_back(history, form, path)
    assert loaded.end_ == history.end_
    assert loaded.task_names_ == history.task_names_
    assert list(loaded.get_feature_names_out()) == list(history.get_feature_names_out())
    for _ in range(2):
        expected = history.replay(*later, update=True)
        pd.testing.assert_frame_equal(loaded.replay(*later, update=True), expected)
        pd.testing.assert_frame_equal(loaded.transform(last), history.transform(last))
        later = make_log(100, start=10 * 86_400 + 1, seed=3)
        if form == "file":
            loaded.save(path)
            loaded = HistoryFeatures.load(path)


def test_parquet_holds_readable_totals(tmp_path):
    X, Y = make_log()
    HistoryFeatures(["page"], time="time").fit(X, Y).write_parquet(tmp_path / "new")
    keys = pd.read_parquet(tmp_path / "new" / "key_0.parquet").set_index("page")
    rows = pd.read_parquet(tmp_path / "new" / "rows_0.parquet")
    counts = keys["total:count"].sum() + len(rows)
    assert counts == len(X)
    is_old = X["time"] < X["time"].max()
    expected = X[is_old].groupby("page").size()
    pd.testing.assert_series_equal(
        keys["total:count"].sort_index(), expected, check_names=False
    )
    with pytest.raises(FileExistsError, match="must be empty"):
        HistoryFeatures(["page"], time="time").fit(X, Y).write_parquet(tmp_path / "new")


def test_damaged_and_foreign_files_are_refused(tmp_path):
    X, Y = make_log(50)
    path = tmp_path / "history.safetensors"
    history = make().fit(X, Y)
    history.save(path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged or was altered"):
        HistoryFeatures.load(path)
    with pytest.raises(FileNotFoundError):
        HistoryFeatures.read_parquet(tmp_path / "absent")
    folder = tmp_path / "folder"
    history.write_parquet(folder)
    (folder / "rows_0.parquet").unlink()
    with pytest.raises(ValueError, match="holds no valid history"):
        HistoryFeatures.read_parquet(folder)


def test_values_that_a_file_cannot_hold(tmp_path):
    X, Y = make_log(20)
    X["user"] = [frozenset([object()])] * 20
    history = HistoryFeatures(["user"], time="time").fit(X, Y)
    with pytest.raises(TypeError, match="cannot be saved"):
        history.save(tmp_path / "file")
    assert not list(tmp_path.iterdir())
    mixed = X.assign(user=np.array([1, "a"] * 10, dtype=object))
    history = HistoryFeatures(["user"], time="time").fit(mixed, Y)
    with pytest.raises(TypeError, match="'user' has values of several types"):
        history.write_parquet(tmp_path / "folder")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["file", "parquet"])
def test_integers_beyond_int64_stay_exact(form, tmp_path):
    ids, path = [2**63 + 1, 3, 2**63 + 2], tmp_path / "history"
    lists = [{"column": "user", "n": 2}]
    history = HistoryFeatures(["user"], time="t", passthrough=False, lists=lists)
    history.fit({"user": ids, "t": [1, 2, 3]})
    loaded = read_back(history, form, path)
    for each in (history, loaded):
        found = each.transform(pd.DataFrame({"user": ids, "t": 5}))
        assert found["user__since_impression"].tolist() == [4, 3, 2]
        assert found["user__last_user"].tolist() == [[i] for i in ids]
        row = each.transform_row({"user": 2**63 + 1, "t": 5})
        assert row["user__last_user"] == ids[:1]


def test_integers_without_a_type_of_arrow(tmp_path):
    X = {"user": [-1, 2**63 + 1, -1], "t": [1, 2, 3]}
    history = HistoryFeatures(["user"], time="t", lists=[{"column": "user"}])
    found = history.fit_transform(pd.DataFrame(X))
    assert found["user__last_user"].tolist() == [[], [], [-1]]
    with pytest.raises(TypeError, match="'user' has values of several types"):
        history.write_parquet(tmp_path / "folder")


def test_a_loaded_history_is_merged_with_its_source(tmp_path):
    X, Y = make_log()
    history, path = make().fit(X, Y), tmp_path / "history"
    history.save(path)
    last, _ = make_log(50, start=7 * 86_400, seed=2)
    loaded = HistoryFeatures.load(path).merge(history)
    expected = make().fit(X, Y).merge(loaded.load(path)).transform(last)
    pd.testing.assert_frame_equal(loaded.transform(last), expected)


@pytest.mark.parametrize("form", ["memory", "file", "parquet"])
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
    elif form == "parquet":
        # Parquet holds text alone now.
        history.write_parquet(path)
        history = HistoryFeatures.read_parquet(path)
    history.update(pd.DataFrame({"user": [4], "t": [10]}))
    assert history.transform_row({"user": 4, "t": 12})["user__since_impression"] == 2
