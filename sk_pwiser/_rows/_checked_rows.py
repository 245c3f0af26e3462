"""Rows as the user passes them, and rows whose labels and weights were checked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import _safe_indexing


class GivenRows(NamedTuple):
    """A table with labels, weights and groups as the user passes them to `fit`."""

    X: Any
    Y: Any
    sample_weight: Any = None
    groups: Any = None


@dataclass(frozen=True, kw_only=True)
class CheckedRows:
    """Rows whose labels, weights and groups were checked, with a table not encoded."""

    X: Any
    targets: Any
    # Not scaled, (n_samples,) or (n_samples, n_tasks), where 0 marks a label that is
    # ignored.
    weights: np.ndarray | None = None
    groups: np.ndarray | None = None  # int64 (n_samples,)
    place: str | None = None  # file and row of a part, for messages

    def __len__(self) -> int:
        return len(self.targets.values)

    def with_weight(self) -> "CheckedRows":
        """Leave out the rows of weight 0."""
        if self.weights is None:
            return self
        has_weight = self.weights.reshape(len(self.weights), -1).any(axis=1)
        if has_weight.all():
            return self
        weighted = np.flatnonzero(has_weight)
        if self.place is None:
            X = _safe_indexing(self.X, weighted)
        else:
            X = self.X.take(weighted)
        return replace(
            self,
            X=X,
            targets=self.targets.at(weighted),
            weights=self.weights[weighted],
            groups=None if self.groups is None else self.groups[weighted],
        )


@contextmanager
def named_place(place: str | None) -> Iterator[None]:
    """Add the file and row of a part to the message of an error."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if place is None:
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"In {place}: {error}") from error
