"""The Python code of the user guide, of the front page and of the README runs.

The blocks of a page run one after the other in one namespace, with at most two epochs
per fit. Where a page shows what its code prints, all epochs run, and the figures are
compared.
"""

import inspect
import os
import re
import textwrap
from pathlib import Path

import pytest
from guide_names import names_for

from sk_pwiser import MultiTaskCTRCVRClassifier

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "index.rst",
    *sorted((ROOT / "docs" / "user_guide").glob("*.rst")),
]
MARKDOWN_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
# A directive, or a paragraph that ends with two colons, and the indented lines below.
RST_BLOCK = re.compile(
    r"^(?P<indent> *)(?:\.\. code-block:: python|(?!\.\. ).*[^:\n]::)\n"
    r"(?:(?P=indent) +:.*\n)*\n(?P<code>(?:(?P=indent) +.*\n|\n)+)",
    re.MULTILINE,
)

OUTPUT_BLOCK = re.compile(
    r"^\.\. code-block:: none\n   :class: output\n\n((?: {4}.*\n|\n)+)", re.MULTILINE
)
FRACTION = re.compile(r"\d+\.\d*")


def code_of(page):
    """Return the Python code of a page, with the line numbers of the page."""
    text = page.read_text(encoding="utf-8")
    is_markdown = page.suffix == ".md"
    pattern = MARKDOWN_BLOCK if is_markdown else RST_BLOCK
    lines = []
    for match in pattern.finditer(text):
        group = 1 if is_markdown else "code"
        first = text.count("\n", 0, match.start(group))
        lines += [""] * (first - len(lines))
        lines += textwrap.dedent(match[group]).rstrip("\n").split("\n")
    return "\n".join(lines)


# Pages whose code reads KuaiRand.
READS_FILES = ("datasets",)
WITH_OUTPUT = [page for page in PAGES if OUTPUT_BLOCK.search(page.read_text("utf-8"))]
WITH_CODE = [
    page for page in PAGES if code_of(page).strip() and page not in WITH_OUTPUT
]


# Of KuaiRand, and of the history of the few conversions on a page.
@pytest.mark.filterwarnings("ignore:The columns .* have the same value:UserWarning")
@pytest.mark.filterwarnings("ignore:The last rows by time_column:UserWarning")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_the_code_of_the_page_runs(page, monkeypatch, tmp_path):
    if page.stem in READS_FILES:
        data = os.environ.get("SK_PWISER_DATA")
        if not data:
            pytest.skip("SK_PWISER_DATA does not name a folder with real data")
        (tmp_path / "folder").symlink_to(Path(data).resolve())
    defaults = inspect.unwrap(MultiTaskCTRCVRClassifier.__init__).__kwdefaults__
    monkeypatch.setitem(defaults, "max_epochs", 2)
    monkeypatch.chdir(tmp_path)
    exec(compile(code_of(page), page, "exec"), names_for(page.stem))


@pytest.mark.parametrize("page", WITH_OUTPUT, ids=lambda page: page.stem)
def test_the_code_of_the_page_prints_what_the_page_shows(
    page, monkeypatch, tmp_path, capsys
):
    shown = "".join(OUTPUT_BLOCK.findall(page.read_text(encoding="utf-8")))
    monkeypatch.chdir(tmp_path)
    exec(compile(code_of(page), page, "exec"), names_for(page.stem))
    printed = capsys.readouterr().out
    assert form(printed) == form(shown)
    # Another processor, or version of torch, gives slightly different networks.
    figures = [list(map(float, FRACTION.findall(text))) for text in (printed, shown)]
    assert figures[0] == pytest.approx(figures[1], rel=0.1, abs=0.05)


def form(text):
    """Return a text with its numbers replaced, and without its spaces."""
    return "".join(re.sub(r"\d+", "number", FRACTION.sub("number", text)).split())
