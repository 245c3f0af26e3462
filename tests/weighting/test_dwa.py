"""Dynamic weight average against its formula in numpy."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from weights_of_steps import weights_of

from sk_pwiser.weighting import DynamicWeightAverage


def train(weighting, epochs):
    """Train on given losses; return the weights of all steps and of all epochs."""
    found = [(weights_of(weighting, e), weighting.end_epoch()) for e in epochs]
    used, reported = zip(*found, strict=True)
    return np.concatenate(used), np.array(reported)


# Four epochs of five steps.
EPOCHS = np.random.default_rng(0).lognormal(size=(4, 5, 3))


def softmaxed(rates, temperature=2.0):
    powers = np.exp(rates / temperature)
    return len(powers) * powers / powers.sum()


@pytest.mark.parametrize("temperature", [0.1, 2.0, 1e6])
def test_weights_follow_the_rates_of_the_last_two_epochs(temperature):
    weighting = DynamicWeightAverage(3, temperature=temperature)
    used, reported = train(weighting, EPOCHS)
    means = EPOCHS.mean(axis=1)
    expected = [
        np.ones(3),
        np.ones(3),
        softmaxed(means[1] / means[0], temperature),
        softmaxed(means[2] / means[1], temperature),
    ]
    assert_allclose(reported, expected, rtol=1e-5)
    assert_allclose(used, np.repeat(expected, 5, axis=0), rtol=1e-5)


def test_losses_of_0_do_not_enter_the_means():
    epochs = EPOCHS.copy()
    epochs[1, 1:4, 0] = 0
    epochs[2, :, 1] = 0
    _, reported = train(DynamicWeightAverage(3), epochs)
    means = epochs.mean(axis=1)
    means[1, 0] = epochs[1, [0, 4], 0].mean()
    assert_allclose(reported[2], softmaxed(means[1] / means[0]), rtol=1e-5)
    rates = means[2] / means[1]
    rates[1] = 1
    assert_allclose(reported[3], softmaxed(rates), rtol=1e-5)


def test_an_epoch_without_steps_is_ignored():
    weighting, other = DynamicWeightAverage(3), DynamicWeightAverage(3)
    for epoch in EPOCHS[:3]:
        train(weighting, epoch[np.newaxis])
        assert weighting.end_epoch() == []
    train(other, EPOCHS[:3])
    torch.testing.assert_close(weighting.rates(), other.rates(), rtol=0, atol=0)
