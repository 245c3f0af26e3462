"""The figures that pages show were measured with the version that they describe."""

import json
import re
from pathlib import Path

import pytest

import sk_pwiser

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
# It tells what was measured with earlier versions, in its text.
RECORD = DOCS / "user_guide" / "explored.rst"
DIRECTIVE = re.compile(r"^ *\.\. results-(?:table|chart)::((?: +\S+)+)$", re.MULTILINE)
VERSION = re.compile(r"\bsk_pwiser (\d[\w.+]*)")


def files_of_pages():
    """Return the files of results that pages show, each with its pages."""
    pages = {}
    for page in sorted(DOCS.glob("*.rst")) + sorted(DOCS.glob("user_guide/*.rst")):
        for arguments in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            for argument in arguments.split():
                path = (page.parent / argument).resolve()
                pages.setdefault(path, set()).add(page)
    return pages


FILES_OF_PAGES = files_of_pages()


def versions_of(parts):
    """Return the version that each command of a file of results was run with."""
    sources = [" ".join(part["source"]) for part in parts if "source" in part]
    versions = [VERSION.search(source) for source in sources]
    return [match[1] if match else "unknown" for match in versions]


def test_the_versions_are_those_of_the_commands():
    parts = [
        {"source": ["$ python benchmarks/a.py", "python 3.11.7, sk_pwiser 0.1.0"]},
        {"caption": [], "columns": [""], "rows": [["sk_pwiser, bce"]]},
        {"source": ["$ python benchmarks/b.py --models sk_pwiser LightGBM"]},
        {"source": ["$ python benchmarks/c.py", "sk_pwiser 0.2.0rc1, torch 2.13.0"]},
    ]
    assert versions_of(parts) == ["0.1.0", "unknown", "0.2.0rc1"]


def test_the_record_shows_no_files():
    assert all(RECORD not in pages for pages in FILES_OF_PAGES.values())


def test_every_file_of_results_is_shown():
    assert set((DOCS / "results").glob("*.json")) == FILES_OF_PAGES.keys()


@pytest.mark.parametrize("path", sorted(FILES_OF_PAGES), ids=lambda path: path.stem)
def test_the_figures_of_a_page_are_those_of_this_version(path):
    versions = versions_of(json.loads(path.read_text(encoding="utf-8")))
    assert versions
    assert set(versions) == {sk_pwiser.__version__}
