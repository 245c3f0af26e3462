"""Encoded rows of a table, which stay in memory."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._protocol import RowEncoder


class TableStore:
    """Keeps the tensors of all rows, which training and validation rows share."""

    def __init__(self) -> None:
        self.encoded: Impressions | None = None
        self.is_held_out = np.zeros(0, dtype=bool)
        self.block: np.ndarray | None = None

    def add(
        self, encoded: Impressions, is_held_out: np.ndarray, block: np.ndarray | None
    ) -> None:
        """Store all rows, with their blocks if their target statistics read these."""
        self.encoded = encoded
        self.is_held_out = is_held_out
        self.block = block

    def finish(
        self, schema: RowEncoder, tables: Sequence[Any] | None, holds_out: bool
    ) -> tuple[Impressions, Impressions | None]:
        """Return the rows, with target statistics by their blocks if there are any."""
        assert self.encoded is not None
        encoded = self.encoded.with_scaled_amounts(schema.value_scales)
        codes = encoded.codes.numpy()
        if schema.statistics is not None:
            lists = schema.elements(encoded.bags)
            first_rate = len(schema.encoder.numeric_bins_)
            rates = schema.statistics.transform(codes, lists, tables, self.block)
            encoded.numeric.numpy()[:, first_rate:] = rates
        schema.without_rare(codes)
        if not holds_out:
            return encoded, None
        train_rows = np.flatnonzero(~self.is_held_out)
        held_out_rows = np.flatnonzero(self.is_held_out)
        train = replace(encoded, rows=torch.from_numpy(train_rows))
        return train, replace(encoded, rows=torch.from_numpy(held_out_rows))
