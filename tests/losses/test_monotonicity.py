"""The penalty of probabilities that rise along the funnel, against numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from pairs_by_hand import sigmoid

from sk_pwiser.losses import funnel_monotonicity_penalty


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
