"""The page on reliability names tests that exist, in the table of its command."""

import re

import pytest
from docs_scripts import load_script

promises = load_script("promises")


def test_the_table_is_that_of_the_command(tmp_path):
    promises.write(tmp_path / "table.csv")
    expected = (tmp_path / "table.csv").read_text(encoding="utf-8")
    assert promises.OUTPUT.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(
    "path", sorted({p for v in promises.PROMISES.values() for p in v})
)
def test_there_are_tests_behind_every_promise(path):
    found = promises.ROOT / path
    files = [found] if found.suffix else [*found.glob("test_*.py")]
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert any(re.search(r"^def test_", text, re.MULTILINE) for text in texts)
