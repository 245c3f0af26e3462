"""Weights learned as the uncertainty of each task, against the paper's formula."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from small_model import X, Y, small

from sk_pwiser.losses import BCE
from sk_pwiser.weighting import Uncertainty


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
