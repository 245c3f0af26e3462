"""The page on reliability names tests that exist, in the table of its command."""

import csv

from docs_scripts import load_script

promises = load_script("promises")


def test_every_promise_has_its_tests_and_its_row():
    with open(promises.OUTPUT, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["Promise", "Tests", "Number"]
    assert [row[0] for row in rows] == list(promises.PROMISES)
    for row, paths in zip(rows, promises.PROMISES.values(), strict=True):
        assert row[1] == ", ".join(f"``{path}``" for path in paths)
        assert int(row[2]) > 0
        assert all((promises.ROOT / path).exists() for path in paths)
