"""The chain of conditional heads, in log space."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy.special import log_expit

from sk_pwiser.networks import (
    chain_logits,
)

HEADS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    elements=st.floats(-1000, 1000, width=32),
)


def log_odds(conditional):
    """Return log P - log(1 - P) of the product, in float64 by log1p and expm1."""
    log_p = np.cumsum(log_expit(conditional.astype(np.float64)), axis=1)
    return log_p - np.log(-np.expm1(log_p))


@given(HEADS.filter(lambda heads: abs(heads).max() < 700))
def test_chain_equals_the_log1p_form_over_wide_ranges(conditional):
    expected = log_odds(conditional)
    chain = chain_logits(torch.from_numpy(conditional.astype(np.float64)))
    assert_allclose(chain, expected, rtol=1e-9, atol=1e-9)
    chain = chain_logits(torch.from_numpy(conditional))
    assert_allclose(chain, expected, rtol=1e-5, atol=1e-5)


@given(HEADS)
def test_no_column_of_the_chain_rises(conditional):
    chain = chain_logits(torch.from_numpy(conditional))
    assert (chain.diff(dim=1) <= 0).all()
    assert (chain.sigmoid().diff(dim=1) <= 0).all()


@given(HEADS.map(lambda heads: np.sign(heads) * 1000), st.sampled_from([0.0, 1.0]))
def test_value_and_gradient_are_finite_at_a_thousand(conditional, label):
    heads = torch.from_numpy(conditional).float().requires_grad_()
    chain = chain_logits(heads)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        chain, torch.full_like(chain, label), reduction="sum"
    )
    loss.backward()
    assert chain.isfinite().all()
    assert loss.isfinite()
    assert heads.grad.isfinite().all()
