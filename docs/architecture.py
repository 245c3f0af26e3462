"""The picture of the rooms of the package, drawn from the imports of its source.

`conf.py` calls `write`. `ROOMS` says where each room stands and what it holds; the
arrows are the imports between rooms, read by `ast`, imports inside functions included.
A room without a line in `ROOMS` stops the build.
"""

import ast
import importlib.util
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

# The package is located and not imported: the picture needs its source only.
PACKAGE = Path(importlib.util.find_spec("sk_pwiser").origin).parent
TOP = "sk_pwiser"  # __init__.py and __main__.py


class Room(NamedTuple):
    """A room and its place in the picture.

    Parameters
    ----------
    layer : int
        Row of the picture; the top is 0. A room imports from lower rows only.
    x, width : float
        Centre and width of the box, in pixels.
    step : str, default=""
        Number of the step in the way of the data.
    text : str, default=""
        Second line of the box.
    """

    layer: int
    x: float
    width: float
    step: str = ""
    text: str = ""


WIDTH, ROW_HEIGHT, BOX_HEIGHT, MARGIN = 800, 92, 46, 12
ROOMS = {
    TOP: Room(0, 400, 784, "", "the public names and python -m sk_pwiser"),
    "transfer": Room(1, 110, 170, "", "several markets"),
    "export": Room(1, 330, 170, "", "files that serve"),
    "distributed": Room(1, 550, 170, "", "several workers"),
    "_estimator": Room(2, 300, 200, "4", "a scikit-learn classifier"),
    "callbacks": Room(2, 700, 92),
    "_training": Room(3, 565, 200, "2", "tensors to network"),
    "history": Room(3, 111, 96),
    "inspection": Room(4, 52, 80),
    "calibration": Room(4, 155, 80),
    "_table": Room(4, 254, 106, "1", "table to tensors"),
    "linear_model": Room(4, 743, 92),
    "model_selection": Room(5, 55, 102),
    "networks": Room(5, 285, 106, "3"),
    "losses": Room(5, 400, 106, "3"),
    "weighting": Room(5, 515, 106, "3"),
    "datasets": Room(5, 629, 106),
    "metrics": Room(6, 168, 104),
    "_files": Room(6, 330, 80),
    "_row_weights": Room(6, 500, 96),
    "delayed_feedback": Room(6, 640, 108),
    "_responses": Room(7, 165, 90),
    "_times": Room(7, 330, 80),
    "_labels": Room(8, 130, 160, "", "read and checked"),
    "_utils": Room(9, 400, 784, "", "parameter checks, registry, random numbers"),
}
# Where an arrow between a box and a bar as wide as the picture runs, if the middle of
# the box would lead it through other boxes.
LANES = {
    (TOP, "datasets"): 674,
    (TOP, "model_selection"): 13,
    ("_estimator", "_utils"): 342.5,
    ("_training", "_utils"): 572,
    ("weighting", "_utils"): 558,
    ("_table", "_utils"): 225,
}

# Colours that can be read on a light and on a dark page.
LINE, FILL, TEXT, STEP = "#7a8594", "#e9eef6", "#1b2430", "#2f6db3"


def room_of(path):
    """Return the room of a path relative to the package, or None for `_version.py`."""
    first = path.parts[0] if len(path.parts) > 1 else path.stem
    if first == "_version":
        return None
    return TOP if first in ("__init__", "__main__") else first


def find_arrows(package=PACKAGE):
    """Return the pairs of rooms of which the first imports from the second.

    Parameters
    ----------
    package : Path, default=PACKAGE
        Folder of the package.

    Returns
    -------
    set of (str, str)
        The imports between different rooms.
    """
    paths = [path.relative_to(package) for path in sorted(package.rglob("*.py"))]
    rooms = {room_of(path) for path in paths} - {None}
    arrows = set()
    for path in paths:
        room = room_of(path)
        tree = ast.parse((package / path).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            for name in imported_names(node, package.name):
                target = room_of(Path(*name.split(".")))
                # A name that is no room stands in the package's own __init__.
                target = target if target in rooms else TOP
                if room not in (None, target):
                    arrows.add((room, target))
    return arrows


def imported_names(node, package_name):
    """Return the dotted names, without the package's, that a node imports from it."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    found = [".".join(rest) for first, *rest in parts if first == package_name and rest]
    return [name for name in found if name.split(".")[0] != "_version"]


def check_rooms(rooms):
    """Raise if a room has no place in the picture, or a place has no room."""
    if missing := set(rooms) - set(ROOMS):
        raise ValueError(f"ROOMS of architecture.py has no line for {sorted(missing)}.")
    if left := set(ROOMS) - set(rooms):
        raise ValueError(f"ROOMS of architecture.py has lines for {sorted(left)}.")


def write(path):
    """Draw the picture into a file."""
    files = [p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py")]
    check_rooms({room_of(p) for p in files} - {None})
    text = draw(find_arrows())
    path.parent.mkdir(parents=True, exist_ok=True)
    # An unchanged file keeps its time, so that Sphinx rebuilds no page for it.
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def draw(arrows):
    """Return the picture as SVG.

    Parameters
    ----------
    arrows : iterable of (str, str)
        Pairs of rooms; the first imports from the second.
    """
    height = 2 * MARGIN + max(r.layer for r in ROOMS.values()) * ROW_HEIGHT + BOX_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif">',
        "<title>Rooms of sk_pwiser and the imports between them</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{LINE}"/>'
        "</marker></defs>",
        *(arrow(*pair) for pair in sorted(arrows)),
        *(box(name, room) for name, room in ROOMS.items()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def top_of(room):
    """Return the upper edge of a room's box."""
    return MARGIN + room.layer * ROW_HEIGHT


def ends(source, target):
    """Return the points between which the arrow of an import runs."""
    a, b = ROOMS[source], ROOMS[target]
    start, end = a.x, b.x
    is_bar = [room.width > WIDTH / 2 for room in (a, b)]
    if any(is_bar):
        # Vertical, at the middle of the narrower of the two.
        x = LANES.get((source, target), b.x if is_bar[0] else a.x)
        start = end = x
    else:
        # Off the middles, towards each other, so that arrows do not coincide.
        start += shift(a, b)
        end += shift(b, a)
    y = top_of(a) + (BOX_HEIGHT if b.layer > a.layer else 0)
    y_end = top_of(b) + (0 if b.layer > a.layer else BOX_HEIGHT)
    return (start, y), (end, y_end)


def shift(room, other):
    """Return how far from the middle of a box the arrow to another one begins."""
    reach = room.width / 2 - 14
    return max(-reach, min(reach, 0.25 * (other.x - room.x)))


def arrow(source, target):
    """Return the line of one import."""
    (x, y), (x_end, y_end) = ends(source, target)
    return (
        f'<line x1="{x:g}" y1="{y:g}" x2="{x_end:g}" y2="{y_end:g}" stroke="{LINE}" '
        f'stroke-width="1.5" marker-end="url(#head)">'
        f"<title>{escape(source)} imports {escape(target)}</title></line>"
    )


def box(name, room):
    """Return the box of one room: its name, a second line and the step's number."""
    left, top = room.x - room.width / 2, top_of(room)
    middle = top + BOX_HEIGHT / 2
    size = 13 if room.text else 11
    parts = [
        f'<rect x="{left:g}" y="{top:g}" width="{room.width:g}" height="{BOX_HEIGHT}" '
        f'rx="6" fill="{FILL}" stroke="{LINE}"/>',
        label(room.x, middle - 3 if room.text else middle + 5, name, size, "bold"),
    ]
    if room.text:
        parts.append(label(room.x, middle + 14, room.text, 12))
    if room.step:
        parts += [
            f'<circle cx="{left + 11:g}" cy="{middle:g}" r="8" fill="{STEP}"/>',
            label(left + 11, middle + 4, room.step, 11, "bold", "#ffffff"),
        ]
    return "\n".join(parts)


def label(x, y, text, size, weight="normal", color=TEXT):
    """Return a centred line of text."""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" '
        f'fill="{color}" text-anchor="middle">{escape(text)}</text>'
    )
