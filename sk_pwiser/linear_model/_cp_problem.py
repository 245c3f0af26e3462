"""The objective of tasks whose coefficients are products of factors.

The logit of task k in a row x with levels m_2, ..., m_D of the group modes is

    f = ((L' x) o U_2[m_2] o ... o U_D[m_D])' U_1[k] + offset_k + b[k, m_2, ..., m_D],

where o is the elementwise product. For each of the blocks L, U_1, ..., U_D and b, with
the others fixed, f is a linear map of the block plus a constant. `block_map` returns
this map and its transpose, which give gradients and least-squares steps alike.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse
from scipy.special import expit


@dataclass
class Factors:
    """The parameters of the model.

    Parameters
    ----------
    loadings : ndarray of shape (n_features, rank)
        L, what all cells share.
    modes : list of ndarray of shape (n_levels, rank)
        U_1 of the tasks, then U_2, ... of the group modes.
    intercepts : ndarray of shape (n_tasks, n_cells)
        b, how the cells differ from the offset of their task; a cell is a combination
        of levels of the group modes.
    """

    loadings: np.ndarray
    modes: list = field(default_factory=list)
    intercepts: np.ndarray | None = None

    @property
    def blocks(self):
        """Return all arrays: the loadings, the modes and the intercepts."""
        return [self.loadings, *self.modes, self.intercepts]

    def replaced(self, position, block):
        """Return factors in which one block is another."""
        blocks = self.blocks
        blocks[position] = block
        return Factors(blocks[0], blocks[1:-1], blocks[-1])

    def flatten(self):
        """Return all numbers in one vector."""
        return np.concatenate([block.ravel() for block in self.blocks])

    def unflatten(self, vector):
        """Return factors of the same shapes with the numbers of a vector."""
        ends = np.cumsum([block.size for block in self.blocks])[:-1]
        parts = np.split(vector, ends)
        shaped = [
            part.reshape(block.shape)
            for part, block in zip(parts, self.blocks, strict=True)
        ]
        return Factors(shaped[0], shaped[1:-1], shaped[-1])


class CPProblem:
    """Loss of given rows plus penalties of the factors.

    Parameters
    ----------
    columns : Columns
        The centred features.
    labels : ndarray of shape (n_samples, n_tasks)
        Labels 0 and 1; NaN where the weight is 0.
    weights : ndarray of shape (n_samples, n_tasks)
        Weights of the rows.
    codes : int ndarray of shape (n_samples, n_group_modes)
        Levels of the group modes.
    n_levels : tuple of int
        Numbers of levels of the group modes.
    offsets : ndarray of shape (n_tasks,)
        Constants of the tasks.
    loss : {"log_loss", "squared_error"}
        Logistic loss, or half the squared distance to -1 and 1.
    alpha, intercept_alpha : float
        Penalties ``alpha / 2`` times the sum of squares of L and all U, and
        ``intercept_alpha / 2`` times that of b.
    """

    def __init__(
        self,
        columns,
        labels,
        weights,
        codes,
        n_levels,
        offsets,
        *,
        loss,
        alpha,
        intercept_alpha,
    ):
        self.columns, self.weights, self.codes = columns, weights, codes
        self.labels = np.nan_to_num(labels)
        self.offsets, self.loss = offsets, loss
        self.n_levels = tuple(n_levels)
        self.penalties = (alpha, intercept_alpha)
        self.cells = cell_of(codes, self.n_levels)
        n_cells = int(np.prod(self.n_levels, dtype=int))
        self._sum_cells = indicators(self.cells, n_cells)
        self._sum_levels = [
            indicators(codes[:, d], n) for d, n in enumerate(self.n_levels)
        ]

    def penalty_of(self, position, n_blocks):
        """Return the strength of the penalty of a block."""
        return self.penalties[position == n_blocks - 1]

    def linear(self, factors):
        """Return the linear predictors, (n_samples, n_tasks)."""
        apply, _ = self.block_map(factors, 0)
        return self._constants(factors) + apply(factors.loadings)

    def value(self, factors, linear):
        """Return the objective, where `linear` is ``linear(factors)``."""
        if self.loss == "log_loss":
            losses = np.logaddexp(0.0, linear) - self.labels * linear
        else:
            losses = 0.5 * (linear - (2.0 * self.labels - 1.0)) ** 2
        blocks = factors.blocks
        penalty = sum(
            0.5 * self.penalty_of(i, len(blocks)) * np.vdot(block, block)
            for i, block in enumerate(blocks)
        )
        return np.vdot(self.weights, losses) + penalty

    def residual(self, linear):
        """Return the derivative of the loss in the linear predictors."""
        if self.loss == "log_loss":
            return self.weights * (expit(linear) - self.labels)
        return self.weights * (linear - (2.0 * self.labels - 1.0))

    def gradient(self, factors, linear):
        """Return the gradient of the objective as a vector."""
        residual = self.residual(linear)
        blocks = factors.blocks
        parts = []
        for i, block in enumerate(blocks):
            _, transposed = self.block_map(factors, i)
            part = transposed(residual) + self.penalty_of(i, len(blocks)) * block
            parts.append(part.ravel())
        return np.concatenate(parts)

    def block_map(self, factors, position):
        """Return the linear map of a block to the predictors, and its transpose."""
        if position == len(factors.blocks) - 1:
            return (
                lambda b: b[:, self.cells].T,
                lambda residual: (self._sum_cells @ residual).T,
            )
        tasks = factors.modes[0]
        if position == 0:
            product = self._product(factors)
            return (
                lambda L: (self.columns.dot(L) * product) @ tasks.T,
                lambda r: self.columns.transposed_dot((r @ tasks) * product),
            )
        projected = self.columns.dot(factors.loadings)
        if position == 1:
            inputs = projected * self._product(factors)
            return (lambda U: inputs @ U.T, lambda r: r.T @ inputs)
        d = position - 2
        inputs = projected * self._product(factors, without=d)
        codes, sums = self.codes[:, d], self._sum_levels[d]
        return (
            lambda U: (inputs * U[codes]) @ tasks.T,
            lambda r: sums @ (inputs * (r @ tasks)),
        )

    def _product(self, factors, without=None):
        """Return the product of the group modes' factors, (n_samples, rank)."""
        product = np.ones((len(self.labels), factors.loadings.shape[1]))
        for d, U in enumerate(factors.modes[1:]):
            if d != without:
                product *= U[self.codes[:, d]]
        return product

    def _constants(self, factors):
        return self.offsets + factors.intercepts[:, self.cells].T


def cell_of(codes, n_levels):
    """Return the index of each row's combination of levels."""
    if not n_levels:
        return np.zeros(len(codes), dtype=np.int64)
    return np.ravel_multi_index(tuple(codes.T), n_levels)


def indicators(codes, n_levels):
    """Return a matrix (n_levels, n_samples) whose product sums rows by level."""
    n = len(codes)
    return sparse.csr_array((np.ones(n), (codes, np.arange(n))), shape=(n_levels, n))
