"""Rows of text as lines with aligned columns."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], alignments: str) -> list[str]:
    """Return rows of cells as lines; `alignments` has "<" or ">" for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [
        f"{{:{alignment}{width}}}"
        for alignment, width in zip(alignments, widths, strict=True)
    ]
    return ["  ".join(cells).format(*row).rstrip() for row in rows]
