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
        """Add rows."""
        if not self.verbose:
            return
        self.n_rows += n_rows
        is_last = self.n_rows >= self.total
        is_terminal = sys.stderr.isatty()
        is_due = is_terminal and monotonic() - self.shown_at >= INTERVAL
        if is_last or is_due:
            start, end = "\r" if is_terminal else "", "\n" if is_last else ""
            text = f"{self.label}: {self.n_rows:,} of {self.total:,} rows"
            sys.stderr.write(start + text + end)
            sys.stderr.flush()
            self.shown_at = monotonic()
        if is_last:
            self.n_rows = 0  # the next epoch
