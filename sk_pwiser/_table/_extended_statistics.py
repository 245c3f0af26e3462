"""Target statistics of a fit that are continued with the rows of another market."""

import numpy as np

from sk_pwiser._table._target_statistics import (
    TargetStatistics,
    count,
    standardise,
)
from sk_pwiser._utils import warn_user

# Smallest difference of counts that is not explained by rounding.
TOLERANCE = 1e-6


class ExtendedStatistics(TargetStatistics):
    """The statistics of an earlier fit for further rows, with the earlier scales.

    Base rates, strengths and scales stay, so that inputs keep the meaning that the
    earlier network has learnt. The input of a training row leaves out its own block,
    that of a validation row all validation rows.

    Parameters
    ----------
    source : TargetStatistics
        The earlier statistics, which are not changed.
    origins : list of int64 ndarray of shape (n_codes,)
        One array per category column: the code that each code has in `source`, -1 for
        new values.
    rows : {"new", "seen"}
        Whether the rows are new to `source` or among those that it was learnt from.
    adds : bool
        Whether the statistics are to include new rows.
    """

    def __init__(self, source, origins, rows, adds):
        super().__init__(source.columns, [len(origins[c]) for c in source.columns])
        self.n_tasks_, self.rates_ = source.n_tasks_, source.rates_
        self.strengths_, self.means_ = source.strengths_, source.means_
        self.scales_ = source.scales_
        self.counts_ = [
            np.where(origins[c] >= 0, counts[..., origins[c]], 0.0)
            for c, counts in zip(source.columns, source.counts_, strict=True)
        ]
        self.rows, self.adds = rows, adds
        self._update_tables()

    def fit_transform(self, codes, y, weight, block, others):
        """Encode rows by the earlier statistics and by those of other blocks.

        The parameters are those of :meth:`TargetStatistics.fit_transform`.

        Raises
        ------
        ValueError
            If the rows are "seen" and there are more of them than `source` has.
        """
        if self.rows == "new":
            self._warn_if_seen(codes, y, weight)
            if not self.adds:
                return self.transform(codes)
        inputs = np.empty((len(codes), self.n_outputs), dtype=np.float32)
        for j, column in enumerate(self.columns):
            of_rows = codes[:, column].astype(np.intp)
            all_rows = count(of_rows, y, weight, self.cardinalities[j])
            base = self.counts_[j]
            if self.rows == "seen":
                base = _subtract(base, all_rows)
            values = self._leave_out_blocks(
                base, of_rows, y, weight, block, others, self.strengths_[j]
            )
            scaled = standardise(values, self.means_[j], self.scales_[j])
            inputs[:, self._slice(j)] = scaled
            if self.rows == "new":
                self.counts_[j] = base + all_rows
        self._update_tables()
        return inputs

    def _warn_if_seen(self, codes, y, weight):
        """Warn if rows that count as new are probably in the counts of the source.

        All of them must fit into these counts, by value and label, and must be half of
        the rows of some value. New rows may do so by chance only if they are few.
        Probabilities in place of labels reveal no label.
        """
        if not np.isin(y, (0, 1)).all():
            return
        largest = 0.0
        for j, column in enumerate(self.columns):
            of_rows = codes[:, column].astype(np.intp)
            n, k = count(of_rows, y, weight, self.cardinalities[j])
            all_n, all_k = self.counts_[j]
            if min((all_k - k).min(), (all_n - all_k - n + k).min()) < -TOLERANCE:
                return
            shares = np.divide(n, all_n, out=np.zeros_like(n), where=all_n > 0)
            largest = max(largest, shares.max(initial=0.0))
        if largest >= 0.5:
            warn_user(
                "seen=False, but the source may have been fitted on all rows of X: "
                "their category values and labels are in its target statistics. The "
                "label of a row is then among its inputs. Pass seen=True if the rows "
                "are not new to the source."
            )


def _subtract(counts, seen):
    """Return the counts of the other rows."""
    rest = counts - seen
    if rest.min() < -TOLERANCE:
        raise ValueError(
            "seen=True, but the source was not fitted on all rows of X: a category "
            "value occurs more often in X, or with more positive labels, than in the "
            "fit of the source. Pass seen=False for rows that are new to the source."
        )
    return np.maximum(rest, 0.0)
