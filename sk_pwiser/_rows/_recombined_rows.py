"""Encoded rows whose columns are taken from different rows of a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sk_pwiser._rows._encoded_rows import Impressions, gather_bags
from sk_pwiser._rows._row_units import mix_bits, row_hashes
from sk_pwiser.networks import Bags


@dataclass(frozen=True, kw_only=True)
class RecombinedCells:
    """A combination of columns, whose cells follow from the values of these."""

    code: int  # its place in the codes
    numeric: Sequence[int]  # and in the numeric inputs, of its target statistics
    column_names: Sequence[Any]
    # Per column, the number of the value of each row.
    values: Sequence[np.ndarray]
    # Returns codes and statistics by such numbers.
    encode: Callable[[Sequence[np.ndarray]], tuple[np.ndarray, np.ndarray]]


class RowRecombiner:
    """Makes rows of the columns of other rows, all of which are encoded once.

    Parameters
    ----------
    places : dict
        The name of each column, and where it is in the codes, the numeric inputs and
        the bags, as `Schema.places` returns them.
    tables : sequence of Impressions
        Encoded rows, which are numbered through all tables.
    combinations : sequence of RecombinedCells
        The combinations of columns, of the same rows.

    Attributes
    ----------
    column_names : list
        Names of the columns, in the order of the second axis of `sources`.
    """

    def __init__(
        self,
        places: Mapping[Any, tuple[list[int], list[int], list[int]]],
        tables: Sequence[Impressions],
        combinations: Sequence[RecombinedCells] = (),
    ) -> None:
        self.column_names = list(places)
        self.combinations = combinations
        self.rows = reduce(_join, tables)
        self._places = list(places.values())
        # Those of combinations are replaced.
        self._column_of_codes = _invert(
            [
                [combination.code for combination in combinations],
                *(codes for codes, _, _ in self._places),
            ]
        )
        self._column_of_numeric = _invert(
            [
                [place for c in combinations for place in c.numeric],
                *(numeric for _, numeric, _ in self._places),
            ]
        )
        self._column_of_bags = _invert([[], *(bags for _, _, bags in self._places)])

    def take(self, sources: np.ndarray) -> Impressions:
        """Return rows by the number of the row from which each column comes.

        `sources` are integers of shape `(n_new, n_columns)`.
        """
        rows = torch.from_numpy(np.ascontiguousarray(sources, dtype=np.int64))
        codes = self.rows.codes.gather(0, rows[:, self._column_of_codes])
        numeric = self.rows.numeric.gather(0, rows[:, self._column_of_numeric])
        for combination in self.combinations:
            columns = map(self.column_names.index, combination.column_names)
            values = [
                numbers[sources[:, column]]
                for numbers, column in zip(combination.values, columns, strict=True)
            ]
            cell_codes, rates = combination.encode(values)
            codes[:, combination.code] = torch.from_numpy(cell_codes).to(codes.dtype)
            inputs = list(combination.numeric)
            numeric[:, inputs] = torch.from_numpy(rates).to(numeric.dtype)
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
        # Rare values, which share a code, may have cells of their own.
        for combination in self.combinations:
            pairs = zip(combination.column_names, combination.values, strict=True)
            for name, numbers in pairs:
                column = self.column_names.index(name)
                mixed = mix_bits(numbers.astype(np.uint64))
                hashes[:, column] = mix_bits(hashes[:, column] + mixed)
        return hashes


def _invert(places_by_column: Sequence[Sequence[int]]) -> Tensor:
    """Return the column of each place; the first of them has none, and 0 stands in."""
    columns = {
        place: max(column - 1, 0)
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
