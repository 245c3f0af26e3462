"""Which losses depend on which parameters."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sk_pwiser.networks import NETWORKS, NetworkSpec
from sk_pwiser.weighting._gradient import N_SEARCHED, LossDependencies, depends_on


def losses_of(network, codes, numeric, weights):
    logits = network(codes, numeric).logits
    losses = nn.functional.binary_cross_entropy_with_logits(
        logits, torch.zeros_like(logits), weights, reduction="none"
    )
    return losses.mean(dim=0)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_weights_of_0_hide_no_dependency(name, device):
    spec = NetworkSpec((30, 3), 4, 4, (0.2, 0.05, 0.02))
    network = NETWORKS[name](spec).to(device).eval()
    codes = torch.stack([torch.randint(c, (64,)) for c in (30, 3)], dim=1)
    inputs = codes.to(device), torch.randn(64, 4, device=device)
    parameters = list(network.parameters())
    # With these weights, as in a batch without rows for the second task, all gradients
    # of that task are 0.
    weights = torch.tensor([1.0, 0.0, 1.0], device=device).expand(64, 3)
    losses = losses_of(network, *inputs, weights)
    found = [depends_on(losses, task, parameters) for task in range(3)]
    # With weights above 0, all dependencies show in the values of the gradients.
    expected = [
        [gradient is not None and bool(gradient.any()) for gradient in gradients]
        for gradients in (
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            for loss in losses_of(network, *inputs, None)
        )
    ]
    assert found == expected
    assert all(map(any, found))


def step(p, q, factors):
    """Two losses of p, the second one of q as well, each times a factor."""
    losses = torch.stack([p.sum(), (p * q).sum()]) * torch.tensor(factors)
    gradients = [
        torch.autograd.grad(loss, [p, q], retain_graph=True, allow_unused=True)
        for loss in losses
    ]
    return losses, gradients


@pytest.fixture
def parameters():
    return [nn.Parameter(torch.ones(2)) for _ in range(2)]


ALL = [[True, False], [True, True]]


def test_a_loss_of_weight_0_depends_on_its_parameters(parameters):
    dependencies = LossDependencies()
    losses, gradients = step(*parameters, [1.0, 0.0])
    assert not any(gradient.any() for gradient in gradients[1])
    dependencies.find(losses, parameters)
    assert dependencies.depends == ALL


def test_dependencies_are_kept_for_the_same_parameters(parameters):
    p, q = parameters
    dependencies = LossDependencies()
    dependencies.find(step(p, q, [1.0, 1.0])[0], parameters)
    dependencies.find(torch.stack([p.sum(), p.sum()]), parameters)
    assert dependencies.depends == ALL
    dependencies.find(torch.stack([p.sum(), p.sum()]), [p])
    assert dependencies.depends == [[True], [True]]


def test_nonzero_gradients_add_what_the_first_graph_lacked(parameters):
    p, q = parameters
    dependencies = LossDependencies()
    # The second loss is a constant in the first batch.
    dependencies.find(torch.stack([p.sum(), torch.zeros(())]), parameters)
    assert dependencies.depends == [[True, False], [False, False]]
    _, gradients = step(p, q, [1.0, 0.0])
    dependencies.add_nonzero(gradients)
    assert dependencies.depends == [[True, False], [False, False]]
    _, gradients = step(p, q, [1.0, 1.0])
    dependencies.add_nonzero(gradients)
    assert dependencies.depends == ALL


@pytest.mark.parametrize("is_constant", [True, False])
def test_the_search_ends_after_steps_in_which_the_loss_is_not_constant(
    parameters, is_constant
):
    dependencies = LossDependencies()
    p, q = parameters
    # The second loss is known to depend on the second tensor only.
    dependencies.find(torch.stack([p.sum(), q.sum()]), parameters)
    one, zero = torch.ones_like(p), torch.zeros_like(p)
    of_second = zero if is_constant else one
    for _ in range(N_SEARCHED):
        dependencies.add_nonzero([[one, zero], [zero, of_second]])
    dependencies.add_nonzero([[one, zero], [one, one]])
    assert dependencies.depends == [[True, False], [is_constant, True]]


def test_the_probe_works_with_anomaly_detection(parameters):
    with torch.autograd.set_detect_anomaly(True):
        # With anomaly detection, NaN in a backward pass is an error.
        losses = torch.stack([p.sqrt().sum() for p in parameters])
        assert depends_on(losses, 0, parameters) == [True, False]


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_know_nothing(parameters, duplicate):
    dependencies = LossDependencies()
    dependencies.find(step(*parameters, [1.0, 1.0])[0], parameters)
    assert duplicate(dependencies).depends == []
