"""Numbers of groups of rows in parts."""

from itertools import count

import numpy as np

from sk_pwiser._columns._factorize import factorize


class GroupNumbers:
    """Numbers groups in the order of their rows; again after a part without them."""

    def __init__(self):
        self.number_of = {}  # of the groups of the last part
        self.n_groups = 0
        self.n_parts = 0
        self.parted_group = None  # the first one whose rows are not consecutive

    def of(self, frame):
        name = frame.columns[0]
        indices, values = factorize(frame[name])
        if (indices < 0).any():
            raise ValueError(
                f"groups must not be missing; column {name!r} has no value in row "
                f"{int(np.argmax(indices < 0))}."
            )
        # In one part, they may come in any order, as in a table.
        self.n_parts += 1
        starts = np.append(0, np.flatnonzero(np.diff(indices)) + 1)
        if self.parted_group is None and len(starts) > len(values):
            _, firsts = np.unique(indices[starts], return_index=True)
            starts_again = np.delete(starts, firsts)
            value = values[indices[starts_again[0]]]
            self.parted_group = f"{name}={value!r}"
        if self.parted_group is not None and self.n_parts > 1:
            raise ValueError(
                f"The rows of a group must be consecutive; those with "
                f"{self.parted_group} are not. Sort the files by this column, or leave "
                "out groups."
            )
        new = count(self.n_groups)
        # Only the groups of this part are kept: those that come back get new numbers.
        self.number_of = {
            value: self.number_of[value] if value in self.number_of else next(new)
            for value in values
        }
        self.n_groups = next(new)
        return np.array(list(self.number_of.values()), dtype=np.int64)[indices]
