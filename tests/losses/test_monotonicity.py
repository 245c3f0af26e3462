"""The penalty for probabilities that rise along the funnel."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose

from sk_pwiser.losses import BCE, funnel_monotonicity_penalty


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.integers(1, 4)),
        elements=st.integers(-40, 40).map(lambda i: i / 4),
    )
)
def test_it_is_0_only_if_no_probability_rises(logits):
    tensor = torch.from_numpy(logits)
    penalty = funnel_monotonicity_penalty(tensor)
    assert (penalty == 0) == (np.diff(logits, axis=1) <= 0).all()
    rises = np.maximum(np.diff(sigmoid(logits), axis=1), 0).sum(axis=1)
    assert_allclose(penalty, rises.mean(), rtol=1e-9, atol=1e-15)
    repeated = funnel_monotonicity_penalty(tensor.repeat(3, 1))
    torch.testing.assert_close(repeated, penalty)


def test_the_gradients_of_the_two_heads_have_opposite_signs():
    logits = torch.tensor(
        [[0.3, 1.2], [2.0, -1.0], [-1.0, -0.5]], dtype=torch.float64, requires_grad=True
    )
    weights = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    funnel_monotonicity_penalty(logits, weights).backward()
    p = logits.detach().sigmoid().numpy()
    slope = weights.numpy()[:, np.newaxis] / 3 * p * (1 - p) * [-1, 1]
    slope[1] = 0  # the row in which the probability falls
    assert_allclose(logits.grad, slope, rtol=1e-12)


def test_gradients_of_a_middle_task_cancel_between_two_rises():
    logits = torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    funnel_monotonicity_penalty(logits).backward()
    p = sigmoid(1.0)
    slope = p * (1 - p)
    assert_allclose(logits.grad, [[-slope, 0, slope]], atol=1e-15)


def test_whole_weights_equal_repeated_rows():
    logits, counts = torch.randn(10, 3), torch.randint(0, 4, (10,))
    weighted = funnel_monotonicity_penalty(logits, counts * 10 / counts.sum())
    repeated = funnel_monotonicity_penalty(logits.repeat_interleave(counts, dim=0))
    torch.testing.assert_close(weighted, repeated)


def test_of_weights_per_task_those_of_the_later_task_apply():
    rng = np.random.default_rng(0)
    logits, weights = rng.normal(size=(20, 3)), rng.uniform(size=(20, 3))
    penalty = funnel_monotonicity_penalty(*map(torch.from_numpy, (logits, weights)))
    rises = np.maximum(np.diff(sigmoid(logits), axis=1), 0)
    assert_allclose(penalty, (weights[:, 1:] * rises).sum() / 20, rtol=1e-12)


@pytest.mark.parametrize("weights", [None, torch.ones(5), torch.ones(5, 1)])
def test_one_task_cannot_rise(weights):
    assert funnel_monotonicity_penalty(torch.randn(5, 1), weights) == 0


@pytest.mark.parametrize("logits", [[-1e3, 1e3], [1e3, -1e3], [1e3, 1e3], [-1e3, -1e3]])
def test_finite_at_extreme_logits(logits):
    logits = torch.tensor([logits], requires_grad=True)
    penalty = funnel_monotonicity_penalty(logits)
    penalty.backward()
    assert penalty == max(0, np.sign(logits.detach().numpy())[0] @ [-1, 1] / 2)
    assert logits.grad.isfinite().all()


def test_a_large_weight_leaves_fewer_rows_that_rise():
    # One row of free logits per impression: cross-entropy alone leaves the random order
    # of the initial logits, since nearly all clicks convert.
    click = (torch.rand(500, 1) < 0.4).float()
    y = torch.cat([click, click * (torch.rand(500, 1) < 0.97)], dim=1)
    initial, shares = torch.randn(500, 2), []
    for weight in (0.0, 20.0):
        logits = initial.clone().requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=0.05)
        for _ in range(30):
            penalty = funnel_monotonicity_penalty(logits)
            optimizer.zero_grad()
            (
                BCE(["click", "conversion"])(logits, y).sum() + weight * penalty
            ).backward()
            optimizer.step()
        shares.append((logits.diff(dim=1) > 0).float().mean().item())
    assert shares[0] > 0.1
    assert shares[1] < 0.5 * shares[0]
