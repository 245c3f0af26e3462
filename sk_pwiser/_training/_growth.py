"""Further rows of embedding tables, for new category values."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sk_pwiser._training._data import ExtendedStatistics, Schema, grow_encoder
from sk_pwiser._training._net import MultiTaskNet


class Growth:
    """Further rows of a net's embedding tables, in place, which can be taken back.

    New rows are copies of that of the unseen values of their column. In the state of
    the optimiser they are 0, as for a value without a step.

    Parameters
    ----------
    net : MultiTaskNet
        The net.
    cardinalities : list of int
        The new numbers of codes of the category columns.
    origins : int64 ndarray of shape (n_embeddings,)
        The earlier row for each row, -1 for new ones.
    """

    def __init__(
        self, net: MultiTaskNet, cardinalities: list[int], origins: np.ndarray
    ) -> None:
        self.network, self.optimizer = net.module_, net.optimizer_
        self.cardinalities = list(self.network.spec.cardinalities)
        self.tables = self.network.input_layer.tables
        self.states = [
            dict(self.optimizer.state.get(table, {})) for table in self.tables
        ]
        self.weights = [table.detach() for table in self.tables]
        is_new = torch.from_numpy(origins < 0)
        unseen = (
            np.cumsum([0, *self.cardinalities])[:-1] + self.network.spec.unseen_code
        )
        places = np.where(origins < 0, np.repeat(unseen, cardinalities), origins)
        rows = torch.from_numpy(places).to(net.device)
        is_new = is_new.to(net.device)
        grown = [weight[rows] for weight in self.weights]
        states = [
            {
                key: _grow_state(value, len(weight), rows, is_new)
                for key, value in state.items()
            }
            for weight, state in zip(self.weights, self.states, strict=True)
        ]
        self._set(cardinalities, grown, states)

    def undo(self) -> None:
        """Restore the earlier tables and the earlier state of the optimiser."""
        self._set(self.cardinalities, self.weights, self.states)

    def _set(
        self,
        cardinalities: list[int],
        weights: list[Tensor],
        states: list[dict[str, Any]],
    ) -> None:
        self.network.set_tables(cardinalities, weights)
        for table, state in zip(self.tables, states, strict=True):
            if state:
                self.optimizer.state[table] = state


def _grow_state(value: Any, n_rows: int, rows: Tensor, is_new: Tensor) -> Any:
    """Grow what the optimiser stores per row of a table; copy other values."""
    if not isinstance(value, Tensor) or value.shape[:1] != (n_rows,):
        return deepcopy(value)  # steps are counted in place
    grown = value[rows]
    grown[is_new] = 0
    return grown


def grow_schema(schema: Schema, X: Any) -> tuple[Schema, np.ndarray | None]:
    """Return a schema with codes for the frequent new values of a table.

    Returns
    -------
    schema : Schema
        A new schema, or the same one if no value is new and frequent.
    origins : int64 ndarray of shape (n_embeddings,) or None
        The row of the earlier embedding tables for each row of the new ones, -1 for
        those of new values; None if there are none.
    """
    before = schema.encoder.cardinalities_
    encoder, origins = grow_encoder(schema.encoder, schema.encoder.align(X))
    if encoder.cardinalities_ == before:
        return schema, None
    statistics = schema.statistics
    if statistics is not None:
        statistics = ExtendedStatistics(statistics, origins, "new", adds=True)
    rows, first = [], 0
    sizes = zip(before, encoder.cardinalities_, strict=True)
    for origin, (n_old, n_new) in zip(origins, sizes, strict=True):
        # A value that was rare has a code, but no embedding.
        is_known = (origin[:n_new] >= 0) & (origin[:n_new] < n_old)
        rows.append(np.where(is_known, first + origin[:n_new], -1))
        first += n_old
    grown = replace(schema, encoder=encoder, statistics=statistics)
    return grown, np.concatenate(rows)
