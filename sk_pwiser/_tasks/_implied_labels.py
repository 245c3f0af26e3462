"""Missing labels that follow from those of later tasks: a 1 implies its parents' 1."""

import numpy as np

# A missing label that a later task implies is learnt if at least this share of the rows
# without the label, of which a later one is known, are such rows. Otherwise the rows
# with the event would be learnt, and those without it left out.
LEAST_IMPLIED = 0.9


def implied_ones(values, missing, parents):
    """Return which missing labels are 1, since a task that presupposes them is.

    `values` is 0 and `missing` True where a label is missing; both and the result have
    the shape `(n_samples, n_tasks)`.
    """
    follows = np.zeros(values.shape, dtype=bool)
    for task in range(len(parents) - 1, -1, -1):
        follows[:, task] &= missing[:, task]
        parent = parents[task]
        if parent >= 0:
            follows[:, parent] |= follows[:, task] | (values[:, task] == 1)
    return follows


class ImpliedCounts:
    """Counts the rows that lack the label of a task, by the labels of later tasks."""

    def __init__(self, n_tasks):
        self.n_implied = np.zeros(n_tasks)
        self.n_open = np.zeros(n_tasks)

    def add(self, values, missing, parents):
        """Add rows with `missing` labels, or None."""
        if missing is None:
            return
        implied = implied_ones(values, missing, parents)
        has_later_label = np.zeros(values.shape, dtype=bool)
        for task in range(len(parents) - 1, -1, -1):
            if parents[task] >= 0:
                is_known = ~missing[:, task] | has_later_label[:, task]
                has_later_label[:, parents[task]] |= is_known
        self.n_implied += implied.sum(axis=0)
        self.n_open += (missing & has_later_label & ~implied).sum(axis=0)

    def learnt_tasks(self):
        """Return of which tasks implied labels are learnt, `(n_tasks,)`."""
        n_rows = self.n_implied + self.n_open
        return (self.n_implied > 0) & (self.n_implied >= LEAST_IMPLIED * n_rows)


def fill_implied(values, missing, parents, learnt_tasks=None):
    """Return labels, and which are missing, with those that are implied and learnt.

    Those of `learnt_tasks` are learnt, by default as these rows say.
    """
    if missing is None or max(parents) < 0:
        return values, missing
    if learnt_tasks is None:
        counts = ImpliedCounts(len(parents))
        counts.add(values, missing, parents)
        learnt_tasks = counts.learnt_tasks()
    filled = implied_ones(values, missing, parents) & learnt_tasks
    if not filled.any():
        return values, missing
    missing = missing & ~filled
    return np.where(filled, np.float32(1), values), missing if missing.any() else None
