import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from quadratics import Scaled
from refusals import X, Y, small

from sk_pwiser.weighting import ExponentialMovingAverage

LOSSES = np.random.default_rng(0).lognormal(sigma=2, size=(30, 3))
RATES = [None, "dwa", "plain"]


def weights_of(weighting, losses):
    """Train on one row of losses per step; return the weights of all steps."""
    found = []
    for step in torch.as_tensor(losses, dtype=torch.float32):
        step.requires_grad_()
        weighting(step).backward()
        found.append(step.grad.tolist())
    return np.array(found)


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


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.01, 0.001, 0.0005])
def test_a_batch_does_not_change_its_own_weight(rate):
    # At the true rate the weighted gradients of a constant logit have a mean of 0.
    # With the current loss in the average, it is -0.01, -0.17 and -0.32 of the rate.
    n_steps, rng = 20_000, np.random.default_rng(0)
    positive = torch.from_numpy(rng.binomial(512, rate, n_steps) / 512)
    losses = -positive * np.log(rate) - (1 - positive) * np.log1p(-rate)
    weights = weights_of(ExponentialMovingAverage(1), losses.unsqueeze(1))[:, 0]
    pulls = weights * (positive.numpy() - rate) / weights.mean() / rate
    # Neighbouring weights are correlated, pulls are not.
    error = pulls.std() / np.sqrt(n_steps)
    assert error < 0.05
    assert abs(pulls.mean()) < 3 * error


def test_the_first_loss_and_constant_losses_are_scaled_to_1():
    weighting = ExponentialMovingAverage(3)
    losses = torch.tensor([3e-5, 0.7, 900.0])
    for _ in range(50):
        assert weighting(losses).item() == pytest.approx(3, rel=1e-6)


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


def fit(scale, weighting="ema", **params):
    model = small(loss=Scaled, loss_params={"scale": scale}, max_epochs=4)
    return model.set_params(weighting=weighting, weighting_params=params).fit(X, Y)


def changed_names(one, two):
    state = two.net_.module_.state_dict()
    return [
        n for n, v in one.net_.module_.state_dict().items() if (v != state[n]).any()
    ]


@pytest.mark.parametrize("rate", RATES)
def test_powers_of_two_do_not_change_a_bit_of_the_network(rate):
    plain = fit(1.0, rate=rate)
    assert changed_names(plain, fit(2.0**10, rate=rate)) == []
    assert changed_names(plain, fit(2.0**-10, rate=rate)) == []
