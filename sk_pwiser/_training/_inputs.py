"""Encoded inputs as arrays, which become tensors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array

from sk_pwiser._training._dataset import Impressions
from sk_pwiser.networks import Bags


class Inputs(NamedTuple):
    """The inputs of a network, encoded: arrays with all rows of a table.

    Parameters
    ----------
    codes : integer ndarray of shape (n_samples, n_category_columns)
        Codes of the category columns.
    numeric : float32 ndarray of shape (n_samples, n_numeric)
        Numeric inputs.
    bags : tuple of ndarray, default=None
        Offsets, indices and weights of bags; None if the table has none.
    """

    codes: np.ndarray
    numeric: np.ndarray
    bags: tuple[np.ndarray | None, ...] | None = None

    def bag_matrix(self, bags: Sequence[tuple[int, bool]]) -> csr_array | None:
        """Return the weights of the entries, `(n_samples, n_vectors)`, if any."""
        if self.bags is None:
            return None
        offsets, indices, weights = self.bags
        assert offsets is not None
        assert indices is not None
        if weights is None:
            weights = np.ones(len(indices), dtype=np.float32)
        shape = len(self.codes), sum(n_vectors for n_vectors, _ in bags)
        return csr_array((weights, indices, offsets[:: len(bags)]), shape=shape)

    def impressions(
        self,
        y: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> Impressions:
        """Return the inputs, and further arrays per row, as tensors."""
        return Impressions(
            codes=_as_tensor(self.codes),
            numeric=_as_tensor(self.numeric),
            y=_as_tensor(y),
            sample_weight=_as_tensor(weights),
            groups=_as_tensor(groups),
            bags=None if self.bags is None else Bags(*map(_as_tensor, self.bags)),
        )


def _as_tensor(array: np.ndarray | None) -> Any:
    if array is None:
        return None
    # torch warns about arrays that it must not write, such as those that joblib maps
    # into the memory of several processes.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
