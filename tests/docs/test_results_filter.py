"""The filter of result tables: which files have one, and what a choice shows."""

import pytest
from docs_scripts import DOCS, load_script

pytest.importorskip("matplotlib")
results = load_script("results_directives")
check_site = load_script("check_site")


def table(data_set, value):
    caption, columns = [f"{data_set}: 1,000 rows, 100 held out"], ["", "click AUC"]
    return {"caption": caption, "columns": columns, "rows": [["bce", value]]}


TWO = [
    {"source": ["$ python benchmarks/first.py"]},
    {"text": ["about the first"]},
    table("rare", "0.71"),
    table("long", "0.72"),
    {"source": ["$ python benchmarks/second.py"]},
    {"text": ["about the second"]},
    table("rare", "0.73"),
]
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


def html(parts):
    """Return the page of a file of results."""
    body = results.render([parts])
    return f"<!doctype html><html><body>{body}</body></html>"


@pytest.mark.parametrize(
    "parts",
    [
        [table("rare", "0.71")],
        [table("rare", "0.71"), table("rare", "0.72")],
        [table("rare", "0.71"), table("5 columns, 1", "0.72")],
    ],
)
def test_results_of_one_data_set_have_no_filter(parts):
    page = html(parts)
    assert ">0.71</td>" in page or ">0.71</strong></td>" in page
    assert "results-filter" not in page
    assert "data-sets" not in page


def test_the_choices_are_the_data_sets_in_the_order_of_the_file():
    page = html(TWO)
    choices = page.split("<select>")[1].split("</select>")[0]
    assert choices == (
        '<option>rare</option><option>long</option><option value="">all</option>'
    )


def test_a_table_without_a_data_set_belongs_to_all():
    _, last = html([*TWO, table("both of them", "0.74")]).rsplit("data-sets=", 1)
    inside, after = last.split("</table>", 1)
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
    assert shown(page) == {name for name in SHOWN if "rare" in SHOWN[name]}
    page.keyboard.press("Tab")
    for key, choice in (("ArrowDown", "long"), ("ArrowDown", "all"), ("Home", "rare")):
        page.keyboard.press(key)
        assert shown(page) == {name for name in SHOWN if choice in SHOWN[name]}


def test_without_javascript_everything_is_shown_and_no_list(tab):
    browser, address = tab
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(address)
    text = page.inner_text("body")
    assert all(value in text for value in ("0.71", "0.72", "0.73"))
    assert not page.is_visible("select")
