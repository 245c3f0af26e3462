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


@dataclass(frozen=True)
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
        is_kept = self.weights.reshape(len(self.weights), -1).any(axis=1)
        if is_kept.all():
            return self
        kept = np.flatnonzero(is_kept)
        return replace(
            self,
            X=_safe_indexing(self.X, kept) if self.place is None else self.X.take(kept),
            targets=self.targets.at(kept),
            weights=self.weights[kept],
            groups=None if self.groups is None else self.groups[kept],
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
