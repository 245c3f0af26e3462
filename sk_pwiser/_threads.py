"""Threads that go through the columns or the rows of a table."""

from concurrent.futures import ThreadPoolExecutor

# With fewer rows threads cost more than they save.
ROWS_FOR_THREADS = 20_000

# Rows gone through at a time: few enough that what is made on the way takes no memory
# to speak of.
ROWS_AT_A_TIME = 32_768


class Threads:
    """Threads that go through the columns or the rows of a table.

    Parameters
    ----------
    n_threads : int
        Number of threads.
    n_rows : int
        Number of rows of the table.
    """

    def __init__(self, n_threads, n_rows):
        self.n_threads = n_threads if n_rows >= ROWS_FOR_THREADS else 1
        self.n_rows = n_rows

    def map(self, function, items):
        """Return the function's value of each item; the first error is raised."""
        if self.n_threads == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(self.n_threads) as pool:
            return list(pool.map(function, items))

    def map_rows(self, function):
        """Call the function with the first row of each block and the one behind it."""
        starts = range(0, self.n_rows, ROWS_AT_A_TIME)
        self.map(lambda start: function(start, start + ROWS_AT_A_TIME), starts)
