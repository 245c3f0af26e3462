"""Charts show the figures of their files, in the colours of the page."""

from xml.etree import ElementTree

import pytest
from docs_scripts import DOCS, load_script

pytest.importorskip("matplotlib")
results_chart = load_script("results_chart")

TEXT = (
    "engage: 10 rows\n"
    f"{'':<10}{'click AUC':>18}{'log loss':>18}\n"
    f"{'bce':<10}{'0.7 (0.01)':>18}{'0.3':>18}\n"
    f"{'pwiser':<10}{'0.8 +- 0.02':>18}{'0.2':>18}\n"
    f"{'none':<10}{'-':>18}{'0.2':>18}\n\n"
    f"long: 10 rows\n{'':<10}{'click AUC':>18}\n{'bce':<10}{'0.6':>18}"
)


def test_the_points_are_the_values_and_spreads_of_the_column():
    points = results_chart.read_points(TEXT, "click AUC", "engage")
    assert points == [("bce", 0.7, 0.01, 0.01), ("pwiser", 0.8, 0.02, 0.02)]
    assert len(results_chart.read_points(TEXT, "click AUC")) == 3


def test_ranges_reach_from_their_ends():
    (point,) = results_chart.read_column([("bce", "1.2 (1.1-1.5)")])
    assert point == ("bce", 1.2, pytest.approx(0.1), pytest.approx(0.3))


def test_the_first_line_of_differences_is_zero():
    cells = [("bce", "0.7435"), ("pwiser", "-0.2 (0.4)"), ("memory", "+1.5 (0.1)")]
    points = results_chart.read_column(cells)
    assert [point.value for point in points] == [0.0, -0.2, 1.5]


def test_a_chart_names_its_rows_and_takes_the_colours_of_the_page():
    points = results_chart.read_points(TEXT, "click AUC", "engage")
    svg = results_chart.draw(points, "AUC <of> click", "pwiser")
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert root.get("aria-label") == "AUC <of> click. pwiser: 0.8; bce: 0.7."
    texts = {text.text for text in root.iter() if text.tag.endswith("text")}
    assert {"bce", "pwiser"} <= texts
    assert "var(--pst-color-primary)" in svg
    assert "currentColor" in svg
    assert not any(colour in svg for colour in results_chart.PAGE_COLOURS)
    assert root.get("width") is None


def test_the_picture_of_the_term_is_an_svg_element():
    picture = load_script("pwiser_picture")
    root = ElementTree.fromstring(picture.draw().replace("xlink:href", "href"))
    assert root.get("aria-label") == picture.ALT


def test_the_chart_of_the_front_page_compares_with_other_packages():
    text = (DOCS / "results" / "real_auc_peers.txt").read_text(encoding="utf-8")
    labels = {p.label for p in results_chart.read_points(text, "engage AUC", "engage")}
    assert {"LightGBM", "CatBoost", "logistic regression"} <= labels
    # Boosted trees with the same inputs: rates of values.
    assert {"LightGBM, TargetEncoder", "HistGradientBoosting, TargetEncoder"} <= labels
