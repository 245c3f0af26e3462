"""Sums of the losses, with equal and with fixed weights."""

import numpy as np
import pytest
import torch

from sk_pwiser.weighting import Equal, Fixed


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
