"""The page on reliability names tests that exist."""

import csv
import re

import pytest
from docs_scripts import DOCS

with open(DOCS / "results" / "reliability.csv", encoding="utf-8", newline="") as file:
    PROMISES = {row["Promise"]: row["Tests"] for row in csv.DictReader(file)}
PATHS = re.findall("``([^`]+)``", " ".join(PROMISES.values()))


@pytest.mark.parametrize("path", sorted({*PATHS}))
def test_there_are_tests_behind_every_promise(path):
    found = DOCS.parent / path
    files = [found] if found.suffix else [*found.glob("test_*.py")]
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert any(re.search(r"^def test_", text, re.MULTILINE) for text in texts)


def test_every_promise_has_a_test():
    assert all("``tests/" in tests for tests in PROMISES.values())
