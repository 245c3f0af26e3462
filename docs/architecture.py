"""The picture of the folders of the package, drawn from the imports of its source.

`conf.py` calls `write`. `FOLDERS` contains the position and the text of each folder; a
module at the top of the package counts as a folder. The arrows are the imports between
folders, read with `ast`, including imports inside functions. A folder without a line in
`FOLDERS` stops the build.
"""

import ast
import importlib.util
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

# The package is located but not imported: the picture only needs its source.
PACKAGE = Path(importlib.util.find_spec("sk_pwiser").origin).parent
TOP = "sk_pwiser"  # __init__.py and __main__.py


class Folder(NamedTuple):
    """A folder and its place in the picture.

    Parameters
    ----------
    layer : int
        Row of the picture; the top is 0. A folder only imports from lower rows.
    x, width : float
        Centre and width of the box, in pixels.
    step : str, default=""
        Number of the step in the path of the data.
    text : str, default=""
        Second line of the box.
    """

    layer: int
    x: float
    width: float
    step: str = ""
    text: str = ""


WIDTH, ROW_HEIGHT, BOX_HEIGHT, MARGIN = 800, 92, 46, 12
FOLDERS = {
    TOP: Folder(0, 400, 784, "", "the public names and python -m sk_pwiser"),
    "transfer": Folder(1, 110, 170, "", "several markets"),
    "export": Folder(1, 330, 170, "", "files that serve"),
    "distributed": Folder(1, 550, 170, "", "several workers"),
    "calibration": Folder(2, 130, 100),
    "linear_model": Folder(2, 720, 110),
    "model_selection": Folder(3, 170, 130),
    "_estimator": Folder(4, 300, 200, "4", "a scikit-learn classifier"),
    "callbacks": Folder(4, 700, 92),
    "_fit": Folder(5, 400, 200, "", "read, check, encode, build, train"),
    "_streaming": Folder(6, 400, 200, "", "rows of files, in parts"),
    "history": Folder(6, 111, 96),
    "_training": Folder(7, 565, 200, "2", "tensors to network"),
    "inspection": Folder(3, 52, 80),
    "networks": Folder(9, 285, 106, "3"),
    "losses": Folder(9, 400, 106, "3"),
    "weighting": Folder(9, 515, 106, "3"),
    "datasets": Folder(9, 629, 106),
    "metrics": Folder(10, 168, 104),
    "_files": Folder(10, 330, 80),
    "_row_weights": Folder(10, 500, 96),
    "delayed_feedback": Folder(10, 640, 108),
    "_responses": Folder(11, 165, 90),
    "_funnel": Folder(11, 480, 80),
    "_times": Folder(11, 330, 80),
    "_auc": Folder(11, 590, 64),
    "_table": Folder(12, 215, 260, "1", "table and labels to arrays"),
    "_utils": Folder(13, 400, 784, "", "parameter checks, registry, random numbers"),
}
# x of arrows between a box and a bar as wide as the picture, if an arrow at the middle
# of the box would cross other boxes.
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


def folder_of(path):
    """Return the folder of a path inside the package, or None for `_version.py`."""
    first = path.parts[0] if len(path.parts) > 1 else path.stem
    if first == "_version":
        return None
    return TOP if first in ("__init__", "__main__") else first


def find_arrows(package=PACKAGE):
    """Return the imports between folders.

    Parameters
    ----------
    package : Path, default=PACKAGE
        Folder of the package.

    Returns
    -------
    set of (str, str)
        Pairs of folders; the first imports from the second.
    """
    paths = [path.relative_to(package) for path in sorted(package.rglob("*.py"))]
    folders = {folder_of(path) for path in paths} - {None}
    arrows = set()
    for path in paths:
        folder = folder_of(path)
        tree = ast.parse((package / path).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            for name in imported_names(node, package.name):
                target = folder_of(Path(*name.split(".")))
                # A name that is not a folder is defined in the package's __init__.
                target = target if target in folders else TOP
                if folder not in (None, target):
                    arrows.add((folder, target))
    return arrows


def imported_names(node, package_name):
    """Return the names that a node imports from the package, without its own name."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    found = [".".join(rest) for first, *rest in parts if first == package_name and rest]
    return [name for name in found if name.split(".")[0] != "_version"]


def check_folders(folders):
    """Raise if a folder has no place in the picture, or a place has no folder."""
    if missing := set(folders) - set(FOLDERS):
        raise ValueError(
            f"FOLDERS of architecture.py has no line for {sorted(missing)}."
        )
    if left := set(FOLDERS) - set(folders):
        raise ValueError(f"FOLDERS of architecture.py has lines for {sorted(left)}.")


def write(path):
    """Draw the picture into a file."""
    files = [p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py")]
    check_folders({folder_of(p) for p in files} - {None})
    text = draw(find_arrows())
    path.parent.mkdir(parents=True, exist_ok=True)
    # An unchanged file keeps its time stamp, so that Sphinx does not rebuild its page.
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def draw(arrows):
    """Return the picture as SVG.

    Parameters
    ----------
    arrows : iterable of (str, str)
        Pairs of folders; the first imports from the second.
    """
    height = (
        2 * MARGIN + max(r.layer for r in FOLDERS.values()) * ROW_HEIGHT + BOX_HEIGHT
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif">',
        "<title>Folders of sk_pwiser and the imports between them</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{LINE}"/>'
        "</marker></defs>",
        *(arrow(*pair) for pair in sorted(arrows)),
        *(box(name, folder) for name, folder in FOLDERS.items()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def top_of(folder):
    """Return the upper edge of a folder's box."""
    return MARGIN + folder.layer * ROW_HEIGHT


def ends(source, target):
    """Return the points between which the arrow of an import runs."""
    a, b = FOLDERS[source], FOLDERS[target]
    start, end = a.x, b.x
    is_bar = [folder.width > WIDTH / 2 for folder in (a, b)]
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


def shift(folder, other):
    """Return the offset of an arrow to another box from the middle of its own box."""
    reach = folder.width / 2 - 14
    return max(-reach, min(reach, 0.25 * (other.x - folder.x)))


def arrow(source, target):
    """Return the line of one import."""
    (x, y), (x_end, y_end) = ends(source, target)
    return (
        f'<line x1="{x:g}" y1="{y:g}" x2="{x_end:g}" y2="{y_end:g}" stroke="{LINE}" '
        f'stroke-width="1.5" marker-end="url(#head)">'
        f"<title>{escape(source)} imports {escape(target)}</title></line>"
    )


def box(name, folder):
    """Return the box of one folder: its name, a second line and the step's number."""
    left, top = folder.x - folder.width / 2, top_of(folder)
    middle = top + BOX_HEIGHT / 2
    size = 13 if folder.text else 11
    parts = [
        f'<rect x="{left:g}" y="{top:g}" width="{folder.width:g}" '
        f'height="{BOX_HEIGHT}" rx="6" fill="{FILL}" stroke="{LINE}"/>',
        label(folder.x, middle - 3 if folder.text else middle + 5, name, size, "bold"),
    ]
    if folder.text:
        parts.append(label(folder.x, middle + 14, folder.text, 12))
    if folder.step:
        parts += [
            f'<circle cx="{left + 11:g}" cy="{middle:g}" r="8" fill="{STEP}"/>',
            label(left + 11, middle + 4, folder.step, 11, "bold", "#ffffff"),
        ]
    return "\n".join(parts)


def label(x, y, text, size, weight="normal", color=TEXT):
    """Return a centred line of text."""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" '
        f'fill="{color}" text-anchor="middle">{escape(text)}</text>'
    )
