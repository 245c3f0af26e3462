"""How often the last rows have values that no earlier row has."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sk_pwiser._columns._codes import UNSEEN

# The share of the rows that are the last ones.
LATE_SHARE = 0.1
# The smallest category dropout: without new values, too, later rows have some.
LEAST_DROPOUT = 0.05


@dataclass
class NewValues:
    """Measures how often the last rows have values that no earlier row has.

    Rows come in any order, with codes of rare values, too.
    """

    encoder: Any
    n_rows: int = 0

    def add(self, codes, is_late):
        columns = self.encoder.code_columns_
        if not self.n_rows:
            self.n_unseen = np.zeros(len(columns))
            self.is_early = [np.zeros(column.n_codes, dtype=bool) for column in columns]
            self.n_late = [
                np.zeros(column.n_codes, dtype=np.int64) for column in columns
            ]
        self.n_rows += len(codes)
        for index, column in enumerate(columns):
            column_codes = codes[:, index]
            is_rare = column_codes >= column.cardinality
            self.n_unseen[index] += np.count_nonzero((column_codes == UNSEEN) | is_rare)
            self.is_early[index][column_codes[~is_late]] = True
            late_codes = column_codes[is_late].astype(np.int64)
            n_late = self.n_late[index]
            n_late += np.bincount(late_codes, minlength=len(n_late))

    def dropouts(self):
        """Return the category dropout of each column.

        It is half the share of the last rows with new values, beyond the share of all
        rows that have the code of unseen values anyway. With the whole share, known
        values, which later rows have as well, were learnt too little.
        """
        dropouts = []
        n_rows = max(self.n_rows, 1)
        for is_early, n_late, n_unseen in zip(
            self.is_early, self.n_late, self.n_unseen, strict=True
        ):
            new_share = n_late[~is_early].sum() / max(n_late.sum(), 1)
            unseen_share = n_unseen / n_rows
            excess = (new_share - unseen_share) / max(1 - unseen_share, 1 / n_rows)
            dropouts.append(float(max(LEAST_DROPOUT, excess / 2)))
        return tuple(dropouts)
