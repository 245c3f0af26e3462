"""One value per group of rows in parts."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class GroupValues:
    """One value per group, also for a group that continues in the next part."""

    numbers: Any = ()
    values: Any = None

    def of(self, groups, row_values, combine, choose=None):
        """Return the value of each row's group.

        New groups `combine` the values of their rows, from which, and from the numbers
        of rows, `choose` makes theirs if it is given.
        """
        numbers, first, place, sizes = np.unique(
            groups, return_index=True, return_inverse=True, return_counts=True
        )
        combined = row_values[first]
        combine.at(combined, place, row_values)
        is_new = ~np.isin(numbers, self.numbers)
        chosen = combined[is_new]
        if choose is not None:
            chosen = choose(chosen, sizes[is_new])
        values = np.empty(len(numbers), dtype=chosen.dtype)
        values[is_new] = chosen
        if not is_new.all():
            places = np.searchsorted(self.numbers, numbers[~is_new])
            values[~is_new] = self.values[places]
        self.numbers = numbers
        self.values = values
        return values[place]
