import pytest
import torch

from sk_pwiser.weighting import WEIGHTINGS, Equal, Fixed


def test_sums():
    losses = torch.tensor([0.5, 0.25, 2.0], requires_grad=True)
    assert Equal(3)(losses).item() == 2.75
    total = Fixed(3, weights=[1, 0, 0.5])(losses)
    assert total.item() == 1.5
    total.backward()
    assert losses.grad.tolist() == [1, 0, 0.5]
    torch.testing.assert_close(Fixed(3, weights=[1, 1, 1])(losses), Equal(3)(losses))


@pytest.mark.parametrize("weights", [[1.0], [1, -1], [0, 0], [1, float("nan")]])
def test_bad_weights_are_named(weights):
    with pytest.raises(ValueError, match=r"weights must .* got"):
        Fixed(2, weights=weights)


def test_registry_holds_them():
    assert WEIGHTINGS["equal"] is Equal
    assert WEIGHTINGS["fixed"] is Fixed
