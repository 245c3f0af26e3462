"""The report of a benchmark: its tables as printed, and as written to a file."""

import json
import sys
from argparse import Namespace

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def make_report(module, monkeypatch, tmp_path):
    """Return a function that makes a report; it saves into `tmp_path`."""
    monkeypatch.setattr(sys, "argv", ["some.py", "--seeds", "2", "--save", "x"])

    def make(path=tmp_path, add=False, name="some"):
        options = {"save": path, "add": add, "quick": False, "device": "cpu"}
        return module("_harness").Report(name, Namespace(threads=1, **options))

    return make


def saved(report):
    report.save()
    return json.loads(report.path.read_text(encoding="utf-8"))


def test_a_table_has_its_caption_columns_rows_and_texts(make_report, capsys):
    report = make_report()
    report.text("about all", "of it", "")
    report.text("engage: 10 rows;", "5 seeds")
    report.table(["click AUC", "no figures"], label="form")
    report.row("bce", map(str, [0.7, ""]))
    report.text("2 epochs")
    report.row("pwiser", ["0.8", ""])
    report.text("", "the end")
    source, about, table, end = saved(report)
    assert about == {"text": ["about all", "of it"]}
    assert table == {
        "caption": ["engage: 10 rows;", "5 seeds"],
        "columns": ["form", "click AUC", "no figures"],
        "rows": [["bce", "0.7", ""], "2 epochs", ["pwiser", "0.8", ""]],
    }
    assert end == {"text": ["the end"]}
    printed = capsys.readouterr().out
    lines = [*source["source"], "about all", "2 epochs", "the end"]
    assert all(f"{line}\n" in printed for line in lines)
    assert [line.split() for line in printed.split("\n") if line[:6] == "pwiser"] == [
        ["pwiser", "0.8"]
    ]


def test_the_source_has_the_command_without_the_place_of_the_file(make_report):
    command, about = make_report().parts[0]["source"]
    assert command == "$ python benchmarks/some.py --seeds 2 x"
    assert "numpy" in about


def test_ratios_have_a_value_and_a_verdict_but_no_empty_column(make_report, module):
    report = make_report()
    report.section("Time", "over bare")
    report.line("own", np.array([1.0, 2.0, 3.0]), absolute="1 s")
    report.section("Goal", "over bare")
    target = module("_harness").at_most(3)
    report.line("own", [2.0], target=target)
    report.section("Sizes")
    report.line("rows", absolute="10")
    _, time, goal, sizes = saved(report)
    assert time["columns"] == ["", "", "over bare"]
    assert time["rows"] == [["own", "1 s", "2.00 (1.50-2.50)"]]
    assert goal["rows"] == [["own", "2.00 (2.00-2.00)", "at most 3: met"]]
    assert (sizes["columns"], sizes["rows"]) == (["", ""], [["rows", "10"]])


def test_a_file_is_replaced_or_gets_more_tables(make_report, tmp_path):
    path = tmp_path / "folder" / "table.json"
    for add, n_parts in ((False, 1), (True, 2), (False, 1)):
        assert len(saved(make_report(path, add))) == n_parts
    assert make_report(tmp_path).path == tmp_path / "some.json"
    report = make_report(tmp_path, name="interrupted")
    for name in "ab":
        report.section(name)
        report.line("x", absolute="1")
    parts = json.loads((tmp_path / "interrupted.json").read_text(encoding="utf-8"))
    assert [part["caption"] for part in parts if "rows" in part] == [["a"]]
    report = make_report(None)
    report.save()
    assert report.path is None


def test_a_file_has_a_line_per_row(module):
    part = {"caption": ["a [b] {c}"], "columns": ["", "x"], "rows": [["é", "1"], "t"]}
    text = module("_harness").as_json([{"source": ["$ x"]}, part])
    assert json.loads(text) == [{"source": ["$ x"]}, part]
    assert '   ["é", "1"],\n   "t"\n' in text
