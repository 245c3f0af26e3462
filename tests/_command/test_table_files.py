"""CSV files that do not agree with their header."""

import gzip

import pytest

from sk_pwiser._command._table_files import read_parquet, read_texts

pd = pytest.importorskip("pandas")
NAMES = ["price", "user", "click"]
HEADER = "price;user;click\n"


def test_rows_that_end_with_a_separator_are_refused_with_their_line(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "\n1.5;7;1;\n2.5;8;0;\n")
    with pytest.raises(
        ValueError,
        match=r"log\.csv, line 3, has 4 fields and ends with the separator; the header "
        r"has 3: \['price', 'user', 'click'\]",
    ):
        read_texts(path, NAMES, "--data")


@pytest.mark.parametrize("end", [";", ";9"])
def test_a_later_row_with_more_fields_is_refused_with_its_line(tmp_path, end):
    path = tmp_path / "log.csv"
    # A field may contain line ends and separators.
    path.write_text(f'{HEADER}1.5;"a;\nb";1\n2.5;8;0{end}\n')
    with pytest.raises(ValueError, match=r"log\.csv, line 4, has 4 fields"):
        read_texts(path, NAMES, "--data")


def test_a_compressed_file_is_read(tmp_path):
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}1.5;7;1\n".encode()))
    assert read_texts(path, NAMES, "--data").to_numpy().tolist() == [["1.5", "7", "1"]]
    path.write_bytes(gzip.compress(f"{HEADER}1.5;7;1;\n".encode()))
    with pytest.raises(ValueError, match=r"line 2, has 4 fields"):
        read_texts(path, NAMES, "--data")


def test_a_separator_at_the_end_of_all_lines_is_a_column_without_values(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(f"{HEADER[:-1]};\n1.5;7;1;\n")
    frame = read_texts(path, NAMES, "--data")
    assert frame[NAMES].to_numpy().tolist() == [["1.5", "7", "1"]]


def test_the_first_bytes_may_mark_utf_8(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(f"{HEADER}1.5;7;1;\n", encoding="utf-8-sig")
    with pytest.raises(ValueError, match=r"the header has 3: \['price', "):
        read_texts(path, NAMES, "--data")


def test_a_target_that_a_file_has_twice_is_refused(tmp_path):
    """Numbered by pandas, the second one would be a feature that is the label."""
    path = tmp_path / "log.csv"
    path.write_text("price;click;click\n1.5;0;0\n2.5;1;1\n")
    with pytest.raises(
        ValueError,
        match=r"columns of log\.csv must be distinct; 'click' occurs 2 times",
    ):
        read_texts(path, NAMES, "--data")


def test_rows_of_joined_tables_are_all_read_once(tmp_path):
    """Each label of their index names several rows."""
    pytest.importorskip("pyarrow")
    day = pd.DataFrame({"user": [2**60 + 1, None], "click": [0, 1]}).astype(
        {"user": "Int64"}
    )
    table = pd.concat([day, day])
    path = tmp_path / "log.parquet"
    table.to_parquet(path)
    frame = read_parquet(path, ["user"], "--data")
    assert frame.index.equals(pd.RangeIndex(4))
    assert frame.equals(table.reset_index(drop=True))
