"""Helpers shared by all plots: matplotlib, the colours of the tasks, axes, legends."""

import numpy as np

from sk_pwiser._utils import import_extra

# The palette of Okabe and Ito, which colour-blind readers can tell apart, without its
# yellow, which is hardly visible on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#7F7F7F"
DOTTED = (0, (1, 2))  # reference lines

# Lines and markers that distinguish several models in one plot.
DASHES = ((8, 3), (5, 1), (1, 1), (3, 1, 1, 1))
LINE_STYLES = ("-", "--", ":", "-.", *((0, dashes) for dashes in DASHES))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

# Scales of an axis, and the base rate below which "auto" is "log".
SCALES = ("auto", "linear", "log")
RARE = 0.1


def import_pyplot(user):
    return import_extra("matplotlib.pyplot", user)


def axes_or_new(ax, user):
    pyplot = import_pyplot(user)
    return pyplot.subplots(layout="constrained")[1] if ax is None else ax


def row_of_axes(ax, n_axes, user):
    """Return the given axes as an array, or a row of axes in a new figure."""
    pyplot = import_pyplot(user)
    if ax is None:
        size = (4.2 * n_axes + 0.6, 3.6)
        _, axes = pyplot.subplots(
            1, n_axes, figsize=size, layout="constrained", squeeze=False
        )
        return axes[0]
    # As an object array, since `ax` may be one axes, a list, or what `subplots`
    # returns.
    axes = np.ravel(np.array(ax, dtype=object))
    if len(axes) != n_axes:
        raise ValueError(
            f"ax must contain {n_axes} axes, one per plot, got {len(axes)}."
        )
    return axes


def task_color(index):
    return PALETTE[index % len(PALETTE)]


def curve_styles(task_names, model_names=None, scores=None, form="{}"):
    """Return keywords of each curve: a colour per task, a line style per model.

    Several curves of a task and a model are those of folds: thin, with one label.
    """
    model_names = model_names or [None] * len(task_names)
    tasks, models = list(dict.fromkeys(task_names)), list(dict.fromkeys(model_names))
    curves = list(zip(task_names, model_names, strict=True))
    styles = []
    for k, (task, model) in enumerate(curves):
        m = models.index(model)
        # Only the first fold has a label; matplotlib leaves out labels that start with
        # "_".
        folds = [j for j, curve in enumerate(curves) if curve == curves[k]]
        label = task if model is None else f"{task}, {model}"
        if scores is not None:
            label += f" ({_format_scores([scores[j] for j in folds], form)})"
        styles.append(
            {
                "color": task_color(tasks.index(task)),
                "linestyle": LINE_STYLES[m % len(LINE_STYLES)],
                "marker": MARKERS[m % len(MARKERS)],
                "label": label if k == folds[0] else "_fold",
                **({"linewidth": 1, "alpha": 0.6} if len(folds) > 1 else {}),
            }
        )
    return styles


def _format_scores(scores, form):
    """Return the score of a curve, or mean and standard deviation over folds."""
    if len(scores) == 1:
        return form.format(*scores)
    # A fold with one class has no score, and should not hide those of the others.
    known = [score for score in scores if not np.isnan(score)] or [np.nan]
    spread = form.rpartition(" = ")[2].format(np.std(known))
    return f"{form.format(np.mean(known))} ± {spread}"


def is_log(scale, base_rates):
    """Return whether an axis that shows rates is logarithmic."""
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {SCALES}, got {scale!r}.")
    # A task without events has no place on a logarithmic axis.
    rates = [rate for rate in base_rates if rate > 0]
    return scale == "log" or (scale == "auto" and min(rates, default=1.0) < RARE)


def set_log_axis(axis, low, high):
    """Make an axis logarithmic, with plain numbers as ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log", nonpositive="mask")
    n_decades = np.log10(high / low)
    # More ticks per decade where there are few decades.
    subs = (1.0, 2.0, 5.0) if n_decades < 2 else (1.0, 3.0) if n_decades < 3 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=15))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def style(kwargs, **defaults):
    """Return the properties of a line: the defaults, updated by `kwargs`."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    # matplotlib refuses two spellings of one property, such as c and color.
    return {**defaults, **normalize_kwargs(kwargs, Line2D)}
