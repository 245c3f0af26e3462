"""The weightings of gradients against their formulas in numpy."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from refusals import X, Y, small
from suites import fast_for
from torch import nn

from sk_pwiser._training._components import MultiTaskCriterion
from sk_pwiser.losses import BCE
from sk_pwiser.networks import NETWORKS, NetworkSpec
from sk_pwiser.weighting import GradCraft, GradNorm, MetaBalance, Nash
from sk_pwiser.weighting._gradient_weightings import without_conflicts

# GradNorm.

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


def weights_of(kind, n):
    if kind == "missing labels":
        return torch.stack([torch.ones(n), (torch.rand(n) < 0.5).float()], dim=1)
    return torch.tensor([1.0, 0.1]).expand(n, 2) if kind == "per task" else None


CASES = [
    *((name, None) for name in sorted(NETWORKS)),
    ("shared_bottom", "per task"),
    ("shared_bottom", "missing labels"),
    ("esmm", "missing labels"),
]


@pytest.mark.parametrize("task_space", ["entire", "conditional"])
@pytest.mark.parametrize("case", fast_for(CASES[-2:], CASES))
def test_no_task_is_slow_before_training(case, task_space):
    name, kind = case
    torch.manual_seed(0)
    rates, n = [0.2, 0.02], 20_000
    network = NETWORKS[name](NetworkSpec([3], 2, 4, rates, task_space=task_space))
    weighting = GradNorm(2)
    criterion = MultiTaskCriterion(BCE(["click", "conversion"]), weighting)
    logits = network.base_logits.unsqueeze(0)
    weighting.set_base_losses(criterion.loss.row_losses(logits, logits.sigmoid())[0])
    y = (torch.rand(n, 2) < torch.tensor([0.2, 0.1])).float().cumprod(dim=1)
    weight = weights_of(kind, n)
    if weight is not None:
        y = y * (weight > 0)
    last = network.output if name == "metaheac" else network.towers
    with torch.no_grad():
        for parameter in last.parameters():
            parameter *= parameter.dim() == 1  # the biases predict the base rates
    output = network(torch.zeros(n, 1, dtype=torch.int64), torch.zeros(n, 2))
    criterion(output, y, weight, None, network.parameters())
    rates = weighting.losses / weighting.initial_losses
    assert_allclose(rates / rates.mean(), 1, atol=0.1)


# MetaBalance.

FIRST = torch.tensor([[3.0, 4.0], [0.0, 1.0]])  # lengths 5 and 1
SECOND = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])  # lengths 1 and 2


@pytest.mark.parametrize(
    ("target", "expected"),
    [(0, [[3, 4 + 5], [1, 1, 0]]), (-1, [[0.6, 0.8 + 1], [2, 2, 0]])],
)
def test_all_gradients_of_a_tensor_get_the_length_of_the_target(target, expected):
    weighting = MetaBalance(2, relax=1.0, decay=0.0, target=target)
    for step, values in zip(weighting.combine([FIRST, SECOND]), expected, strict=True):
        assert_allclose(step, values, rtol=1e-6)


def test_several_steps_in_numpy():
    rng = np.random.default_rng(0)
    weighting = MetaBalance(3, relax=0.7, decay=0.9)
    lengths, means = np.zeros((2, 3)), []
    for _ in range(5):
        g = [rng.normal(size=(3, n)) * [[1.0], [10.0], [0.1]] for n in (4, 7)]
        now = np.array([np.linalg.norm(m, axis=1) for m in g])
        lengths = lengths if lengths.any() else now
        scales = 0.7 * lengths[:, :1] / lengths + 0.3
        lengths = 0.9 * lengths + 0.1 * now
        steps = weighting.combine([torch.from_numpy(m).float() for m in g])
        for m, scale, step in zip(g, scales, steps, strict=True):
            assert_allclose(step, scale @ m, rtol=1e-4, atol=1e-6)
        means.append(scales.mean(axis=0))
    assert_allclose(weighting.end_epoch(), np.mean(means, axis=0), rtol=1e-5)


def test_gradients_of_0():
    nothing = torch.zeros(2, 3)
    half = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    weighting = MetaBalance(2, relax=1.0)
    steps = weighting.combine([FIRST, nothing, half])
    assert steps[1].tolist() == [0, 0, 0]
    assert steps[2].tolist() == [3, 4]
    # Weights per tensor, without gradients of 0: [1], and 5 and 1.
    assert_allclose(weighting.end_epoch(), [1, 3])


def test_lengths_belong_to_their_tensors_if_one_is_frozen():
    found = []
    for frozen in (False, True):
        weighting = MetaBalance(2, relax=1.0)
        tensors = [nn.Parameter(torch.full((3,), size)) for size in (1.0, 10.0, 0.1)]
        for step in range(3):
            tensors[0].requires_grad_(not (frozen and step == 2))
            total = (tensors[0] * tensors[1] * tensors[2]).sum()
            losses = torch.stack([(total - 1) ** 2, 1e-3 * (total + 1) ** 2])
            weighting.backward(losses, None, tensors)
        found.append(torch.stack([tensor.grad for tensor in tensors[1:]]))
    assert_allclose(*found)


def test_lengths_belong_to_their_tensors_if_some_are_not_in_the_graph():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    weighting = MetaBalance(2, relax=1.0, decay=0.5)
    scale = torch.tensor([1.0, 3.0])
    for parameters in ([a, b], [b], [a], [a, b]):
        total = sum(p.sum() for p in parameters)
        weighting.backward(total * scale, None, [a, b])
        # The second task's gradient is scaled to the length of the first one.
        for p in parameters:
            torch.testing.assert_close(p.grad, torch.full((2,), 2.0))
    assert weighting.lengths.shape == (2, 2)


# GradCraft.


def projected(g, k, epsilon):
    """Return task k's projected gradient, by the pseudo-inverse of the gradients."""
    conflicting = g[g @ g[k] < 0]
    norms = np.linalg.norm(conflicting, axis=1)
    wanted = epsilon * np.linalg.norm(g[k]) * norms
    return g[k] + np.linalg.pinv(conflicting) @ (wanted - conflicting @ g[k])


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("n_tasks", [2, 3, 5])
def test_the_step_is_the_sum_of_projected_gradients(n_tasks, epsilon):
    g = np.random.default_rng(0).normal(size=(n_tasks, 8))
    g -= 1.5 * g.mean(axis=0)
    parts = [projected(g, k, epsilon) for k in range(n_tasks)]
    n_conflicts = 0
    for k, part in enumerate(parts):
        for other in g[g @ g[k] < 0]:
            n_conflicts += 1
            wanted = epsilon * np.linalg.norm(g[k]) * np.linalg.norm(other)
            assert_allclose(part @ other, wanted, atol=1e-12)
    assert n_conflicts
    weights = without_conflicts(torch.from_numpy(g @ g.T), epsilon)
    assert_allclose(weights.numpy() @ g, np.sum(parts, axis=0))


def test_parallel_gradients_among_the_conflicting():
    # The last two gradients are parallel, so that their Gram matrix is singular.
    g = np.array([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [-2.0, 2.0, 0.0]])
    weights = without_conflicts(torch.from_numpy(g @ g.T), 0.0)
    expected = np.sum([projected(g, k, 0.0) for k in range(3)], axis=0)
    assert_allclose(weights.numpy() @ g, expected, atol=1e-12)


def test_lengths_are_brought_closer_together():
    g = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    for relax, expected in [(0.0, [4, 1]), (0.5, [4, 2.5]), (1.0, [4, 4])]:
        weighting = GradCraft(2, relax=relax, decay=0.0)
        assert_allclose(weighting.combine([g])[0], expected)


def test_the_moving_averages_of_the_lengths():
    weighting = GradCraft(2, relax=1.0, decay=0.9)
    weighting.weigh(torch.tensor([[4.0, 0.0], [0.0, 1.0]]).double())
    weights = weighting.weigh(torch.tensor([[1.0, 0.0], [0.0, 9.0]]).double())
    # 0.9 * (2, 1) + 0.1 * (1, 3), from the next step on
    assert_allclose(weighting.lengths, [1.9, 1.2], rtol=1e-6)
    assert_allclose(weights, [1, 2], rtol=1e-6)
    weights = weighting.weigh(torch.eye(2).double())
    assert_allclose(weights, [1, 19 / 12], rtol=1e-6)


def test_a_task_whose_gradient_was_always_0():
    gram = torch.tensor([[4.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    assert GradCraft(2).weigh(gram).tolist() == [1, 1]


# Nash.


def gradients(n_tasks, n_entries=40, spread=0.0):
    scales = 10.0 ** torch.linspace(-spread, spread, n_tasks, dtype=torch.float64)
    return torch.randn(n_tasks, n_entries, dtype=torch.float64) * scales.unsqueeze(1)


@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize("n_tasks", [2, 3, 5, 10])
def test_it_solves_the_bargaining_equations(n_tasks, spread):
    for _ in range(5):
        g = gradients(n_tasks, n_entries=n_tasks, spread=spread)
        gram = g @ g.t()
        alpha = Nash(n_tasks, max_norm=None).weigh(gram)
        assert (alpha > 0).all()
        torch.testing.assert_close(
            alpha * (gram @ alpha), torch.ones(n_tasks).double(), rtol=0, atol=1e-6
        )
        step = alpha @ g
        assert_allclose(step @ step, n_tasks, rtol=1e-6)
        # The gain of each task is the reciprocal of its weight.
        assert_allclose(g @ step, 1 / alpha, rtol=1e-6)


def test_max_norm_limits_only_the_length():
    g = gradients(3)
    free = Nash(3, max_norm=None).weigh(g @ g.t())
    cut = Nash(3, max_norm=0.5).weigh(g @ g.t())
    assert_allclose((cut @ g).norm(), 0.5)
    assert_allclose(cut / cut.sum(), free / free.sum())
    assert_allclose(Nash(3, max_norm=5.0).weigh(g @ g.t()), free)


def test_weights_of_opposite_gradients_are_finite():
    opposite = torch.tensor([[4.0, -2.0], [-2.0, 1.0]], dtype=torch.float64)
    alpha = Nash(2, max_norm=None).weigh(opposite)
    # The solution for a cosine of -1 + 1e-6.
    assert_allclose(alpha, [0.5e3, 1e3])
    # Three gradients with a sum of 0, without an opposite pair.
    g = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]).double()
    alpha = Nash(3, max_norm=None).weigh(g @ g.t())
    assert alpha.isfinite().all()
    assert_allclose(alpha, np.full(3, alpha[0]), rtol=1e-6)


def test_tasks_whose_gradients_are_0_are_ignored():
    g = gradients(3)
    g[1] = 0
    alpha = Nash(3, max_norm=None).weigh(g @ g.t())
    others = g[[0, 2]]
    expected = Nash(2, max_norm=None).weigh(others @ others.t())
    assert_allclose(alpha[[0, 2]], expected)
    assert alpha[1] == 0
    # With one task left, the step is a unit vector.
    g[2] = 0
    assert_allclose(Nash(3).weigh(g @ g.t()), [1 / g[0].norm(), 0, 0])
