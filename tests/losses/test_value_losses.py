"""Losses of amounts agree with densities of SciPy, and their minima are known."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import optimize, stats

from sk_pwiser.losses._value_losses import (
    TWEEDIE_POWER,
    VALUE_LOSSES,
    Gamma,
    LogNormal,
    Tweedie,
)

RNG = np.random.default_rng(0)
AMOUNTS = RNG.gamma(2, 1.5, 40)
SCORES = RNG.normal(size=40)


def losses_of(loss, scores=SCORES, amounts=AMOUNTS):
    pair = (torch.from_numpy(np.asarray(array, float)) for array in (scores, amounts))
    return loss.row_losses(*pair).numpy()


def test_gamma_is_minus_the_log_density_of_shape_1():
    expected = -stats.gamma.logpdf(AMOUNTS, 1, scale=np.exp(SCORES))
    assert_allclose(losses_of(Gamma), expected)


def test_lognormal_differs_from_minus_the_log_density_by_a_constant():
    expected = -stats.lognorm.logpdf(AMOUNTS, 1, scale=np.exp(SCORES))
    expected -= np.log(AMOUNTS) + np.log(2 * np.pi) / 2
    assert_allclose(losses_of(LogNormal), expected)


def test_tweedie_is_half_of_the_deviance_up_to_a_constant():
    means = np.exp(SCORES)
    power = TWEEDIE_POWER
    unit = AMOUNTS ** (2 - power) / ((1 - power) * (2 - power))
    deviance = 2 * (
        unit
        - AMOUNTS * means ** (1 - power) / (1 - power)
        + means ** (2 - power) / (2 - power)
    )
    assert_allclose(losses_of(Tweedie), deviance / 2 - unit)


@pytest.mark.parametrize("name", VALUE_LOSSES)
def test_the_best_constant_is_the_mean_or_the_mean_logarithm(name):
    loss = VALUE_LOSSES[name]

    def total(score):
        return losses_of(loss, np.full(40, score)).sum()

    best = optimize.minimize_scalar(total, bounds=(-5, 5), method="bounded").x
    expected = np.log(AMOUNTS.mean())
    if name == "lognormal":
        expected = np.log(AMOUNTS).mean()
    assert_allclose(best, expected, atol=1e-4)


@pytest.mark.parametrize("name", VALUE_LOSSES)
@pytest.mark.parametrize("score", [-1000.0, 1000.0])
def test_losses_and_gradients_are_finite_at_extremes(name, score):
    scores = torch.full((2,), score, requires_grad=True)
    loss = VALUE_LOSSES[name].row_losses(scores, torch.tensor([0.0, 1e6])).sum()
    loss.backward()
    assert loss.isfinite()
    assert scores.grad.isfinite().all()
