"""The policy over a pool: draws, gradients and what it learns."""

from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser.transfer._pool import (
    draw,
    learn_policy,
    log_probability_gradient,
    softmax,
)

SCORES = np.array([0.3, -0.5, 1.1, 0.0])


def log_probability(scores, drawn):
    """Compute the log-probability of an ordered draw without replacement."""
    p, total, value = softmax(scores), 1.0, 0.0
    for member in drawn:
        value += np.log(p[member] / total)
        total -= p[member]
    return value


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_gradient_is_that_of_the_log_probability(size):
    step = 1e-6
    for drawn in permutations(range(4), size):
        found = log_probability_gradient(softmax(SCORES), drawn)
        for i, unit in enumerate(np.eye(4)):
            differences = [
                log_probability(SCORES + sign * step * unit, drawn) for sign in (1, -1)
            ]
            expected = (differences[0] - differences[1]) / (2 * step)
            assert_allclose(found[i], expected, atol=1e-8)


@pytest.mark.parametrize("baseline", [0.0, -3.0, 40.0])
def test_the_expected_step_of_one_draw_is_p_times_the_excess_reward(baseline):
    p, rewards = softmax(SCORES), np.array([0.2, 0.9, -0.4, 0.5])
    expected_step = sum(
        p[m] * (rewards[m] - baseline) * log_probability_gradient(p, [m])
        for m in range(4)
    )
    assert_allclose(expected_step, p * (rewards - p @ rewards), atol=1e-12)


def test_draws_have_the_probabilities_of_the_policy():
    rng, p = np.random.RandomState(0), softmax(SCORES)
    n_draws = 20_000
    drawn = np.array([draw(p, 2, rng) for _ in range(n_draws)])
    assert (drawn[:, 0] != drawn[:, 1]).all()
    for first, second in permutations(range(4), 2):
        share = ((drawn[:, 0] == first) & (drawn[:, 1] == second)).mean()
        expected = p[first] * p[second] / (1 - p[first])
        error = np.sqrt(expected * (1 - expected) / n_draws)
        assert abs(share - expected) < 4.5 * error


def learn(reward, size=1, n_iter=300, seed=0):
    rng = np.random.RandomState(seed)
    return learn_policy(reward, 4, size, n_iter, rng)


def test_equal_rewards_leave_the_policy_uniform():
    assert_array_equal(learn(lambda _members: 0.7), np.full(4, 0.25))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0])
def test_the_scale_of_the_rewards_does_not_matter(scale):
    rewards = scale * np.array([0.0, 0.0, 1.0, 0.0])
    p = learn(lambda members: rewards[members[0]])
    assert p[2] > 0.9


def test_members_that_spoil_every_set_vanish():
    p = learn(lambda members: -float(1 in members), size=2)
    assert p[1] < 0.05


def test_a_vanished_member_is_still_drawn_if_all_are():
    p = np.array([1.0, 0.0, 0.0])
    drawn = draw(p, 3, np.random.RandomState(0))
    assert sorted(drawn.tolist()) == [0, 1, 2]
    assert np.isfinite(log_probability_gradient(p, drawn)).all()
