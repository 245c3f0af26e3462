import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from refusals import X, Y, small
from scipy.stats import entropy

from sk_pwiser.weighting import WEIGHTINGS, Balanced, Equal, Fixed


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


def test_a_subclass_may_combine_the_losses_otherwise():
    class First(Equal):
        def forward(self, losses):
            return 3 * losses[0]

    weighting, x = First(2), torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    weighting.backward(x**2, None, [x])
    assert x.grad.tolist() == [12.0, 0.0]
    assert weighting.end_epoch() == [3.0, 0.0]


def weights_by_entropies(rates, power=0.5):
    """Return the weights of "balanced" in a plain form."""
    entropies = np.array([entropy([p, 1 - p]) for p in rates])
    weights = entropies**-power
    return weights * entropies.sum() / (weights * entropies).sum()


@pytest.mark.parametrize("power", [0, 0.3, 0.5, 1])
@pytest.mark.parametrize("rates", [(0.4, 0.004), (0.02, 0.001), (0.9, 0.5, 0.1)])
def test_balanced_weights_follow_the_entropies(rates, power):
    p = torch.tensor(rates)
    losses = torch.nn.functional.binary_cross_entropy(p, p, reduction="none")
    weighting = Balanced(len(rates), power=power)
    weighting.set_base_losses(losses)
    assert_allclose(weighting.weights, weights_by_entropies(rates, power), rtol=1e-5)
    assert weighting(losses).item() == pytest.approx(losses.sum().item())
    if power == 1:
        assert_allclose(weighting.weights * losses, losses.mean(), rtol=1e-5)


def test_tasks_without_a_loss_have_weight_one():
    weighting = Balanced(3)
    weighting.set_base_losses(torch.tensor([0.0, 0.5, 0.5]))
    assert weighting.weights.tolist() == [1, 1, 1]
    weighting.set_base_losses(torch.zeros(3))
    assert weighting.weights.tolist() == [1, 1, 1]


@pytest.mark.parametrize("power", [-0.1, 1.1, np.nan])
def test_invalid_powers_are_named(power):
    with pytest.raises(ValueError, match=rf"power must be .*; got {power}"):
        Balanced(2, power=power)


def test_balanced_weights_of_a_fit_are_those_of_its_rates(tmp_path):
    """A weighted sum with these weights is the same fit, also in later calls."""
    model = small(weighting="balanced", warm_start=True, max_epochs=2).fit(X, Y)
    weights = weights_by_entropies(model._result.schema.base_rates)
    columns = ["train_weight_click", "train_weight_conversion"]
    assert_allclose(model.history_[:, columns], [weights] * 2, rtol=1e-5)
    params = {"weights": model.history_[-1, columns]}
    fixed = small(
        weighting="fixed", weighting_params=params, warm_start=True, max_epochs=2
    ).fit(X, Y)
    for _ in range(2):
        assert_allclose(
            model.predict_proba(X), fixed.predict_proba(X), rtol=1e-5, atol=1e-7
        )
        model.fit(X[:30], Y[:30])  # of other rates
        fixed.fit(X[:30], Y[:30])
    model.save(tmp_path / "model")
    again = type(model).load(tmp_path / "model").partial_fit(X[:40], Y[:40])
    assert_allclose(again.history_[-1, columns], weights, rtol=1e-5)
