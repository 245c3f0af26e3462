"""What holds for every loss, by the registry alone."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from sk_pwiser.losses import BCE, LOSSES

NAMES = ["click", "conversion"]


@pytest.fixture(params=sorted(LOSSES))
def loss(request):
    return LOSSES[request.param](NAMES)


def funnel(n):
    click = (torch.rand(n) < 0.5).float()
    return torch.stack([click, click * (torch.rand(n) < 0.5)], 1)


def test_one_loss_a_task_with_finite_gradients_at_wild_logits(loss):
    logits = torch.tensor([[1e3, -1e3], [-1e3, 1e3], [0.0, 0.0]], requires_grad=True)
    losses = loss(logits, torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    assert losses.shape == (2,)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logits.grad.isfinite().all()


def test_order_of_rows_does_not_matter(loss):
    logits, y, order = torch.randn(50, 2), funnel(50), torch.randperm(50)
    torch.testing.assert_close(loss(logits[order], y[order]), loss(logits, y))


def test_equal_weights_are_no_weights(loss):
    logits, y = torch.randn(50, 2), funnel(50)
    torch.testing.assert_close(loss(logits, y, torch.ones(50)), loss(logits, y))


def test_gradcheck(loss):
    logits = torch.randn(12, 2, dtype=torch.float64, requires_grad=True)
    y = funnel(12).double()
    assert torch.autograd.gradcheck(lambda z: loss(z, y), logits)


def test_bce_is_the_mean_over_all_rows_weighted():
    logits, y, weight = torch.randn(30, 2), funnel(30), torch.rand(30)
    for k, value in enumerate(BCE(NAMES)(logits, y, weight)):
        rows = binary_cross_entropy_with_logits(logits[:, k], y[:, k], reduction="none")
        torch.testing.assert_close(value, (weight * rows).mean())
