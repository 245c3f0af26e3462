"""Dtypes, derivatives and bad arguments of the mean over pairs."""

import math

import pytest
import torch

from sk_pwiser.losses._pairwise import SURROGATES, pairwise_mean

every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)


def test_of_two_dtypes_the_wider_one_is_used():
    higher = torch.tensor([1.0], dtype=torch.float64)
    lower = torch.tensor([0.5], dtype=torch.float16, requires_grad=True)
    mean = pairwise_mean(higher, lower, 1.0)
    mean.backward()
    assert mean.dtype == torch.float64
    assert lower.grad.dtype == torch.float16


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


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ONE, ONE, 1.0, "ramp"), r"surrogate .*hinge.*squared_hinge.*logistic.*ramp"),
        ((ONE, ONE, math.inf), "margin must be finite; got inf"),
        ((ONE[None], ONE, 1.0), r"higher must be a 1-D .*\(1, 1\)"),
        ((ONE, ONE.long(), 1.0), r"lower must be .* floats.*int64"),
        ((ONE, ONE, 1.0, "hinge", torch.ones(2)), r"higher_weight .*\(1,\).*\(2,\)"),
        ((ONE, ONE, 1.0, "hinge", None, ONE[None]), r"lower_weight .*\(1, 1\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        pairwise_mean(*arguments)
