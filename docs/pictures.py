"""Pictures of the package, drawn from its source and its results when pages are built.

`conf.py` calls the functions `write_...`. They write raw HTML with SVG that takes the
colours of the page, so that it is readable in the light and dark themes.
"""

import sys
from dataclasses import dataclass
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
LANE_HEIGHT = 24  # of a line of spans of time
MARK_RADIUS = 6

# The kinds of spans of time, and how they are filled.
TRAINED = "trained on"
HELD_OUT = "held out"
GAP_OF_LABELS = "gap: labels become known"
PREDICTED = "predicted"
CALIBRATED = "calibrated on"
READ = "read"
NOT_YET = "not known yet"
OUTLINE = 'stroke="currentColor" stroke-opacity="0.4"'
DASHED = f'fill="none" stroke-dasharray="4 3" {OUTLINE}'
PRIMARY = 'fill="var(--pst-color-primary, #0a7d91)" fill-opacity="0.55"'
STYLES = {
    TRAINED: f'fill="currentColor" fill-opacity="0.1" {OUTLINE}',
    HELD_OUT: f'fill="currentColor" fill-opacity="0.4" {OUTLINE}',
    GAP_OF_LABELS: DASHED,
    PREDICTED: f"{PRIMARY} {OUTLINE}",
    CALIBRATED: f'fill="var(--pst-color-accent, #9a5fc4)" fill-opacity="0.5" {OUTLINE}',
    READ: f"{PRIMARY} {OUTLINE}",
    NOT_YET: DASHED,
}

# The log of the picture of splits: as many days, and labels that are complete so late.
N_DAYS = 80
LABEL_DELAY = 6
N_FOLDS = 3
HELD_OUT_SHARE = 0.1  # the default of `validation_fraction`

# The log of the tutorial, in days.
TUTORIAL_DAYS = 14
TUTORIAL_FIT_DAYS = 10
TUTORIAL_CALIBRATION_DAYS = 2

# The impressions of one user, in hours, and the row that reads their past.
IMPRESSIONS = (2, 7, 10, 15, 19, 23, 27, 29, 32, 34.5, 35.5)
ROW_TIME = 36
# In hours: how old the state is, and how long after its impression a label is known.
STATE_DELAY = 2
LABEL_DELAYS = {"click": 6, "conversion": 22}
# How long after its impression each thing is in the state that a row reads.
DELAYS = {
    "impressions": STATE_DELAY,
    "clicks": STATE_DELAY + LABEL_DELAYS["click"],
    "conversions": STATE_DELAY + LABEL_DELAYS["conversion"],
}

# The bars of the funnel with their widths, and what predicts the step to the next one.
FUNNEL = {"impressions": 560, "clicks": 380, "conversions": 200}
STEPS_OF_FUNNEL = {
    "CTR": "predict_proba(X)[:, 0]",
    "CVR": "predict_cvr(X)",
}
WHOLE_FUNNEL = ("CTCVR = CTR * CVR", "predict_proba(X)[:, 1]")
STEP_HEIGHT = 56  # between two bars
BRACKET_WIDTH = 24
ARROW_SIZE = 5

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
        '<div style="overflow-x: auto; margin-bottom: 1rem">',
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


@dataclass(frozen=True, kw_only=True)
class Span:
    """A span of time of a kind that `STYLES` names."""

    start: float
    stop: float
    kind: str


def split_by_time():
    """Return the spans of each fold of a split by time, and those of the last fit.

    The folds are those of `FunnelTimeSplit`, and the rows that early stopping holds
    out are those of a fit with a `time_column`. The last fit learns from all rows
    whose labels are complete.
    """
    import numpy as np

    from sk_pwiser._rows._hold_out import held_by_time
    from sk_pwiser.model_selection import FunnelTimeSplit

    days = np.arange(N_DAYS)
    labels = np.ones((N_DAYS, 2), dtype=int)

    def spans_of(train, test_start, test_stop):
        is_held, _, _ = held_by_time(days[train].astype(float), HELD_OUT_SHARE)
        held_start = int(days[train][is_held].min())
        train_stop = int(days[train].max()) + 1
        return [
            Span(start=0, stop=held_start, kind=TRAINED),
            Span(start=held_start, stop=train_stop, kind=HELD_OUT),
            Span(start=train_stop, stop=test_start, kind=GAP_OF_LABELS),
            Span(start=test_start, stop=test_stop, kind=PREDICTED),
        ]

    folds = FunnelTimeSplit(N_FOLDS, time=days, gap=LABEL_DELAY)
    lanes = {}
    for number, (train, test) in enumerate(folds.split(days[:, None], labels), start=1):
        lanes[f"fold {number}"] = spans_of(train, int(test.min()), int(test.max()) + 1)
    period = N_DAYS // (N_FOLDS + 1)
    complete = days[days < N_DAYS - LABEL_DELAY]
    lanes["in operation"] = spans_of(complete, N_DAYS, N_DAYS + period)
    return lanes


def split_of_tutorial():
    """Return the spans in days of the folds of the tutorial, and of its model."""
    import numpy as np

    from sk_pwiser._rows._hold_out import held_by_time
    from sk_pwiser.model_selection import FunnelTimeSplit

    times = np.arange(0, TUTORIAL_FIT_DAYS, 1 / 24)
    labels = np.ones((len(times), 2), dtype=int)

    def spans_of_fit(rows):
        is_held, _, _ = held_by_time(times[rows], HELD_OUT_SHARE)
        held_start = times[rows][is_held].min()
        fit_stop = times[rows].max() + 1 / 24
        return [
            Span(start=0, stop=held_start, kind=TRAINED),
            Span(start=held_start, stop=fit_stop, kind=HELD_OUT),
        ]

    lanes = {}
    folds = FunnelTimeSplit(N_FOLDS, time=times)
    for number, (train, test) in enumerate(
        folds.split(times[:, None], labels), start=1
    ):
        start = times[test].min()
        stop = times[test].max() + 1 / 24
        predicted = Span(start=start, stop=stop, kind=PREDICTED)
        lanes[f"fold {number}"] = [*spans_of_fit(train), predicted]
    calibrated_stop = TUTORIAL_FIT_DAYS + TUTORIAL_CALIBRATION_DAYS
    lanes["the model"] = [
        *spans_of_fit(np.arange(len(times))),
        Span(start=TUTORIAL_FIT_DAYS, stop=calibrated_stop, kind=CALIBRATED),
        Span(start=calibrated_stop, stop=TUTORIAL_DAYS, kind=PREDICTED),
    ]
    return lanes


def rectangle(x, y, width, height, kind):
    """Return the SVG of a rectangle of a kind."""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" {STYLES[kind]}/>'


def words(x, y, label, anchor="start"):
    """Return the SVG of a label beside the lane that begins at a height."""
    baseline = y + LANE_HEIGHT / 2 + FONT_SIZE / 3
    return f'<text x="{x}" y="{baseline}" text-anchor="{anchor}">{escape(label)}</text>'


def legend(kinds, x, y):
    """Return the SVG of a line with each kind, and its name beside it."""
    shapes = []
    for kind in kinds:
        shapes.append(rectangle(x, y, LANE_HEIGHT, LANE_HEIGHT, kind))
        x += LANE_HEIGHT + LABEL_PADDING
        shapes.append(words(x, y, kind))
        x += width_of(kind) + LABEL_PADDING
    return shapes


def write_time_split(path):
    """Write the picture of what is trained on, held out and predicted later."""
    description = (
        "In each fold, a model is trained on the first rows, early stopping holds out "
        "the last ones of these, and a later period is predicted after a gap"
    )
    kinds = [TRAINED, HELD_OUT, GAP_OF_LABELS, PREDICTED]
    write_if_changed(path, picture_of_lanes(split_by_time(), kinds, description))


def write_tutorial(path):
    """Write the picture of the folds of the tutorial, and of its model."""
    description = (
        "The folds lie within the first ten days. The model is trained on these days, "
        "of which early stopping holds out the last one, calibrated on the two days "
        "after them, and predicts the last two"
    )
    kinds = [TRAINED, HELD_OUT, CALIBRATED, PREDICTED]
    write_if_changed(path, picture_of_lanes(split_of_tutorial(), kinds, description))


def picture_of_lanes(lanes, kinds, description):
    """Return a picture with a line of spans for each name, and a legend of kinds."""
    first_column = max(map(width_of, lanes))
    last_time = max(span.stop for spans in lanes.values() for span in spans)
    scale = (PAGE_WIDTH - first_column - 1) / last_time
    shapes = legend(kinds, first_column, 0)
    y = LANE_HEIGHT + 2 * GAP
    for label, spans in lanes.items():
        shapes.append(words(0, y, label))
        for span in spans:
            x = first_column + scale * span.start
            width = scale * (span.stop - span.start)
            shapes.append(rectangle(x, y, width, LANE_HEIGHT, span.kind))
        y += LANE_HEIGHT + GAP
    shapes.append(words(PAGE_WIDTH, y - GAP / 2, "time \N{RIGHTWARDS ARROW}", "end"))
    return picture(shapes, PAGE_WIDTH, y - GAP / 2 + LANE_HEIGHT, description)


def count_read():
    """Return how many impressions, clicks and conversions a row reads of its past."""
    import numpy as np
    import pandas as pd

    from sk_pwiser.history import HistoryFeatures

    times = [*IMPRESSIONS, ROW_TIME]
    X = pd.DataFrame({"user": "a", "time": times})
    Y = pd.DataFrame({"click": 1, "conversion": 1}, index=X.index)
    history = HistoryFeatures(
        keys=["user"],
        time="time",
        state_delay=STATE_DELAY,
        label_delay=LABEL_DELAYS,
    )
    row = history.fit_transform(X, Y).iloc[-1]
    columns = {
        "impressions": "user__log_impressions",
        "clicks": "user__log_click",
        "conversions": "user__log_conversion",
    }
    return {name: round(np.expm1(row[column])) for name, column in columns.items()}


def circle(x, y, *, is_filled):
    """Return the SVG of the mark of an impression."""
    opacity = 1 if is_filled else 0
    return (
        f'<circle cx="{x}" cy="{y}" r="{MARK_RADIUS}" fill="currentColor" '
        f'fill-opacity="{opacity}" stroke="currentColor"/>'
    )


def write_history(path):
    """Write the picture of what a row reads of its past with delays."""
    n_read = count_read()
    notes = {
        "impressions": "state_delay",
        "clicks": "state_delay + label_delay",
        "conversions": "state_delay + label_delay",
    }
    first_column = max(map(width_of, n_read))
    last_column = max(map(width_of, notes.values()))
    scale = (PAGE_WIDTH - first_column - last_column) / ROW_TIME
    row_x = first_column + scale * ROW_TIME
    shapes = legend([READ, NOT_YET], first_column, 0)
    top = LANE_HEIGHT + 2 * GAP
    y = top
    for name, count in n_read.items():
        read_width = scale * (ROW_TIME - DELAYS[name])
        delay_width = scale * DELAYS[name]
        delay_x = first_column + read_width
        shapes.append(words(0, y, name))
        shapes.append(rectangle(first_column, y, read_width, LANE_HEIGHT, READ))
        shapes.append(rectangle(delay_x, y, delay_width, LANE_HEIGHT, NOT_YET))
        for number, time in enumerate(IMPRESSIONS):
            x = first_column + scale * time
            shapes.append(circle(x, y + LANE_HEIGHT / 2, is_filled=number < count))
        shapes.append(words(row_x + LABEL_PADDING, y, notes[name]))
        y += LANE_HEIGHT + GAP
    shapes.append(
        f'<line x1="{row_x}" y1="{top - GAP}" x2="{row_x}" y2="{y}" '
        'stroke="currentColor" stroke-width="2"/>'
    )
    shapes.append(words(row_x, y, "the row", "middle"))
    description = (
        "A row reads impressions up to the delay of the state, and clicks and "
        "conversions up to this delay and that of their labels"
    )
    height = y + LANE_HEIGHT
    write_if_changed(path, picture(shapes, PAGE_WIDTH, height, description))


def arrow(x, y, stop):
    """Return the SVG of an arrow that points downwards."""
    tip = f"{x},{stop} {x - ARROW_SIZE},{stop - 2 * ARROW_SIZE}"
    return (
        f'<path d="M {x} {y} V {stop - ARROW_SIZE}" stroke="currentColor"/>'
        f'<polygon points="{tip} {x + ARROW_SIZE},{stop - 2 * ARROW_SIZE}"/>'
    )


def write_funnel(path):
    """Write the picture of the funnel: its events, and what predicts each step."""
    widest = max(FUNNEL.values())
    centre = widest / 2
    steps = [f"{name} = {output}" for name, output in STEPS_OF_FUNNEL.items()]
    shapes = []
    y = 0
    for place, (event, width) in enumerate(FUNNEL.items()):
        shapes.append(box(centre - width / 2, y, width, event, is_title=True))
        if place < len(steps):
            bottom = y + BOX_HEIGHT
            shapes.append(arrow(centre, bottom, bottom + STEP_HEIGHT))
            middle = bottom + (STEP_HEIGHT - LANE_HEIGHT) / 2
            shapes.append(words(centre + 2 * ARROW_SIZE, middle, steps[place]))
        y += BOX_HEIGHT + STEP_HEIGHT
    height = y - STEP_HEIGHT
    first, last = BOX_HEIGHT / 2, height - BOX_HEIGHT / 2
    left = widest + GAP
    right = left + BRACKET_WIDTH
    line = f"M {left} {first} H {right} V {last} H {centre + FUNNEL['conversions'] / 2}"
    shapes.append(f'<path d="{line}" fill="none" stroke="currentColor"/>')
    for number, label in enumerate(WHOLE_FUNNEL):
        top = height / 2 + (number - 1) * LANE_HEIGHT
        shapes.append(words(right + GAP, top, label))
    page_width = right + GAP + max(map(width_of, WHOLE_FUNNEL))
    description = (
        "Impressions lead to clicks by the CTR, and clicks to conversions by the CVR; "
        "their product is the CTCVR"
    )
    write_if_changed(path, picture(shapes, page_width, height, description))


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
    height = 1.5 * AXIS_MARGIN + AXIS_LENGTH
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
        # "after" on the side of the diagonal, "before" below its line.
        if name == "after":
            x, y = points[-1]
            label = text_at(x, y - GAP, name, anchor="end", colour=colour)
        else:
            x, y = points[-2]
            label = text_at(x + GAP, y + GAP, name, anchor="start", colour=colour)
        shapes.append(label)
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
