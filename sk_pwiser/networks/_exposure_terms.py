"""What the exposure of rows, such as their position, adds to their log-odds."""

from collections.abc import Callable, Sequence
from itertools import combinations
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

# The first codes of a column, of missing and of rare values, have no order.
N_UNORDERED = 2


class ExposureTable(NamedTuple):
    """The codes of a column that says how a row was shown."""

    n_codes: int  # those of missing and of rare values come first
    reference: int  # the code at which its terms are 0
    is_ordered: bool  # whether the further codes are in the order of their values
    never_rises: bool = False  # whether the terms must not rise in this order


class ExposureTerms(nn.Module):
    """Additive terms of the log-odds, beside a network, which reads no exposure.

    There is a term per value of each column, and one per pair of values of two
    columns. The terms of ordered values are sums of their differences, so that weight
    decay draws a value to its neighbours. All are 0 at the references.

    Parameters
    ----------
    tables : sequence of ExposureTable
        The columns.
    tasks : sequence of int
        The tasks to whose heads the terms are added.
    n_tasks : int
        Number of tasks.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks._exposure_terms import ExposureTable, ExposureTerms
    >>> position = ExposureTable(n_codes=5, reference=2, is_ordered=True)
    >>> terms = ExposureTerms([position], tasks=[0], n_tasks=2)
    >>> terms(torch.tensor([[2], [4]]))
    tensor([[0., 0.],
            [0., 0.]], grad_fn=...)
    """

    def __init__(
        self, tables: Sequence[ExposureTable], *, tasks: Sequence[int], n_tasks: int
    ) -> None:
        super().__init__()
        self.tables = tuple(tables)
        self.tasks = tuple(tasks)
        self.n_tasks = n_tasks
        self.pairs = tuple(combinations(range(len(self.tables)), 2))
        n_terms = len(self.tasks)
        self.columns = nn.ParameterList(
            torch.zeros(table.n_codes, n_terms) for table in self.tables
        )
        self.products = nn.ParameterList(
            torch.zeros(self.tables[a].n_codes, self.tables[b].n_codes, n_terms)
            for a, b in self.pairs
        )
        strides = [
            prod(table.n_codes for table in self.tables[place + 1 :])
            for place in range(len(self.tables))
        ]
        self.strides = nn.Buffer(torch.tensor(strides), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the terms of rows, by the codes of their columns.

        Parameters
        ----------
        codes : integer Tensor of shape (batch, n_columns)
            Codes of how the rows were shown.

        Returns
        -------
        Tensor of shape (batch, n_tasks)
            What is added to the log-odds of each task.
        """
        terms = self.all_terms().flatten(end_dim=-2)
        cells = (codes.long() * self.strides).sum(dim=1)
        terms = terms - terms[self._reference_cell()]
        of_rows = terms.index_select(0, cells)
        if self.tasks == tuple(range(self.n_tasks)):
            return of_rows
        columns = dict(zip(self.tasks, of_rows.unbind(dim=1), strict=True))
        zero = of_rows.new_zeros(len(of_rows))
        return torch.stack([columns.get(k, zero) for k in range(self.n_tasks)], dim=1)

    def all_terms(self) -> Tensor:
        """Return the terms of all combinations of values, `(*n_codes, n_terms)`."""
        n_columns = len(self.tables)
        parts: list[tuple[tuple[int, ...], Tensor]]
        parts = [((place,), terms) for place, terms in enumerate(self.columns)]
        parts += zip(self.pairs, self.products, strict=True)
        total = None
        for places, terms in parts:
            for axis, place in enumerate(places):
                if self.tables[place].is_ordered:
                    terms = _in_order(terms, axis, torch.cumsum)
            shape = [1] * n_columns
            for axis, place in enumerate(places):
                shape[place] = terms.shape[axis]
            terms = terms.view(*shape, -1)
            total = terms if total is None else total + terms
        assert total is not None
        for axis, table in enumerate(self.tables):
            if table.never_rises:
                total = _in_order(total, axis, _lowest_so_far)
        return total

    def _reference_cell(self) -> int:
        n_codes = [table.n_codes for table in self.tables]
        cell = 0
        for size, table in zip(n_codes, self.tables, strict=True):
            cell = cell * size + table.reference
        return cell


def _lowest_so_far(terms: Tensor, axis: int) -> Tensor:
    return terms.cummin(dim=axis).values


def _in_order(terms: Tensor, axis: int, function: Callable[..., Tensor]) -> Tensor:
    """Apply a function to the terms of ordered codes along an axis."""
    n_ordered = terms.shape[axis] - N_UNORDERED
    unordered, ordered = torch.split(terms, [N_UNORDERED, n_ordered], dim=axis)
    if not n_ordered:
        return terms
    return torch.cat([unordered, function(ordered, axis)], dim=axis)
