"""Pictures of the package, drawn from its source and from a fit when pages are built.

`conf.py` calls `write_folders` and `write_way_of_a_fit`. Both write raw HTML with SVG
that takes the colours of the page, so that it is readable in the light and dark themes.
"""

import sys
from html import escape
from pathlib import Path

from architecture import PACKAGE, find_imports, layers
from parameter_tables import write_if_changed

# Sizes in pixels.
BOX_HEIGHT = 30
GAP = 12
CHARACTER_WIDTH = 8.4  # of the monospaced font of the labels
LABEL_PADDING = 10
FONT_SIZE = 14
PAGE_WIDTH = 1000
NARROWEST = 640  # labels of narrower pictures are too small to read

# The function whose direct calls are the steps of a fit.
FIT = ("_fit/_fit.py", "fit")


def box(x, y, width, label, *, is_title=False):
    """Return the SVG of a labelled box."""
    weight = ' font-weight="bold"' if is_title else ""
    opacity = 0.16 if is_title else 0.06
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="5" '
        f'fill="currentColor" fill-opacity="{opacity}" stroke="currentColor" '
        'stroke-opacity="0.4"/>'
        f'<text x="{x + width / 2}" y="{y + BOX_HEIGHT / 2 + FONT_SIZE / 3}" '
        f'text-anchor="middle"{weight}>{escape(label)}</text>'
    )


def width_of(label):
    """Return the width of the box of a label."""
    return round(len(label) * CHARACTER_WIDTH) + 2 * LABEL_PADDING


def picture(shapes, width, height, description):
    """Return a block of reStructuredText with an SVG, which narrow pages scroll."""
    lines = [
        '<div style="overflow-x: auto">',
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(description)}" style="width: 100%; '
        f'min-width: {min(width, NARROWEST)}px; max-width: {width}px" '
        f'font-family="monospace" font-size="{FONT_SIZE}" fill="currentColor">',
        *shapes,
        "</svg>",
        "</div>",
    ]
    indented = "\n".join(f"   {line}" for line in lines)
    return f".. raw:: html\n\n{indented}\n"


def write_folders(path):
    """Write the picture of the folders: each imports only from rows below its own."""
    floors = layers(find_imports())
    widths = [sum(width_of(name) + GAP for name in floor) - GAP for floor in floors]
    total_width = max(widths)
    shapes = []
    y = 0
    for floor, width in zip(floors, widths, strict=True):
        x = (total_width - width) / 2
        for name in floor:
            shapes.append(box(x, y, width_of(name), name))
            x += width_of(name) + GAP
        y += BOX_HEIGHT + GAP
    description = "The folders of the package, each above those that it imports from"
    write_if_changed(path, picture(shapes, total_width, y - GAP, description))


def trace_fit():
    """Run a small fit, and map its steps to the files that each of them enters.

    A step is a function that `fit` of `_fit/_fit.py` calls. Helpers at the top of the
    package and in `_utils`, which serve all steps, are left out.
    """
    from sk_pwiser import MultiTaskCTRCVRClassifier
    from sk_pwiser.datasets import make_ctr_cvr

    log = make_ctr_cvr(3000, random_state=0)
    classifier = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0)
    steps = {}
    depth_of_fit = None
    depth = 0
    step = None

    def name_of(code):
        file = Path(code.co_filename)
        if PACKAGE not in file.parents:
            return None
        return file.relative_to(PACKAGE).as_posix(), code.co_qualname

    def profile(frame, event, _):
        nonlocal depth, depth_of_fit, step
        if event == "return":
            depth -= 1
            if depth == depth_of_fit:
                depth_of_fit = None
        if event != "call":
            return
        name = name_of(frame.f_code)
        if name == FIT and depth_of_fit is None:
            depth_of_fit = depth
        elif depth_of_fit is not None and name is not None:
            file, function = name
            if depth == depth_of_fit + 1:
                step = function
                steps.setdefault(step, [])
            is_helper = "/" not in file or file.startswith("_utils/")
            if step is not None and file not in steps[step] and not is_helper:
                steps[step].append(file)
        depth += 1

    sys.setprofile(profile)
    try:
        classifier.fit(log.data, log.target)
    finally:
        sys.setprofile(None)
    return {step: files for step, files in steps.items() if files}


def write_way_of_a_fit(path):
    """Write the picture of the steps of a fit, each with the files that it enters."""
    steps = trace_fit()
    first_column = max(map(width_of, steps)) + 2 * GAP
    shapes = []
    y = 0
    for step, files in steps.items():
        shapes.append(box(0, y, first_column - 2 * GAP, step, is_title=True))
        x = first_column
        for file in files:
            label = file.removesuffix(".py")
            if x + width_of(label) > PAGE_WIDTH:
                x = first_column
                y += BOX_HEIGHT + GAP / 2
            shapes.append(box(x, y, width_of(label), label))
            x += width_of(label) + GAP / 2
        y += BOX_HEIGHT + 2 * GAP
    description = "The steps of a fit from top to bottom, each with its files"
    write_if_changed(path, picture(shapes, PAGE_WIDTH, y - 2 * GAP, description))
