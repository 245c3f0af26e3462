"""Cells of result tables: which are bold, and how a spread is marked."""

import pytest
from docs_scripts import load_script
from docutils import nodes

results_table = load_script("results_table")


def bold(text):
    """Return the bold cells of the tables of a text."""
    (node,) = results_table.render(text)
    return [strong.astext() for strong in node.findall(nodes.strong)]


def table(*rows, widths=(12, 18, 18)):
    """Return a table of fixed width as the benchmarks print it."""
    lines = []
    for label, *cells in rows:
        numbers = "".join(f"{c:>{w}}" for c, w in zip(cells, widths[1:], strict=False))
        lines.append(f"{label:<{widths[0]}}{numbers}" if cells else label)
    return "\n".join(lines)


def test_the_largest_auc_and_the_smallest_loss_are_bold():
    text = table(
        ("", "click AUC", "log loss"),
        ("bce", "0.7291 (0.0010)", "0.3657 (0.0007)"),
        ("pwiser", "0.7296 (0.0004)", "0.3654 (0.0003)"),
        ("mmoe", "0.7196 (0.0004)", "0.3754 (0.0003)"),
    )
    assert bold(text) == ["0.7296", "0.3654"]


def test_differences_are_compared_with_the_first_line():
    text = table(
        ("", "engage", "log loss"),
        ("bce", "0.7435", "0.3657"),
        ("pwiser", "-0.2 (0.4)", "-0.1 (0.1)"),
        ("memory", "-0.5 (0.4)", "+0.1 (0.1)"),
    )
    assert bold(text) == ["0.7435", "\N{MINUS SIGN}0.1"]


def test_nothing_is_bold_where_no_direction_is_known_or_all_are_equal():
    text = table(
        ("", "seconds", "CVR AUC"), ("bce", "1.0", "0.7"), ("pwiser", "2.0", "0.7")
    )
    assert bold(text) == []


def test_rows_below_a_text_are_compared_with_each_other():
    text = table(
        ("", "click AUC", "seconds"),
        ("first",),
        ("bce", "0.1", "1"),
        ("pwiser", "0.2", "1"),
        ("second",),
        ("bce", "0.4", "1"),
        ("pwiser", "0.3", "1"),
    )
    assert bold(text) == ["0.2", "0.4"]


@pytest.mark.parametrize("spread", ["(0.0010)", "+- 0.0010"])
def test_spreads_are_marked(spread):
    text = table(("", "click AUC"), ("bce", f"0.7291 {spread}"), ("x", "0.1 (0.2)"))
    (node,) = results_table.render(text)
    marked = [inline.astext() for inline in node.findall(nodes.inline)]
    assert marked[0].strip() in {"(0.0010)", "\N{PLUS-MINUS SIGN} 0.0010"}
