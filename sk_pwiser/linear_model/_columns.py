"""Products with the centred and scaled columns of a matrix, without a copy of it."""

import numpy as np
from scipy import sparse


class Columns:
    """The matrix ``(X - mean) / scale``, whose entries are never computed.

    Centring makes intercepts independent of the coefficients' scale, but it would fill
    a sparse matrix; here it is a correction of each product.

    Parameters
    ----------
    X : ndarray or CSC matrix of shape (n_samples, n_features)
        The features.
    mean, scale : ndarray of shape (n_features,)
        What is subtracted from the columns, and by what they are then divided.
    """

    def __init__(self, X, mean, scale):
        self.X, self.mean, self.scale = X, mean, scale

    @property
    def n_features(self):
        """Number of columns."""
        return self.X.shape[1]

    def dot(self, V):
        """Return the product with V of shape (n_features, k)."""
        W = V / self.scale[:, np.newaxis]
        return self.X @ W - self.mean @ W

    def transposed_dot(self, R):
        """Return the product of the transpose with R of shape (n_samples, k)."""
        product = self.X.T @ R - np.outer(self.mean, R.sum(axis=0))
        return product / self.scale[:, np.newaxis]

    def select(self, features):
        """Return some of the columns."""
        return Columns(self.X[:, features], self.mean[features], self.scale[features])


def weighted_moments(X, weight):
    """Return the means and variances of the columns; constant ones have variance 0.

    Parameters
    ----------
    X : ndarray or sparse matrix of shape (n_samples, n_features)
        The features.
    weight : ndarray of shape (n_samples,)
        Weights of the rows, not all zero.
    """
    weight = weight / weight.sum()
    mean = X.T @ weight
    if sparse.issparse(X):
        square = X.multiply(X).T @ weight
    else:
        square = np.einsum("i,ij,ij->j", weight, X, X)
    variance = square - mean**2
    variance[variance < 1e-12 * square] = 0.0
    return mean, variance
