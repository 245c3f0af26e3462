import numpy as np
import pytest
import torch

from sk_pwiser.weighting import WEIGHTINGS, Equal, Fixed


def test_weighted_sums():
    losses = torch.tensor([0.5, 0.25, 2.0], requires_grad=True)
    assert Equal(3)(losses).item() == 2.75
    total = Fixed(3, weights=[1, 0, 0.5])(losses)
    assert total.item() == 1.5
    total.backward()
    assert losses.grad.tolist() == [1, 0, 0.5]
    torch.testing.assert_close(Fixed(3, weights=[1, 1, 1])(losses), Equal(3)(losses))


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (
            [1.0],
            ValueError,
            r"one number per task, 2 in total; got \[1\.0\]",
        ),
        (
            [0, 0],
            ValueError,
            r"weights must .* one number > 0; got \[0, 0\]",
        ),
        ([1, -1], ValueError, r"weights\[1\] must be finite and >= 0; got -1"),
        ([1, np.nan], ValueError, r"weights\[1\] must be finite and >= 0; got nan"),
        ([True, 1], TypeError, r"weights\[0\] must be a number; got True"),
        ([1, None], TypeError, r"weights\[1\] must be a number; got None"),
        ("12", TypeError, "weights must be a sequence of numbers.* got '12'"),
        ({"a": 1, "b": 2}, TypeError, "weights must be a sequence of numbers.* got {"),
        (2.0, TypeError, r"weights must be a sequence of numbers.* got 2\.0"),
    ],
)
def test_invalid_weights_are_named(weights, error, message):
    with pytest.raises(error, match=message):
        Fixed(2, weights=weights)


@pytest.mark.parametrize("weights", [(1, 4), np.array([1, 4]), np.float32([1, 4])])
def test_any_sequence_of_numbers_is_accepted(weights):
    assert Fixed(2, weights=weights).weights.tolist() == [1, 4]


def test_registry_holds_them():
    assert WEIGHTINGS["equal"] is Equal
    assert WEIGHTINGS["fixed"] is Fixed
