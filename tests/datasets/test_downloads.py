"""Loaders of downloaded logs on generated files, and on the real ones."""

import os
import sys
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import train_test_split

from sk_pwiser.datasets import (
    load_ali_ccp,
    load_aliexpress,
    load_hillstrom,
    load_kuairand,
)

LOADERS = {
    "load_ali_ccp": load_ali_ccp,
    "load_aliexpress": partial(load_aliexpress, country="NL"),
    "load_hillstrom": load_hillstrom,
    "load_kuairand": load_kuairand,
}


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        *((name, {"subset": "valid"}, "subset must .*'valid'") for name in LOADERS),
        *((name, {"path": 3}, "PathLike") for name in LOADERS),
        ("load_ali_ccp", {"multi_valued": ["1"]}, r"multi_valued .* got \['1'\]"),
        ("load_aliexpress", {"country": "XX"}, "country must .*'XX'"),
        ("load_kuairand", {"second": "like"}, "second must .*'like'"),
    ],
)
def test_bad_parameters_are_named(name, parameters, message):
    with pytest.raises((ValueError, TypeError), match=message):
        LOADERS[name](**{"path": ".", **parameters})


@pytest.mark.parametrize(
    ("name", "package"),
    [*((name, "pandas") for name in LOADERS), ("load_kuairand", "pyarrow")],
)
def test_the_extra_is_named(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"needs {package}: pip install .*pyarrow \(extra \[pandas\]"
    with pytest.raises(ImportError, match=message):
        LOADERS[name](".")


pandas = pytest.importorskip("pandas")
DATA = os.environ.get("SK_PWISER_DATA")
needs_data = pytest.mark.skipif(
    not DATA, reason="SK_PWISER_DATA does not point to the downloaded data"
)
HILLSTROM_FILE = (
    "Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv"
)
# Values of the features.
HILLSTROM = {
    "recency": range(1, 13),
    "history_segment": ["1) $0 - $100", "2) $100 - $200"],
    "history": np.arange(30, 3000, 0.25),
    "mens": [0, 1],
    "womens": [0, 1],
    "zip_code": ["Urban", "Surburban", "Rural"],
    "newbie": [0, 1],
    "channel": ["Phone", "Web"],
    "segment": ["No E-Mail", "Mens E-Mail"],
}


def draw(rng, n_rows, values):
    """Return a table whose columns are drawn from the given values."""
    return pandas.DataFrame({name: rng.choice(v, n_rows) for name, v in values.items()})


@pytest.fixture
def hillstrom(tmp_path):
    """Return a file in the published layout, and its table."""
    rng = np.random.default_rng(0)
    depth = rng.choice(3, 200, p=[0.7, 0.2, 0.1])
    labels = {"visit": (depth > 0) * 1, "conversion": (depth > 1) * 1}
    table = draw(rng, 200, HILLSTROM).assign(**labels, spend=29.99 * (depth > 1))
    file = tmp_path / "hillstrom" / HILLSTROM_FILE
    file.parent.mkdir()
    table.to_csv(file, index=False)
    return file, table


def test_hillstrom_rows(hillstrom):
    file, table = hillstrom
    bunch = load_hillstrom(file)
    assert list(bunch.data.columns) == bunch.feature_names == [*HILLSTROM]
    assert list(bunch.target.columns) == bunch.task_names == ["visit", "conversion"]
    for name in HILLSTROM:
        amount = name in ("recency", "history")
        assert bunch.data[name].dtype == ("float64" if amount else "category")
        assert_array_equal(bunch.data[name], table[name])
    assert_array_equal(bunch.target, table[["visit", "conversion"]])
    assert "Hillstrom" in bunch.DESCR


def test_hillstrom_split(hillstrom):
    file, table = hillstrom
    depth = table["visit"] + table["conversion"]
    train, test = train_test_split(table, test_size=0.3, stratify=depth, random_state=0)
    whole = load_hillstrom(file)
    assert_array_equal(np.flatnonzero(whole.is_test), np.sort(test.index))
    for subset, rows in [("train", train), ("test", test)]:
        part = load_hillstrom(file, subset=subset)
        rows = rows.sort_index()
        assert list(part.data.index) == list(part.target.index)
        assert list(part.data.index) == list(range(len(rows)))
        assert_array_equal(part.data["history"], rows["history"])
        assert_array_equal(part.target, rows[["visit", "conversion"]])
        assert set(part.is_test) == {subset == "test"}
        assert len(part.is_test) == len(rows)


def test_hillstrom_paths(hillstrom):
    file, _ = hillstrom
    expected = load_hillstrom(file).data
    for path in (str(file), file.parent, str(file.parent.parent)):
        pandas.testing.assert_frame_equal(load_hillstrom(path).data, expected)
    other = file.rename(file.with_name("campaign.csv"))
    pandas.testing.assert_frame_equal(load_hillstrom(other).data, expected)
    for path in (file.parent, file, file.parent / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"Kevin_.*Download.*minethatdata"):
            load_hillstrom(path)


def test_hillstrom_faults(hillstrom):
    file, table = hillstrom
    for column in ("newbie", "visit"):
        table.drop(columns=column).to_csv(file, index=False)
        with pytest.raises(ValueError, match=rf"lacks .*'{column}'"):
            load_hillstrom(file)
    table.loc[[5, 6], "conversion"] = 7
    table.to_csv(file, index=False)
    message = r"'conversion'.*must contain 0 or 1.*7.*2 row"
    with pytest.raises(ValueError, match=message):
        load_hillstrom(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines, "1,2"], "line 202: expected 12 fields, found 2"),
        (lambda lines: [lines[0]] + [f"{x},1" for x in lines[1:]], "line 2: expected"),
        (lambda lines: [*lines, "x" + ",1" * 11], "line 202: column 'recency' must"),
        (lambda lines: [*lines, "1,\udcff" + ",1" * 10], "line 202: .* UTF-8 text"),
        (lambda lines: [lines[0], '"' + "1" * 200_000], "is damaged: field larger"),
        (lambda lines: [], "lacks the column"),
    ],
)
def test_hillstrom_lines_that_cannot_be_read(hillstrom, change, message):
    file, _ = hillstrom
    text = "\n".join(change(file.read_text().splitlines()))
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"{HILLSTROM_FILE}(, | ){message}"):
        load_hillstrom(file)


def test_an_archive_is_named(hillstrom):
    archive = hillstrom[0].with_suffix(".zip")
    archive.touch()
    with pytest.raises(ValueError, match=r"\.zip is an archive; unpack it"):
        load_hillstrom(archive)


@needs_data
def test_real_hillstrom():
    bunch = load_hillstrom(DATA)
    assert bunch.data.shape == (64_000, 9)
    assert_allclose(bunch.target.mean(), [0.147, 0.0090], atol=0.0005)
    assert (bunch.target["conversion"] <= bunch.target["visit"]).all()
    assert bunch.is_test.sum() == 19_200
    rates = bunch.target.groupby(bunch.is_test).mean()
    assert_allclose(rates.loc[True], rates.loc[False], atol=1e-4)


pytest.importorskip("pyarrow")
TRAIN_FILE = "val_20220425_20220430.parquet"
TEST_FILE = "test_20220501_20220508.parquet"
COUNTS = ["follow_user_num", "fans_user_num", "friend_user_num", "register_days"]
ENGAGEMENTS = ["is_like", "is_follow", "is_comment", "is_forward", "is_profile_enter"]
RANGES = ["0", "[1,5)", "[5,30)", "UNKNOWN"]
USERS = {"user_active_degree": RANGES}
for name in ("is_lowactive_period", "is_live_streamer", "is_video_author"):
    USERS[name] = [0, 1]
for name in COUNTS:
    USERS |= {name: range(500), f"{name}_range": RANGES}
for number in range(18):
    last = np.nan if number in (4, 12, 17) else 3
    USERS[f"onehot_feat{number}"] = [0.0, 1.0, 2.0, last]
VIDEOS = {
    "author_id": range(5),
    "video_type": ["NORMAL", "AD"],
    "upload_dt": ["2022-04-10"],
    "upload_type": ["Web", "Kmovie"],
    "visible_status": [0.0],
    "video_duration": [1234.5, 6e4, np.nan],
    "music_id": range(5),
    "tag": ["39", "7", "20,43", None],
}
IMPRESSIONS = {
    "date": [20220425],
    "hourmin": range(30, 2400, 100),
    "tab": range(9),
    # Columns that the video table has, too, with other values.
    "author_id": [-1],
    "tag": ["unknown"],
    "upload_dt": ["2022-04-11"],
    "video_duration": [1.0],
}
for name in ("is_click", *ENGAGEMENTS, "is_hate", "long_view", "is_rand"):
    IMPRESSIONS[name] = [0, 1]


def draw_impressions(rng, n_rows, users, videos, start):
    keys = {"user_id": users["user_id"][1:], "video_id": videos["video_id"][1:]}
    rows = draw(rng, n_rows, {**keys, **IMPRESSIONS})
    return rows.assign(time_ms=start + np.arange(n_rows)).convert_dtypes()


@pytest.fixture
def kuairand(tmp_path):
    """Return a folder with files in the published layout, and their tables."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "kuairand_pure"
    folder.mkdir()
    users = draw(rng, 12, USERS).assign(user_id=100 + rng.permutation(12))
    videos = draw(rng, 15, VIDEOS).assign(video_id=900 + rng.permutation(15))
    train = draw_impressions(rng, 40, users, videos, 1_650_812_741_436)
    test = draw_impressions(rng, 25, users, videos, 1_651_330_969_569)
    users.to_csv(folder / "user_features_pure.csv", index=False)
    videos.to_csv(folder / "video_features_basic_pure.csv", index=False)
    train.to_parquet(folder / TRAIN_FILE)
    test.to_parquet(folder / TEST_FILE)
    return folder, users, videos, train, test


def expected_row(row, users, videos):
    """Return the features of one impression, looked up one by one."""
    user = users[users["user_id"] == row["user_id"]].iloc[0]
    video = videos[videos["video_id"] == row["video_id"]].iloc[0]
    expected = {"user_id": row["user_id"], "video_id": row["video_id"]}
    expected |= {"tab": row["tab"], "hour": row["hourmin"] // 100}
    expected |= user.drop("user_id").to_dict()
    names = ["author_id", "video_type", "upload_type", "visible_status"]
    names += ["video_duration", "music_id", "tag"]
    return expected | {name: video[name] for name in names}


@pytest.mark.parametrize("subset", ["all", "train", "test"])
def test_kuairand_joins_every_row(kuairand, subset):
    folder, users, videos, train, test = kuairand
    bunch = load_kuairand(str(folder.parent), subset=subset)
    both = pandas.concat([train, test], ignore_index=True)
    log = {"all": both, "train": train, "test": test}[subset]
    assert bunch.data.shape == (len(log), 41)
    assert list(bunch.data.index) == list(bunch.target.index) == list(range(len(log)))
    assert list(bunch.data.columns) == bunch.feature_names
    for position, (_, row) in enumerate(log.iterrows()):
        expected = expected_row(row, users, videos)
        assert bunch.feature_names == list(expected)
        for name, value in expected.items():
            found = bunch.data[name].iloc[position]
            same = pandas.isna(found) if pandas.isna(value) else found == value
            assert same, (position, name, found, value)
    assert bunch.data.isna().to_numpy().any()
    assert_array_equal(bunch.target["click"], log["is_click"])
    assert_array_equal(bunch.time_ms, log["time_ms"])
    assert bunch.time_ms.dtype == np.int64
    assert_array_equal(bunch.is_test, log["time_ms"] >= test["time_ms"].min())
    assert "CC BY-SA 4.0" in bunch.DESCR


def test_kuairand_dtypes_and_categories(kuairand):
    folder, users, *_ = kuairand
    data = load_kuairand(folder, subset="test").data
    amounts = [*COUNTS, "video_duration"]
    for name in data.columns:
        if name in amounts:
            assert data[name].dtype == np.float64, name
            continue
        assert data[name].dtype == "category", name
        # The values in the returned rows, not all values in the tables.
        assert set(data[name].cat.categories) == set(data[name].dropna()), name
        codes = name.startswith(("onehot_feat", "is_")) or name.endswith("_id")
        if codes or name in ("tab", "hour", "visible_status"):
            assert data[name].cat.categories.dtype == np.int64, name
    assert users["user_id"].iloc[0] not in set(data["user_id"].cat.categories)
    assert "20,43" in set(data["tag"].cat.categories)


REACTIONS = ["like", "follow", "comment", "forward", "profile"]
# The columns of the tasks after the click.
TASKS = {
    "engage": {"engage": ENGAGEMENTS},
    "long": {"long": ["long_view"]},
    "reactions": {n: [c] for n, c in zip(REACTIONS, ENGAGEMENTS, strict=True)},
}


@pytest.mark.parametrize("second", TASKS)
def test_kuairand_labels_are_nested(kuairand, second):
    folder, _, _, train, _ = kuairand
    bunch = load_kuairand(folder, second, subset="train")
    tasks = TASKS[second]
    assert list(bunch.target.columns) == bunch.task_names == ["click", *tasks]
    assert bunch.task_parents == dict.fromkeys(tasks, "click")
    assert_array_equal(bunch.target["click"], train["is_click"])
    for name, columns in tasks.items():
        for label, (_, row) in zip(bunch.target[name], train.iterrows(), strict=True):
            assert label == int(row["is_click"] and any(row[c] for c in columns))
        # Labels that are not nested would differ.
        assert (train[columns].max(axis=1) > train["is_click"]).any()
    assert all(dtype.kind == "i" for dtype in bunch.target.dtypes)


def test_kuairand_tags_are_texts_even_if_all_look_like_numbers(kuairand):
    folder, _, videos, *_ = kuairand
    videos["tag"] = "39"
    videos.to_csv(folder / "video_features_basic_pure.csv", index=False)
    assert list(load_kuairand(folder).data["tag"].cat.categories) == ["39"]


def test_kuairand_keeps_large_ids_beside_missing_ones(kuairand):
    folder, _, videos, *_ = kuairand
    texts = [str(2**53 + number) for number in range(4)] + [""]
    videos["music_id"] = [texts[number % 5] for number in range(len(videos))]
    videos.to_csv(folder / "video_features_basic_pure.csv", index=False)
    data = load_kuairand(folder).data
    music = dict(zip(videos["video_id"], videos["music_id"], strict=True))
    expected = [music[video] for video in data["video_id"]]
    assert set(texts) == set(expected)
    found = ["" if pandas.isna(x) else str(x) for x in data["music_id"]]
    assert found == expected


@pytest.mark.parametrize(
    ("file", "column", "value", "message"),
    [
        ("user_features_pure.csv", "user_id", "", "'user_id' must contain a whole"),
        ("user_features_pure.csv", "user_id", None, "'user_id' .* earlier line"),
        ("user_features_pure.csv", "fans_user_num", "inf", "'fans_user_num' .* finite"),
        ("video_features_basic_pure.csv", "video_id", None, "'video_id' .* earlier"),
        ("video_features_basic_pure.csv", "video_duration", "x", "contain a finite"),
        ("video_features_basic_pure.csv", "tag", "1,2", "expected .* fields"),
    ],
)
def test_kuairand_faults_of_users_and_videos(kuairand, file, column, value, message):
    path = kuairand[0] / file
    table = pandas.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[2, column] = table[column][0] if value is None else value
    text = table.to_csv(index=False).replace('"1,2"', "1,2")
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{file}, line 4: .*{message}"):
        load_kuairand(kuairand[0])
    # A file that was not copied to its end.
    lines = text.splitlines()
    path.write_text("\n".join([*lines[:3], lines[3][: len(lines[3]) // 2]]))
    with pytest.raises(ValueError, match=rf"{file}, line 4: expected .* fields, found"):
        load_kuairand(kuairand[0])


def test_kuairand_needs_only_the_files_of_the_subset(kuairand):
    folder = kuairand[0]
    (folder / TEST_FILE).unlink()
    assert len(load_kuairand(folder, subset="train").data) == 40
    with pytest.raises(FileNotFoundError, match=rf"{TEST_FILE}.*Download KuaiRand"):
        load_kuairand(folder)


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("user_features_pure.csv", "onehot_feat7"),
        ("user_features_pure.csv", "user_id"),
        ("video_features_basic_pure.csv", "music_id"),
        (TRAIN_FILE, "is_click"),
        (TRAIN_FILE, "is_comment"),
        (TRAIN_FILE, "hourmin"),
    ],
)
def test_kuairand_missing_column(kuairand, file, column):
    path = kuairand[0] / file
    if path.suffix == ".csv":
        pandas.read_csv(path).drop(columns=column).to_csv(path, index=False)
    else:
        pandas.read_parquet(path).drop(columns=column).to_parquet(path)
    with pytest.raises(ValueError, match=rf"{file} lacks .*'{column}'"):
        load_kuairand(kuairand[0])


@pytest.mark.parametrize("value", [2, None])
def test_kuairand_raises_on_bad_labels(kuairand, value):
    folder, _, _, train, _ = kuairand
    train.loc[3, "is_like"] = value
    train.to_parquet(folder / TRAIN_FILE)
    with pytest.raises(ValueError, match=r"'is_like'.*must contain 0 or 1.*1 row"):
        load_kuairand(folder)


LOG_FILE = "log_standard_4_22_to_5_08_pure.csv"


@pytest.fixture
def published(kuairand):
    """Return a folder with the publisher's csv file, its rows, and the result."""
    folder, _, _, train, test = kuairand
    train["date"] = 20220425 + np.arange(len(train)) % 6
    test["date"] = 20220501 + np.arange(len(test)) % 8
    early = train.iloc[:7].assign(date=20220424)
    for name, rows in [(TRAIN_FILE, train), (TEST_FILE, test)]:
        rows.to_parquet(folder / name)
    expected = load_kuairand(folder)
    for name in (TRAIN_FILE, TEST_FILE):
        (folder / name).unlink()
    names = ["user_id", "video_id", "date", "hourmin", "time_ms", "is_click"]
    names += [*ENGAGEMENTS, "long_view", "tab", "is_rand"]
    log = pandas.concat([test, early, train])[names].sample(frac=1, random_state=0)
    log = log.reset_index(drop=True)
    log.to_csv(folder / LOG_FILE, index=False)
    return folder, log, expected


def test_kuairand_splits_the_published_file_by_date(published, tmp_path):
    folder, _, expected = published
    bunch = load_kuairand(folder)
    pandas.testing.assert_frame_equal(bunch.data, expected.data)
    pandas.testing.assert_frame_equal(bunch.target, expected.target)
    assert_array_equal(bunch.time_ms, expected.time_ms)
    assert_array_equal(bunch.is_test, expected.is_test)
    test = load_kuairand(folder, subset="test")
    assert_array_equal(test.time_ms, expected.time_ms[expected.is_test])
    # The folders in which the archive of the publisher unpacks.
    (tmp_path / "KuaiRand-Pure").mkdir()
    folder.rename(tmp_path / "KuaiRand-Pure" / "data")
    for path in (tmp_path, tmp_path / "KuaiRand-Pure"):
        assert len(load_kuairand(path).data) == 65


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("is_like", "2", "line 6: column 'is_like' must contain 0 or 1, found .*2"),
        ("tab", "x", "line 6: column 'tab' must contain a whole .*, found 'x'"),
        ("time_ms", "", "line 6: column 'time_ms' must contain a whole number of"),
    ],
)
def test_kuairand_faults_name_file_and_line(published, column, value, message):
    folder, log, _ = published
    log = log.astype(str)
    log.loc[4, column] = value
    log.to_csv(folder / LOG_FILE, index=False)
    with pytest.raises(ValueError, match=rf"{LOG_FILE}, {message}"):
        load_kuairand(folder)


@needs_data
def test_real_kuairand():
    bunch = load_kuairand(DATA)
    assert bunch.data.shape == (94_784 + 133_545, 41)
    assert bunch.is_test.sum() == 133_545
    assert_allclose(bunch.target.mean(), [0.44, 0.033], atol=0.005)
    # Most impressions of the hour before midnight have the date of the next day.
    overlap = bunch.time_ms[~bunch.is_test].max() - bunch.time_ms[bunch.is_test].min()
    assert overlap < 3_600_000
    # Every id is found; missing values are missing in the tables.
    assert bunch.data[["user_active_degree", "author_id"]].notna().all(axis=None)
    bunch = load_kuairand(DATA, "long", subset="train")
    assert len(bunch.data) == 94_784
    assert (bunch.target["long"] <= bunch.target["click"]).all()
    assert_allclose(bunch.target["long"].mean(), 0.31, atol=0.02)
