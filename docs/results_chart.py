"""Directive `results-chart`: one column of result tables as a chart.

    .. results-chart:: results/a.txt results/b.txt
       :caption: engage
       :column: engage AUC
       :highlight: shared_bottom

The chart has a line per row: a dot for the value, a line for its spread. It takes the
rows of the tables whose caption begins with the given text, and is drawn as part of the
page, in the colours of the page, so that one picture serves light and dark.
"""

import io
import re
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from matplotlib import rc_context
from matplotlib.figure import Figure
from results_parser import Table, parse

# Colours that stand for those of the page.
TEXT, MUTED, ACCENT = "#010101", "#020202", "#030303"
PAGE_COLOURS = {
    TEXT: "currentColor",
    MUTED: "var(--pst-color-text-muted)",
    ACCENT: "var(--pst-color-primary)",
}
CELL = re.compile(
    r"^(?P<value>[-+]?[\d.]+)"
    r"(?: \((?P<deviation>[\d.]+)\)| \((?P<low>[\d.]+)-(?P<high>[\d.]+)\)"
    r"| \+- (?P<error>[\d.]+))?"
)


class Point(NamedTuple):
    """A row of a chart."""

    label: str
    value: float
    below: float = 0.0
    above: float = 0.0


class ResultsChart(Directive):
    """Draw one column of the tables of files."""

    required_arguments = 1
    optional_arguments = 4
    option_spec = {  # noqa: RUF012, as docutils reads it
        "caption": directives.unchanged,
        "column": directives.unchanged_required,
        "highlight": directives.unchanged_required,
        "rename": directives.unchanged,
        "title": directives.unchanged,
    }

    def run(self):
        document = self.state.document
        folder = Path(document.current_source).parent
        points = []
        for argument in self.arguments:
            document.settings.env.note_dependency(str(folder / argument))
            text = (folder / argument).read_text(encoding="utf-8")
            points += read_points(
                text, self.options["column"], self.options.get("caption", "")
            )
        if not points:
            raise self.error(f"no table has rows of {self.options['column']!r}")
        old, _, new = self.options.get("rename", "").partition("=")
        points = [
            point._replace(label=point.label.replace(old, new)) for point in points
        ]
        title = self.options.get("title", self.options["column"])
        svg = draw(points, title, self.options.get("highlight", "pwiser"))
        return [nodes.raw("", f'<div class="results-chart">{svg}</div>', format="html")]


def setup(app):
    """Register the directive."""
    app.add_directive("results-chart", ResultsChart)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def read_points(text, column, caption=""):
    """Return the values of a column in the tables with the caption and the column."""
    points = []
    for table in parse(text):
        is_meant = isinstance(table, Table) and column in table.head
        if is_meant and " ".join(table.caption).startswith(caption):
            j = table.head.index(column)
            rows = [row.cells for row in table.rows if not row.is_text]
            points += read_column([(cells[0], cells[j]) for cells in rows])
    return points


def read_column(cells):
    """Return the points of labels and cells; the first line of differences is 0."""
    found = [(label, CELL.match(cell)) for label, cell in cells]
    points = [read_cell(label, match) for label, match in found if match]
    signs = [match["value"][0] in "+-" for _, match in found if match]
    if len(signs) > 1 and all(signs[1:]) and not signs[0]:
        points[0] = Point(points[0].label, 0.0)
    return points


def read_cell(label, match):
    """Return the point of a cell: a deviation goes to both sides, a range from-to."""
    value = float(match["value"])
    if match["low"]:
        below, above = value - float(match["low"]), float(match["high"]) - value
        return Point(label, value, max(below, 0.0), max(above, 0.0))
    spread = float(match["deviation"] or match["error"] or 0)
    return Point(label, value, spread, spread)


def draw(points, title, highlight):
    """Return an SVG element with a dot and a spread per point, the largest on top."""
    points = sorted(points, key=lambda point: point.value)
    rc = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "text.color": TEXT,
        "axes.edgecolor": MUTED,
        "xtick.color": TEXT,
        "ytick.color": TEXT,
    }
    with rc_context(rc):
        figure = Figure(figsize=(5.2, 0.9 + 0.25 * len(points)))
        axes = figure.add_subplot()
        for y, point in enumerate(points):
            is_highlighted = highlight in point.label
            axes.errorbar(
                point.value,
                y,
                xerr=[[point.below], [point.above]],
                fmt="o",
                color=ACCENT if is_highlighted else MUTED,
            )
        axes.set_yticks(range(len(points)), [point.label for point in points])
        axes.set_title(title, fontsize=10, loc="left")
        axes.grid(axis="x", color=MUTED, alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.margins(y=0.08)
        file = io.StringIO()
        figure.savefig(file, format="svg", bbox_inches="tight", transparent=True)
    return inline(file.getvalue(), describe(points, title))


def describe(points, title):
    """Return the text that stands for a chart."""
    values = "; ".join(f"{point.label}: {point.value:g}" for point in reversed(points))
    return f"{title}. {values}."


def inline(svg, text):
    """Return a picture as part of a page: its colours and fonts, no sizes."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", svg)
    for colour, name in PAGE_COLOURS.items():
        svg = svg.replace(colour, name)
    label = text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
