"""The code of the pages and of the README runs, and their claims name what exists.

The blocks of a page run one after the other in one namespace, with at most two epochs
per fit. Where a page shows what its code prints, all epochs run, and the figures are
compared.
"""

import csv
import doctest
import inspect
import os
import re
import sys
import textwrap
from pathlib import Path

import pytest
from guide_names import names_for

import sk_pwiser
from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

pytestmark = pytest.mark.slow

PACKAGE = Path(sk_pwiser.__file__).parent
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    DOCS / "index.rst",
    *sorted((DOCS / "user_guide").glob("*.rst")),
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


def text_of(page):
    return page.read_text(encoding="utf-8")


def code_of(page):
    """Return the Python code of a page, with the line numbers of the page."""
    text = text_of(page)
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
WITH_OUTPUT = [page for page in PAGES if OUTPUT_BLOCK.search(text_of(page))]
WITH_CODE = [
    page for page in PAGES if code_of(page).strip() and page not in WITH_OUTPUT
]


@pytest.fixture
def few_epochs(monkeypatch):
    defaults = inspect.unwrap(MultiTaskCTRCVRClassifier.__init__).__kwdefaults__
    monkeypatch.setitem(defaults, "max_epochs", 2)


# Of KuaiRand, and of the history of the few conversions on a page.
@pytest.mark.filterwarnings("ignore:The columns .* have the same value:UserWarning")
@pytest.mark.filterwarnings("ignore:The last rows by time_column:UserWarning")
@pytest.mark.usefixtures("few_epochs")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_the_code_of_the_page_runs(page, monkeypatch, tmp_path):
    if page.stem in READS_FILES:
        data = os.environ.get("SK_PWISER_DATA")
        if not data:
            pytest.skip("SK_PWISER_DATA does not name a folder with real data")
        (tmp_path / "folder").symlink_to(Path(data).resolve())
    monkeypatch.chdir(tmp_path)
    exec(compile(code_of(page), page, "exec"), names_for(page.stem))


@pytest.mark.parametrize("page", WITH_OUTPUT, ids=lambda page: page.stem)
def test_the_code_of_the_page_prints_what_the_page_shows(
    page, monkeypatch, tmp_path, capsys
):
    shown = "".join(OUTPUT_BLOCK.findall(text_of(page)))
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


@pytest.mark.usefixtures("few_epochs")
def test_the_session_of_the_front_page_prints_what_it_shows():
    """Fewer rows and epochs give other figures beside the same names."""
    block = text_of(DOCS / "index.rst").split(".. code-block:: pycon\n\n")[1]
    block = block.split("\n\n")[0]
    test = doctest.DocTestParser().get_doctest(block, {}, "index", "index.rst", 0)
    assert len(test.examples) == 8
    namespace = {}
    for example in test.examples:
        source = example.source.replace("20_000", "1_500").replace("15_000", "1_000")
        if not example.want:
            exec(source, namespace)
            continue
        assert form(repr(eval(source, namespace))) == form(example.want)


def test_the_examples_of_own_components_run():
    failed, attempted = doctest.testfile(
        str(DOCS / "extending.rst"),
        module_relative=False,
        encoding="utf-8",
        optionflags=doctest.ELLIPSIS,
    )
    assert attempted > 15
    assert failed == 0


with open(DOCS / "results" / "reliability.csv", encoding="utf-8", newline="") as file:
    PROMISES = [re.findall("``([^`]+)``", row["Tests"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("path", sorted({path for paths in PROMISES for path in paths}))
def test_there_are_tests_behind_every_promise(path):
    assert all(PROMISES)
    found = ROOT / path
    files = [found] if found.suffix else [*found.glob("test_*.py")]
    assert any(re.search(r"^def test_", text_of(file), re.MULTILINE) for file in files)


def calls_of(function):
    """Return the functions of the package in the order of their first calls."""
    codes, before = {}, sys.getprofile()

    def watch(frame, event, arg):
        if event == "call":
            codes.setdefault(frame.f_code)

    sys.setprofile(watch)
    try:
        function()
    finally:
        sys.setprofile(before)
    paths = [(code, Path(code.co_filename)) for code in codes]
    return [
        f"{path.relative_to(PACKAGE).as_posix()}:{code.co_qualname}"
        for code, path in paths
        if path.is_relative_to(PACKAGE)
    ]


def test_a_fit_passes_the_stations_in_their_order():
    data = make_ctr_cvr(600, n_categories=60, ctr=0.4, random_state=0)
    model = MultiTaskCTRCVRClassifier(
        device="cpu",
        early_stopping=True,
        max_epochs=1,
        encoding_params={"target_encoding_min_values": 20},
        random_state=0,
    )
    calls = calls_of(lambda: model.fit(data.data, data.target))
    text = text_of(DOCS / "way_of_a_fit.rst")
    stations = re.findall(r"^``([\w/]+\.py:[\w.]+)``$", text, flags=re.MULTILINE)
    assert len(stations) > 30
    assert [name for name in stations if name not in calls] == []
    assert sorted(stations, key=calls.index) == stations
    files = {call.partition(":")[0] for call in calls}
    assert {name for name in files if name not in text} == set()
