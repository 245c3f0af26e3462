"""Directive `results-table`: the tables of files under `docs/results`, as tables.

    .. results-table:: results/real_auc_defaults.txt results/real_auc_peers.txt
       :rename: shared_bottom=sk_pwiser

Tables of several files that have the same data set and headings become one. `rename`
replaces a part of the labels of rows.

The best value of a column is bold where the heading says which direction is better. The
spread is in small type. The command that wrote a file, and the versions it ran with,
are folded away above its tables. If there are tables of several data sets, readers can
choose one of them.
"""

import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from results_filter import control, data_set, data_sets, marked
from results_parser import Lines, Table, parse

SPREAD = re.compile(r"^(\S+)( \([^()]*\)| \+- \S+)$")
NUMBER = re.compile(r"^[-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?")
HIGHER = re.compile(r"\bAUC\b|\binterest\b")
SEEDS = re.compile(r" \d+ seeds;")
LOWER = re.compile(r"\bloss\b|\bECE\b")


class ResultsTable(Directive):
    """Read files of results and return their tables."""

    required_arguments = 1
    optional_arguments = 4
    option_spec = {"rename": directives.unchanged}  # noqa: RUF012, as docutils reads it

    def run(self):
        document = self.state.document
        folder = Path(document.current_source).parent
        texts = []
        for argument in self.arguments:
            document.settings.env.note_dependency(str(folder / argument))
            texts.append((folder / argument).read_text(encoding="utf-8"))
        return render(*texts, rename=self.options.get("rename", ""))


def setup(app):
    """Register the directive."""
    app.add_directive("results-table", ResultsTable)
    app.add_js_file("results_filter.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def render(*texts, rename=""):
    """Return the nodes of files."""
    parts = [part for text in texts for part in parse(text)]
    if len(texts) > 1:
        parts = join(parts)
    old, _, new = rename.partition("=")
    for row in (row for part in parts if isinstance(part, Table) for row in part.rows):
        row.cells[0] = row.cells[0].replace(old, new) if old else row.cells[0]
    sets = data_sets(parts)
    names = list(dict.fromkeys(name for each in sets for name in each))
    found = [control(names)] if names else []
    for part, of_part in zip(parts, sets, strict=True):
        found += marked(part_nodes(part), of_part)
    return [nodes.container("", *found, classes=["results"])]


def join(parts):
    """Join tables of the same data set and headings, and the commands of all files.

    The caption loses the number of seeds, which differs between the files.
    """
    source, joined, first = Lines("source", []), [], {}
    for part in parts:
        if not isinstance(part, Table) and part.kind == "source":
            source.lines += part.lines
            continue
        key = isinstance(part, Table) and (data_set(part), *part.head)
        if key in first:
            table = first[key]
            table.rows += part.rows
            table.caption = [SEEDS.sub("", line) for line in table.caption]
        else:
            joined.append(part)
            first |= {key: part} if key else {}
    return [source, *joined]


def part_nodes(part):
    """Return the nodes of a part of a file."""
    if not isinstance(part, Lines):
        return [table_node(part), *paragraphs(part.notes)]
    if part.kind == "source":
        return folded(part.lines)
    if part.kind == "note":
        return paragraphs([" ".join(part.lines)])
    return [literal(part.lines, "none")]


def paragraphs(lines):
    """Return a paragraph of small type per line."""
    return [nodes.paragraph("", line, classes=["results-note"]) for line in lines]


def literal(lines, language):
    """Return a block of unchanged lines."""
    text = "\n".join(lines)
    return nodes.literal_block(text, text, language=language)


def folded(lines):
    """Return the command and the versions, which readers unfold."""
    head = "<details><summary>Command and versions</summary>"
    return [
        nodes.raw("", head, format="html"),
        literal(lines, "console"),
        nodes.raw("", "</details>", format="html"),
    ]


def table_node(table):
    """Return the node of a table."""
    width = len(table.head)
    node = nodes.table(classes=["results-table", "colwidths-auto"])
    if table.caption:
        node += nodes.title("", " ".join(line.strip() for line in table.caption))
    group = nodes.tgroup(cols=width)
    group += [nodes.colspec(colwidth=1) for _ in range(width)]
    is_number = [holds_numbers(table, j) for j in range(width)]
    if any(table.head):
        head = [cell_node(text, is_number[j]) for j, text in enumerate(table.head)]
        group += nodes.thead("", nodes.row("", *head))
    best = best_cells(table)
    body = nodes.tbody()
    for i, row in enumerate(table.rows):
        if row.is_text:
            entry = nodes.entry(
                "", nodes.paragraph("", row.cells[0]), classes=["group"]
            )
            entry["morecols"] = width - 1
            body += nodes.row("", entry)
            continue
        cells = [
            cell_node(text, is_number[j], is_best=(i, j) in best)
            for j, text in enumerate(row.cells)
        ]
        body += nodes.row("", *cells)
    group += body
    node += group
    return node


def cell_node(text, is_number, is_best=False):
    """Return a cell; the spread of a number is marked."""
    match = SPREAD.match(text) if is_number else None
    value, spread = match.groups() if match else (text, "")
    if is_number:
        value = re.sub(r"^-(?=[\d.])", "\N{MINUS SIGN}", value)
    paragraph = nodes.paragraph()
    paragraph += nodes.strong("", value) if is_best else nodes.Text(value)
    if spread:
        text = spread.replace("+-", "\N{PLUS-MINUS SIGN}")
        paragraph += nodes.inline("", text, classes=["spread"])
    return nodes.entry("", paragraph, classes=["number"] if is_number else [])


def holds_numbers(table, j):
    """Return whether a column, which is not the first, holds numbers."""
    cells = [row.cells[j] for row in table.rows if not row.is_text]
    numbers = sum(cell == "-" or bool(NUMBER.match(cell)) for cell in cells)
    return j > 0 and 2 * numbers >= sum(map(bool, cells)) > 0


def best_cells(table):
    """Return the positions (row, column) of the best values.

    Rows below a text are compared with each other only.
    """
    best = set()
    for block in blocks(table.rows):
        for j, title in enumerate(table.head):
            values = {i: table.rows[i].cells[j] for i in block}
            values = {i: cell for i, cell in values.items() if NUMBER.match(cell)}
            best |= {(i, j) for i in best_rows(title, values)}
    return best


def blocks(rows):
    """Yield the indices of rows without a text between them."""
    block = []
    for i, row in enumerate(rows):
        if row.is_text:
            yield block
            block = []
        else:
            block.append(i)
    yield block


def best_rows(title, cells):
    """Return the rows with the best value of a column; none if no value is better.

    In a column of differences, all cells after the first have a sign, and the first is
    what they are differences to: 0. There more is better, unless the column is a loss.
    """
    rows, texts = list(cells), list(cells.values())
    values = [float(NUMBER.match(text).group().replace(",", "")) for text in texts]
    is_difference = len(texts) > 1 and all(text[0] in "+-" for text in texts[1:])
    if is_difference and texts[0][0] not in "+-":
        values[0] = 0.0
    if LOWER.search(title):
        values = [-value for value in values]
    elif not (is_difference or HIGHER.search(title)):
        return []
    if len(set(values)) < 2:
        return []
    return [
        row for row, value in zip(rows, values, strict=True) if value == max(values)
    ]
