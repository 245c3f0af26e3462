"""A line on the screen that counts rows."""

import sys
from time import monotonic

# Seconds between two updates of the line.
INTERVAL = 1.0


class RowProgress:
    """Counts rows on one line of the standard error stream.

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
        if is_last or monotonic() - self.shown_at >= INTERVAL:
            text = f"\r{self.label}: {self.n_rows:,} of {self.total:,} rows"
            sys.stderr.write(text + ("\n" if is_last else ""))
            sys.stderr.flush()
            self.shown_at = monotonic()
        if is_last:
            self.n_rows = 0  # the next epoch
