"""What the exposure of rows, such as their position, adds to their log-odds."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# How the rows of a value were shown counts as that of all rows would with so many more.
PRIOR_ROWS = 10.0

# Of a term, so that no sum of weights is 0.
SMALLEST_WEIGHT = 1e-9

# Counts of columns with more of them would take too much memory.
MOST_COUNTS = 2**24

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
    base_rates : sequence of float
        Rate of each task, a probability over impressions.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks._exposure_terms import ExposureTable, ExposureTerms
    >>> position = ExposureTable(n_codes=5, reference=2, is_ordered=True)
    >>> terms = ExposureTerms([position], tasks=[0], base_rates=[0.1, 0.01])
    >>> terms(torch.tensor([[2], [4]]))
    tensor([[0., 0.],
            [0., 0.]], grad_fn=...)
    """

    counts: Tensor | None
    prior_counts: Tensor | None

    def __init__(
        self,
        tables: Sequence[ExposureTable],
        *,
        tasks: Sequence[int],
        base_rates: Sequence[float],
    ) -> None:
        super().__init__()
        self.tables = tuple(tables)
        self.tasks = tuple(tasks)
        self.n_tasks = len(base_rates)
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
        self.n_combinations = prod(table.n_codes for table in self.tables)
        self.strides = nn.Buffer(torch.tensor(strides), persistent=False)
        rates = torch.tensor([base_rates[task] for task in self.tasks])
        self.base_logits = nn.Buffer(torch.logit(rates, eps=1e-6), persistent=False)
        # Of a training: the column of codes that tells most about the exposure, and
        # the numbers of rows per code and combination of how they were shown.
        self.told_by: int | None = None
        self.unseen_code = 1
        self.register_buffer("counts", None, persistent=False)
        self.register_buffer("prior_counts", None, persistent=False)

    def count_rows(
        self,
        parts: Iterable[tuple[Tensor, Tensor]],
        cardinalities: Sequence[int],
        unseen_code: int,
    ) -> None:
        """Count how the values of category columns were shown, before a training.

        Parameters
        ----------
        parts : iterable of (Tensor, Tensor)
            Codes of the category columns, `(n_rows, n_category_columns)`, and of how
            the rows were shown, `(n_rows, n_columns)`.
        cardinalities : sequence of int
            Numbers of codes of the category columns. Larger codes are those of values
            that have a vector, but no embedding: they count as unseen ones.
        unseen_code : int
            The code of unseen values.
        """
        n = self.n_combinations
        self.unseen_code = unseen_code
        device = self.strides.device
        columns = [k for k, size in enumerate(cardinalities) if size * n <= MOST_COUNTS]
        counts = {
            k: torch.zeros(cardinalities[k] * n, dtype=torch.int64) for k in columns
        }
        total = torch.zeros(n, dtype=torch.int64)
        for codes, exposure in parts:
            cells = self._cells(exposure.to(device)).cpu()
            total += torch.bincount(cells, minlength=n)
            for k in columns:
                values = self._values_of(codes[:, k].cpu(), cardinalities[k])
                places = values * n + cells
                counts[k] += torch.bincount(places, minlength=len(counts[k]))
        prior = PRIOR_ROWS * total.double() / total.sum()
        # What is known of a row without the column's value.
        best = (total * (total.double() / total.sum()).clamp(min=1e-12).log()).sum()
        self.told_by = None
        for k in columns:
            code_counts = counts[k].view(-1, n).double()
            n_rows = code_counts.sum(dim=1, keepdim=True)
            # Those of the other rows of a code.
            other_counts = (code_counts - 1).clamp(min=0) + prior
            n_other_rows = (n_rows - 1).clamp(min=0) + PRIOR_ROWS
            shares = (other_counts / n_other_rows).clamp(min=1e-12)
            gain = (code_counts * shares.log()).sum()
            if gain > best:
                best = gain
                self.told_by = k
        if self.told_by is not None:
            self.counts = counts[self.told_by].view(-1, n).float().to(device)
            self.prior_counts = prior.float().to(device)

    def _values_of(self, codes: Tensor, n_values: int) -> Tensor:
        """Return codes for which there are counts."""
        return codes.long().where(codes < n_values, self.unseen_code)

    def forget_rows(self) -> None:
        """Forget the counts of a training."""
        self.told_by = None
        self.counts = None
        self.prior_counts = None

    def forward(self, codes: Tensor, category_codes: Tensor | None = None) -> Tensor:
        """Return the terms of rows, by the codes of their columns.

        An old ranking shows good items first. The network, with its weight decay, does
        not learn all of what makes an item good, and the terms would learn the rest. In
        training, the gradient of the terms is therefore that of their differences from
        their mean over the other rows of the item, to which errors of the network that
        depend on the item alone add nothing (Robinson, 1988).

        Parameters
        ----------
        codes : integer Tensor of shape (batch, n_columns)
            Codes of how the rows were shown.
        category_codes : integer Tensor of shape (batch, n_category_columns), or None
            The codes of the category columns, in training.

        Returns
        -------
        Tensor of shape (batch, n_tasks)
            What is added to the log-odds of each task.
        """
        terms = self.all_terms().flatten(end_dim=-2)
        cells = self._cells(codes)
        terms = terms - terms[self._reference_cell()]
        row_terms = terms.index_select(0, cells)
        if category_codes is not None and self.told_by is not None:
            mean = self._mean_terms(category_codes, cells, terms)
            row_terms = row_terms - mean + mean.detach()
        if self.tasks == tuple(range(self.n_tasks)):
            return row_terms
        columns = dict(zip(self.tasks, row_terms.unbind(dim=1), strict=True))
        zero = row_terms.new_zeros(len(row_terms))
        return torch.stack([columns.get(k, zero) for k in range(self.n_tasks)], dim=1)

    def all_terms(self) -> Tensor:
        """Return the terms of all combinations of values, `(*n_codes, n_terms)`."""
        n_columns = len(self.tables)
        summands: list[tuple[tuple[int, ...], Tensor]] = []
        summands += [((place,), terms) for place, terms in enumerate(self.columns)]
        summands += zip(self.pairs, self.products, strict=True)
        total = None
        for places, terms in summands:
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

    def _cells(self, codes: Tensor) -> Tensor:
        """Return the combinations of codes as numbers."""
        return (codes.long() * self.strides).sum(dim=1)

    def _mean_terms(
        self, category_codes: Tensor, cells: Tensor, terms: Tensor
    ) -> Tensor:
        """Return the mean terms of the other rows of the same values.

        An error of log-odds changes a probability p in proportion to p (1 - p), which
        is therefore the weight of each term.
        """
        assert self.prior_counts is not None
        shares = self._shares(category_codes, cells)
        fixed = terms.detach()
        mean_term = self.prior_counts @ fixed / self.prior_counts.sum()
        p = torch.sigmoid(self.base_logits + fixed - mean_term)
        weights = (p * (1 - p)).clamp(min=SMALLEST_WEIGHT)
        return shares @ (weights * terms) / (shares @ weights)

    def _shares(self, category_codes: Tensor, cells: Tensor) -> Tensor:
        """Return how the other rows of the same values were shown, as shares."""
        assert self.counts is not None
        assert self.prior_counts is not None
        values = self._values_of(category_codes[:, self.told_by], len(self.counts))
        counts = self.counts.index_select(0, values)
        other_counts = counts - F.one_hot(cells, self.n_combinations)
        # Rows that were not counted, such as those of another part.
        other_counts = other_counts.clamp(min=0) + self.prior_counts
        return other_counts / other_counts.sum(dim=1, keepdim=True)

    def _reference_cell(self) -> int:
        n_codes = [table.n_codes for table in self.tables]
        cell = 0
        for size, table in zip(n_codes, self.tables, strict=True):
            cell = cell * size + table.reference
        return cell


def _lowest_so_far(terms: Tensor, axis: int) -> Tensor:
    return terms.cummin(dim=axis).values


def _in_order(
    terms: Tensor, axis: int, function: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Apply a function to the terms of ordered codes along an axis."""
    n_ordered = terms.shape[axis] - N_UNORDERED
    if not n_ordered:
        return terms
    unordered = terms.narrow(axis, 0, N_UNORDERED)
    ordered = terms.narrow(axis, N_UNORDERED, n_ordered)
    return torch.cat([unordered, function(ordered, axis)], dim=axis)
