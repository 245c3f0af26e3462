"""The base class: which parameters are combined, and the gradients of the others."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sk_pwiser.networks import NETWORKS, NetworkSpec
from sk_pwiser.weighting import GradientWeighting
from sk_pwiser.weighting._dependencies import N_SEARCHED, depends_on
from sk_pwiser.weighting._gradient_rows import LARGE_TABLE, nonzero_rows


class Given(GradientWeighting):
    """Fixed weights of the gradients; stores the arguments of its methods."""

    def __init__(self, n_tasks, weights):
        super().__init__(n_tasks)
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.combined = []
        self.grams = []

    def combine(self, gradients):
        self.combined.append([g.clone() for g in gradients])
        return super().combine(gradients)

    def weigh(self, gram):
        self.grams.append(gram)
        return self.weights


class NeverWeighs(GradientWeighting):
    def weigh(self, gram):
        raise AssertionError


def gradients_of(loss, parameters):
    return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)


def test_entries_of_a_shared_parameter_with_a_gradient_of_0_are_combined():
    p = nn.Parameter(torch.zeros(2))
    slopes = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    Given(2, [10.0, 100.0]).backward(slopes @ p, None, [p])
    assert p.grad.tolist() == [-90, 100]


def test_two_of_three_tasks_share_a_parameter():
    p, q, r = (nn.Parameter(torch.ones(1)) for _ in range(3))
    losses = torch.cat([p + q, p + q + r, p])
    Given(3, [1.0, 10.0, 100.0]).backward(losses, None, [p, q, r])
    assert [x.grad.item() for x in (p, q, r)] == [111, 11, 1]


def test_a_parameter_outside_the_graph_has_no_gradient():
    p, q = (nn.Parameter(torch.ones(1)) for _ in range(2))
    weighting = Given(2, [1.0, 10.0])
    for used, unused in ((p, q), (q, p)):
        weighting.backward(torch.cat([2 * used, 3 * used]), None, [p, q])
        assert used.grad.item() == 32
        assert unused.grad is None


def network_and_losses(name, device, cardinalities=(2 * LARGE_TABLE, 3)):
    spec = NetworkSpec(cardinalities, 4, 4, (0.2, 0.02, 0.01))
    network = NETWORKS[name](spec).to(device)
    codes = torch.stack([torch.randint(c, (30,)) for c in cardinalities], dim=1)
    output = network(codes.to(device), torch.randn(30, 4, device=device))
    y = (torch.rand(30, 3, device=device) < 0.4).float()
    losses = nn.functional.binary_cross_entropy_with_logits(
        output.logits, y, reduction="none"
    )
    return network, losses.mean(dim=0)


@pytest.mark.parametrize("skips_rows", [True, False])
def test_a_network_tensor_by_tensor(skips_rows, device):
    network, losses = network_and_losses("shared_bottom", device)
    names, parameters = zip(*network.named_parameters(), strict=True)
    by_task = [gradients_of(loss, parameters) for loss in losses]
    weights = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    weighting = Given(3, weights.tolist())
    weighting.skips_rows = skips_rows
    weighting.backward(losses, None, parameters)
    gram = torch.zeros(3, 3, dtype=torch.float64)
    n_shared = n_entries = 0
    for name, p, *tasks in zip(names, parameters, *by_task, strict=True):
        g = torch.stack(tasks).double().cpu()
        expected = g.sum(dim=0)
        if not name.startswith("towers"):
            n_shared += 1
            n_entries += p.numel()
            expected = torch.einsum("k,k...->...", weights, g)
            gram += g.flatten(1) @ g.flatten(1).t()
        found = p.grad.double().cpu()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    (matrices,) = weighting.combined
    assert 0 < len(matrices) == n_shared < len(parameters)
    torch.testing.assert_close(weighting.grams[0], gram, rtol=1e-4, atol=1e-8)
    is_shorter = sum(matrix.shape[1] for matrix in matrices) < n_entries
    assert is_shorter == (skips_rows and device.type == "cpu")


def test_two_parameters_with_the_same_gradient():
    # Autograd may return the same memory for both gradients, which must not be written
    # twice.
    tables = [nn.Parameter(torch.randn(LARGE_TABLE, 2)) for _ in range(2)]
    rows = torch.tensor([0, 5, 7])
    picked = (tables[0] + tables[1])[rows]
    losses = torch.stack([picked.sum(), (picked**2).sum()])
    (first, second) = (gradients_of(loss, tables)[0] for loss in losses)
    Given(2, [2.0, 10.0]).backward(losses, None, tables)
    for table in tables:
        torch.testing.assert_close(table.grad, 2 * first + 10 * second)
    assert tables[0].grad.data_ptr() != tables[1].grad.data_ptr()


def test_penalties_are_added_without_weights():
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


def test_the_weights_are_1_if_nothing_is_shared():
    network, losses = network_and_losses("single_task", "cpu")
    parameters = list(network.parameters())
    expected = gradients_of(losses.sum(), parameters)
    weighting = NeverWeighs(3)
    weighting.backward(losses, None, parameters)
    for p, gradient in zip(parameters, expected, strict=True):
        assert torch.equal(p.grad, gradient)
    assert weighting.end_epoch() == [1, 1, 1]


def test_gradients_that_are_not_finite_make_the_step_nan():
    p = nn.Parameter(torch.ones(2))
    losses = torch.stack([p.sum() * float("inf"), p.sum()])
    weighting = NeverWeighs(2)
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
    NeverWeighs(1).backward((3 * p).sum().view(1), p.sum(), [p])
    assert p.grad.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("combined", "message"),
    [
        (None, r"\[\(2,\)\]; got None"),
        ([torch.ones(3)], r"\[\(2,\)\]; got \[\(3,\)\]"),
        ([torch.ones(2), torch.ones(2)], r"\[\(2,\)\]; got \[\(2,\), \(2,\)\]"),
        ([[1.0, 1.0]], r"\[\(2,\)\]; got \[\[1.0, 1.0\]\]"),
    ],
)
def test_combine_must_return_one_gradient_per_tensor(combined, message):
    class Wrong(GradientWeighting):
        def combine(self, gradients):
            return combined

    p = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=f"weighting Wrong must return .* {message}"):
        Wrong(2).backward(torch.stack([p.sum(), p.sum()]), None, [p])


@pytest.mark.parametrize("weights", [1.0, torch.ones(3), torch.ones(2, 1)])
def test_weigh_must_return_one_weight_per_task(weights):
    class Wrong(GradientWeighting):
        def weigh(self, gram):
            return weights

    with pytest.raises(ValueError, match=r"Wrong must return a Tensor of shape .* got"):
        Wrong(2).combine([torch.eye(2)])


@pytest.mark.parametrize("shape", [(LARGE_TABLE - 1, 2), (LARGE_TABLE,)])
def test_all_rows_of_small_tables_are_kept(shape):
    assert nonzero_rows([torch.zeros(shape)] * 2) is None


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("offset", [0, 1])
def test_tables_of_any_width_and_offset_in_memory(width, offset):
    memory = torch.zeros(offset + width * LARGE_TABLE)
    table = memory[offset:].view(LARGE_TABLE, width)
    table[7, width - 1] = 1.0
    assert nonzero_rows([table, torch.zeros_like(table)]).tolist() == [7]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_weights_of_0_hide_no_dependency(name, device):
    network, losses = network_and_losses(name, device, (30, 3))
    parameters = list(network.parameters())
    # As in a batch without rows for the second task, all its gradients are 0.
    weighted = losses * torch.tensor([1.0, 0.0, 1.0], device=device)
    found = [depends_on(weighted, task, parameters) for task in range(3)]
    # With weights above 0, all dependencies show in the values of the gradients.
    expected = [
        [g is not None and bool(g.any()) for g in gradients_of(loss, parameters)]
        for loss in losses
    ]
    assert found == expected
    assert all(map(any, found))


def test_the_probe_works_with_anomaly_detection():
    p = nn.Parameter(torch.ones(2))
    with torch.autograd.set_detect_anomaly(True):
        # With anomaly detection, NaN in a backward pass is an error.
        losses = torch.stack([p.sqrt().sum(), p.sum()])
        Given(2, [2.0, 10.0]).backward(losses, None, [p])
    assert p.grad.tolist() == [11, 11]


@pytest.fixture
def parameters():
    return [nn.Parameter(torch.ones(2)) for _ in range(2)]


def n_shared(weighting, losses, parameters):
    """Make a step; return the number of shared parameters."""
    weighting.combined.clear()
    weighting.backward(torch.stack(losses), None, parameters)
    return sum(map(len, weighting.combined))


def test_nonzero_gradients_add_what_the_first_graph_lacked(parameters):
    p, q = parameters
    weighting, constant = Given(2, [1.0, 1.0]), torch.zeros(())
    assert n_shared(weighting, [p.sum(), constant], [p]) == 0
    assert n_shared(weighting, [p.sum(), 0 * p.sum()], [p]) == 0
    assert n_shared(weighting, [p.sum(), p.sum()], [p]) == 1
    assert n_shared(weighting, [p.sum(), constant], [p]) == 1
    # Nothing is known of other parameters.
    assert n_shared(weighting, [q.sum(), constant], [q]) == 0


@pytest.mark.parametrize("is_constant", [True, False])
def test_the_search_ends_after_steps_in_which_the_loss_is_not_constant(
    parameters, is_constant
):
    p, q = parameters
    weighting = Given(2, [1.0, 1.0])
    for step in range(N_SEARCHED + 1):
        second = 0 * q.sum() if is_constant and step else q.sum()
        assert n_shared(weighting, [p.sum(), second], parameters) == 0
    found = n_shared(weighting, [p.sum(), p.sum() + q.sum()], parameters)
    assert found == int(is_constant)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_know_nothing(parameters, duplicate):
    p, weighting = parameters[0], Given(2, [1.0, 1.0])
    assert n_shared(weighting, [p.sum(), p.sum()], [p]) == 1
    assert n_shared(duplicate(weighting), [p.sum(), torch.zeros(())], [p]) == 0
