"""How often the last rows have values that no earlier row has."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sk_pwiser._columns._codes import UNSEEN

# The rows that are the last ones for `NewValues`, and what it returns at least.
LATE_SHARE, LEAST_DROPOUT = 0.1, 0.05


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
            self.seen = [np.zeros(column.n_codes, dtype=bool) for column in columns]
            self.n_late = [np.zeros(len(seen), dtype=np.int64) for seen in self.seen]
        self.n_rows += len(codes)
        for index, column in enumerate(columns):
            own = codes[:, index]
            is_unseen = (own == UNSEEN) | (own >= column.cardinality)
            self.n_unseen[index] += np.count_nonzero(is_unseen)
            self.seen[index][own[~is_late]] = True
            late = own[is_late].astype(np.int64)
            n_late = self.n_late[index]
            n_late += np.bincount(late, minlength=len(n_late))

    def dropouts(self):
        """Return the category dropout of each column.

        It is half the share of the last rows with new values, beyond the share of all
        rows that have the code of unseen values anyway. With the whole share, known
        values, which later rows have as well, were learnt too little.
        """
        found = []
        of_columns = zip(self.seen, self.n_late, self.n_unseen, strict=True)
        for seen, n_late, n_unseen in of_columns:
            new = n_late[~seen].sum() / max(n_late.sum(), 1)
            share = n_unseen / max(self.n_rows, 1)
            missing = (new - share) / max(1 - share, 1 / max(self.n_rows, 1))
            found.append(float(max(LEAST_DROPOUT, missing / 2)))
        return tuple(found)
