"""The filter of result tables by data set: a list to choose from, and marked blocks.

Captions such as "engage: 94,784 rows" name the data set of a table. If a file has
tables of several, each block of its page is marked by the data sets that it belongs to,
and `_static/results_filter.js` shows the blocks of the chosen one. Without JavaScript
the list stays hidden, and all blocks are shown.
"""

import re
from html import escape

from docutils import nodes
from results_parser import Table

DATA_SET = re.compile(r"([\w.-]+)[:,] ")


def data_set(table):
    """Return the name of the data set in the caption of a table, or None."""
    match = DATA_SET.match(table.caption[0]) if table.caption else None
    return match and match[1]


def data_sets(parts):
    """Return, for each part of a file, the names of the data sets that it belongs to.

    Lines before tables belong to the data sets of these tables, up to the next command.
    Parts without a name belong to all. If there is a single data set, no part has one.
    """
    names = [data_set(part) if isinstance(part, Table) else None for part in parts]
    if len(set(names) - {None}) < 2:
        return [[] for _ in parts]
    found, below = [], []
    for part, name in zip(reversed(parts), reversed(names), strict=True):
        if isinstance(part, Table):
            found.insert(0, [name] if name else [])
            below.insert(0, name)
            continue
        found.insert(0, list(dict.fromkeys(below)) if all(below) else [])
        if part.kind == "source":
            below = []
    return found


def control(names):
    """Return the list of data sets, which the script shows."""
    options = ["<option value=''>all</option>"]
    options += [f"<option>{escape(name)}</option>" for name in names]
    html = (
        '<p class="results-filter" hidden><label>Data set '
        f"<select>{''.join(options)}</select></label></p>"
    )
    return nodes.raw("", html, format="html")


def marked(found, names):
    """Return nodes in a block that is shown with some data sets only."""
    if not names:
        return found
    start = f'<div data-sets="{escape(" ".join(names))}">'
    return [
        nodes.raw("", start, format="html"),
        *found,
        nodes.raw("", "</div>", format="html"),
    ]
