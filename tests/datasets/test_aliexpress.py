"""The loader of AliExpress against tables that are written in both of its layouts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser.datasets import load_aliexpress

pandas = pytest.importorskip("pandas")
CATEGORICAL = [f"categorical_{number}" for number in range(1, 17)]
NUMERICAL = [f"numerical_{number}" for number in range(1, 64)]
LABELS = ["click", "conversion"]
USER_CATEGORIES = [2, 3, 4, 5, 6, 7, 8, 32, 33]
ITEM_CATEGORIES = [19, 34, 35, 36, 40, 41, 42]


def draw_processed(rng, n_rows):
    columns = {"search_id": rng.integers(0, 9, n_rows)}
    columns |= {name: rng.integers(0, n_rows, n_rows) for name in CATEGORICAL}
    columns |= {name: rng.random(n_rows).round(4) for name in NUMERICAL}
    depth = rng.permutation(n_rows) % 3
    columns |= {"click": (depth > 0).astype(int), "conversion": (depth > 1).astype(int)}
    return pandas.DataFrame(columns)


@pytest.fixture
def processed(tmp_path):
    """Return the parent of a folder in the processed form, and its tables."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "AliExpress_NL"
    folder.mkdir()
    tables = {"train": draw_processed(rng, 20), "test": draw_processed(rng, 15)}
    for part, table in tables.items():
        table.to_csv(folder / f"{part}.csv", index=False)
    return tmp_path, tables


def draw_raw(rng, n_searches, n_items):
    """Return lines of the user and of the item file, as lists of texts."""

    def cells(name, last, categories):
        return [
            f"{name}.{column}" if column in categories else f"{rng.random():.4f}"
            for column in range(2, last + 1)
        ]

    searches = [f"s{search}" for search in rng.permutation(n_searches)]
    users = [[search, *cells(search, 33, USER_CATEGORIES)] for search in searches]
    items = [
        [rng.choice(searches[1:]), *cells(row, 48, ITEM_CATEGORIES), str(row % 3)]
        for row in range(n_items)
    ]
    return users, items


def write_lines(path, lines):
    path.write_text("".join(",".join(cells) + "\n" for cells in lines))


@pytest.fixture
def raw(tmp_path):
    """Return a folder in the publisher's layout, and its lines."""
    rng = np.random.default_rng(0)
    parts = {"train": draw_raw(rng, 5, 24), "test": draw_raw(rng, 4, 12)}
    for part, tables in parts.items():
        for table, lines in zip(("user", "item"), tables, strict=True):
            write_lines(tmp_path / f"FR_{table}_{part}.csv", lines)
    return tmp_path, parts


def test_processed_rows(processed):
    path, tables = processed
    both = pandas.concat(tables.values(), ignore_index=True)
    bunch = load_aliexpress(path, "NL")
    assert list(bunch.data.columns) == bunch.feature_names == [*CATEGORICAL, *NUMERICAL]
    assert all(bunch.data[CATEGORICAL].dtypes == "category")
    assert all(bunch.data[NUMERICAL].dtypes == np.float32)
    assert_array_equal(bunch.data[CATEGORICAL].astype(int), both[CATEGORICAL])
    assert_allclose(bunch.data[NUMERICAL], both[NUMERICAL], rtol=1e-6)
    assert list(bunch.target.columns) == bunch.task_names == LABELS
    assert_array_equal(bunch.target, both[LABELS])
    assert_array_equal(bunch.search_id, both["search_id"])
    assert_array_equal(bunch.is_test, [False] * 20 + [True] * 15)
    assert bunch.n_unclicked_conversions == 0
    assert "AliExpress" in bunch.DESCR
    test = load_aliexpress(path / "AliExpress_NL", country="NL", subset="test")
    assert_array_equal(test.target, tables["test"][LABELS])
    assert_array_equal(test.data[CATEGORICAL].astype(int), tables["test"][CATEGORICAL])
    assert test.is_test.all()


def test_raw_items_are_joined_to_their_searches(raw):
    path, parts = raw
    bunch = load_aliexpress(path, "FR")
    assert bunch.data.shape == (36, 79)
    row = 0
    for users, items in parts.values():
        by_search = {line[0]: line for line in users}
        for item in items:
            user = by_search[item[0]]
            found = bunch.data.iloc[row]
            texts = [user[c - 1] for c in USER_CATEGORIES]
            texts += [item[c - 1] for c in ITEM_CATEGORIES]
            assert found[CATEGORICAL].tolist() == texts
            numbers = [user[c - 1] for c in range(2, 34) if c not in USER_CATEGORIES]
            numbers += [item[c - 1] for c in range(2, 49) if c not in ITEM_CATEGORIES]
            assert_allclose(found[NUMERICAL].astype(float), list(map(float, numbers)))
            label = {"0": [0, 0], "1": [1, 0], "2": [1, 1]}[item[-1]]
            assert bunch.target.iloc[row].tolist() == label
            assert bunch.search_id[row] == item[0]
            row += 1
    assert_array_equal(bunch.is_test, [False] * 24 + [True] * 12)
    assert all(bunch.data[CATEGORICAL].dtypes == "category")


def test_raw_empty_fields_are_missing(raw):
    path, parts = raw
    _, items = parts["train"]
    items[0][1] = items[0][18] = ""
    write_lines(path / "FR_item_train.csv", items)
    data = load_aliexpress(path, "FR").data
    missing = np.argwhere(data.isna().to_numpy())
    # Column 2 is the first number of an item, column 19 its first category.
    expected = [(0, "categorical_10"), (0, "numerical_24")]
    assert [(row, data.columns[column]) for row, column in missing] == expected


def test_raw_items_without_a_search_are_reported(raw):
    path, parts = raw
    _, items = parts["train"]
    items[3][0] = items[5][0] = "unknown"
    write_lines(path / "FR_item_train.csv", items)
    with pytest.warns(UserWarning, match="2 rows of .*FR_item_train.*out") as caught:
        bunch = load_aliexpress(path, "FR", subset="train")
    assert caught[0].filename == __file__
    assert len(bunch.data) == 22
    assert "unknown" not in bunch.search_id


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "message"),
    [
        ("item", 2, 49, "3", "line 3: column 'label' must contain 0 or 1 or 2, found"),
        ("item", 2, 49, "", "line 3: column 'label' must contain a whole number"),
        ("item", 1, 2, "x", "line 2: column 'numerical_24' must contain a finite"),
        ("item", 4, 3, "1,2", "line 5: expected 49 fields, found 50"),
        ("user", 0, 3, "1,2", "line 1: expected 33 fields, found 34"),
        ("user", 3, 1, None, "line 4: column 'search_id' .* of an earlier line"),
        ("user", 3, 1, "", "line 4: column 'search_id' must not be missing"),
        ("item", 3, 1, "", "line 4: column 'search_id' must not be missing"),
        ("user", 3, 9, "inf", "line 4: column 'numerical_1' must contain a finite"),
        ("user", 3, 9, "nan", "line 4: column 'numerical_1' must contain a finite"),
        ("user", 3, 9, "1e39", "line 4: column 'numerical_1' must contain a finite"),
    ],
)
def test_raw_faults_name_file_and_line(raw, table, row, column, value, message):
    path, parts = raw
    lines = parts["train"][table == "item"]
    lines[row][column - 1] = lines[0][0] if value is None else value
    write_lines(path / f"FR_{table}_train.csv", lines)
    match = rf"FR_{table}_train\.csv, {message}"
    with pytest.raises(ValueError, match=match):
        load_aliexpress(path, "FR")


def test_a_user_file_without_its_end(raw):
    path, parts = raw
    users = parts["train"][0]
    users[-1] = users[-1][:-1]  # the last columns are categories, which may be empty
    write_lines(path / "FR_user_train.csv", users)
    with pytest.raises(ValueError, match=r"csv, line 5: expected 33 .* found 32"):
        load_aliexpress(path, "FR")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("click", 2, "line 5: column 'click' must contain 0 or 1, found .*2"),
        ("categorical_3", "a", "line 5: column 'categorical_3' .* whole .* found 'a'"),
        ("categorical_3", 10**20, "line 5: column 'categorical_3' .* of 64 bits"),
        ("numerical_9", None, "line 5: column 'numerical_9' .* found ''"),
        ("numerical_9", "b", "line 5: column 'numerical_9' must contain a finite"),
        ("numerical_9", "inf", "line 5: column 'numerical_9' must contain a finite"),
        ("search_id", None, "line 5: column 'search_id'"),
        ("conversion", "1,1", "line 5: expected 82 fields, found 83"),
    ],
)
def test_processed_faults_name_file_and_line(processed, column, value, message):
    path, tables = processed
    table = tables["test"].astype(object)
    table.loc[3, column] = value
    table.to_csv(
        path / "AliExpress_NL" / "test.csv", index=False, quoting=3, escapechar="\\"
    )
    text = (path / "AliExpress_NL" / "test.csv").read_text().replace("\\", "")
    (path / "AliExpress_NL" / "test.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"test\.csv, {message}"):
        load_aliexpress(path, "NL")


def test_missing_columns_and_files(processed):
    path, tables = processed
    with pytest.raises(FileNotFoundError, match=r"AliExpress_US.*tianchi\.aliyun"):
        load_aliexpress(path, "US")
    tables["train"].drop(columns="numerical_63").to_csv(
        path / "AliExpress_NL" / "train.csv", index=False
    )
    with pytest.raises(ValueError, match=r"lacks the column\(s\) \['numerical_63'\]"):
        load_aliexpress(path, "NL")
    (path / "AliExpress_NL" / "train.csv").unlink()
    assert len(load_aliexpress(path, "NL", subset="test").data) == 15
    with pytest.raises(FileNotFoundError, match=r"train\.csv and no .*NL_user_train"):
        load_aliexpress(path, "NL")
