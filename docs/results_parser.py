"""Read the tables that the commands under `benchmarks/` print.

A file consists of paragraphs. A paragraph with a table has lines of a caption, a line
of headings, and rows whose numbers end where the headings end. Labels and units have no
heading; two spaces or more separate them from the numbers. The readers of a page see
the same figures as those of the file: nothing is rounded or left out.
"""

import re
from dataclasses import dataclass, field

GAP = re.compile(r" {2,}")
NUMBER_END = re.compile(r"[\d)%]$|(?:^| )-$")
SPREAD = re.compile(r"\d \([^()]*\)(?= |$)")
PAIR = re.compile(r"(\S+(?: \S+)*) {2,}([-+]?[\d,.]+(?: \(.*\))?)$")
BLANK_LABEL = " " * 5
SOURCE = ("$ ", "Python ", "device ", "parameters: ")


@dataclass
class Row:
    """A line of a table: its cells, or one text across the table."""

    cells: list[str]
    is_text: bool = False


@dataclass
class Table:
    """A table: caption lines, one heading per column, rows, and lines below it."""

    caption: list[str]
    head: list[str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


@dataclass
class Lines:
    """Lines without a table: the "source" of what follows, a "note", or "literal"."""

    kind: str
    lines: list[str]


def parse(text):
    """Return the parts of a file: objects of `Table` and `Lines`, in their order."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        source, lines = split_source(paragraph.split("\n"))
        if source:
            parts.append(Lines("source", source))
        if lines:
            parts.append(parse_paragraph(lines))
    return parts


def split_source(lines):
    """Split off the command, and what it prints of the machine, from a paragraph."""
    n = 0
    while n < len(lines):
        continues = n > 0 and lines[n - 1].endswith("\\")
        if not (lines[n].startswith(SOURCE) or continues):
            break
        n += 1
    return lines[:n], lines[n:]


def parse_paragraph(lines):
    """Return the table of a paragraph, or its lines."""
    for i, head in enumerate(lines[:-1]):
        if not GAP.search(head.rstrip()):
            continue
        edges = find_edges(head, lines[i + 1 :])
        n_cells = 1 + len(GAP.split(head.strip()))
        in_order = [len(GAP.split(line.strip())) == n_cells for line in lines[i + 1 :]]
        if 1 < len(edges) + 2 < n_cells and 3 * sum(in_order) >= len(in_order):
            return read_in_order(lines[:i], head, lines[i + 1 :], n_cells)
        if edges:
            return read_table(lines[:i], head, lines[i + 1 :], edges)
    if len(lines) > 2 and all(PAIR.match(line) for line in lines[1:]):
        rows = [Row(list(PAIR.match(line).groups())) for line in lines[1:]]
        return Table(lines[:1], ["", ""], rows)
    is_text = not any(GAP.search(line.strip()) for line in lines)
    return Lines("note" if is_text else "literal", lines)


def find_edges(head, lines):
    """Return where headings end and where many rows' numbers below them end.

    The two may differ by one character, as where a benchmark puts a space before each
    number.
    """
    rows = [line for line in lines if GAP.search(line.strip())]
    edges = []
    for end in (match.end() for match in re.finditer(r"\S(?= |$)", head)):
        counts = {e: sum(ends_number(row, e) for row in rows) for e in near(end)}
        best = max(counts, key=counts.get)
        is_inner = head[end : end + 2].strip() != ""  # a single space follows
        has_more = any(row[best:].strip() for row in rows)
        if rows and 3 * counts[best] >= len(rows) and (has_more or not is_inner):
            edges.append((end, best))
    if head.startswith(BLANK_LABEL):
        return edges or overflown_edge(head, rows)
    is_row = all(ends_number(head, end) for end, _ in edges)
    return [] if is_row else edges


def near(end):
    """Return a position and its neighbours, itself first."""
    return end, end + 1, end - 1


def overflown_edge(head, rows):
    """Return where the numbers end below a single heading wider than its column."""
    ends = [match.end() for row in rows for match in SPREAD.finditer(row)]
    if not ends or GAP.search(head.strip()):
        return []
    return [(len(head.rstrip()), max(set(ends), key=ends.count))]


def ends_number(row, end):
    """Return whether a number of the row, its spread included, ends at the position."""
    before, after = row[:end], row[end : end + 2]
    return (
        len(row) >= end
        and NUMBER_END.search(before) is not None
        and before.count("(") == before.count(")")
        and after[:1] in ("", " ", "+", "-")
        and after != " ("
        # "0.3 0.5" is one cell, but "0.3 (0.1) 0.5" is two.
        and (before.endswith(")") or re.match(r" \d", after) is None)
    )


def read_table(caption, head, lines, edges):
    """Cut the lines at the edges, and each part at its gaps, into cells."""
    head_edges, row_edges = zip(*edges, strict=True)
    cuts = [read_line(line, row_edges) for line in lines]
    notes = []
    while cuts and cuts[-1] is None:
        cuts.pop()
        notes.insert(0, lines[len(cuts)].strip())
    found = [cut for cut in cuts if cut]
    widths = [max(len(cut[i]) for cut in found) for i in range(len(edges) + 1)]
    rows = [
        Row([line.strip()], is_text=True) if cut is None else Row(fill_all(cut, widths))
        for line, cut in zip(lines, cuts, strict=False)
    ]
    cut = cut_line(head, head_edges)
    if head.startswith(BLANK_LABEL) and widths[0] > 1:
        cut[0].insert(0, "")
    return Table(caption, fill_all(cut, widths), rows, notes)


def read_in_order(caption, head, lines, n_cells):
    """Read a table whose headings are as many as the numbers, and not above them."""
    rows = [GAP.split(line.strip()) for line in lines]
    rows = [
        Row(cells) if len(cells) == n_cells else Row([line.strip()], is_text=True)
        for line, cells in zip(lines, rows, strict=True)
    ]
    notes = []
    while rows[-1].is_text:
        notes.insert(0, rows.pop().cells[0])
    return Table(caption, ["", *GAP.split(head.strip())], rows, notes)


def read_line(line, edges):
    """Return the cells of a line between the edges; None for a text."""
    line = line.rstrip()
    if not GAP.search(line.strip()):
        return None
    if any(is_within_word(line, edge) for edge in edges):
        # The label is wider than its column and moves the single number, or it is a
        # text.
        cells = GAP.split(line.strip())
        return [cells, []] if len(edges) == 1 else None
    cut = cut_line(line, edges)
    if any(cells and not NUMBER_END.search(cells[-1]) for cells in cut[1:-1]):
        return None
    for cells, edge in zip(cut, edges, strict=False):
        if len(line) < edge:
            cells.append("")  # the line ends before the number
    return cut


def is_within_word(line, edge):
    """Return whether a word of a line crosses an edge."""
    return bool(
        line[edge - 1 : edge].strip()
        and line[edge : edge + 1].strip()
        and not ends_number(line, edge)
    )


def cut_line(line, edges):
    """Cut a line at the edges, and each part at its gaps."""
    parts = [
        line[a:b].strip() for a, b in zip([0, *edges], [*edges, None], strict=True)
    ]
    return [GAP.split(part) if part else [] for part in parts]


def fill_all(cut, widths):
    """Return the cells of a row, with empty ones where it has fewer than others.

    The first part of a row begins with a label; all parts end with a number.
    """
    cells = []
    for i, (part, width) in enumerate(zip(cut, widths, strict=True)):
        n_first = 1 if i == 0 and len(part) > 1 else 0
        cells += part[:n_first] + [""] * (width - len(part)) + part[n_first:]
    return cells
