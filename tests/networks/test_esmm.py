"""ESMM: where its conditional heads start."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sk_pwiser.networks import (
    ESMM,
    NetworkSpec,
    chain_logits,
)


@pytest.mark.parametrize(
    "rates", [[0.3, 0.1, 0.02], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.1, 0.2, 0.2]]
)
def test_heads_start_at_the_rates_of_rows_with_the_previous_task(rates):
    start = ESMM(NetworkSpec([], 1, 1, rates)).conditional_base_logits
    assert start.isfinite().all()
    # A chain cannot represent a rate above that of the previous task. An equal rate
    # would need a head near 1, which has almost no gradient: it starts at 0.99.
    previous = np.array([1.0, *rates[:-1]])
    ratios = np.divide(rates, previous, out=np.full(3, 0.5), where=previous > 0)
    ratios[1:] = np.minimum(ratios[1:], 0.99)
    reachable = np.cumprod(ratios)
    started = chain_logits(start.unsqueeze(0)).sigmoid()[0]
    assert_allclose(started, reachable, rtol=1e-5, atol=1e-8)
