import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from refusals import X, Y, small
from suites import fast_for

from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser.losses import BCE
from sk_pwiser.networks import NETWORKS, NetworkSpec
from sk_pwiser.weighting import GradNorm

# Gradients of three linear losses of two variables, with lengths 5, 13 and 0.1.
SLOPES = torch.tensor([[3.0, 4.0], [-5.0, 12.0], [0.1, 0.0]])
LENGTHS = np.array([5.0, 13.0, 0.1])


def step(weighting, losses, slopes=SLOPES):
    """Make a step with given losses and gradients; return the combined gradient."""
    shared = torch.nn.Parameter(torch.zeros(slopes.shape[1]))
    weighting.backward(slopes @ shared + torch.tensor(losses), None, [shared])
    return shared.grad


def test_the_first_step_is_the_plain_sum_and_the_next_uses_the_learned_weights():
    weighting = GradNorm(3)
    torch.testing.assert_close(step(weighting, [1.0, 1.0, 1.0]), SLOPES.sum(dim=0))
    learned = weighting.weights.clone()
    assert (learned - 1).abs().min() > 1e-3
    torch.testing.assert_close(step(weighting, [1.0, 1.0, 1.0]), learned @ SLOPES)
    assert weighting.end_epoch() == pytest.approx(((1 + learned) / 2).tolist())


def test_the_weights_follow_the_gradient_of_the_distance_to_the_targets():
    weighting = GradNorm(3, alpha=0.7, lr=1e-3)
    step(weighting, [2.0, 1.0, 4.0])
    weighting.end_epoch()
    before = weighting.weights.double()
    losses = np.array([1.5, 0.9, 1.0])
    step(weighting, losses.astype(np.float32))

    logarithms = before.log().requires_grad_()
    lengths = logarithms.exp() * torch.tensor(LENGTHS)
    rates = torch.tensor(losses / [2, 1, 4])
    mean = lengths.detach().mean()
    targets = mean * rates**0.7 / (rates**0.7).mean()
    ((lengths - targets).abs().sum() / mean).backward()
    after = (logarithms - 1e-3 * logarithms.grad).detach().exp()
    after = 3 * after / after.sum()
    torch.testing.assert_close(weighting.weights.double(), after, rtol=1e-6, atol=0)
    assert (after - before).abs().min() > 1e-5


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5])
def test_the_lengths_converge_in_proportion_to_the_rates(alpha):
    weighting = GradNorm(3, alpha=alpha, lr=0.1)
    step(weighting, [2.0, 1.0, 4.0])
    weighting.end_epoch()
    for _ in range(300):
        step(weighting, [1.0, 0.8, 3.6])
    rates = np.array([0.5, 0.8, 0.9])
    expected = rates**alpha / LENGTHS
    assert_allclose(weighting.weights, 3 * expected / expected.sum(), rtol=1e-3)


def test_weights_remain_positive_and_their_sum_is_the_number_of_tasks():
    weighting = GradNorm(3, lr=1.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        slopes = 10 ** (10 * torch.rand(3, 1, generator=generator) - 5) * SLOPES
        slopes *= torch.rand(3, 1, generator=generator) > 0.2
        losses = torch.rand(3, generator=generator) + 1e-3
        step(weighting, losses.tolist(), slopes)
        assert (weighting.weights > 0).all()
        assert weighting.weights.sum().item() == pytest.approx(3, rel=1e-4)


@pytest.mark.parametrize("factor", [0.0, 1e-12])
def test_a_vanished_gradient_keeps_its_weight_and_changes_no_other(factor):
    weighting, pair = GradNorm(3), GradNorm(2)
    slopes = SLOPES * torch.tensor([[1.0], [1.0], [factor]])
    for _ in range(20):
        step(weighting, [1.0, 2.0, 3.0], slopes)
        step(pair, [1.0, 2.0], slopes[:2])
    assert weighting.weights[2] == 1
    torch.testing.assert_close(weighting.weights[:2], pair.weights)
    assert (weighting.weights[:2] - 1).abs().min() > 0.1


def test_initial_losses_are_the_means_of_the_first_epoch_without_losses_of_0():
    weighting = GradNorm(3, alpha=1.0)
    for losses in ([1.0, 0.0, 1.0], [2.0, 0.0, 1.0]):
        step(weighting, losses)
    assert weighting.initial_losses.tolist() == [1.5, 0, 1]
    assert weighting.weights[1] == 1
    weighting.end_epoch()
    for losses in ([0.5, 4.0, 0.25], [0.1, 0.0, 0.2], [0.1, 8.0, 0.2]):
        step(weighting, losses)
    assert weighting.initial_losses.tolist() == [1.5, 6, 1]
    weighting.end_epoch()
    step(weighting, [0.1, 1.0, 0.2])
    assert weighting.initial_losses.tolist() == [1.5, 6, 1]


def entropy(rate):
    return -rate * np.log(rate) - (1 - rate) * np.log1p(-rate)


@pytest.mark.parametrize("task_space", ["entire", "conditional"])
def test_initial_losses_do_not_depend_on_a_batch(task_space):
    # Base rates are smoothed, so that no rate is 0.
    click = (Y["click"].sum() + 0.5) / (len(Y) + 1)
    cvr = (Y["conversion"].sum() + 0.5) / (Y["click"].sum() + 1)
    expected = [entropy(click), entropy(click * cvr)]
    if task_space == "conditional":
        expected[1] = entropy(cvr)
    params = {"network_params": {"task_space": task_space}, "batch_size": 8}
    for seed in range(2):
        model = small(weighting="gradnorm", random_state=seed, **params).fit(X, Y)
        initial = model.net_.criterion_.weighting.initial_losses.cpu()
        assert_allclose(initial, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("loss", "params"),
    [("jrc", None), ("combined_pair", None), ("pwiser", {"base": "combined_pair"})],
)
def test_initial_losses_of_losses_that_are_no_means_over_rows(loss, params):
    params = {"loss": loss, "loss_params": params, "pwiser_weight": 0.0}
    model = small(weighting="gradnorm", **params).fit(X, Y)
    initial = model.net_.criterion_.weighting.initial_losses.sum().item()
    # All batches have the same size.
    assert initial == pytest.approx(model.history_[0, "train_loss"], rel=1e-5)
    assert initial != pytest.approx(model.history_[1, "train_loss"], rel=1e-5)


def no_weights(n):
    return None


def weights_per_task(n):
    return torch.tensor([1.0, 0.1]).expand(n, 2)


def missing_labels(n):
    return torch.stack([torch.ones(n), (torch.rand(n) < 0.5).float()], dim=1)


CASES = [
    *((name, no_weights) for name in sorted(NETWORKS)),
    ("shared_bottom", weights_per_task),
    ("shared_bottom", missing_labels),
    ("esmm", missing_labels),
]


@pytest.mark.parametrize("task_space", ["entire", "conditional"])
@pytest.mark.parametrize("case", fast_for([*CASES[-3:], ("mmoe", no_weights)], CASES))
def test_no_task_is_slow_before_training(case, task_space):
    name, weights = case
    torch.manual_seed(0)
    rates, n = [0.2, 0.02], 20_000
    network = NETWORKS[name](NetworkSpec([3], 2, 4, rates, task_space=task_space))
    weighting = GradNorm(2)
    criterion = MultiTaskCriterion(BCE(["click", "conversion"]), weighting)
    criterion.set_base_losses(network)
    y = (torch.rand(n, 2) < torch.tensor([0.2, 0.1])).float().cumprod(dim=1)
    weight = weights(n)
    if weight is not None:
        y = y * (weight > 0)
    last = network.output if name == "metaheac" else network.towers
    with torch.no_grad():
        for parameter in last.parameters():
            parameter *= parameter.dim() == 1  # the biases predict the base rates
    output = network(torch.zeros(n, 1, dtype=torch.int64), torch.zeros(n, 2))
    criterion.backward(output, y, weight, None, network.parameters())
    rates = weighting.losses / weighting.initial_losses
    assert_allclose(rates / rates.mean(), 1, atol=0.1)
