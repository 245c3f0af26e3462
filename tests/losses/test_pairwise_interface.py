"""Derivatives of the mean over pairs."""

import pytest
import torch

from sk_pwiser.losses._pairwise import SURROGATES, pairwise_mean

every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)


@every_surrogate
def test_second_derivatives_raise(surrogate):
    higher, lower = (torch.tensor([s], requires_grad=True) for s in (0.0, 0.5))
    mean = pairwise_mean(higher, lower, 1.0, surrogate)
    (slope,) = torch.autograd.grad(mean, higher, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        slope.sum().backward()


def test_weights_get_no_gradient():
    scores = torch.tensor([0.0, 1.0], requires_grad=True)
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    pairwise_mean(scores, scores, 1.0, "hinge", weight, weight).backward()
    assert weight.grad is None
