"""Logits of a table in which the values of one column are permuted."""

from typing import Any

import numpy as np
import torch

from sk_pwiser._training._batches import gather_bags
from sk_pwiser._training._schema import Inputs
from sk_pwiser._training._state import TrainingResult


class PermutedTable:
    """An encoded table, and the net: logits after a permutation of one column.

    The net reads the same inputs, in the same batches, as after a permutation of the
    table itself, so that the logits are those of the estimator.
    """

    def __init__(self, result: TrainingResult, X: Any) -> None:
        self._places = result.schema.places()
        self.names = list(self._places)
        self._net = result.net
        self._inputs = result.schema.transform(X)

    def logits(self, name: Any = None, order: np.ndarray | None = None) -> np.ndarray:
        """Return float32 logits with the values of a column in another order."""
        inputs = self._inputs if order is None else self._permute(name, order)
        logits: np.ndarray = self._net.forward(inputs.impressions()).numpy()
        return logits

    def _permute(self, name: Any, order: np.ndarray) -> Inputs:
        """Return the encoded table with the permuted column."""
        codes, numeric, bags = self._places[name]
        inputs = self._inputs._replace(
            codes=self._inputs.codes.copy(), numeric=self._inputs.numeric.copy()
        )
        inputs.codes[:, codes] = self._inputs.codes[:, codes][order]
        inputs.numeric[:, numeric] = self._inputs.numeric[:, numeric][order]
        if not bags:
            return inputs
        entries = inputs.impressions().bags
        assert entries is not None
        n_bags = (len(entries.offsets) - 1) // len(order)
        places = np.arange(len(order) * n_bags).reshape(len(order), -1)
        places[:, bags] = places[:, bags][order]
        found = gather_bags(entries, torch.from_numpy(places.ravel()), 1)
        return inputs._replace(
            bags=tuple(None if t is None else t.numpy() for t in found)
        )
