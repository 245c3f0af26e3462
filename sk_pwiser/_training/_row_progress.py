"""A line on the screen that counts rows."""

import sys
from time import monotonic

# Seconds between two updates of the line.
INTERVAL = 1.0


class RowProgress:
    """Counts rows on one line of the standard error stream.

    In a file, where a line cannot be replaced, only the last count is written.

    Parameters
    ----------
    label : str
        What is done with the rows.
    total : int
        Number of rows.
    verbose : int
        Whether there is a line, from 1 on.
    """

    def __init__(self, label: str, total: int, verbose: int) -> None:
        self.label = label
        self.total = total
        self.verbose = verbose
        self.n_rows = 0
        self.shown_at = 0.0

    def __call__(self, n_rows: int) -> None:
        """Add rows; the line ends with the last of them."""
        self.n_rows += n_rows
        if self.n_rows >= self.total:
            self.close()
        elif monotonic() - self.shown_at >= INTERVAL and sys.stderr.isatty():
            self._show("")

    def close(self) -> None:
        """End the line, and count from 0 again."""
        if self.n_rows:
            self._show("\n")
        self.n_rows = 0

    def _show(self, end: str) -> None:
        if self.verbose:
            start = "\r" if sys.stderr.isatty() else ""
            text = f"{self.label}: {self.n_rows:,} of {self.total:,} rows"
            sys.stderr.write(start + text + end)
            sys.stderr.flush()
            self.shown_at = monotonic()
