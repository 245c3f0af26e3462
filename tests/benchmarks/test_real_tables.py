"""The tables of the benchmarks: readers of files, and generated columns."""

import numpy as np
import pytest

pd = pytest.importorskip("pandas")


def make_aliexpress(n_rows):
    """Return a table in the layout of the publisher, with random values."""
    generator = np.random.default_rng(n_rows)
    columns = {"search_id": np.arange(n_rows)}
    for number in range(1, 17):
        columns[f"categorical_{number}"] = generator.integers(0, n_rows, n_rows)
    for number in range(1, 64):
        columns[f"numerical_{number}"] = generator.random(n_rows).round(4)
    click = generator.integers(0, 2, n_rows)
    columns["click"] = click
    columns["conversion"] = click * generator.integers(0, 2, n_rows)
    return pd.DataFrame(columns)


def test_aliexpress_is_read_in_its_processed_form(tmp_path, module):
    folder = tmp_path / "AliExpress_FR"
    folder.mkdir()
    tables = {name: make_aliexpress(n) for name, n in [("train", 40), ("test", 60)]}
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    found = module("_real_tables").load_tables("aliexpress-fr", tmp_path)
    assert found.X.shape == (40, 79)
    assert found.X_test.shape == (60, 79)
    assert "search_id" not in found.X
    assert (found.X.dtypes.iloc[:16] == "category").all()
    assert (found.X.dtypes.iloc[16:] == np.float32).all()
    for name, X, Y in (
        ("train", found.X, found.Y),
        ("test", found.X_test, found.Y_test),
    ):
        np.testing.assert_allclose(
            X.astype(float), tables[name].iloc[:, 1:-2].astype(float), rtol=1e-6
        )
        np.testing.assert_array_equal(Y, tables[name][["click", "conversion"]])


ALI_CCP = "click,purchase,101,121,122,124,125,126,127,128,129,205,206,207,216,508,509,\
702,853,301"


def test_ali_ccp_keeps_rows_of_a_purchase_without_a_click(tmp_path, module, capsys):
    folder = tmp_path / "ali_ccp"
    folder.mkdir()
    codes = ",".join(str(code) for code in range(18))
    labels = ["0,0", "1,0", "1,1", "0,1"]
    for name in ("train", "test"):
        rows = "\n".join(f"{label},{codes}" for label in labels)
        (folder / f"{name}.csv").write_text(f"{ALI_CCP}\n{rows}\n")
    found = module("_real_tables").load_tables("ali-ccp", tmp_path)
    assert found.X.shape == (4, 18)
    assert (found.X.dtypes == "category").all()
    fields = ALI_CCP.split(",")[2:]
    assert found.X.iloc[0][fields].tolist() == list(range(18))
    np.testing.assert_array_equal(found.Y, [[0, 0], [1, 0], [1, 1], [0, 0]])
    assert "1 rows with conversion = 1 and click = 0" in capsys.readouterr().out


def test_absent_and_incomplete_files_raise(tmp_path, module):
    load_tables = module("_real_tables").load_tables
    with pytest.raises(FileNotFoundError, match="AliExpress_NL/train"):
        load_tables("aliexpress-nl", tmp_path)
    folder = tmp_path / "ali_ccp"
    folder.mkdir()
    (folder / "train.csv").write_text("click,101\n1,2\n")
    with pytest.raises(ValueError, match=r"lacks the column\(s\) .*'121'"):
        load_tables("ali-ccp", tmp_path)


def test_the_validation_part_splits_the_training_rows(tmp_path, module):
    table = make_aliexpress(100)
    folder = tmp_path / "aliexpress" / "AliExpress_US"
    folder.mkdir(parents=True)
    table.to_csv(folder / "train.csv", index=False)
    table.iloc[:0].to_csv(folder / "test.csv", index=False)
    found = module("_real_tables").load_tables("aliexpress-us", tmp_path, "validation")
    assert len(found.X) == 70
    assert len(found.X_test) == 30


ADULT = """age,workclass,education,marital-status,relationship,hours-per-week,income
38,Private,HS-grad,Married-civ-spouse,Husband,50,<=50K
44,Private,Some-college,Married-AF-spouse,Wife,40,>50K
18,?,Some-college,Never-married,Own-child,30,>50K
"""


def test_adults_without_the_columns_of_the_labels(tmp_path, module):
    folder = tmp_path / "adult"
    folder.mkdir()
    (folder / "adult.csv").write_text(ADULT)
    found = module("_real_tables").load_tables("adult", tmp_path)
    rows = pd.concat([found.X, found.X_test]).sort_values("age")
    assert rows.columns.tolist() == ["age", "workclass", "education", "hours-per-week"]
    assert rows["age"].tolist() == [18, 38, 44]
    assert rows.dtypes.tolist()[1:3] == ["category"] * 2
    Y = pd.concat([found.Y, found.Y_test]).loc[rows.index]
    np.testing.assert_array_equal(Y, [[0, 0], [1, 0], [1, 1]])


def test_generated_columns_depend_on_the_seed(module):
    columns_40 = module("_columns_40").columns_40
    (X, Y), (again, _), (other, _) = (columns_40(seed) for seed in (0, 0, 1))
    assert X.shape == (60_000, 40)
    assert (Y["second"] <= Y["first"]).all()
    assert 0.2 < Y["first"].mean() < 0.3
    assert 0.05 < Y["second"].mean() < 0.08
    pd.testing.assert_frame_equal(X, again)
    assert not X.equals(other)
