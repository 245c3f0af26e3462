"""The base class: which entries are shared, and what becomes of the others."""

import pytest
import torch
from torch import nn

from sk_pwiser.networks import NETWORKS, NetworkSpec
from sk_pwiser.weighting import GradientWeighting
from sk_pwiser.weighting._entries import LARGE_TABLE, touched_rows


class Given(GradientWeighting):
    """Fixed weights of the gradients; keeps what it was asked."""

    def __init__(self, n_tasks, weights):
        super().__init__(n_tasks)
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.asked = []
        self.grams = []

    def combine(self, gradients):
        self.asked.append([g.clone() for g in gradients])
        return super().combine(gradients)

    def weigh(self, gram):
        self.grams.append(gram)
        return self.weights


class Untouched(GradientWeighting):
    def weigh(self, gram):
        raise AssertionError


def gradients_of(loss, parameters):
    return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)


def test_shared_entries_are_found_one_by_one():
    p = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    q = nn.Parameter(torch.tensor([[1.0, 1.0]]))
    losses = torch.stack([p[0] + 2 * p[1], 3 * p[1] + 5 * p[2] + q.sum()])
    weighting = Given(2, [10.0, 100.0])
    weighting.backward(losses, None, [p, q])
    # Entry 0 is the first task's, 1 is shared, 2 is the second's, 3 is nobody's.
    assert p.grad.tolist() == [1.0, 10 * 2 + 100 * 3, 5.0, 0.0]
    assert q.grad.tolist() == [[1.0, 1.0]]
    (asked,) = weighting.asked
    assert asked[0].tolist() == [[0, 2, 0, 0], [0, 3, 0, 0]]
    assert asked[1].tolist() == [[0, 0], [0, 0]]
    (gram,) = weighting.grams
    assert gram.dtype == torch.float64
    assert gram.tolist() == [[4, 6], [6, 9]]


def test_entries_of_two_tasks_among_three_are_shared():
    p = nn.Parameter(torch.ones(3))
    losses = torch.stack([p[0] + p[1], p[0] + p[2], p[0]])
    Given(3, [1.0, 10.0, 100.0]).backward(losses, None, [p])
    assert p.grad.tolist() == [111, 1, 1]


def network_and_losses(name, seed=0, cardinalities=(2 * LARGE_TABLE, 3)):
    torch.manual_seed(seed)
    network = NETWORKS[name](NetworkSpec(cardinalities, 4, 4, [0.2, 0.02, 0.01]))
    codes = torch.stack([torch.randint(c, (30,)) for c in cardinalities], dim=1)
    output = network(codes, torch.randn(30, 4))
    y = (torch.rand(30, 3) < 0.4).float()
    losses = nn.functional.binary_cross_entropy_with_logits(
        output.logits, y, reduction="none"
    )
    return network, losses.mean(dim=0)


@pytest.mark.parametrize("name", ["shared_bottom", "mmoe", "single_task"])
@pytest.mark.parametrize("skips_rows", [True, False])
def test_weights_of_1_are_the_plain_backward_pass(name, skips_rows):
    network, losses = network_and_losses(name)
    parameters = list(network.parameters())
    expected = gradients_of(losses.sum(), parameters)
    weighting = Given(3, [1.0, 1.0, 1.0])
    weighting.skips_rows = skips_rows
    weighting.backward(losses, None, parameters)
    for p, gradient in zip(parameters, expected, strict=True):
        assert p.grad.shape == p.shape
        torch.testing.assert_close(p.grad, gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("skips_rows", [True, False])
def test_a_network_entry_by_entry(skips_rows):
    network, losses = network_and_losses("mmoe")
    parameters = list(network.parameters())
    by_task = [gradients_of(loss, parameters) for loss in losses]
    weights = [2.0, 3.0, 5.0]
    weighting = Given(3, weights)
    weighting.skips_rows = skips_rows
    weighting.backward(losses, None, parameters)
    gram = torch.zeros(3, 3, dtype=torch.float64)
    n_private = n_shared = 0
    for p, *tasks in zip(parameters, *by_task, strict=True):
        g = torch.stack(tasks).double()
        is_shared = (g != 0).sum(dim=0) > 1
        n_shared += is_shared.sum()
        n_private += (~is_shared & (g != 0).any(dim=0)).sum()
        weighted = torch.einsum("k,k...->...", torch.tensor(weights).double(), g)
        expected = torch.where(is_shared, weighted, g.sum(dim=0))
        torch.testing.assert_close(p.grad.double(), expected, rtol=1e-5, atol=1e-7)
        shared = (g * is_shared).flatten(1)
        gram += shared @ shared.t()
    assert n_private
    assert n_shared
    torch.testing.assert_close(weighting.grams[0], gram, rtol=1e-4, atol=1e-8)
    n_entries = sum(g.shape[1] for g in weighting.asked[0])
    assert (n_entries < sum(p.numel() for p in parameters)) == skips_rows


def test_two_parameters_with_the_same_gradient():
    # Their gradients may lie in the same memory, which must not be written twice.
    tables = [nn.Parameter(torch.randn(LARGE_TABLE, 2)) for _ in range(2)]
    rows = torch.tensor([0, 5, 7])
    picked = (tables[0] + tables[1])[rows]
    losses = torch.stack([picked.sum(), (picked**2).sum()])
    (first, second) = (gradients_of(loss, tables)[0] for loss in losses)
    Given(2, [2.0, 10.0]).backward(losses, None, tables)
    for table in tables:
        torch.testing.assert_close(table.grad, 2 * first + 10 * second)
    assert tables[0].grad.data_ptr() != tables[1].grad.data_ptr()


def test_penalties_are_added_as_they_are():
    p, q, r = (nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(3))
    losses = torch.stack([p.sum(), 3 * p.sum()])
    Given(2, [1.0, 10.0]).backward(losses, (p**2).sum() + q.sum(), [p, q, r])
    assert p.grad.tolist() == [31 + 2, 31 + 4]
    assert q.grad.tolist() == [1, 1]
    assert r.grad is None


def test_a_penalty_that_is_a_constant():
    p = nn.Parameter(torch.ones(1))
    losses = torch.stack([p.sum(), p.sum()])
    Given(2, [1.0, 1.0]).backward(losses, torch.tensor(0.5), [p])
    assert p.grad.tolist() == [2]


def test_frozen_parameters_get_no_gradient():
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    p = nn.Parameter(torch.ones(2))
    losses = torch.stack([(p * frozen).sum(), p[0] * 2])
    Given(2, [1.0, 10.0]).backward(losses, None, [frozen, p])
    assert frozen.grad is None
    assert p.grad.tolist() == [21, 1]


def test_earlier_gradients_are_replaced():
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.tensor([5.0, 5.0])
    Given(2, [1.0, 1.0]).backward(torch.stack([p.sum(), p.sum()]), None, [p])
    assert p.grad.tolist() == [2, 2]


def test_where_nothing_is_shared_the_weights_are_1():
    network, losses = network_and_losses("single_task")
    parameters = list(network.parameters())
    expected = gradients_of(losses.sum(), parameters)
    weighting = Untouched(3)
    weighting.backward(losses, None, parameters)
    for p, gradient in zip(parameters, expected, strict=True):
        assert torch.equal(p.grad, gradient)
    assert weighting.end_epoch() == [1, 1, 1]


def test_gradients_that_are_not_finite_make_the_step_nan():
    p = nn.Parameter(torch.ones(2))
    losses = torch.stack([p.sum() * float("inf"), p.sum()])
    weighting = Untouched(2)
    weighting.backward(losses, None, [p])
    assert p.grad.isnan().all()


def test_the_weights_of_an_epoch_are_recorded():
    weighting = Given(2, [2.0, 4.0])
    p = nn.Parameter(torch.ones(2))
    for weights in ([2.0, 4.0], [4.0, 8.0]):
        weighting.weights = torch.tensor(weights)
        weighting.backward(torch.stack([p.sum(), p.sum()]), None, [p])
    assert weighting.end_epoch() == [3, 6]
    assert weighting.end_epoch() == []


def test_one_task_is_a_plain_backward_pass():
    p = nn.Parameter(torch.ones(2))
    Untouched(1).backward((3 * p).sum().view(1), p.sum(), [p])
    assert p.grad.tolist() == [4, 4]


def test_tables_that_begin_at_an_odd_place_in_memory():
    memory = torch.zeros(1 + 2 * LARGE_TABLE)
    table = memory[1:].view(LARGE_TABLE, 2)
    table[7] = 1.0
    assert touched_rows([table, torch.zeros_like(table)]).tolist() == [7]
