import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from refusals import X, Y, small

from sk_pwiser.losses import BCE
from sk_pwiser.weighting import DynamicWeightAverage

# Four epochs of five steps.
EPOCHS = np.random.default_rng(0).lognormal(size=(4, 5, 3))


def softmaxed(rates, temperature=2.0):
    powers = np.exp(rates / temperature)
    return len(powers) * powers / powers.sum()


def weights_of(weighting, epochs):
    """Train on given losses; return the weights of all steps and of all epochs."""
    used, reported = [], []
    for epoch in torch.as_tensor(epochs, dtype=torch.float32):
        for losses in epoch:
            losses.requires_grad_().register_hook(weighting.record)
            weighting(losses).backward()
            used.append(losses.grad.tolist())
        reported.append(weighting.end_epoch())
    return np.array(used), np.array(reported)


@pytest.mark.parametrize("temperature", [0.1, 2.0, 1e6])
def test_weights_follow_the_rates_of_the_last_two_epochs(temperature):
    weighting = DynamicWeightAverage(3, temperature=temperature)
    used, reported = weights_of(weighting, EPOCHS)
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
    _, reported = weights_of(DynamicWeightAverage(3), epochs)
    means = epochs.mean(axis=1)
    means[1, 0] = epochs[1, [0, 4], 0].mean()
    assert_allclose(reported[2], softmaxed(means[1] / means[0]), rtol=1e-5)
    rates = means[2] / means[1]
    rates[1] = 1
    assert_allclose(reported[3], softmaxed(rates), rtol=1e-5)


def test_an_epoch_without_steps_is_ignored():
    weighting, other = DynamicWeightAverage(3), DynamicWeightAverage(3)
    for epoch in EPOCHS[:3]:
        weights_of(weighting, epoch[np.newaxis])
        assert weighting.end_epoch() == []
    weights_of(other, EPOCHS[:3])
    torch.testing.assert_close(weighting.rates(), other.rates(), rtol=0, atol=0)


class Recorded(BCE):
    """Cross-entropy that adds each task's mean over the batches to the history."""

    def __init__(self, task_names):
        super().__init__(task_names)
        self.seen = []

    def forward(self, *args):
        losses = super().forward(*args)
        self.seen.append(losses.detach())
        return losses

    def pop_epoch_record(self):
        if not self.seen:
            return {}
        means = torch.stack(self.seen).double().mean(dim=0).tolist()
        self.seen = []
        return {f"of_{t}": m for t, m in zip(self.task_names, means, strict=True)}


def test_the_history_of_an_estimator_has_the_weights():
    model = small(loss=Recorded, weighting="dwa", max_epochs=5, lr=0.05).fit(X, Y)
    model.partial_fit(X, Y).partial_fit(X, Y)  # two further epochs
    columns = ["click", "conversion"]
    means = np.array([model.history_[:, f"train_of_{c}"] for c in columns]).T
    weights = np.array([model.history_[:, f"train_weight_{c}"] for c in columns]).T
    assert len(means) == 7
    expected = [softmaxed(rates) for rates in means[1:-1] / means[:-2]]
    assert_allclose(weights[:2], 1, rtol=1e-6)
    assert_allclose(weights[2:], expected, rtol=1e-5)
    assert np.ptp(weights[2:, 0]) > 0.01
