"""Directives `results-table` and `results-chart`: the figures of files in `results`.

    .. results-table:: results/arena.json
       :caption: Differences
       :clear: 1

    .. results-chart:: results/arena.json
       :caption: engage:
       :column: last AUC
       :highlight: sk_pwiser

A benchmark writes a file as a list of parts: its command and the versions ("source"),
texts, and tables with "caption", "columns" and "rows". A row is a list of cells, or a
text across the table. Tables of several files that have the same data set and columns
become one. `rename` replaces a part of the labels of rows. With `caption`, only tables
whose caption begins with this text are shown; with `without`, only those
whose caption begins with none of these texts, which commas divide. Columns that say whether a figure meets
its limit are for developers, and are left out.

The best value of a column is bold where the title says which direction is better. With
`clear`, differences are bold if they are better than 0 by more than this multiple of
the spread in parentheses; then the caption may say the direction. Captions such as
"engage: 94,784 rows" name the data set of a table. If a page has tables of several,
`_static/results_filter.js` shows those that readers choose, at first those of the first
data set. A chart has a line per row of the tables: a dot for the value, a line for its
spread. It marks 0 if there are values on both sides.
"""

import io
import json
import re
from html import escape
from itertools import compress, groupby
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from matplotlib import rc_context
from matplotlib.figure import Figure
from sphinx.util.docutils import SphinxDirective

DATA_SET = re.compile(r"([\w.-]+)[:,] ")
NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?")
SPREAD = re.compile(r"(\S+)( \([^()]*\)| \+- \S+)")
DIFFERENCE = re.compile(r"([-+][\d.]+) \(([\d.]+)\)")
SEEDS = re.compile(r" \d+ seeds;")
HIGHER = re.compile(r"\bAUC\b|\binterest\b")
LOWER = re.compile(r"\bloss\b|\bECE\b")
VERDICT = re.compile(r"|at (least|most) [\d.]+: (met|missed)")
# Colours that stand for those of the page.
TEXT, MUTED, ACCENT = "#010101", "#020202", "#030303"
PAGE_COLOURS = {
    TEXT: "currentColor",
    MUTED: "var(--pst-color-text-muted)",
    ACCENT: "var(--pst-color-primary)",
}


class ResultsTable(SphinxDirective):
    required_arguments, optional_arguments = 1, 4
    option_spec = dict.fromkeys(
        ("rename", "caption", "without", "clear", "column", "highlight", "title"),
        directives.unchanged,
    )

    def run(self):
        folder = Path(self.state.document.current_source).parent
        files = []
        for argument in self.arguments:
            self.env.note_dependency(str(folder / argument))
            files.append(json.loads((folder / argument).read_text(encoding="utf-8")))
        old, _, new = self.options.get("rename", "").partition("=")
        for row in (row for parts in files for row in all_rows(parts) if old):
            row[0] = row[0].replace(old, new)
        return [nodes.raw("", self.html(files), format="html")]

    def html(self, files):
        caption, clear = self.options.get("caption"), self.options.get("clear")
        if caption is not None:
            files = [with_caption(parts, caption) for parts in files]
            if not any("rows" in part for parts in files for part in parts):
                raise self.error(f"no table has a caption that begins with {caption!r}")
        if "without" in self.options:
            texts = [text.strip() for text in self.options["without"].split(",")]
            files = [without_captions(parts, texts) for parts in files]
        return render(files, None if clear is None else float(clear))


class ResultsChart(ResultsTable):
    def html(self, files):
        column = self.options["column"]
        points = read_points(files, column, self.options.get("caption", ""))
        if not points:
            raise self.error(f"no table has rows of {column!r}")
        of = self.options
        svg = draw(points, of.get("title", column), of.get("highlight", "pwiser"))
        return f'<div class="results-chart">{svg}</div>'


def setup(app):
    """Register the directives."""
    app.add_directive("results-table", ResultsTable)
    app.add_directive("results-chart", ResultsChart)
    app.add_js_file("results_filter.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def all_rows(parts):
    """Yield the rows of the tables, without texts."""
    for part in parts:
        yield from cells_of(part.get("rows", ()))


def cells_of(rows):
    """Return the rows that are no text across a table."""
    return [row for row in rows if not isinstance(row, str)]


def with_caption(parts, text):
    """Return the commands, and the tables whose caption begins with a text."""
    return [
        part
        for part in parts
        if "source" in part or " ".join(part.get("caption", ())).startswith(text)
    ]


def without_captions(parts, texts):
    """Return the parts other than tables whose captions begin with one of texts."""
    return [
        part
        for part in parts
        if not " ".join(part.get("caption", ())).startswith(tuple(texts))
    ]


# ---------------------------------------------------------------- tables


def render(files, clear=None):
    """Return the parts of files, with a list of their data sets to choose from."""
    parts = files[0] if len(files) == 1 else join(files)
    sets = data_sets(parts)
    names = list(dict.fromkeys(name for each in sets for name in each))
    found = []
    if names:
        options = "".join(f"<option>{escape(name)}</option>" for name in names)
        found = [
            '<p class="results-filter" hidden><label>Data set <select>'
            f'{options}<option value="">all</option></select></label></p>'
        ]
    for part, of_part in zip(parts, sets, strict=True):
        html, shown = part_html(part, clear), escape(" ".join(of_part))
        found.append(f'<div data-sets="{shown}">{html}</div>' if of_part else html)
    return f'<div class="results">{"".join(found)}</div>'


def join(files):
    """Return the commands of all files, and their tables without the numbers of seeds.

    Tables with the same data set and columns are joined. They may differ in the number
    of seeds, which the caption then leaves out.
    """
    source, joined, first = {"source": []}, [], {}
    for part in (part for parts in files for part in parts):
        if "source" in part:
            source["source"] += part["source"]
            continue
        key = "rows" in part and (data_set(part), *part["columns"])
        if key in first:
            table = first[key]
            table["rows"] += part["rows"]
            table["caption"] = [SEEDS.sub("", line) for line in table["caption"]]
        else:
            joined.append(part)
            first |= {key: part} if key else {}
    return [source, *joined]


def data_set(part):
    """Return the name of the data set in the caption of a table, or None."""
    match = DATA_SET.match(" ".join(part.get("caption", ())))
    return match and match[1]


def data_sets(parts):
    """Return, for each part, the names of the data sets that it belongs to.

    Texts before tables belong to the data sets of these tables, up to the next command.
    Parts without a name belong to all. If there is a single data set, no part has one.
    """
    names = [data_set(part) for part in parts]
    if len(set(names) - {None}) < 2:
        return [[] for _ in parts]
    found, below = [], []
    for part, name in zip(reversed(parts), reversed(names), strict=True):
        if "rows" in part:
            below.insert(0, name)
            found.insert(0, [name] if name else [])
        else:
            found.insert(0, list(dict.fromkeys(below)) if all(below) else [])
        if "source" in part:
            below = []
    return found


def part_html(part, clear=None):
    """Return a part of a file; the command and the versions are folded away."""
    if "source" in part:
        lines = escape("\n".join(part["source"]))
        summary = "<summary>Command and versions</summary>"
        return f"<details>{summary}<pre>{lines}</pre></details>"
    if "text" in part:
        return note(" ".join(part["text"]))
    rows, notes = list(part["rows"]), ""
    while rows and isinstance(rows[-1], str):
        notes = note(rows.pop()) + notes
    columns, rows = without_verdicts(part["columns"], rows)
    return table_html(part["caption"], columns, rows, clear) + notes


def without_verdicts(columns, rows):
    """Return a table without columns that say whether limits are met."""
    shown = [
        j == 0 or title or not all(VERDICT.fullmatch(row[j]) for row in cells_of(rows))
        for j, title in enumerate(columns)
    ]
    rows = [row if isinstance(row, str) else [*compress(row, shown)] for row in rows]
    return [*compress(columns, shown)], rows


def note(text):
    return f'<p class="results-note">{escape(text)}</p>'


def table_html(caption, columns, rows, clear=None):
    """Return a table."""
    is_number = [holds_numbers(j, rows) for j in range(len(columns))]
    if clear is None:
        best = best_cells([direction(title) for title in columns], rows)
    else:
        of_table = direction(" ".join(caption))
        best = clear_cells([direction(t) or of_table for t in columns], rows, clear)
    lines = [cells_html("th", columns, is_number)] if any(columns) else []
    for i, row in enumerate(rows):
        if isinstance(row, str):
            cell = f'<td class="group" colspan="{len(columns)}">{escape(row)}</td>'
        else:
            cell = cells_html("td", row, is_number, {j for k, j in best if k == i})
        lines.append(cell)
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    # A line of a caption may end with the semicolon between the two.
    title = "; ".join(line.rstrip(";") for line in caption)
    title = f"<caption>{escape(title)}</caption>" if caption else ""
    return (
        '<div class="pst-scrollable-table-container">'
        f'<table class="results-table table">{title}\n{body}</table></div>'
    )


def cells_html(tag, cells, is_number, bold=()):
    """Return the cells of a row; the spread of a number is marked."""
    found = []
    for j, cell in enumerate(cells):
        match = SPREAD.fullmatch(cell) if is_number[j] and tag == "td" else None
        value, spread = map(escape, match.groups() if match else (cell, ""))
        if is_number[j]:
            value = re.sub(r"^-(?=[\d.])", "\N{MINUS SIGN}", value)
        value = f"<strong>{value}</strong>" if j in bold else value
        if spread:
            spread = spread.replace("+-", "\N{PLUS-MINUS SIGN}")
            value += f'<span class="spread">{spread}</span>'
        shown = ' class="number"' if is_number[j] else ""
        found.append(f"<{tag}{shown}>{value}</{tag}>")
    return "".join(found)


def holds_numbers(j, rows):
    """Return whether a column, which is not the first, holds numbers."""
    cells = [row[j] for row in cells_of(rows)]
    numbers = sum(cell == "-" or bool(NUMBER.match(cell)) for cell in cells)
    return j > 0 and 2 * numbers >= sum(map(bool, cells)) > 0


def direction(title):
    """Return 1 if larger values are better, -1 if smaller ones, 0 if unknown."""
    if LOWER.search(title):
        return -1
    return 1 if HIGHER.search(title) else 0


def best_cells(directions, rows):
    """Return the positions (row, column) of the best values.

    Rows below a text are compared with each other only. Larger differences are better
    where no direction is known.
    """
    best = set()
    for is_text, block in groupby(enumerate(rows), lambda row: isinstance(row[1], str)):
        block = {} if is_text else dict(block)
        for j, sign in enumerate(directions):
            values, is_difference = values_of({i: row[j] for i, row in block.items()})
            sign = sign or is_difference
            values = {i: sign * value for i, value in values.items()}
            if sign and len(set(values.values())) > 1:
                largest = max(values.values())
                best |= {(i, j) for i, value in values.items() if value == largest}
    return best


def clear_cells(directions, rows, multiple):
    """Return the positions of differences that are better by a multiple of the spread.

    Larger differences are better where no direction is known.
    """
    return {
        (i, j)
        for i, row in enumerate(rows)
        for j, cell in enumerate([] if isinstance(row, str) else row)
        if (match := DIFFERENCE.fullmatch(cell))
        and (directions[j] or 1) * float(match[1]) > multiple * float(match[2])
    }


def values_of(cells):
    """Return the numbers at the beginning of cells, and whether they are differences.

    In a column of differences, all cells after the first have a sign, and the first is
    what they are differences to: 0.
    """
    found = ((key, NUMBER.match(cell)) for key, cell in cells.items())
    texts = {key: match.group() for key, match in found if match}
    values = {key: float(text.replace(",", "")) for key, text in texts.items()}
    first, *others = texts or [None]
    is_difference = bool(others) and all(texts[key][0] in "+-" for key in others)
    if is_difference and texts[first][0] not in "+-":
        values[first] = 0.0
    return values, is_difference


# ---------------------------------------------------------------- charts


def read_points(files, column, caption=""):
    """Return (label, value, length below, length above) of each row of a column."""
    points = []
    for table in (part for parts in files for part in with_caption(parts, caption)):
        if column in table.get("columns", ()):
            j, rows = table["columns"].index(column), cells_of(table["rows"])
            values, _ = values_of({i: row[j] for i, row in enumerate(rows)})
            points += [
                (rows[i][0], value, *lengths(value, rows[i][j]))
                for i, value in values.items()
            ]
    return points


def lengths(value, cell):
    """Return the lengths of a spread below and above: of a deviation, or of a range."""
    match = SPREAD.match(cell)
    ends = [float(end) for end in re.findall(r"[\d.]+", match[2] if match else "0")]
    if len(ends) == 1:
        return ends * 2
    return [max(value - ends[0], 0.0), max(ends[1] - value, 0.0)]


def draw(points, title, highlight):
    """Return an SVG element with a dot and a spread per point, the largest on top."""
    points = sorted(points, key=lambda point: point[1])
    colours = {"text.color": TEXT, "axes.edgecolor": MUTED}
    colours |= {"xtick.color": TEXT, "ytick.color": TEXT}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title, **colours}):
        figure = Figure(figsize=(5.2, 0.9 + 0.25 * len(points)))
        axes = figure.add_subplot()
        for y, (label, value, below, above) in enumerate(points):
            colour = ACCENT if highlight in label else MUTED
            axes.errorbar(value, y, xerr=[[below], [above]], fmt="o", color=colour)
        axes.set_yticks(range(len(points)), [label for label, *_ in points])
        axes.set_title(title, fontsize=10, loc="left")
        axes.grid(axis="x", color=MUTED, alpha=0.25)
        values = [value for _, value, *_ in points]
        if min(values) < 0 < max(values):
            axes.axvline(0, color=MUTED, linewidth=1)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.margins(y=0.08)
        file = io.StringIO()
        figure.savefig(file, format="svg", bbox_inches="tight", transparent=True)
    texts = "; ".join(f"{label}: {value:g}" for label, value, *_ in points[::-1])
    return inline(file.getvalue(), f"{title}. {texts}.")


def inline(svg, text):
    """Return a picture as part of a page: its colours and fonts, no sizes."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", svg)
    for colour, name in PAGE_COLOURS.items():
        svg = svg.replace(colour, name)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(text)}"', 1)
