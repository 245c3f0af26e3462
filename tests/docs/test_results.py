"""The tables and charts of result files: what is bold, marked, joined and chosen."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import check_site
import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("matplotlib")
results = pytest.importorskip("results_directives")
DOCS = Path(__file__).parents[2] / "docs"
FILES = sorted((DOCS / "results").glob("*.json"))


def table(columns, *rows, caption=""):
    """Return a table whose rows are texts divided by semicolons, or one text."""
    rows = [row.split("; ") if ";" in row else row for row in rows]
    columns = ["", *columns.split("; ")]
    return {"caption": [caption] if caption else [], "columns": columns, "rows": rows}


def parsed(*files, **params):
    return ElementTree.fromstring(results.render(files, **params))


def texts(node, tag):
    return ["".join(each.itertext()) for each in node.iter(tag)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_cell_of_a_file_is_shown(path):
    parts = json.loads(path.read_text(encoding="utf-8"))
    tables = [part for part in parts if "rows" in part]
    rows = [
        row
        for part in tables
        for row in results.without_verdicts(part["columns"], part["rows"])[1]
    ]
    assert all(
        len(row) == len(part["columns"])
        for part in parts
        for row in results.all_rows([part])
    )
    html = ElementTree.fromstring(results.render([parts]).replace(" hidden>", ">"))
    shown = [cell.replace("\N{MINUS SIGN}", "-") for cell in texts(html, "td")]
    shown = [cell.replace("\N{PLUS-MINUS SIGN}", "+-") for cell in shown]
    # Texts across a table are a cell if rows follow them, and otherwise a note.
    cells = [cell for row in rows if not isinstance(row, str) for cell in row]
    groups = {row for part in parts for row in part.get("rows", ()) if type(row) is str}
    assert [cell for cell in shown if cell not in groups - set(cells)] == cells


def test_the_largest_auc_and_the_smallest_loss_are_bold():
    part = table(
        "click AUC; log loss",
        "bce; 0.7291 (0.0010); 0.3657 (0.0007)",
        "pwiser; 0.7296 (0.0004); 0.3654 (0.0003)",
        "mmoe; 0.7196 (0.0004); 0.3754 (0.0003)",
    )
    assert texts(parsed([part]), "strong") == ["0.7296", "0.3654"]


def test_differences_are_compared_with_the_first_line():
    part = table(
        "engage; log loss",
        "bce; 0.7435; 0.3657",
        "pwiser; -0.2 (0.4); -0.1 (0.1)",
        "memory; -0.5 (0.4); +0.1 (0.1)",
    )
    assert texts(parsed([part]), "strong") == ["0.7435", "\N{MINUS SIGN}0.1"]


def test_nothing_is_bold_where_no_direction_is_known_or_all_are_equal():
    part = table("seconds; CVR AUC", "bce; 1.0; 0.7", "pwiser; 2.0; 0.7")
    assert texts(parsed([part]), "strong") == []


def test_differences_that_exceed_their_spread_in_the_better_direction_are_bold():
    rows = "a; 0.7; +3.0 (1.0); -2.0 (1.0)", "b; 0.8; +0.9 (1.0); -3.1 (1.5)"
    part = table("bce; pwiser; log loss", *rows)
    minus = "\N{MINUS SIGN}"
    assert texts(parsed([part], clear=1), "strong") == [
        "+3.0",
        f"{minus}2.0",
        f"{minus}3.1",
    ]
    assert texts(parsed([part], clear=2), "strong") == ["+3.0", f"{minus}3.1"]
    part = table("bce; pwiser", "a; 0.03; -0.4 (0.1)", caption="rare: ECE; 3 seeds")
    assert texts(parsed([part], clear=1), "strong") == [f"{minus}0.4"]


def test_columns_of_met_limits_are_left_out():
    html = parsed(
        [table("over loop; ", "bce; 1.05 (1.0-1.1); at least 0.9: met", "x; 2; ")]
    )
    assert texts(html, "th") == ["", "over loop"]
    assert texts(html, "td") == ["bce", "1.05 (1.0-1.1)", "x", "2"]


def test_tables_are_chosen_by_their_captions():
    parts = [
        {"source": ["$ run"]},
        table("bce", "a; 0.1", caption="rare: click AUC"),
        table("bce", "a; 0.2", caption="rare: CVR AUC"),
        {"text": ["a note"]},
    ]
    found = results.with_caption(parts, "rare: click")
    assert found == parts[:2]
    found = results.without_captions(parts, ["rare: CVR", "long"])
    assert found == [*parts[:2], parts[3]]


def test_rows_below_a_text_are_compared_with_each_other_and_a_last_text_is_a_note():
    rows = ("first", "a; 0.1; 1", "b; 0.2; 1", "second", "a; 0.4; 1", "b; 0.3; 1")
    html = parsed([table("click AUC; seconds", *rows, "8.4 s per fit")])
    assert texts(html, "strong") == ["0.2", "0.4"]
    assert texts(html, "p") == ["8.4 s per fit"]


def test_tables_of_several_files_become_one_per_data_set():
    rows = "bce; 0.72 (0.01); 0.31", "pwiser; 0.71 (0.01); 0.32"
    own = [
        {"source": ["$ own"]},
        table("long AUC; log loss", *rows, caption="long: 9 rows; 5 seeds; part: test"),
    ]
    peers = [
        {"source": ["$ peers"]},
        table("long AUC; log loss", "trees; 0.74; 0.31", caption="long: 9 rows"),
    ]
    html = parsed(own, peers)
    assert texts(html, "caption") == ["long: 9 rows; part: test"]
    assert texts(html, "td")[::3] == ["bce", "pwiser", "trees"]
    assert texts(html, "strong") == ["0.31", "0.74", "0.31"]
    assert texts(html, "pre") == ["$ own\n$ peers"]


ENGAGE = table(
    "click AUC; log loss",
    "bce; 0.7 (0.01); 0.3",
    "pwiser; 0.8 +- 0.02; 0.2",
    "none; -; 0.2",
    caption="engage: 10 rows",
)
LONG = table("click AUC", "bce; 0.6", caption="long: 10 rows")


def test_the_points_are_the_values_and_spreads_of_the_column():
    points = results.read_points([[ENGAGE, LONG]], "click AUC", "engage")
    assert points == [("bce", 0.7, 0.01, 0.01), ("pwiser", 0.8, 0.02, 0.02)]
    assert len(results.read_points([[ENGAGE], [LONG]], "click AUC")) == 3


def test_ranges_reach_from_their_ends():
    found = results.lengths(1.2, "1.2 (1.1-1.5)")
    assert found == [pytest.approx(0.1), pytest.approx(0.3)]


def test_the_first_line_of_differences_is_zero():
    part = table("x", "bce; 0.7435", "pwiser; -0.2 (0.4)", "memory; +1.5 (0.1)")
    points = results.read_points([[part]], "x")
    assert [value for _, value, *_ in points] == [0.0, -0.2, 1.5]


def test_a_chart_names_its_rows_and_takes_the_colours_of_the_page():
    points = results.read_points([[ENGAGE]], "click AUC")
    svg = results.draw(points, "AUC <of> click", "pwiser")
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert root.get("aria-label") == "AUC <of> click. pwiser: 0.8; bce: 0.7."
    assert not any(colour in svg for colour in results.PAGE_COLOURS)


def test_a_chart_marks_zero_if_there_are_values_on_both_sides():
    rows = ("a; +0.02 (0.01)", "b; -0.01 (0.01)")
    both = results.draw(results.read_points([[table("x", *rows)]], "x"), "x", "")
    one = results.draw(results.read_points([[table("x", rows[0])]], "x"), "x", "")
    n_lines = [svg.count('<g id="line2d_') for svg in (both, one)]
    ticks = [svg.count('<g id="xtick_') for svg in (both, one)]
    # Without the lines of ticks and of the grid, two per point: dot, spread; and zero.
    assert n_lines[0] - 2 * ticks[0] - (n_lines[1] - 2 * ticks[1]) > 2


def test_the_chart_of_the_front_page_compares_with_other_packages():
    page = (DOCS / "index.rst").read_text(encoding="utf-8")
    chart = page.split(".. results-chart:: ")[1].split("\n\n")[0]
    options = dict(re.findall(r"^ +:(\w+): (.*)$", chart, re.MULTILINE))
    text = (DOCS / chart.partition("\n")[0]).read_text(encoding="utf-8")
    points = results.read_points(
        [json.loads(text)], options["column"], options["caption"]
    )
    labels = {label for label, *_ in points}
    assert {"sk_pwiser, pwiser", "sk_pwiser, bce"} <= labels
    assert {"LightGBM", "logistic regression"} <= labels


def of_data_set(name, value):
    return table("click AUC", f"bce; {value}", caption=f"{name}: 1,000 rows, 100 held")


TWO = [
    {"source": ["$ python benchmarks/first.py"]},
    {"text": ["about the first"]},
    of_data_set("rare", "0.71"),
    of_data_set("long", "0.72"),
    {"source": ["$ python benchmarks/second.py"]},
    {"text": ["about the second"]},
    of_data_set("rare", "0.73"),
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


@pytest.mark.parametrize("others", [[], ["rare"], ["5 columns, 1"]])
def test_results_of_one_data_set_have_no_filter(others):
    page = html([of_data_set(name, "0.71") for name in ["rare", *others]])
    assert ">0.71</td>" in page
    assert "results-filter" not in page
    assert "data-sets" not in page


def test_the_choices_are_the_data_sets_in_the_order_of_the_file():
    page = html(TWO)
    choices = page.split("<select>")[1].split("</select>")[0]
    assert choices == (
        '<option>rare</option><option>long</option><option value="">all</option>'
    )


def test_a_table_without_a_data_set_belongs_to_all():
    _, last = html([*TWO, of_data_set("both of them", "0.74")]).rsplit("data-sets=", 1)
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
