"""CombinedPair against its definition, in numpy's float64."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pairs_by_hand import over_pairs, sigmoid

from sk_pwiser.losses import CombinedPair

NAMES = ["click", "conversion"]


def random_batch(seed, n):
    """Return logits, labels, and weights, some of them 0, as tensors."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, 2)) < 0.4).astype(float)
    weight = rng.uniform(0.1, 3, size=n) * (rng.random(n) < 0.8)
    arrays = rng.normal(scale=2, size=(n, 2)), y, weight
    return tuple(torch.from_numpy(array) for array in arrays)


def pairs_by_hand(z, y, bce_share, weight):
    """Return the losses of CombinedPair for two tasks, and their gradient."""
    values, slopes = np.zeros(2), np.zeros_like(z)
    for k, (scores, labels) in enumerate(zip(z.T, y.T, strict=True)):
        p = sigmoid(scores)
        entropy = np.where(labels == 1, -np.log(p), -np.log1p(-p))
        slopes[:, k] = bce_share * weight * (p - labels) / len(z)
        i, j = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        mean, *of_pairs = over_pairs(
            scores[i], scores[j], 0.0, "logistic", weight[i], weight[j]
        )
        share = (1 - bce_share) * weight.mean()
        values[k] = bce_share * np.mean(weight * entropy) + share * mean
        for rows, slope in zip((i, j), of_pairs, strict=True):
            slopes[rows, k] += share * slope
    return values, slopes


@pytest.mark.parametrize("bce_share", [0.0, 0.7, 1.0])
@settings(max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 15),
    weighted=st.booleans(),
    ties=st.booleans(),
)
@example(seed=0, n=1500, weighted=True, ties=False)
def test_combined_pair_equals_the_definition(bce_share, seed, n, weighted, ties):
    z, y, weight = random_batch(seed, n)
    z = (z.round() if ties else z).requires_grad_()
    loss = CombinedPair(NAMES, bce_share=bce_share)
    losses = loss(z, y, weight if weighted else None)
    losses.sum().backward()
    weight = weight.numpy() if weighted else np.ones(n)
    expected = pairs_by_hand(z.detach().numpy(), y.numpy(), bce_share, weight)
    assert_allclose(losses.detach(), expected[0], rtol=1e-8, atol=1e-14)
    assert_allclose(z.grad, expected[1], rtol=1e-8, atol=1e-14)
