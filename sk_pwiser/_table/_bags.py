"""Bags: inputs with any number of weighted entries per row, in CSR form."""

from typing import NamedTuple

import numpy as np


class Bags(NamedTuple):
    """The entries of the bags of a table, bag after bag and row after row.

    Parameters
    ----------
    offsets : int64 ndarray of shape (n_samples * n_bags + 1,)
        Where the entries of each bag start, and where the last ones end.
    indices : int32 or int64 ndarray of shape (n_entries,)
        The vector that each entry selects; those of the second bag follow those of the
        first.
    weights : float32 ndarray of shape (n_entries,) or None
        Weights of the entries; None if all are 1.
    """

    offsets: np.ndarray
    indices: np.ndarray
    weights: np.ndarray | None


def make_bags(offsets, indices, weights):
    """Return bags in the form that training reads, without copies where possible."""
    is_one = weights is None or bool((weights == 1).all())
    return Bags(
        offsets.astype(np.int64, copy=False),
        indices,
        None if is_one else weights,
    )
