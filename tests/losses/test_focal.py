"""Focal loss against its formula, in numpy's float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pairs_by_hand import sigmoid

from sk_pwiser.losses import Focal

NAMES = ["click", "conversion"]
GAMMAS = [0.0, 0.5, 1.0, 2.0, 5.0]

every_gamma = pytest.mark.parametrize("gamma", GAMMAS)
every_alpha = pytest.mark.parametrize("alpha", [None, 0.25, 0.9])


def by_hand(z, y, gamma, alpha, weight):
    """Return the loss of each task, and its gradient as in the paper's appendix."""
    sign = 2 * y - 1
    p = sigmoid(sign * z)
    factor = weight[:, None] / len(z)
    if alpha is not None:
        factor = factor * np.where(y == 1, alpha, 1 - alpha)
    values = -((1 - p) ** gamma) * np.log(p)
    slopes = sign * (1 - p) ** gamma * (gamma * p * np.log(p) + p - 1)
    return (factor * values).sum(axis=0), factor * slopes


def random_batch(seed, n=20):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, size=(n, 2)).astype(float)
    return rng.normal(scale=3, size=(n, 2)), y, rng.uniform(0, 3, size=n)


@every_gamma
@every_alpha
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 20), weighted=st.booleans())
def test_equals_the_formula(gamma, alpha, seed, n, weighted):
    z, y, weight = random_batch(seed, n)
    logits = torch.tensor(z, requires_grad=True)
    loss = Focal(NAMES, gamma=gamma, alpha=alpha)
    losses = loss(
        logits, torch.from_numpy(y), torch.from_numpy(weight) if weighted else None
    )
    losses.sum().backward()
    values, slopes = by_hand(z, y, gamma, alpha, weight if weighted else np.ones(n))
    assert_allclose(losses.detach().numpy(), values, rtol=1e-9, atol=1e-15)
    assert_allclose(logits.grad.numpy(), slopes, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("z", [-17.0, -30.0, -60.0])
def test_small_losses_are_precise_in_float32(z):
    # log(1 + e^z) from a difference of numbers near z would be 0 here.
    loss = Focal(["click"], gamma=0.25)(torch.tensor([[z]]), torch.zeros(1, 1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(np.exp(1.25 * z), rel=1e-4, abs=0)


def test_second_derivatives():
    z, y, weight = (torch.from_numpy(a) for a in random_batch(3, n=4))
    z.requires_grad_()
    loss = Focal(NAMES, gamma=1.5, alpha=0.3)
    assert torch.autograd.gradgradcheck(lambda z: loss(z, y, weight), z)
