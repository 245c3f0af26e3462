"""The filter of result tables: which files have one, and what a choice shows."""

import pytest
from docs_scripts import DOCS, load_script
from docutils.core import publish_from_doctree
from docutils.utils import new_document

results_table = load_script("results_table")
check_site = load_script("check_site")

TABLE = "{}: 1,000 rows, 100 held out\n            click AUC\nbce              0.{}\n"
TWO = "\n".join(
    [
        "$ python benchmarks/first.py\n\nabout the first\n",
        TABLE.format("rare", 71),
        TABLE.format("long", 72),
        "$ python benchmarks/second.py\n\nabout the second\n",
        TABLE.format("rare", 73),
    ]
)
# Of each block of TWO, a text and the choices that show it.
SHOWN = {
    "first.py": {"all", "rare", "long"},
    "about the first": {"all", "rare", "long"},
    "0.71": {"all", "rare"},
    "0.72": {"all", "long"},
    "second.py": {"all", "rare"},
    "about the second": {"all", "rare"},
    "0.73": {"all", "rare"},
}


def html(text):
    """Return the page of a file of results."""
    document = new_document("results.rst")
    document += results_table.render(text)
    settings = {"embed_stylesheet": False, "output_encoding": "unicode"}
    return publish_from_doctree(document, writer="html5", settings_overrides=settings)


@pytest.mark.parametrize(
    "text",
    [
        TABLE.format("rare", 71),
        TABLE.format("rare", 71) + "\n" + TABLE.format("rare", 72),
        TABLE.format("rare", 71) + "\n" + TABLE.format("5 columns, 1", 72),
    ],
)
def test_results_of_one_data_set_have_no_filter(text):
    page = html(text)
    assert "0.71</p></td>" in page
    assert "results-filter" not in page
    assert "data-sets" not in page


def test_the_choices_are_the_data_sets_in_the_order_of_the_file():
    page = html(TWO)
    choices = page.split("<select>")[1].split("</select>")[0]
    assert choices == (
        "<option value=''>all</option><option>rare</option><option>long</option>"
    )


def test_a_table_without_a_data_set_belongs_to_all():
    text = TWO + "\n" + TABLE.format("both of them", 74)
    _, last = html(text).rsplit("data-sets=", 1)
    inside, after = last.split("</div>", 1)
    assert "0.73" in inside
    assert "0.74" in after


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A page with TWO in a browser."""
    program, missing = check_site.find_browser()
    if program is None:
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    script = (DOCS / "_static" / "results_filter.js").read_text(encoding="utf-8")
    path = tmp_path_factory.mktemp("page") / "page.html"
    body = html(TWO).replace("</body>", f"<script>{script}</script></body>")
    path.write_text(body, encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"]
        )
        yield browser, path.as_uri()
        browser.close()


def shown(page):
    """Return the texts of TWO that a page shows, folded blocks included."""
    for summary in page.query_selector_all("details"):
        summary.evaluate("e => { e.open = true; }")
    text = page.inner_text("body")
    return {name for name in SHOWN if name in text}


def test_a_choice_by_the_keyboard_shows_its_data_set(tab):
    browser, address = tab
    page = browser.new_page()
    page.goto(address)
    assert shown(page) == set(SHOWN)
    page.keyboard.press("Tab")
    for key, choice in (("ArrowDown", "rare"), ("ArrowDown", "long"), ("Home", "all")):
        page.keyboard.press(key)
        assert shown(page) == {name for name in SHOWN if choice in SHOWN[name]}


def test_without_javascript_everything_is_shown_and_no_list(tab):
    browser, address = tab
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(address)
    text = page.inner_text("body")
    assert all(value in text for value in ("0.71", "0.72", "0.73"))
    assert not page.is_visible("select")
