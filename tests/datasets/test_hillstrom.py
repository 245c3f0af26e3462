"""The loader of Hillstrom's campaign on a generated file and on the real one."""

import os

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import train_test_split

from sk_pwiser.datasets import load_hillstrom

pandas = pytest.importorskip("pandas")

DATA = os.environ.get("SK_PWISER_DATA")
needs_data = pytest.mark.skipif(
    not DATA, reason="SK_PWISER_DATA does not point to the downloaded data"
)
HILLSTROM_FILE = (
    "Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv"
)
HILLSTROM_FEATURES = ["recency", "history_segment", "history", "mens", "womens"]
HILLSTROM_FEATURES += ["zip_code", "newbie", "channel", "segment"]


@pytest.fixture
def hillstrom(tmp_path):
    """Return a file in the published layout, and its table."""
    rng = np.random.default_rng(0)
    n_rows = 200
    depth = rng.choice(3, n_rows, p=[0.7, 0.2, 0.1])
    table = pandas.DataFrame(
        {
            "recency": rng.integers(1, 13, n_rows),
            "history_segment": rng.choice(["1) $0 - $100", "2) $100 - $200"], n_rows),
            "history": rng.uniform(30, 3000, n_rows).round(2),
            "mens": rng.integers(0, 2, n_rows),
            "womens": rng.integers(0, 2, n_rows),
            "zip_code": rng.choice(["Urban", "Surburban", "Rural"], n_rows),
            "newbie": rng.integers(0, 2, n_rows),
            "channel": rng.choice(["Phone", "Web"], n_rows),
            "segment": rng.choice(["No E-Mail", "Mens E-Mail"], n_rows),
            "visit": (depth > 0).astype(int),
            "conversion": (depth > 1).astype(int),
            "spend": np.where(depth > 1, 29.99, 0.0),
        }
    )
    file = tmp_path / "hillstrom" / HILLSTROM_FILE
    file.parent.mkdir()
    table.to_csv(file, index=False)
    return file, table


def test_hillstrom_rows(hillstrom):
    file, table = hillstrom
    bunch = load_hillstrom(file)
    assert list(bunch.data.columns) == bunch.feature_names == HILLSTROM_FEATURES
    assert list(bunch.target.columns) == bunch.task_names == ["visit", "conversion"]
    for name in HILLSTROM_FEATURES:
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


@pytest.mark.parametrize("column", ["newbie", "visit"])
def test_hillstrom_missing_column(hillstrom, column):
    file, table = hillstrom
    table.drop(columns=column).to_csv(file, index=False)
    with pytest.raises(ValueError, match=rf"lacks .*'{column}'"):
        load_hillstrom(file)


def test_hillstrom_raises_on_bad_labels(hillstrom):
    file, table = hillstrom
    table.loc[[5, 6], "conversion"] = 7
    table.to_csv(file, index=False)
    with pytest.raises(
        ValueError, match=r"'conversion'.*must contain 0 or 1.*7.*2 row"
    ):
        load_hillstrom(file)


@needs_data
def test_real_hillstrom():
    bunch = load_hillstrom(DATA)
    assert bunch.data.shape == (64_000, 9)
    assert_allclose(bunch.target.mean(), [0.147, 0.0090], atol=0.0005)
    assert (bunch.target["conversion"] <= bunch.target["visit"]).all()
    assert bunch.is_test.sum() == 19_200
    rates = bunch.target.groupby(bunch.is_test).mean()
    assert_allclose(rates.loc[True], rates.loc[False], atol=1e-4)
