"""Pictures of the package, drawn from its source and from a fit when pages are built.

`conf.py` calls the functions `write_...`. They write raw HTML with SVG that takes the
colours of the page, so that it is readable in the light and dark themes.
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

# The axes of a reliability curve, and the room for the numbers beside them.
AXIS_LENGTH = 300
AXIS_MARGIN = 60
DOT_RADIUS = 5
ACCENT = "var(--pst-color-primary)"


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


def reliability_curves():
    """Return the reliability curves of a model by task, before and after calibration.

    Two of five clicks are lost after the training rows, as in the gallery's example of
    calibration: the model ranks as before, but its probabilities are too high.
    """
    import numpy as np

    from sk_pwiser import MultiTaskCTRCVRClassifier
    from sk_pwiser.calibration import FunnelCalibrator
    from sk_pwiser.datasets import make_ctr_cvr
    from sk_pwiser.metrics import reliability_curve

    log = make_ctr_cvr(26_000, ctr=0.2, cvr=0.4, random_state=0)
    X, Y = log.data, log.target
    training = slice(8_000)
    recent = slice(8_000, 14_000)
    test = slice(14_000, None)
    is_lost = np.random.default_rng(0).random(len(Y)) < 0.4
    is_lost[training] = False
    Y[is_lost] = 0
    model = MultiTaskCTRCVRClassifier(max_epochs=4, device="cpu", random_state=0)
    model.fit(X[training], Y[training])
    calibrated = FunnelCalibrator(model).fit(X[recent], Y[recent])
    probabilities = {
        "before": model.predict_proba(X[test]),
        "after": calibrated.predict_proba(X[test]),
    }
    return {
        task: {
            name: reliability_curve(Y[task][test], columns[:, position], n_bins=8)
            for name, columns in probabilities.items()
        }
        for position, task in enumerate(Y)
    }


def write_reliability(path):
    """Write the reliability of each task before and after calibration."""
    shapes = []
    panel_width = AXIS_MARGIN + AXIS_LENGTH + 2 * GAP
    curves_by_task = reliability_curves()
    for position, (task, curves) in enumerate(curves_by_task.items()):
        shapes += reliability_panel(position * panel_width + AXIS_MARGIN, task, curves)
    width = len(curves_by_task) * panel_width
    height = 2 * AXIS_MARGIN + AXIS_LENGTH
    description = (
        "Observed over predicted rates of each task: below the diagonal of equal rates "
        "before calibration, and near it afterwards"
    )
    write_if_changed(path, picture(shapes, width, height, description))


def reliability_panel(left, task, curves):
    """Return the shapes of the curves of one task, with a diagonal of equal rates."""
    bottom = AXIS_MARGIN / 2 + AXIS_LENGTH
    right = left + AXIS_LENGTH
    largest_rate = 1.05 * max(max(curve.predicted) for curve in curves.values())
    pixels_per_rate = AXIS_LENGTH / largest_rate
    middle = left + AXIS_LENGTH / 2
    shapes = [
        f'<path d="M{left} {bottom - AXIS_LENGTH} V{bottom} H{right}" fill="none" '
        'stroke="currentColor"/>',
        f'<path d="M{left} {bottom} L{right} {bottom - AXIS_LENGTH}" '
        'stroke="currentColor" stroke-opacity="0.4"/>',
        text_at(middle, AXIS_MARGIN / 2 - GAP, f"{task}: observed rate"),
        text_at(middle, bottom + 3.5 * GAP, "predicted rate"),
    ]
    for rate in ticks(largest_rate):
        offset = rate * pixels_per_rate
        shapes += [
            text_at(left + offset, bottom + 1.5 * GAP, f"{rate:g}"),
            text_at(left - GAP / 2, bottom - offset + 5, f"{rate:g}", anchor="end"),
        ]
    for name, curve in curves.items():
        colour = ACCENT if name == "after" else "currentColor"
        points = [
            (left + predicted * pixels_per_rate, bottom - observed * pixels_per_rate)
            for predicted, observed in zip(curve.predicted, curve.observed, strict=True)
        ]
        shapes += dots(points, colour)
        x, y = points[-1]
        # "after" on the side of the diagonal, "before" below its line.
        label_y = y - GAP if name == "after" else y + 2 * GAP
        shapes.append(text_at(x, label_y, name, anchor="end", colour=colour))
    return shapes


def dots(points, colour):
    """Return a line through points, with a dot at each of them."""
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = f'<polyline points="{corners}" fill="none" stroke="{colour}"/>'
    circles = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{DOT_RADIUS}" fill="{colour}"/>'
        for x, y in points
    ]
    return [line, *circles]


def ticks(largest_rate):
    """Return the multiples of a round number up to a rate, at most six of them."""
    step = next(step for step in (0.02, 0.05, 0.1, 0.2) if largest_rate / step <= 6)
    return [round(number * step, 2) for number in range(int(largest_rate / step) + 1)]


def text_at(x, y, text, *, anchor="middle", colour="currentColor"):
    """Return the SVG of a text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(text)}</text>"
    )
