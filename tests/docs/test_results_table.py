"""Cells of result tables: which are bold, and how a spread is marked."""

import pytest
from docs_scripts import load_script
from docutils import nodes

results_table = load_script("results_table")


def bold(text):
    """Return the bold cells of the tables of a text."""
    return bold_of(*results_table.render(text))


def bold_of(node):
    """Return the bold cells of a node."""
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


def test_tables_of_several_files_become_one_per_data_set():
    own = "$ own\n\n" + table(
        ("long: 9 rows; 5 seeds; part: test",),
        ("", "click AUC", "log loss"),
        ("network, bce", "0.72 (0.01)", "0.31"),
        ("network, pwiser", "0.71 (0.01)", "0.32"),
        widths=(20, 18, 18),
    )
    peers = own.replace("own", "peers").replace("5 seeds", "1 seeds")
    peers = peers.replace("network", "forests").replace("0.72", "0.74")
    (node,) = results_table.render(own, peers, rename="network=sk_pwiser")
    (found,) = node.findall(nodes.table)
    labels = [row[0].astext() for row in found.findall(nodes.row)]
    losses = ("bce", "pwiser")
    rows = [f"{name}, {loss}" for name in ("sk_pwiser", "forests") for loss in losses]
    assert labels == ["", *rows]
    assert "seeds" not in found.astext()
    assert bold_of(found) == ["0.31", "0.74", "0.31"]
    assert "$ own" in node.astext()
    assert "$ peers" in node.astext()
