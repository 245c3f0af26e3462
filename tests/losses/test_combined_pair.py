"""CombinedPair against its definition with all pairs, in numpy's float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sk_pwiser.losses import BCE, CombinedPair, PWiseR

NAMES = ["click", "conversion"]


def by_hand(z, y, bce_share, weight):
    """Return the loss of each task and its gradient from the matrices of pairs."""
    values, slopes = [], []
    for scores, labels in zip(z.T, y.T, strict=True):
        p = 1 / (1 + np.exp(-scores))
        entropy = np.where(labels == 1, -np.log(p), -np.log1p(-p))
        slope = bce_share * weight * (p - labels) / len(scores)
        i, j = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        difference = scores[j] - scores[i][:, None]
        share = np.outer(weight[i], weight[j])
        share = share / share.sum() if share.sum() else share
        share = share * weight.mean()
        pair_slope = (1 - bce_share) * share / (1 + np.exp(-difference))
        slope[i] -= pair_slope.sum(axis=1)
        slope[j] += pair_slope.sum(axis=0)
        pairs = (share * np.logaddexp(0, difference)).sum()
        values.append(bce_share * np.mean(weight * entropy) + (1 - bce_share) * pairs)
        slopes.append(slope)
    return np.array(values), np.array(slopes).T


def evaluate(loss, z, y, weight=None):
    logits = torch.tensor(z, requires_grad=True)
    weight = None if weight is None else torch.from_numpy(weight)
    losses = loss(logits, torch.from_numpy(y), weight)
    losses.sum().backward()
    return losses.detach().numpy(), logits.grad.numpy()


def random_batch(seed, n, rate=0.4, ties=False):
    rng = np.random.default_rng(seed)
    z = rng.normal(scale=2, size=(n, 2))
    y = (rng.random((n, 2)) < rate).astype(float)
    return np.round(z) if ties else z, y, rng.uniform(0, 3, size=n)


@pytest.mark.parametrize("bce_share", [0.0, 0.7, 1.0])
@settings(max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 15),
    weighted=st.booleans(),
    ties=st.booleans(),
)
def test_equals_the_definition(bce_share, seed, n, weighted, ties):
    z, y, weight = random_batch(seed, n, ties=ties)
    weight = weight if weighted else None
    actual = evaluate(CombinedPair(NAMES, bce_share=bce_share), z, y, weight)
    expected = by_hand(z, y, bce_share, np.ones(n) if weight is None else weight)
    for a, e in zip(actual, expected, strict=True):
        assert_allclose(a, e, rtol=1e-9, atol=1e-14)


def test_equals_the_definition_with_many_pairs():
    z, y, weight = random_batch(0, 1500)
    actual = evaluate(CombinedPair(NAMES), z, y, weight)
    for a, e in zip(actual, by_hand(z, y, 0.7, weight), strict=True):
        assert_allclose(a, e, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 7])
def test_without_pairs_only_the_share_of_cross_entropy_remains(label, n):
    y = np.full((n, 2), label)
    z = random_batch(2, n)[0]
    values, slopes = evaluate(CombinedPair(NAMES, bce_share=0.4), z, y)
    bce_values, bce_slopes = evaluate(BCE(NAMES), z, y)
    assert_allclose(values, 0.4 * bce_values, rtol=1e-12)
    assert_allclose(slopes, 0.4 * bce_slopes, rtol=1e-12)


def test_with_share_0_a_constant_shift_changes_nothing():
    z, y, weight = (torch.from_numpy(a) for a in random_batch(3, 20))
    loss = CombinedPair(NAMES, bce_share=0)
    shifted = z + torch.tensor([5.0, -3.0])
    torch.testing.assert_close(loss(shifted, y, weight), loss(z, y, weight))


def test_tasks_do_not_share_pairs():
    z, y, _ = (torch.from_numpy(a) for a in random_batch(4, 20))
    both = CombinedPair(NAMES)(z, y)
    for k, name in enumerate(NAMES):
        alone = CombinedPair([name])(z[:, [k]], y[:, [k]])
        torch.testing.assert_close(both[[k]], alone)


@pytest.mark.parametrize("bce_share", [0.0, 0.5])
def test_true_probabilities_are_stationary(bce_share):
    # Every row is given once as a positive and once as a negative, with the
    # probabilities of the two as weights.
    rate = torch.tensor([0.001, 0.02, 0.3, 0.8], dtype=torch.float64)
    z = torch.logit(rate).unsqueeze(1).requires_grad_()
    y = torch.tensor([[1.0]] * 4 + [[0.0]] * 4, dtype=torch.float64)
    loss = CombinedPair(["click"], bce_share=bce_share)
    loss(torch.cat([z, z]), y, torch.cat([rate, 1 - rate])).sum().backward()
    assert_allclose(z.grad.numpy(), 0, atol=1e-15)


def test_pairs_have_a_gradient_for_negatives_of_low_probability():
    # The paper's argument: the gradient of cross-entropy is p = 0.0025, that of the
    # pair sigmoid(0).
    z = np.array([[-6.0], [-6.0]])
    y = np.array([[1.0], [0.0]])
    assert evaluate(BCE(["click"]), z, y)[1][1] == pytest.approx(0.0025 / 2, rel=0.02)
    assert evaluate(CombinedPair(["click"], bce_share=0), z, y)[1][1] == pytest.approx(
        0.5
    )


def test_extreme_logits():
    logits = torch.tensor([[1e3], [-1e3], [1e3], [-1e3]], requires_grad=True)
    y = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    loss = CombinedPair(["click"], bce_share=0.5)(logits, y)
    loss.sum().backward()
    # Of four pairs one is in the right order by 2000, two are ties, and one is in the
    # wrong order by 2000.
    expected = 0.5 * 2e3 / 4 + 0.5 * (2 * np.log(2) + 2e3) / 4
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    slopes = [-0.5 / 8, -0.5 * (1 / 4 + 1.5 / 4), 0.5 * (1 / 4 + 1.5 / 4), 0.5 / 8]
    assert logits.grad.squeeze(1).tolist() == pytest.approx(slopes)


def test_as_the_base_loss_of_pwiser():
    z, y, _ = (torch.from_numpy(a) for a in random_batch(7, 20))
    y[:, 1] *= y[:, 0]
    both = PWiseR(NAMES, base="combined_pair", base_params={"bce_share": 0.3})
    over_bce = PWiseR(NAMES)(z, y) - BCE(NAMES)(z, y)
    torch.testing.assert_close(
        both(z, y), CombinedPair(NAMES, bce_share=0.3)(z, y) + over_bce
    )
