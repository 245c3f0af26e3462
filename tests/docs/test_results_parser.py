"""The tables of result files: figures, headings and captions, none lost."""

import pytest
from docs_scripts import DOCS, load_script

results_parser = load_script("results_parser")
Lines, Table = results_parser.Lines, results_parser.Table
FILES = sorted((DOCS / "results").glob("*.txt"))


def words(parts):
    """Return the text of parts without its spaces."""
    for part in parts:
        if isinstance(part, Lines):
            yield from part.lines
            continue
        yield from (*part.caption, *part.head)
        yield from (cell for row in part.rows for cell in row.cells)
        yield from part.notes


def without_spaces(text):
    return "".join(text.split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_read_as_tables_and_nothing_is_lost(path):
    text = path.read_text(encoding="utf-8")
    parts = results_parser.parse(text)
    assert without_spaces("".join(words(parts))) == without_spaces(text)
    tables = [part for part in parts if isinstance(part, Table)]
    assert tables
    for table in tables:
        rows = [row for row in table.rows if not row.is_text]
        assert {len(row.cells) for row in rows} == {len(table.head)}


def only_table(text):
    (table,) = results_parser.parse(text)
    return table


def cells_of(table):
    return [row.cells for row in table.rows]


def test_headings_are_those_above_the_numbers_although_one_space_divides_them():
    table = only_table(
        "engage: 10 rows;\n"
        "click 43.8%; 5 seeds\n"
        f"{'':<20}{'passed AUC':>16}{'distinction AUC':>16}{'log loss':>16}\n"
        f"{'aux 0.1':<20}{'0.7200 (0.0005)':>16}{'0.6892 (0.0062)':>16}{'0.37':>16}\n"
        f"{'aux 1':<20}{'0.7197 (0.0005)':>16}{'-':>16}{'0.36':>16}"
    )
    assert table.caption == ["engage: 10 rows;", "click 43.8%; 5 seeds"]
    assert table.head == ["", "passed AUC", "distinction AUC", "log loss"]
    assert cells_of(table) == [
        ["aux 0.1", "0.7200 (0.0005)", "0.6892 (0.0062)", "0.37"],
        ["aux 1", "0.7197 (0.0005)", "-", "0.36"],
    ]


def test_numbers_that_touch_are_divided():
    table = only_table(
        f"{'':<10}{'interest':>14}{'conv. AUC':>14}\n"
        f"{'BCE':<10}{'0.7214':>14}{'0.7941':>14}\n"
        f"{'memory':<10}{'-16.0 (11.1)':>14}{'-293.93 (13.0)':>14}"
    )
    assert cells_of(table)[1] == ["memory", "-16.0 (11.1)", "-293.93 (13.0)"]


def test_units_labels_and_targets_have_no_heading():
    table = only_table(
        "Epochs\n"
        f"{'':<44}{'over bare torch loop':>28}\n"
        f"  {'bce':<30}{'99.5 krows/s':>20}{'1.2 (1.1-1.3)':>20}  at least 1: met\n"
        f"  {'a loop':<30}{'81.0 krows/s':>20}"
    )
    assert table.head == ["", "", "over bare torch loop", ""]
    assert cells_of(table) == [
        ["bce", "99.5 krows/s", "1.2 (1.1-1.3)", "at least 1: met"],
        ["a loop", "81.0 krows/s", "", ""],
    ]


def test_texts_divide_the_rows_or_follow_them():
    table = only_table(
        f"{'':<20}{'click AUC':>17}\n"
        "mmoe, 2 epochs\n"
        f"  {'ours':<18}{'0.7093 (0.0024)':>17}\n"
        "8.4 s per fit"
    )
    assert [row.is_text for row in table.rows] == [True, False]
    assert table.notes == ["8.4 s per fit"]


def test_the_command_and_the_versions_are_set_apart():
    source, table = results_parser.parse(
        "$ python benchmarks/x.py \\\n    --seeds 3\nPython 3.11, torch 2\n"
        f"{'network':<10}{'ms':>10}\n{'mmoe':<10}{'27.95':>10}"
    )
    assert source.kind == "source"
    assert len(source.lines) == 3
    assert (table.head, cells_of(table)) == (["network", "ms"], [["mmoe", "27.95"]])


def test_a_table_without_headings():
    table = only_table(
        "recovery, 20 seeds\njointly    0.95 (0.02)\nper task   0.89 (0.03)"
    )
    assert cells_of(table) == [["jointly", "0.95 (0.02)"], ["per task", "0.89 (0.03)"]]


def test_what_is_no_table_stays_as_it_is():
    text = "a   drawing\n of   boxes"
    (part,) = results_parser.parse(text)
    assert (part.kind, part.lines) == ("literal", text.split("\n"))
    (part,) = results_parser.parse("Plain words.")
    assert part.kind == "note"
