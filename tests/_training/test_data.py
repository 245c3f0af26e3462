"""Base rates, which the output biases start from."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sk_pwiser._training._data import base_rates


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 0, 0)] * 90 + [(1, 0, 0)] * 10,  # no click has a second event
        [(0, 0, 0)] * 90 + [(1, 1, 1)] * 10,  # every click has all events
        [(0, 0, 0)] * 20,
        [(1, 1, 1)] * 20,
    ],
)
def test_each_rate_is_between_0_and_that_of_the_previous_task(rows):
    y = np.array(rows, dtype=np.float32)
    before = [len(y), *y.sum(axis=0)[:-1]]
    expected = np.cumprod((y.sum(axis=0) + 0.5) / (np.array(before) + 1.0))
    assert_allclose(base_rates(y, None), expected)
    assert_allclose(base_rates(y, np.ones(len(y), np.float32)), expected)


def test_base_rates_of_labels_that_break_the_funnel():
    y = np.array([[0, 1]] * 30 + [[1, 0]] * 10 + [[0, 0]] * 60, dtype=np.float32)
    assert_allclose(base_rates(y, None), [10.5 / 101, 30.5 / 101])
