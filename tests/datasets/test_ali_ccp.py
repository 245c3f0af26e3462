"""The loader of Ali-CCP against rows that are written in both of its layouts."""

import csv

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sk_pwiser.datasets import load_ali_ccp

pandas = pytest.importorskip("pandas")
USER = ["101", "121", "122", "124", "125", "126", "127", "128", "129"]
BEHAVIOUR = ["109_14", "110_14", "127_14", "150_14"]
ITEM = ["205", "206", "207", "216", "508", "509", "702", "853", "301"]
SINGLE = [*USER, *ITEM]
LISTS = [*BEHAVIOUR, "210"]
COMMON = "common_features_train.csv"
SKELETON = "sample_skeleton_train.csv"


def feature_list(features):
    """Write a dict of field: ids as the publisher does, with its number of features."""
    written = [f"{name}\x02{v}\x031.5" for name, ids in features.items() for v in ids]
    return f"{len(written)},{chr(1).join(written)}"


def draw_part(rng, n_rows, n_users):
    """Return the common features of users, and the user, labels and own features."""
    users, rows = {}, []
    for number in range(n_users):
        user = {name: [int(rng.integers(1, 9))] for name in USER}
        user |= {n: rng.integers(1, 99, rng.integers(1, 6)).tolist() for n in BEHAVIOUR}
        del user[USER[1 + number % 8]]
        users[f"{number:016x}"] = user
    for number in range(n_rows):
        own = {name: [int(rng.integers(1, 9))] for name in ITEM}
        own["210"] = rng.integers(1, 99, number % 3).tolist()
        del own[ITEM[number % 9]]
        label = [(0, 0), (1, 0), (1, 1)][number % 3]
        rows.append((list(users)[rng.integers(n_users - 1)], label, own))
    return users, rows


def write_part(folder, part, users, rows):
    with open(folder / f"common_features_{part}.csv", "w") as file:
        for index, features in users.items():
            file.write(f"{index},{feature_list(features)}\n")
    with open(folder / f"sample_skeleton_{part}.csv", "w") as file:
        for number, (index, (click, buy), own) in enumerate(rows):
            file.write(f"{number},{click},{buy},{index},{feature_list(own)}\n")


@pytest.fixture
def raw(tmp_path):
    """Return a folder in the publisher's layout, and its users and rows by part."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "ali_ccp"
    folder.mkdir()
    # The same indices stand for different users in the two parts.
    parts = {"train": draw_part(rng, 30, 5), "test": draw_part(rng, 20, 5)}
    for part, (users, rows) in parts.items():
        write_part(folder, part, users, rows)
    return folder, parts


@pytest.fixture
def processed(tmp_path):
    rng = np.random.default_rng(0)
    tables = {}
    for part, n_rows in [("train", 12), ("test", 9)]:
        table = pandas.DataFrame(rng.integers(0, 9, (n_rows, 18)), columns=SINGLE)
        table.insert(0, "click", [1, 0, 1] * (n_rows // 3))
        table.insert(1, "purchase", [1, 0, 0] * (n_rows // 3))
        table.to_csv(tmp_path / f"{part}.csv", index=False)
        tables[part] = table
    return tmp_path, tables


def check_rows(bunch, expected):
    """Compare with tuples of labels and a dict of all features, row by row."""
    assert len(bunch.data) == len(bunch.target) == len(bunch.lists) == len(expected)
    for position, (label, features) in enumerate(expected):
        assert bunch.target.iloc[position].tolist() == list(label)
        for name in SINGLE:
            found = bunch.data[name].iloc[position]
            if name in features:
                assert [found] == features[name], (position, name)
            else:
                assert pandas.isna(found), (position, name)
        for name in LISTS:
            assert bunch.lists[name].iloc[position].tolist() == features.get(name, [])


def test_raw_rows_have_their_own_and_common_features(raw):
    folder, parts = raw
    expected = {
        part: [(label, users[index] | own) for index, label, own in rows]
        for part, (users, rows) in parts.items()
    }
    bunch = load_ali_ccp(folder.parent)
    check_rows(bunch, [*expected["train"], *expected["test"]])
    assert_array_equal(bunch.is_test, [False] * 30 + [True] * 20)
    assert set(bunch.data.columns) == set(bunch.feature_names) == set(SINGLE)
    assert all(bunch.data.dtypes == "category")
    assert set(bunch.lists.columns) == set(LISTS)
    assert bunch.task_names == list(bunch.target.columns) == ["click", "conversion"]
    assert "Ali-CCP" in bunch.DESCR
    for part in ("train", "test"):
        check_rows(load_ali_ccp(str(folder), subset=part), expected[part])


def test_a_field_may_stand_in_both_files(raw):
    folder, parts = raw
    users, rows = parts["train"]
    rows[2][2]["109_14"] = [7, 7]
    write_part(folder, "train", users, rows)
    bunch = load_ali_ccp(folder, subset="train")
    found = bunch.lists["109_14"].iloc[2].tolist()
    assert found == [*users[rows[2][0]]["109_14"], 7, 7]


def test_further_values_are_an_error_or_kept(raw):
    folder, parts = raw
    users, rows = parts["train"]
    rows[3][2]["206"] = [4, 5]
    write_part(folder, "train", users, rows)
    with pytest.raises(
        ValueError, match=rf"{SKELETON}, line 4: .*'206' twice.*multi_v"
    ):
        load_ali_ccp(folder)
    bunch = load_ali_ccp(folder, subset="train", multi_valued=[*LISTS, "206"])
    assert "206" not in bunch.data
    assert bunch.lists["206"].iloc[3].tolist() == [4, 5]
    assert bunch.lists["206"].iloc[0].tolist() == rows[0][2]["206"]
    rows[3][2].update({"206": [4], "101": [1]})
    write_part(folder, "train", users, rows)
    with pytest.raises(
        ValueError, match=rf"{SKELETON}, line 4: .*'101', which is also"
    ):
        load_ali_ccp(folder)


def test_conversions_without_a_click_are_kept_and_reported(raw, processed):
    folder, parts = raw
    users, rows = parts["train"]
    rows[0] = (rows[0][0], (0, 1), rows[0][2])
    write_part(folder, "train", users, rows)
    tables = processed[1]
    tables["train"].loc[[1, 4], "purchase"] = 1
    with pytest.warns(UserWarning, match="load_ali_ccp: 1 rows have a conv") as caught:
        bunch = load_ali_ccp(folder)
    assert caught[0].filename == __file__
    assert bunch.n_unclicked_conversions == 1
    assert bunch.target.iloc[0].tolist() == [0, 1]
    tables["train"].to_csv(processed[0] / "train.csv", index=False)
    with pytest.warns(UserWarning, match="2 rows have a conversion and no click"):
        bunch = load_ali_ccp(processed[0])
    assert bunch.n_unclicked_conversions == 2
    assert_array_equal(bunch.target.iloc[:12], tables["train"][["click", "purchase"]])


def test_processed_rows(processed):
    folder, tables = processed
    both = pandas.concat(tables.values(), ignore_index=True)
    bunch = load_ali_ccp(folder)
    assert set(bunch.data.columns) == set(SINGLE)
    assert all(bunch.data.dtypes == "category")
    assert_array_equal(bunch.data[SINGLE].astype(int), both[SINGLE])
    assert_array_equal(bunch.target, both[["click", "purchase"]])
    assert_array_equal(bunch.is_test, [False] * 12 + [True] * 9)
    assert bunch.lists.shape == (21, 0)
    assert bunch.n_unclicked_conversions == 0
    test = load_ali_ccp(folder, subset="test")
    assert_array_equal(test.data[SINGLE].astype(int), tables["test"][SINGLE])


@pytest.mark.parametrize(
    ("file", "column", "value", "message"),
    [
        (SKELETON, 1, "2", "click must be 0 or 1, found '2'"),
        (SKELETON, 2, "", "conversion must be 0 or 1, found ''"),
        (SKELETON, 3, "ff", f"common_feature_index 'ff' is not in .*{COMMON}"),
        (SKELETON, 4, "99", "feature_num is '99', but feature_list has"),
        (SKELETON, 5, "205\x02x\x031", "whole number of 64 bits as id, found '205"),
        (SKELETON, 5, f"205\x02{2**63}\x031", "whole number of 64 bits as id, found"),
        (SKELETON, 5, f"210\x02{2**63}\x031", "whole number of 64 bits as id, found"),
        (SKELETON, 5, "205\x021", "must contain field, id and value"),
        (SKELETON, 5, "999\x021\x031", "unknown field '999'"),
        (COMMON, 1, "0", "feature_num is '0'"),
        (COMMON, 0, f"{0:016x}", "'0+' occurs in an earlier line"),
    ],
)
def test_faults_name_file_and_line(raw, file, column, value, message):
    folder, _ = raw
    with open(folder / file, newline="") as opened:
        lines = list(csv.reader(opened))
    lines[2][column] = value
    if column == 5:
        lines[2][4] = "1"
    text = "\n".join(",".join(cells) for cells in lines)
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=rf"{file}, line 3: .*{message}"):
        load_ali_ccp(folder)


def test_short_lines_are_an_error(raw):
    folder, _ = raw
    with open(folder / SKELETON, "a") as file:
        file.write("30,0,0\n")
    with pytest.raises(ValueError, match="line 31: expected 6 fields, found 3"):
        load_ali_ccp(folder)


def test_missing_files(raw, tmp_path):
    folder, _ = raw
    with pytest.raises(FileNotFoundError, match=r"Download Ali-CCP from https"):
        load_ali_ccp(tmp_path / "nowhere")
    (folder / "common_features_test.csv").unlink()
    assert len(load_ali_ccp(folder, subset="train").data) == 30
    with pytest.raises(FileNotFoundError, match=r"no common_features_test\.csv in"):
        load_ali_ccp(folder)


def test_parts_of_different_forms(raw):
    folder, _ = raw
    (folder / "test.csv").write_text("click\n")
    with pytest.raises(ValueError, match="different forms"):
        load_ali_ccp(folder)


def test_a_byte_order_mark_is_not_part_of_an_index(raw):
    folder, _ = raw
    expected = load_ali_ccp(folder, subset="train")
    for name in (COMMON, SKELETON):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    found = load_ali_ccp(folder, subset="train")
    pandas.testing.assert_frame_equal(found.data, expected.data)


def test_an_empty_file_is_named(processed):
    folder, _ = processed
    (folder / "train.csv").write_text("")
    with pytest.raises(ValueError, match=r"train\.csv lacks the column"):
        load_ali_ccp(folder)
