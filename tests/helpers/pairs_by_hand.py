"""Means over all pairs of rows by their definition, in numpy's float64."""

import math

import numpy as np


def sigmoid(u):
    return np.exp(-np.logaddexp(0, -u))


# h(u) and its derivative.
SURROGATES = {
    "hinge": (lambda u: np.maximum(u, 0), lambda u: (u > 0) * 1.0),
    "squared_hinge": (lambda u: np.maximum(u, 0) ** 2, lambda u: 2 * np.maximum(u, 0)),
    "logistic": (lambda u: np.logaddexp(0, u), sigmoid),
}


def over_pairs(higher, lower, margin, surrogate, higher_weight=None, lower_weight=None):
    """Return the mean over all pairs and its two gradients."""
    v, c = (np.asarray(s, dtype=np.float64) for s in (higher, lower))
    weights = [
        np.ones(len(scores)) if weight is None else np.asarray(weight)
        for scores, weight in ((v, higher_weight), (c, lower_weight))
    ]
    # Weights of 1e-200 count, but their product would be 0.
    weight = np.outer(*(w / w.max() if w.any() else w for w in weights))
    if not weight.sum() > 0:
        return 0.0, np.zeros(len(v)), np.zeros(len(c))
    weight = weight / weight.sum()
    u = margin - (v[:, None] - c[None, :])
    h, slope = (function(u) for function in SURROGATES[surrogate])
    slope = weight * slope
    return math.fsum((weight * h).ravel()), -slope.sum(axis=1), slope.sum(axis=0)
