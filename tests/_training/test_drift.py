"""The bank of filters, compared with one Kalman filter after the other in numpy."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sk_pwiser._training._levels import _drift
from sk_pwiser._training._levels._clock import Clock, TimeSpan
from sk_pwiser._training._levels._drift import Drift

ELAPSED = 0.05
LEAST = 0.001


class NumpyBank:
    """The same filters of one level, each with a mean of its own."""

    def __init__(self):
        pairs = [(q, t) for q in _drift.DRIFTS for t in _drift.DEVIATIONS]
        self.drifts, self.deviations = np.array(pairs).T
        self.means = np.zeros(len(pairs))
        self.variances = np.zeros(len(pairs))
        self.evidence = np.zeros(len(pairs))
        self.level = 0.0

    def move(self, observed, variance):
        """Learn an observed level; return the level after it."""
        earlier = np.maximum(self.variances, LEAST) + self.drifts**2 * ELAPSED
        noise = variance + self.deviations**2
        errors = observed - self.means
        total = earlier + noise
        density = -np.minimum(errors**2 / total, 9) / 2 - np.log(total) / 2
        self.evidence = 0.97 * self.evidence + density
        gains = earlier / total
        self.means = self.means + gains * errors
        self.variances = (1 - gains) * earlier
        rank = np.searchsorted(_drift.DEVIATIONS, self.deviations)
        log_prior = -((np.log2(self.drifts / 0.2) / 2) ** 2) / 2 - rank * np.log(3)
        weights = np.exp(self.evidence + log_prior - self.evidence.max())
        self.level = (weights * self.means).sum() / weights.sum()
        return self.level


def follow(levels, variance, seed=0):
    """Return the levels that a bank finds for daily levels, observed with errors."""
    drift = Drift(1)
    level = 0.0
    found = []
    noise = np.random.default_rng(seed).normal(size=len(levels)) * variance**0.5
    for observed in levels + noise:
        level += drift.move(
            torch.tensor([observed - level], dtype=torch.float64),
            torch.tensor([variance], dtype=torch.float64),
            elapsed=ELAPSED,
            least_variance=torch.tensor([LEAST], dtype=torch.float64),
        ).item()
        found.append(level)
    return np.array(found)


def wandering(deviation, n_days=60, seed=0):
    return np.random.default_rng(seed).normal(size=n_days).cumsum() * deviation


def test_it_is_a_weighted_mean_of_kalman_filters():
    levels = wandering(0.2, seed=1)
    bank = NumpyBank()
    noise = np.random.default_rng(0).normal(size=len(levels)) * 0.1
    expected = [bank.move(observed, 0.01) for observed in levels + noise]
    assert_allclose(follow(levels, 0.01), expected, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_constant_level_is_hardly_moved(seed):
    found = follow(np.zeros(60), 0.04, seed=seed)
    # A single day has an error of 0.2.
    assert np.abs(found[20:]).max() < 0.2
    assert found[20:].std() < 0.07


@pytest.mark.parametrize("seed", range(3))
def test_a_level_that_wanders_is_followed(seed):
    levels = wandering(0.4, seed=seed)
    found = follow(levels, 0.01, seed=seed + 10)
    errors = (found - levels)[10:]
    assert errors.std() < 0.3
    assert np.corrcoef(found[10:], levels[10:])[0, 1] > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_days_that_deviate_are_no_new_level(seed):
    days = np.random.default_rng(seed + 50).normal(size=60) * 0.8
    found = follow(days, 0.001, seed=seed)
    assert np.abs(found[20:]).mean() < 0.35


def test_a_jump_is_followed():
    levels = np.where(np.arange(40) < 20, 0.0, 0.7)
    found = follow(levels, 0.001)
    assert abs(found[19]) < 0.1
    assert found[25] > 0.55


def test_what_says_nothing_changes_nothing():
    drift = Drift(2)
    before = {name: value.clone() for name, value in drift.state_dict().items()}
    moves = drift.move(
        torch.full((2,), torch.nan, dtype=torch.float64),
        torch.full((2,), torch.inf, dtype=torch.float64),
        elapsed=0.0,
        least_variance=torch.zeros(2, dtype=torch.float64),
    )
    assert_allclose(moves, 0)
    for name, value in drift.state_dict().items():
        assert_allclose(value, before[name], atol=1e-6, err_msg=name)


def test_states_without_filters_load():
    drift = Drift(1)
    drift.means += 1
    drift.load_state_dict({})
    assert_allclose(drift.means, 0)


class TestClock:
    def test_it_counts_rows(self):
        clock = Clock()
        clock.start(1_000, None)
        assert clock.advance(50, None, 1_000) == 0.05

    def test_it_reads_times(self):
        # Microseconds since 1970, of which float32 holds seven digits.
        day = 86_400e6
        first = 1.7e15
        clock = Clock()
        clock.start(1_000, TimeSpan(first, first + 100 * day))
        assert clock.advance(5, TimeSpan(first, first + 101 * day), 1_000) == 0.01
        # Rows of the same days.
        assert clock.advance(5, TimeSpan(first, first + 101 * day), 1_000) == 0
        assert clock.advance(5, TimeSpan(first, first + 99 * day), 1_000) == 0
        assert clock.advance(5, TimeSpan(first, first + 103 * day), 1_000) == 0.02

    def test_files_without_a_clock_count_the_rows_so_far(self):
        clock = Clock()
        clock.load_state_dict({})
        assert clock.advance(50, None, 1_000) == 0.05
        assert clock.advance(100, None, 1_050) == 0.1

    def test_times_that_come_later_are_counted_from_then_on(self):
        clock = Clock()
        clock.start(100, None)
        assert clock.advance(10, TimeSpan(0.0, 1.0), 100) == 0.1
        assert_allclose(clock.advance(10, TimeSpan(1.0, 2.0), 110), 0.1)
