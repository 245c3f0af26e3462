"""Encoded rows whose columns are taken from different rows of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sk_pwiser._rows._encoded_rows import Impressions, gather_bags
from sk_pwiser._rows._row_units import row_hashes
from sk_pwiser.networks import Bags


class RowRecombiner:
    """Makes rows of the columns of other rows, all of which are encoded once.

    Parameters
    ----------
    places : dict
        The name of each column, and where it is in the codes, the numeric inputs and
        the bags, as `Schema.places` returns them.
    tables : sequence of Impressions
        Encoded rows, which are numbered through all tables.

    Attributes
    ----------
    column_names : list
        Names of the columns, in the order of the second axis of `sources`.
    """

    def __init__(
        self,
        places: Mapping[Any, tuple[list[int], list[int], list[int]]],
        tables: Sequence[Impressions],
    ) -> None:
        self.column_names = list(places)
        self.rows = reduce(_join, tables)
        self._places = list(places.values())
        self._column_of_codes = _invert([codes for codes, _, _ in self._places])
        self._column_of_numeric = _invert([numeric for _, numeric, _ in self._places])
        self._column_of_bags = _invert([bags for _, _, bags in self._places])

    def take(self, sources: np.ndarray) -> Impressions:
        """Return rows by the number of the row from which each column comes.

        `sources` are integers of shape `(n_new, n_columns)`.
        """
        rows = torch.from_numpy(np.ascontiguousarray(sources, dtype=np.int64))
        codes = self.rows.codes.gather(0, rows[:, self._column_of_codes])
        numeric = self.rows.numeric.gather(0, rows[:, self._column_of_numeric])
        bags: Any = None
        if len(self._column_of_bags):
            n_bags = self.rows.n_bags
            places = rows[:, self._column_of_bags] * n_bags + torch.arange(n_bags)
            bags = gather_bags(self.rows.bags, places.ravel(), 1)
        return Impressions(codes, numeric, bags=bags)

    def value_hashes(self) -> np.ndarray:
        """Return a hash of each encoded value, uint64 `(n_rows, n_columns)`."""
        codes = self.rows.codes.numpy()
        numeric = self.rows.numeric.numpy()
        n_rows = len(codes)
        hashes = np.empty((n_rows, len(self._places)), dtype=np.uint64)
        for column, (code_places, input_places, bag_places) in enumerate(self._places):
            bags = None
            if bag_places:
                first_bags = np.arange(n_rows)[:, np.newaxis] * self.rows.n_bags
                places = torch.from_numpy((first_bags + bag_places).ravel())
                bags_of_column = gather_bags(self.rows.bags, places, n_bags=1)
                bags = [None if t is None else t.numpy() for t in bags_of_column]
            hashes[:, column] = row_hashes(
                codes[:, code_places], numeric[:, input_places], bags
            )
        return hashes


def _invert(places_by_column: Sequence[Sequence[int]]) -> Tensor:
    """Return the column of each place."""
    columns = {
        place: column
        for column, places in enumerate(places_by_column)
        for place in places
    }
    return torch.tensor([columns[place] for place in sorted(columns)], dtype=torch.long)


def _join(first: Impressions, second: Impressions) -> Impressions:
    """Return the rows of two tables, without labels."""
    return replace(
        first,
        codes=torch.cat([first.codes, second.codes]),
        numeric=torch.cat([first.numeric, second.numeric]),
        bags=None if first.bags is None else _join_bags(first.bags, second.bags),
    )


# What no weights of any entry, and no ages, stand for.
VALUE_OF_NONE = {"weights": 1.0, "ages": np.nan}


def _join_bags(first: Bags, second: Bags) -> Bags:
    """Return the bags of two tables, the second after the first."""
    entries = {"indices": torch.cat([first.indices, second.indices])}
    for name, value in VALUE_OF_NONE.items():
        pair = [getattr(bags, name) for bags in (first, second)]
        if any(tensor is not None for tensor in pair):
            entries[name] = torch.cat(
                [
                    torch.full((len(bags.indices),), value)
                    if tensor is None
                    else tensor
                    for bags, tensor in zip((first, second), pair, strict=True)
                ]
            )
    offsets = [first.offsets, second.offsets[1:] + first.offsets[-1]]
    return Bags(torch.cat(offsets), **entries)
