"""Exponential moving averages of losses against their definition in numpy."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from weights_of_steps import weights_of

from sk_pwiser.weighting import ExponentialMovingAverage

LOSSES = np.random.default_rng(0).lognormal(sigma=2, size=(30, 3))


def averages(losses, decay):
    """Return the average before each step by its definition, in float64.

    In the first step it is the loss itself.
    """
    found = [losses[0]]
    for t in range(1, len(losses)):
        shares = (1 - decay) * decay ** np.arange(t)[::-1]
        found.append(shares @ losses[:t] / (1 - decay**t))
    return np.array(found)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_weights_are_the_inverse_averages_and_have_no_gradient(decay):
    weights = weights_of(ExponentialMovingAverage(3, decay=decay), LOSSES)
    assert_allclose(weights, 1 / averages(LOSSES, decay), rtol=1e-5)


def test_losses_of_0_do_not_enter_the_average():
    sparse = LOSSES.copy()
    sparse[4:20:3, 1] = 0
    weights = weights_of(ExponentialMovingAverage(3), sparse)
    seen = sparse[:, 1] > 0
    expected = 1 / averages(sparse[seen][:, [1]], 0.9)[:, 0]
    assert_allclose(weights[seen, 1], expected, rtol=1e-5)
    assert_allclose(weights[~seen, 1], weights[np.flatnonzero(~seen) + 1, 1])
    assert_allclose(weights[:, [0, 2]], 1 / averages(LOSSES, 0.9)[:, [0, 2]], 1e-5)


def test_the_weight_is_0_before_the_first_loss_above_0():
    weights = weights_of(ExponentialMovingAverage(2), [[0, 2], [0, 2], [4, 2]])
    assert_allclose(weights, [[0, 0.5], [0, 0.5], [0.25, 0.5]])


def test_the_averages_are_in_float32():
    weighting = ExponentialMovingAverage(2)
    total = weighting(torch.tensor([0.5, 2.0], dtype=torch.bfloat16))
    assert total.dtype == torch.bfloat16
    assert {value.dtype for value in weighting.buffers()} == {torch.float32}


@pytest.mark.parametrize("rate", ["dwa", "plain"])
def test_factors_of_the_training_rates(rate):
    weighting = ExponentialMovingAverage(3, rate=rate, temperature=0.5)
    epochs = np.split(LOSSES, 3)
    weights = []
    for losses in epochs:
        weights.append(weights_of(weighting, losses))
        weighting.end_epoch()
    rates = epochs[1].mean(axis=0) / epochs[0].mean(axis=0)
    expected = rates if rate == "plain" else np.exp(rates / 0.5)
    factors = np.concatenate(weights) * averages(LOSSES, 0.9)
    assert_allclose(factors[:20], 1, rtol=1e-5)
    assert_allclose(
        factors[20:], np.tile(expected / expected.mean(), (10, 1)), rtol=1e-5
    )
