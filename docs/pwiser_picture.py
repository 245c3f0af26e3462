"""Draw what the pairwise term of PWiseR compares.

    python docs/pwiser_picture.py          # writes docs/images/pwiser.svg

The front page has the picture in the colours of the page; the README shows the file.
"""

import io
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from results_chart import ACCENT, MUTED, TEXT, inline

CONVERTED, MARGIN = 0.62, 0.2
# Scores of the other impressions, by their row in the picture.
OTHERS = {
    "clicked,\nnot converted": (0.18, 0.33, 0.5, 0.72),
    "not clicked": (0.06, 0.14, 0.24, 0.3, 0.38, 0.47, 0.57),
}
FILE_COLOURS = {TEXT: "#222222", MUTED: "#777777", ACCENT: "#1f6fb4"}
ALT = (
    "Scores of impressions of a batch. One converted; most others have lower scores. "
    "Lines join it to those within the margin below its score, or above it: these are "
    "the pairs that have a loss. The loss moves the converted impression to a higher "
    "score and the others of its pairs to lower ones."
)


def write(path):
    """Write the picture as an SVG element for a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(draw(), encoding="utf-8")


def draw():
    """Return the SVG element."""
    return inline(picture(), ALT)


def picture():
    """Return the picture as SVG, in colours that stand for those of the page."""
    rc = {"svg.fonttype": "none", "svg.hashsalt": "pwiser", "text.color": TEXT}
    with rc_context(rc):
        figure = Figure(figsize=(5.2, 2.3))
        axes = figure.add_axes((0.2, 0.18, 0.78, 0.8))
        axes.set(xlim=(0, 0.9), ylim=(-0.6, 2.7))
        axes.axis("off")
        axes.axvspan(CONVERTED - MARGIN, 0.9, color=ACCENT, alpha=0.1, lw=0)
        axes.axvline(CONVERTED - MARGIN, color=ACCENT, lw=1, ls=":")
        for y, (label, scores) in enumerate(reversed(OTHERS.items())):
            axes.text(-0.02, y, label, ha="right", va="center", fontsize=9)
            for score in scores:
                draw_other(axes, score, y)
        axes.text(-0.02, 2, "converted", ha="right", va="center", fontsize=9)
        axes.plot(CONVERTED, 2, "o", ms=10, color=ACCENT)
        move(axes, CONVERTED + 0.025, 2, 0.07)
        axes.annotate(
            "",
            (CONVERTED - MARGIN, 2.45),
            (CONVERTED, 2.45),
            arrowprops={"arrowstyle": "<->", "color": TEXT, "lw": 0.8},
        )
        middle = CONVERTED - MARGIN / 2
        axes.text(middle, 2.5, "margin", ha="center", va="bottom", fontsize=9)
        axes.annotate(
            "",
            (0.9, -0.5),
            (0, -0.5),
            arrowprops={"arrowstyle": "->", "color": MUTED},
        )
        axes.text(0.45, -0.62, "score", ha="center", va="top", fontsize=9)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def draw_other(axes, score, y):
    """Draw another impression and, if it is too close, its pair."""
    is_pair = score > CONVERTED - MARGIN
    if is_pair:
        axes.plot([CONVERTED, score], [2, y], color=ACCENT, lw=1, alpha=0.7)
        move(axes, score - 0.02, y, -0.06)
    axes.plot(score, y, "o", ms=8, color=ACCENT if is_pair else MUTED, mfc="none")


def move(axes, x, y, length):
    """Draw an arrow that says where the loss moves a score."""
    arrow = {"arrowstyle": "-|>", "color": TEXT, "lw": 1.2}
    axes.annotate("", (x + length, y), (x, y), arrowprops=arrow)


def main():
    svg = picture()
    for placeholder, colour in FILE_COLOURS.items():
        svg = svg.replace(placeholder, colour)
    background = '<rect width="100%" height="100%" fill="white"/>'
    start = svg.index(">", svg.index("<svg")) + 1
    path = Path(__file__).parent / "images" / "pwiser.svg"
    path.write_text(f"{svg[:start]}\n{background}{svg[start:]}", encoding="utf-8")


if __name__ == "__main__":
    main()
