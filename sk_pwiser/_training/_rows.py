"""Rows that were checked, before their table is encoded."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing


@dataclass(frozen=True)
class Rows:
    """Labels, weights and groups that were checked, with a table not yet encoded.

    Parameters
    ----------
    X : DataFrame or array-like of shape (n_samples, n_features)
        The table.
    targets : Targets
        Labels of the tasks.
    weights : float ndarray of shape (n_samples,) or (n_samples, n_tasks), or None
        Weights of the rows, or of the rows and tasks, where 0 stands for a label that
        takes no part.
    groups : int64 ndarray of shape (n_samples,) or None
        Numbers of the rows' groups.
    """

    X: Any
    targets: Any
    weights: np.ndarray | None
    groups: np.ndarray | None

    @property
    def has_task_weights(self) -> bool:
        """Whether the weights of a row differ between its tasks."""
        return self.weights is not None and self.weights.ndim == 2

    def at(self, kept: np.ndarray) -> "Rows":
        """Return some of the rows."""
        return Rows(
            _safe_indexing(self.X, kept),
            self.targets.at(kept),
            None if self.weights is None else self.weights[kept],
            None if self.groups is None else self.groups[kept],
        )
