"""Focal loss against its formula and its gradient in numpy's float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sk_pwiser.losses import BCE, Focal

NAMES = ["click", "conversion"]
GAMMAS = [0.0, 0.5, 1.0, 2.0, 5.0]

every_gamma = pytest.mark.parametrize("gamma", GAMMAS)
every_alpha = pytest.mark.parametrize("alpha", [None, 0.25, 0.9])


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


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


def test_gamma_0_is_cross_entropy():
    z, y, weight = (torch.from_numpy(a) for a in random_batch(0))
    expected = BCE(NAMES)(z, y, weight)
    exact = {"rtol": 1e-14, "atol": 0.0}
    torch.testing.assert_close(Focal(NAMES, gamma=0)(z, y, weight), expected, **exact)
    half = Focal(NAMES, gamma=0, alpha=0.5)(z, y, weight)
    torch.testing.assert_close(half, expected / 2, **exact)


def test_labels_are_treated_symmetrically():
    z, y, weight = (torch.from_numpy(a) for a in random_batch(1))
    loss, mirrored = Focal(NAMES, alpha=0.2), Focal(NAMES, alpha=0.8)
    torch.testing.assert_close(loss(z, y, weight), mirrored(-z, 1 - y, weight))


@every_gamma
@every_alpha
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_extreme_logits(gamma, alpha, label):
    logits = torch.tensor([[1e3], [-1e3], [0.0]], requires_grad=True)
    y = torch.full((3, 1), label)
    loss = Focal(["click"], gamma=gamma, alpha=alpha)(logits, y)
    loss.sum().backward()
    share = 1.0 if alpha is None else alpha if label else 1 - alpha
    # The losses of the rows are 1000, 0 and log(2) / 2^gamma.
    expected = share * (1e3 + 0.0 + np.log(2) / 2**gamma) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    slope = -share / 3 if label else share / 3
    wrong, right = (1, 0) if label else (0, 1)
    assert logits.grad[wrong].item() == pytest.approx(slope, rel=1e-6)
    assert logits.grad[right].item() == 0.0


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_numpy_scalars_are_numbers(kind):
    loss = Focal(NAMES, gamma=kind(2), alpha=np.float32(0.25))
    assert (loss.gamma, loss.alpha) == (2.0, 0.25)


@pytest.mark.parametrize("z", [-17.0, -30.0, -60.0])
def test_small_losses_are_precise_in_float32(z):
    # log(1 + e^z) from a difference of numbers near z would be 0 here.
    loss = Focal(["click"], gamma=0.25)(torch.tensor([[z]]), torch.zeros(1, 1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(np.exp(1.25 * z), rel=1e-4, abs=0)


@every_gamma
@every_alpha
def test_soft_targets_mix_the_losses_of_both_labels(gamma, alpha):
    z, y, _ = random_batch(4)
    targets = np.random.default_rng(4).uniform(size=y.shape)
    loss = Focal(NAMES, gamma=gamma, alpha=alpha)
    rows = loss.row_losses(torch.from_numpy(z), torch.from_numpy(targets))
    ones = np.ones(len(z))
    for k in range(2):
        expected = 0
        for label, share in ((1.0, targets[:, k]), (0.0, 1 - targets[:, k])):
            # Of one row at a time, whose mean is its loss.
            at_label = [
                by_hand(z[[i]], np.full((1, 2), label), gamma, alpha, ones[:1])[0][k]
                for i in range(len(z))
            ]
            expected = expected + share * np.array(at_label)
        assert_allclose(rows[:, k].numpy(), expected, rtol=1e-9, atol=1e-15)


def test_second_derivatives():
    z, y, weight = (torch.from_numpy(a) for a in random_batch(3, n=4))
    z.requires_grad_()
    loss = Focal(NAMES, gamma=1.5, alpha=0.3)
    assert torch.autograd.gradgradcheck(lambda z: loss(z, y, weight), z)


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9])
def test_the_minimiser_lies_nearer_to_one_half(p):
    # Charoenphakdee et al. (2021): if the minimiser is p, the true rate is h(p) over
    # h(p) + h(1 - p), with h(v) = v / ((1-v)^gamma - gamma (1-v)^(gamma-1) v log v).
    gamma = 2.0

    def h(v):
        return v / ((1 - v) ** gamma - gamma * (1 - v) ** (gamma - 1) * v * np.log(v))

    rate = h(p) / (h(p) + h(1 - p))
    z = torch.full((2, 1), np.log(p / (1 - p)), dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[1.0], [0.0]])
    Focal(["click"], gamma=gamma)(z, y, torch.tensor([rate, 1 - rate])).sum().backward()
    assert z.grad.sum().item() == pytest.approx(0, abs=1e-8)
    assert abs(p - 0.5) < abs(rate - 0.5) or p == rate == 0.5
