"""Base rates, which the output biases start from."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sk_pwiser._table import base_rates


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


def test_missing_labels_take_no_part():
    """With labels that lack at random, the rates are those of the known ones."""
    rng = np.random.default_rng(0)
    y = np.logical_and.accumulate(rng.random((200_000, 3)) < 0.4, axis=1)
    y = y.astype(np.float32)
    known = np.ones_like(y)
    # A conversion is known less often after a click, which must not matter.
    known[:, 1] = rng.random(len(y)) < np.where(y[:, 0] == 1, 0.3, 0.9)
    known[:, 2] = rng.random(len(y)) < 0.5
    found = base_rates(y * known, known)
    assert_allclose(found, [0.4, 0.16, 0.064], rtol=0.03)
    # The counts by hand.
    first = known[:, 1] * y[:, 0]
    rate = (y[:, 0].sum() + 0.5) / (len(y) + 1)
    rate *= ((first * y[:, 1]).sum() + 0.5) / (first.sum() + 1)
    assert_allclose(found[1], rate, rtol=1e-6)


def test_equal_weights_per_task_change_nothing():
    y = np.array([[0, 0, 0]] * 60 + [[1, 0, 0]] * 30 + [[1, 1, 0]] * 9 + [[1, 1, 1]])
    y = y.astype(np.float32)
    assert_allclose(base_rates(y, np.ones_like(y)), base_rates(y))
    broken = np.array([[0, 1]] * 30 + [[1, 0]] * 10 + [[0, 0]] * 60, dtype=np.float32)
    assert_allclose(base_rates(broken, np.ones_like(broken)), base_rates(broken))


@pytest.mark.parametrize(
    "parents", [(-1, 0, 0), (-1, -1, -1)], ids=["tree", "siblings"]
)
def test_siblings_whose_labels_are_known_in_different_rows(parents):
    """The rate of a task follows from its own rows and those of its parent."""
    y = np.zeros((1_000, 3), dtype=np.float32)
    y[::2, 0] = 1
    y[::10, 1] = y[::250, 2] = 1  # in 10 % and in 0.4 % of the rows
    known = np.ones_like(y)
    known[:500, 2] = known[500:, 1] = 0
    found = base_rates(y * known, known, parents)
    assert_allclose(found, [0.5, 0.1, 0.004], rtol=0.3)
    # The counts by hand.
    rate, n_rows = (500.5 / 1_001, 251) if parents[2] == 0 else (1.0, 501)
    assert_allclose(found[2], rate * 2.5 / n_rows)
    assert_allclose(
        base_rates(y, None, parents), base_rates(y, np.ones_like(y), parents)
    )
