"""The objective of tasks whose coefficients are products of factors.

The logit of task k in a row x with levels m_2, ..., m_D of the group modes is

    f = ((L' x) o U_2[m_2] o ... o U_D[m_D])' U_1[k] + offset_k + b[k, m_2, ..., m_D],

where o is the elementwise product. For each of the blocks L, U_1, ..., U_D and b, with
the others fixed, f is a linear map of the block plus a constant. `block_map` returns
this map and its transpose, which give gradients and least-squares steps alike.
"""

from dataclasses import dataclass

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
    projected : ndarray of shape (n_samples, rank), default=None
        The features times the loadings, once they were needed.
    """

    loadings: np.ndarray
    modes: list
    intercepts: np.ndarray
    projected: np.ndarray | None = None

    @property
    def blocks(self):
        """Return all arrays: the loadings, the modes and the intercepts."""
        return [self.loadings, *self.modes, self.intercepts]

    def replaced(self, position, block):
        """Return factors in which one block is another."""
        blocks = self.blocks
        blocks[position] = block
        projected = self.projected if position > 0 else None
        return Factors(blocks[0], blocks[1:-1], blocks[-1], projected)

    def balanced(self):
        """Return factors with equal predictions and the smallest sum of squares.

        Loadings and modes can be multiplied by numbers per component whose product is
        1. The sum of squares is smallest if their norms are equal.
        """
        parts = [self.loadings, *self.modes]
        norms = np.array([np.linalg.norm(part, axis=0) for part in parts])
        is_used = (norms > 0).all(axis=0)
        norms[:, ~is_used] = 1.0
        mean = np.exp(np.log(norms).mean(axis=0))
        parts = [part * (mean / norm) for part, norm in zip(parts, norms, strict=True)]
        return Factors(parts[0], parts[1:], self.intercepts)

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
    variances : ndarray of shape (n_features,)
        The variances of the features.
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
        variances,
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
        self.columns, self.variances = columns, variances
        self.weights, self.codes = weights, codes
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
        apply, _ = self.block_map(factors, 1)
        constants = self.offsets + factors.intercepts[:, self.cells].T
        return constants + apply(factors.modes[0])

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

    def curvatures(self, factors):
        """Return rough second derivatives of the objective, as a vector.

        They serve as a scale of the parameters, which differ by orders of magnitude if
        some columns are rare. The logistic loss has a curvature of at most 1/4.
        """
        alpha, intercept_alpha = self.penalties
        of_loss = 0.25 if self.loss == "log_loss" else 1.0
        # Sums over the tasks of weight times squared factor, (n_samples, rank).
        by_row = self.weights @ factors.modes[0] ** 2
        product, projected = self._product(factors), self._projected(factors)
        blocks = [
            np.outer(self.variances, (by_row * product**2).sum(axis=0)),
            self.weights.T @ (projected * product) ** 2,
        ]
        for d, sums in enumerate(self._sum_levels):
            inputs = projected * self._product(factors, without=d)
            blocks.append(sums @ (by_row * inputs**2))
        blocks = [alpha + of_loss * block for block in blocks]
        blocks.append(intercept_alpha + of_loss * (self._sum_cells @ self.weights).T)
        curvatures = np.concatenate([block.ravel() for block in blocks])
        # Intercepts without rows and penalty do not move.
        return np.where(curvatures > 0, curvatures, 1.0)

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
        projected = self._projected(factors)
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

    def _projected(self, factors):
        if factors.projected is None:
            factors.projected = self.columns.dot(factors.loadings)
        return factors.projected

    def _product(self, factors, without=None):
        """Return the product of the group modes' factors, (n_samples, rank)."""
        product = np.ones((len(self.labels), factors.loadings.shape[1]))
        for d, U in enumerate(factors.modes[1:]):
            if d != without:
                product *= U[self.codes[:, d]]
        return product


def cell_of(codes, n_levels):
    """Return the index of each row's combination of levels."""
    if not n_levels:
        return np.zeros(len(codes), dtype=np.int64)
    return np.ravel_multi_index(tuple(codes.T), n_levels)


def indicators(codes, n_levels):
    """Return a matrix (n_levels, n_samples) whose product sums rows by level."""
    n = len(codes)
    return sparse.csr_array((np.ones(n), (codes, np.arange(n))), shape=(n_levels, n))
