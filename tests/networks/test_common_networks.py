"""What holds for every network, by the registry alone."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sk_pwiser.networks import NETWORKS, NetworkSpec
from sk_pwiser.networks._layers import Gates, StackedLinear

CARDINALITIES = [3, 5, 7]
RATES = [0.3, 0.02, 0.001]


def make(name, n_tasks=2, n_numeric=4, cardinalities=CARDINALITIES, **spec):
    torch.manual_seed(0)
    spec = NetworkSpec(cardinalities, n_numeric, 6, RATES[:n_tasks], **spec)
    return NETWORKS[name](spec)


def batch(n, n_numeric=4, cardinalities=CARDINALITIES):
    codes = [torch.randint(c, (n,)) for c in cardinalities]
    codes = torch.stack(codes, 1) if codes else torch.empty(n, 0, dtype=torch.int64)
    return codes, torch.randn(n, n_numeric)


def parts(output):
    """List all tensors that training may take a gradient of."""
    found = [output.logits, *output.aux_logits, *output.penalties.values()]
    if output.conditional_logits is not None:
        found.append(output.conditional_logits)
    if output.correction is not None and output.correction.imputed is not None:
        found.append(output.correction.imputed)
    return found


@pytest.fixture(params=sorted(NETWORKS))
def name(request):
    return request.param


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 9])
def test_shapes(name, n_tasks, n):
    output = make(name, n_tasks)(*batch(n))
    assert output.logits.shape == (n, n_tasks)
    assert all(aux.shape == (n, n_tasks) for aux in output.aux_logits)
    assert all(penalty.shape == () for penalty in output.penalties.values())


@pytest.mark.parametrize(("n_numeric", "cardinalities"), [(0, [4, 4]), (3, [])])
def test_one_kind_of_columns_is_enough(name, n_numeric, cardinalities):
    network = make(name, n_numeric=n_numeric, cardinalities=cardinalities)
    assert network(*batch(5, n_numeric, cardinalities)).logits.shape == (5, 2)


def test_training_starts_near_the_base_rates(name):
    probabilities = make(name, 3).eval()(*batch(500)).logits.sigmoid()
    assert_allclose(probabilities.mean(0).detach(), RATES, rtol=0.25)


def test_a_row_does_not_depend_on_the_others(name):
    network, (codes, numeric) = make(name).eval(), batch(20)
    whole = network(codes, numeric).logits
    order = torch.randperm(20)
    torch.testing.assert_close(
        network(codes[order], numeric[order]).logits, whole[order]
    )
    torch.testing.assert_close(network(codes[:1], numeric[:1]).logits, whole[:1])


def test_gradients_reach_every_parameter(name):
    network = make(name)
    codes, numeric = batch(200)
    # Gates that start even give their own weights no gradient before experts differ
    # in use; a step later they have one.
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(part.square().sum() for part in parts(network(codes, numeric))).backward()
        optimizer.step()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_a_task_column_is_its_own(name):
    # The gradient of one task's logit leaves the other's output bias alone.
    network = make(name)
    network(*batch(8)).logits[:, 0].sum().backward()
    biases = [
        bias.grad.flatten()
        for bias_name, bias in network.named_parameters()
        if bias_name in ("towers.output.bias", "task_bias")
    ]
    assert len(biases) == 1
    # The mean of several critics falls a little behind their common shift.
    assert biases[0][0] == pytest.approx(8, rel=0.02 if name == "metaheac" else 1e-4)
    assert biases[0][1] == 0


def test_probabilities_reach_both_ends_on_separable_data(name):
    network = make(name).train()
    codes, numeric = batch(400)
    y = (numeric[:, 0] > 0).float().unsqueeze(1).expand(-1, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        logits = network(codes, numeric).logits
        torch.nn.functional.binary_cross_entropy_with_logits(logits, y).backward()
        optimizer.step()
    p = network.eval()(codes, numeric).logits.sigmoid()
    assert p.min() < 0.01
    assert p.max() > 0.99


def test_gates_are_even_at_first_and_see_no_other_row(name):
    network, (codes, numeric) = make(name).eval(), batch(12)
    seen = []
    gates = [m for m in network.modules() if isinstance(m, Gates)]
    for gate in gates:
        weigh = gate.linear.register_forward_hook(
            lambda _, inputs, logits: seen.append(logits.transpose(0, 1).softmax(2))
        )
        network(codes, numeric)
        whole = seen.pop()
        torch.testing.assert_close(whole, torch.full_like(whole, 1 / whole.shape[2]))
        torch.nn.init.normal_(gate.linear.weight)
        network(codes, numeric)
        network(codes[3:4], numeric[3:4])
        alone, whole = seen.pop(), seen.pop()
        torch.testing.assert_close(whole.sum(2), torch.ones(whole.shape[:2]))
        torch.testing.assert_close(alone[0], whole[3])
        weigh.remove()
    if name in ("mmoe", "omoe", "ple", "stem"):
        assert gates


def test_experts_differ_at_first(name):
    # Every map of a stack starts with weights of its own.
    for module in make(name).modules():
        if isinstance(module, StackedLinear) and module.weight.abs().sum() > 0:
            for one, other in itertools.combinations(module.weight, 2):
                assert not torch.allclose(one, other)


def test_networks_share_no_tensors(name):
    networks = [make(name), make(name)]
    one, other = (
        {
            tensor.untyped_storage().data_ptr()
            for tensor in network.state_dict().values()
        }
        for network in networks
    )
    assert not one & other


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_value_and_gradient_stay_finite_at_extreme_logits(name, scale):
    network = make(name, 3)
    for bias_name, bias in network.named_parameters():
        if bias_name in ("towers.output.bias", "task_bias"):
            torch.nn.init.constant_(bias, scale)
    logits = network(*batch(6)).logits
    assert logits.isfinite().all()
    assert (logits.sign() == np.sign(scale)).all()
    logits.sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_unseen_values_are_trained_and_only_in_training(name):
    network, (codes, numeric) = make(name, unseen_rate=0.5), batch(50)
    weight = network.input_layer.embedding.weight
    network(codes.clamp(min=2), numeric).logits.sum().backward()
    unseen = network.input_layer.offsets + 1
    assert (weight.grad[unseen].abs().sum(1) > 0).all()
    network.eval()
    torch.testing.assert_close(
        network(codes, numeric).logits, network(codes, numeric).logits, rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tower_units": (8, 0)}, r"tower_units .* got \(8, 0\)"),
        ({"dropout": 1.0}, "dropout .* got 1.0"),
    ],
)
def test_bad_parameters_are_named(name, params, message):
    spec = NetworkSpec([3], 1, 2, [0.5])
    with pytest.raises(ValueError, match=message):
        NETWORKS[name](spec, **params)


def test_single_task_equals_separate_networks():
    # A gradient step on the sum of both losses moves each task's network as a step on
    # its own loss alone does.
    codes, numeric = batch(64)
    y = torch.randint(2, (64, 2)).float()

    def embeddings_after_a_step(tasks):
        network = make("single_task").eval()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        logits = network(codes, numeric).logits[:, tasks]
        torch.nn.functional.binary_cross_entropy_with_logits(
            logits, y[:, tasks], reduction="sum"
        ).backward()
        optimizer.step()
        return network.input_layer.embedding.weight.detach().numpy()

    both = embeddings_after_a_step([0, 1])
    for task in range(2):
        own = np.s_[:, 6 * task : 6 * (task + 1)]
        assert_allclose(both[own], embeddings_after_a_step([task])[own], rtol=1e-5)
