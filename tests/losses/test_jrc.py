"""JRC against its definition per row, in numpy's float64, and its invariants."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sk_pwiser.losses import BCE, JRC, PWiseR
from sk_pwiser.losses._ranking import context_losses

NAMES = ["click", "conversion"]


def by_hand(z, y, bce_share, weight, groups):
    """Return the loss of each task by the definition."""
    n, n_tasks = z.shape
    p = 1 / (1 + np.exp(-z))
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


def random_batch(seed, n=20, n_groups=5, rate=0.4):
    """Return logits, labels, weights, some of them 0, and groups, as tensors."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, 2)) < rate).astype(float)
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
def test_equals_the_definition(bce_share, seed, n, n_groups, weighted, grouped):
    z, y, weight, groups = random_batch(seed, n, n_groups)
    losses = JRC(NAMES, bce_share=bce_share)(
        z, y, weight if weighted else None, groups if grouped else None
    )
    expected = by_hand(
        z.numpy(),
        y.numpy(),
        bce_share,
        weight.numpy() if weighted else np.ones(n),
        groups.numpy() if grouped else np.zeros(n),
    )
    assert_allclose(losses.numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_first_and_second_derivatives(weighted, grouped):
    z, y, weight, groups = random_batch(0, n=8, n_groups=3)
    rest = y, weight if weighted else None, groups if grouped else None
    loss, z = JRC(NAMES, bce_share=0.3), z.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, *rest), z)
    assert torch.autograd.gradgradcheck(lambda z: loss(z, *rest), z)


def test_as_the_base_loss_of_pwiser_it_gets_groups():
    assert JRC.asks_for_groups
    z, y, weight, groups = random_batch(1)
    y[:, 1] *= y[:, 0]
    both = PWiseR(NAMES, base="jrc", base_params={"bce_share": 0.3})
    assert both.asks_for_groups
    term = PWiseR(NAMES)(z, y, weight) - BCE(NAMES)(z, y, weight)
    torch.testing.assert_close(
        both(z, y, weight, groups),
        JRC(NAMES, bce_share=0.3)(z, y, weight, groups) + term,
    )


# The form with two logits per row.


@given(seed=st.integers(0, 10**6))
def test_a_constant_added_to_one_label_in_a_context_changes_nothing(seed):
    _, y, _, groups = random_batch(seed)
    rng = np.random.default_rng(seed)
    columns = torch.from_numpy(rng.normal(size=(20, 2, 2)))
    constants = torch.from_numpy(rng.normal(scale=50, size=(5, 2, 2)))
    torch.testing.assert_close(
        context_losses(columns + constants[groups], y, None, groups),
        context_losses(columns, y, None, groups),
    )


def test_a_constant_added_to_both_labels_of_a_row_changes_its_context():
    # One logit per row does not determine it, and cross-entropy does not depend on it.
    _, y, _, groups = random_batch(2)
    columns = torch.zeros(20, 2, 2, dtype=torch.float64)
    before = context_losses(columns, y, None, groups)
    columns[0] += 1
    others = groups == groups[0]
    changed = (context_losses(columns, y, None, groups) != before).all(dim=1)
    assert others.sum() > 1
    assert changed.equal(others)


def test_equal_logits_give_the_logarithm_of_the_context_size():
    groups = torch.tensor([7, 7, 7, 3, 3, 9])
    y = torch.tensor([[1.0], [0.0], [0.0], [1.0], [1.0], [0.0]])
    losses = context_losses(torch.full((6, 1, 2), 4.0), y, None, groups)
    expected = np.log([3, 3, 3, 2, 2, 1])
    assert_allclose(losses.squeeze(1).numpy(), expected, rtol=1e-6)


# Contexts.


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_rows_and_the_numbers_of_groups_do_not_matter(seed):
    z, y, weight, groups = random_batch(seed)
    rng = np.random.default_rng(seed)
    order = torch.from_numpy(rng.permutation(20))
    names = torch.tensor([2**62, -(2**62), 0, -7, 3])[rng.permutation(5)]
    loss = JRC(NAMES)
    expected, slopes = loss(z, y, weight, groups), gradient(loss, z, y, weight, groups)
    renamed = z[order], y[order], weight[order], names[groups[order]]
    torch.testing.assert_close(loss(*renamed), expected)
    torch.testing.assert_close(gradient(loss, *renamed), slopes[order])


def test_without_groups_the_batch_is_one_context():
    z, y, weight, _ = random_batch(3)
    loss, one = JRC(NAMES), torch.full((20,), 42)
    torch.testing.assert_close(loss(z, y, weight), loss(z, y, weight, one))


def test_contexts_are_independent():
    z, y, weight, groups = random_batch(4)
    loss = JRC(NAMES)
    parts = [
        loss(z[rows], y[rows], weight[rows]) * rows.sum() / 20
        for rows in (groups == g for g in groups.unique())
    ]
    torch.testing.assert_close(loss(z, y, weight, groups), sum(parts))


@pytest.mark.parametrize("weighted", [False, True])
def test_contexts_of_one_row_add_nothing(weighted):
    z, y, weight, _ = random_batch(5)
    weight = weight.float() if weighted else None
    rest = y.float(), weight, torch.arange(20)
    loss, z = JRC(NAMES, bce_share=0), z.float() * 100
    assert loss(z, *rest).tolist() == [0.0, 0.0]
    assert not gradient(loss, z, *rest).any()


# Labels, probabilities and weights.


def test_labels_are_treated_symmetrically():
    z, y, weight, groups = random_batch(6)
    loss = JRC(NAMES)
    torch.testing.assert_close(
        loss(-z, 1 - y, weight, groups), loss(z, y, weight, groups)
    )


@pytest.mark.parametrize("bce_share", [0.0, 0.5])
def test_true_probabilities_are_stationary(bce_share):
    # The expectation over all labels that four rows can have.
    rates = np.array([0.001, 0.02, 0.3, 0.8])
    z = torch.logit(torch.tensor(rates)).unsqueeze(1)
    groups = torch.tensor([0, 0, 0, 1])
    loss, mean = JRC(["click"], bce_share=bce_share), torch.zeros(4, 1)
    for labels in product([0.0, 1.0], repeat=4):
        chance = np.prod(np.where(labels, rates, 1 - rates))
        y = torch.tensor(labels, dtype=torch.float64).unsqueeze(1)
        mean = mean + chance * gradient(loss, z, y, None, groups)
    assert_allclose(mean.numpy(), 0, atol=1e-15)


def test_rows_of_weight_0_are_excluded_from_their_contexts():
    z, y, weight, groups = random_batch(8)
    kept, loss = weight > 0, JRC(NAMES)
    assert not kept.all()
    extreme = torch.where(kept.unsqueeze(1), z, 1e3)
    expected = loss(z[kept], y[kept], weight[kept], groups[kept]) * kept.sum() / 20
    torch.testing.assert_close(loss(extreme, y, weight, groups), expected)
    slopes = gradient(loss, extreme, y, weight, groups)
    assert not slopes[~kept].any()
    assert slopes[kept].all()


def test_the_scale_of_weights_scales_the_loss():
    z, y, weight, groups = random_batch(9)
    loss = JRC(NAMES)
    torch.testing.assert_close(
        loss(z, y, 7 * weight, groups), 7 * loss(z, y, weight, groups)
    )


def test_a_whole_weight_has_the_gradient_of_as_many_rows():
    z, y, _, groups = random_batch(10)
    times = torch.from_numpy(np.random.default_rng(10).integers(1, 4, size=20))
    loss = JRC(NAMES)
    copies = torch.arange(20).repeat_interleave(times)
    repeated = gradient(loss, z[copies], y[copies], None, groups[copies])
    summed = torch.zeros_like(z).index_add(0, copies, repeated) * len(copies) / 20
    weighted = gradient(loss, z, y, times.double(), groups)
    torch.testing.assert_close(weighted, summed)


@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 8), rate=st.sampled_from([0, 1, 0.5])
)
def test_the_second_part_is_non_negative(seed, n, rate):
    z, y, weight, groups = random_batch(seed, n, n_groups=2, rate=rate)
    assert (JRC(NAMES, bce_share=0)(z, y, weight, groups) >= -1e-12).all()


# Precision.


@pytest.mark.parametrize("labels", [(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0)])
@pytest.mark.parametrize("groups", [None, torch.tensor([0, 0, 1])])
def test_extreme_logits(labels, groups):
    logits = torch.tensor([[1e3], [-1e3], [1e3]], requires_grad=True)
    y = torch.tensor(labels, dtype=torch.float32).unsqueeze(1)
    loss = JRC(["click"], bce_share=0)(logits, y, None, groups)
    loss.sum().backward()
    # log p is 0 or -1000, so the sum of p is the number of rows with log p = 0.
    log_p = np.array([0.0, -1e3, 0.0])
    log_p = np.where(labels, log_p, -1e3 - log_p)
    n_rows = 3 if groups is None else 2
    best = {1: np.log(n_rows - 1), 0: 0.0}
    expected = [best[k] - v for k, v in zip(labels, log_p, strict=True)]
    if groups is not None:
        expected[2] = 0.0
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-6)
    assert logits.grad.isfinite().all()


def test_many_rows_in_float32():
    # A running sum of 200,000 equal terms in float32 has a larger error.
    logits = torch.full((200_000, 1), -1.0)
    logits[0] = 30.0
    loss = JRC(["click"], bce_share=0)(logits, torch.ones_like(logits))
    n, log_p = 200_000, -np.log1p(np.exp(1.0))
    expected = np.log(1 + (n - 1) * np.exp(log_p)) - (n - 1) / n * log_p
    assert loss.item() == pytest.approx(expected, rel=2e-7)
