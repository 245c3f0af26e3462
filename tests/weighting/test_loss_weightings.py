"""The weightings of losses against their formulas in numpy."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from refusals import X, Y, small

from sk_pwiser.losses import BCE
from sk_pwiser.weighting import (
    DynamicWeightAverage,
    Equal,
    ExponentialMovingAverage,
    Fixed,
    Uncertainty,
)


def weights_of(weighting, losses):
    """Train on one row of losses per step; return the weights of all steps."""
    found = []
    for step in torch.as_tensor(losses, dtype=torch.float32):
        step.requires_grad_().register_hook(weighting.record)
        weighting(step).backward()
        found.append(step.grad.tolist())
    return np.array(found)


def train(weighting, epochs):
    """Train on given losses; return the weights of all steps and of all epochs."""
    found = [(weights_of(weighting, e), weighting.end_epoch()) for e in epochs]
    used, reported = zip(*found, strict=True)
    return np.concatenate(used), np.array(reported)


# Equal and fixed weights.


def test_weighted_sums():
    losses = torch.tensor([0.5, 0.25, 2.0], requires_grad=True)
    assert Equal(3)(losses).item() == 2.75
    weighting = Fixed(3, weights=[1, 0, 0.5])
    total = weighting(losses)
    assert total.item() == weighting.report(losses).item() == 1.5
    total.backward()
    assert losses.grad.tolist() == [1, 0, 0.5]
    torch.testing.assert_close(Fixed(3, weights=[1, 1, 1])(losses), Equal(3)(losses))


@pytest.mark.parametrize("weights", [(1, 4), np.array([1, 4]), np.float32([1, 4])])
def test_any_sequence_of_numbers_is_accepted(weights):
    assert Fixed(2, weights=weights).weights.tolist() == [1, 4]


@pytest.mark.parametrize("weighting", [Equal(2), Fixed(2, weights=[1, 4])])
@pytest.mark.parametrize("penalty", [None, torch.tensor(0.5), "of the parameters"])
def test_gradients_are_those_of_the_sum(weighting, penalty):
    """A network may have a penalty that is constant for some tasks."""
    x = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    of_parameters = isinstance(penalty, str)
    weighting.backward(x**2, x.sum() if of_parameters else penalty, [x])
    expected = 2 * x.detach() * weighting.weights + of_parameters
    assert torch.equal(x.grad, expected)
    assert weighting.end_epoch() == weighting.weights.tolist()


def test_the_weight_of_a_single_task_does_not_count():
    weighting, x = Fixed(1, weights=[4]), torch.nn.Parameter(torch.tensor([3.0]))
    weighting.backward(x**2, None, [x])
    assert x.grad.item() == 6
    assert weighting.report(x**2).item() == 9
    assert weighting.end_epoch() == [1]


def test_a_subclass_may_combine_the_losses_otherwise():
    class First(Equal):
        def forward(self, losses):
            return 3 * losses[0]

    weighting, x = First(2), torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    weighting.backward(x**2, None, [x])
    assert x.grad.tolist() == [12.0, 0.0]
    assert weighting.end_epoch() == [3.0, 0.0]


# The uncertainty of each task.


def test_value_and_gradients():
    weighting = Uncertainty(3).double()
    s = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64)
    weighting.log_variances.data.copy_(s)
    losses = torch.tensor([0.7, 0.01, 3.0], dtype=torch.float64, requires_grad=True)
    total = weighting(losses)
    # As in the paper: losses divided by the variances, plus the logarithms of the
    # standard deviations.
    sigma = s.div(2).exp()
    torch.testing.assert_close(total, (losses / sigma**2 + sigma.log()).sum())
    total.backward()
    torch.testing.assert_close(losses.grad, sigma**-2)
    slope = 0.5 - losses.detach() / sigma**2
    torch.testing.assert_close(weighting.log_variances.grad, slope)


def test_a_loss_of_0_does_not_change_the_variance():
    weighting = Uncertainty(2)
    losses = torch.tensor([0.0, 0.25], requires_grad=True)
    weighting(losses).backward()
    assert weighting.log_variances.grad.tolist() == [0, 0.25]
    assert losses.grad.tolist() == [1, 1]


class Constant(BCE):
    """Losses that do not depend on the network."""

    def forward(self, logits, y, sample_weight=None, groups=None):
        return 0 * logits.sum(dim=0) + logits.new_tensor([0.05, 2.0])


def test_the_optimiser_of_the_network_learns_the_variances():
    model = small(loss=Constant, weighting="uncertainty", optimizer="sgd", lr=0.1)
    model.set_params(batch_size=len(X), max_epochs=40).fit(X, Y)
    s, expected = np.zeros(2), []
    for _ in range(40):
        expected.append(np.exp(-s))
        s -= 0.1 * (0.5 - np.exp(-s) * [0.05, 2.0])
    columns = ["train_weight_click", "train_weight_conversion"]
    found = np.array([model.history_[:, column] for column in columns]).T
    assert_allclose(found, expected, rtol=1e-4)
    assert found[-1, 0] > 3
    learned = model.net_.criterion_.weighting.log_variances
    assert_allclose(learned.detach().cpu(), s, rtol=1e-4)
    in_optimizer = [p for g in model.net_.optimizer_.param_groups for p in g["params"]]
    assert any(p is learned for p in in_optimizer)
    assert model.history_[:, "train_loss"] == pytest.approx([2.05] * 40)


# Rates of the last two epochs.

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


# Moving averages.

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
