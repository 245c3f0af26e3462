"""JRC against its definition, in numpy's float64."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pairs_by_hand import sigmoid

from sk_pwiser.losses import JRC

NAMES = ["click", "conversion"]


def jrc_by_hand(z, y, bce_share, weight, groups):
    """Return the loss of each task, row by row."""
    n, n_tasks = z.shape
    p = sigmoid(z)
    values = np.zeros(n_tasks)
    for i, k in product(range(n), range(n_tasks)):
        if weight[i] == 0:
            continue
        of_label = p[:, k] if y[i, k] == 1 else 1 - p[:, k]
        context = [j for j in range(n) if groups[j] == groups[i] and weight[j] > 0]
        mean_weight = sum(weight[j] for j in context) / len(context)
        total = sum(weight[j] / mean_weight * of_label[j] for j in context)
        entropy = -np.log(of_label[i])
        generative = -np.log(of_label[i] / total)
        both = bce_share * entropy + (1 - bce_share) * generative
        values[k] += weight[i] * both / n
    return values


def random_batch(seed, n=20, n_groups=5):
    """Return logits, labels, weights, some of them 0, and groups, as tensors."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, 2)) < 0.4).astype(float)
    weight = rng.uniform(0.1, 3, size=n) * (rng.random(n) < 0.8)
    groups = rng.integers(0, n_groups, size=n)
    arrays = rng.normal(scale=2, size=(n, 2)), y, weight, groups
    return tuple(torch.from_numpy(a) for a in arrays)


def gradient(loss, z, *rest):
    z = z.clone().requires_grad_()
    loss(z, *rest).sum().backward()
    return z.grad


@pytest.mark.parametrize("bce_share", [0.0, 0.4, 1.0])
@settings(max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 12),
    n_groups=st.integers(1, 5),
    weighted=st.booleans(),
    grouped=st.booleans(),
)
def test_jrc_equals_the_definition(bce_share, seed, n, n_groups, weighted, grouped):
    z, y, weight, groups = random_batch(seed, n, n_groups)
    losses = JRC(NAMES, bce_share=bce_share)(
        z, y, weight if weighted else None, groups if grouped else None
    )
    expected = jrc_by_hand(
        z.numpy(),
        y.numpy(),
        bce_share,
        weight.numpy() if weighted else np.ones(n),
        groups.numpy() if grouped else np.zeros(n),
    )
    assert_allclose(losses.numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_second_derivatives(weighted, grouped):
    z, y, weight, groups = random_batch(0, n=8, n_groups=3)
    rest = y, weight if weighted else None, groups if grouped else None
    loss, z = JRC(NAMES, bce_share=0.3), z.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z: loss(z, *rest), z)


def test_the_numbers_of_groups_do_not_matter():
    z, y, weight, groups = random_batch(0)
    names = torch.tensor([2**62, -(2**62), 0, -7, 3])
    loss = JRC(NAMES)
    expected = loss(z, y, weight, groups)
    torch.testing.assert_close(loss(z, y, weight, names[groups]), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_contexts_of_one_row_add_nothing(weighted):
    z, y, weight, _ = random_batch(5)
    weight = weight.float() if weighted else None
    rest = y.float(), weight, torch.arange(20)
    loss, z = JRC(NAMES, bce_share=0), z.float() * 100
    assert loss(z, *rest).tolist() == [0.0, 0.0]
    assert not gradient(loss, z, *rest).any()


def test_many_rows_in_float32():
    # A running sum of 200,000 equal terms in float32 has a larger error.
    logits = torch.full((200_000, 1), -1.0)
    logits[0] = 30.0
    loss = JRC(["click"], bce_share=0)(logits, torch.ones_like(logits))
    n, log_p = 200_000, -np.log1p(np.exp(1.0))
    expected = np.log(1 + (n - 1) * np.exp(log_p)) - (n - 1) / n * log_p
    assert loss.item() == pytest.approx(expected, rel=2e-7)
