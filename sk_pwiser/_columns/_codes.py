"""The codes of category values."""

from dataclasses import dataclass
from typing import Any

import numpy as np

# The codes of missing values and of values without a code of their own, and the first
# code of a value.
MISSING = 0
UNSEEN = 1
FIRST_VALUE = 2


@dataclass
class Codes:
    """The codes of a column, stored as a lookup table."""

    indices: np.ndarray  # into `table` for each row; -1 selects the last entry
    table: np.ndarray

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.table[self.indices[rows]]

    def are_new(self) -> np.ndarray:
        """Return which rows have a value that is not in the vocabulary."""
        is_new = self.table == UNSEEN
        is_new[-1] = False  # missing values
        return is_new[self.indices]
