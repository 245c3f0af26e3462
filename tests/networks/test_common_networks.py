"""Properties of all networks of the registry."""

import itertools
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import row_losses
from torch.nn.functional import binary_cross_entropy_with_logits

from sk_pwiser._utils._random import Generators, active
from sk_pwiser.networks import NETWORKS, Labels, NetworkSpec
from sk_pwiser.networks._layers import Gates, StackedLinear, TaskTowers

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
    y = torch.ones_like(output.logits)
    extra = [
        term(Labels(y, None, row_losses)) if callable(term) else term
        for term in output.extra_losses.values()
    ]
    return [output.logits, *output.aux_logits, *extra]


@pytest.fixture(params=sorted(NETWORKS))
def name(request):
    return request.param


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 9])
def test_shapes(name, n_tasks, n):
    output = make(name, n_tasks)(*batch(n))
    assert output.logits.shape == (n, n_tasks)
    assert all(aux.shape == (n, n_tasks) for aux in output.aux_logits)
    for term in parts(output)[1 + len(output.aux_logits) :]:
        assert term.shape in [(), (n_tasks,)]


@pytest.mark.parametrize(("n_numeric", "cardinalities"), [(0, [4, 4]), (3, [])])
def test_tables_with_one_kind_of_columns(name, n_numeric, cardinalities):
    network = make(name, n_numeric=n_numeric, cardinalities=cardinalities)
    assert network(*batch(5, n_numeric, cardinalities)).logits.shape == (5, 2)


def test_training_starts_near_the_base_rates(name):
    probabilities = make(name, 3).eval()(*batch(500)).logits.sigmoid()
    assert_allclose(probabilities.mean(0).detach(), RATES, rtol=0.25)


def test_gradients_reach_every_parameter(name):
    network = make(name)
    codes, numeric = batch(200)
    # In some networks the gradient of uniform gates is 0 in the first step only.
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(part.square().mean() for part in parts(network(codes, numeric))).backward()
        optimizer.step()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, parameter_name


def output_biases(network):
    return [
        bias
        for bias_name, bias in network.named_parameters()
        if re.fullmatch(r"towers\.\d\.output\.linear\.bias|task_bias\.\d", bias_name)
    ]


def test_the_logit_of_a_task_has_an_output_bias_of_its_own(name):
    network = make(name)
    network(*batch(8)).logits[:, 0].sum().backward()
    own, other = (bias.grad.item() for bias in output_biases(network))
    # The log-odds of a mean of probabilities are not linear in a shift of its parts.
    assert own == pytest.approx(8, rel=0.02 if name == "metaheac" else 1e-4)
    assert other == 0


@pytest.mark.slow
def test_probabilities_reach_both_ends_on_separable_data(name):
    network = make(name).train()
    codes, numeric = batch(400)
    y = (numeric[:, 0] > 0).float().unsqueeze(1).expand(-1, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        logits = network(codes, numeric).logits
        binary_cross_entropy_with_logits(logits, y).backward()
        optimizer.step()
    p = network.eval()(codes, numeric).logits.sigmoid()
    assert p.min() < 0.01
    assert p.max() > 0.99


def networks_with(kind):
    """Return the names of the networks that have layers of a kind."""
    return [
        name
        for name in NETWORKS
        if any(isinstance(module, kind) for module in make(name).modules())
    ]


def test_the_networks_with_experts_are_found():
    assert {"mmoe", "omoe", "ple", "stem"} <= {*networks_with(Gates)}
    assert {"mmoe", "omoe", "ple", "stem"} <= {*networks_with(StackedLinear)}


@pytest.mark.parametrize("name", networks_with(Gates))
def test_gates_start_uniform(name):
    for gates in make(name).modules():
        if isinstance(gates, Gates):
            weights = gates(torch.randn(5, gates[0].in_features))
            uniform = torch.full_like(weights, 1 / weights.shape[2])
            torch.testing.assert_close(weights, uniform)


@pytest.mark.parametrize("name", networks_with(StackedLinear))
def test_experts_differ_from_the_start(name):
    layers = [m for m in make(name).modules() if isinstance(m, StackedLinear)]
    experts = [weight for layer in layers for weight in layer.weight]
    pairs = [
        (one, other)
        for one, other in itertools.combinations(experts, 2)
        if one.shape == other.shape
    ]
    assert pairs
    assert not any(torch.allclose(one, other) for one, other in pairs)


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_value_and_gradient_stay_finite_at_extreme_logits(name, scale):
    network = make(name, 3)
    for bias in output_biases(network):
        torch.nn.init.constant_(bias, scale)
    logits = network(*batch(6)).logits
    assert logits.isfinite().all()
    assert (logits.sign() == np.sign(scale)).all()
    logits.sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_category_dropout_trains_the_code_of_unseen_values(name):
    network, (codes, numeric) = make(name, category_dropout=0.5), batch(50)
    network(codes.clamp(min=2), numeric).logits.sum().backward()
    unseen = network.input_layer.offsets + 1
    for embedding in network.input_layer.embeddings:
        assert (embedding.weight.grad[unseen].abs().sum(1) > 0).all()
    network.eval()
    torch.testing.assert_close(
        network(codes, numeric).logits, network(codes, numeric).logits, rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        *(
            (name, *case)
            for name in NETWORKS
            for case in (
                ({"tower_units": (8, 0)}, r"tower_units\[1\] must be .* got 0"),
                ({"dropout": 1.0}, "dropout .* got 1.0"),
            )
        ),
        *(
            (name, {parameter: 0}, f"{parameter} must be an integer >= 1; got 0")
            for name, *parameters in (
                ("fdn", "n_pairs"),
                ("metaheac", "n_experts", "n_critics"),
                ("mmoe", "n_experts"),
                ("ple", "n_experts", "n_shared_experts", "n_levels"),
                ("stem", "n_experts", "n_shared_experts"),
            )
            for parameter in parameters
        ),
        *(
            (name, case, message)
            for name in ("escm2", "dcmt", "ddpo")
            for case, message in (
                ({"min_propensity": 0}, "min_propensity must be .* <= 1; got 0"),
                ({"min_propensity": 1.5}, "min_propensity must be .* <= 1; got 1.5"),
                ({"correction_weight": -1}, "correction_weight must be .* got -1"),
            )
        ),
        ("aitm", {"tower_units": ()}, "tower_units must hold at least one width"),
        ("ctcl", {"consistency": "xtsc"}, "consistency must be one of .* got 'xtsc'"),
        ("ctcl", {"consistency_weight": -1}, "consistency_weight must be .* got -1"),
        ("ctcl", {"transfer_units": (0,)}, r"transfer_units\[0\] must be .* got 0"),
        ("dcmt", {"counterfactual_label": "r"}, "counterfactual_label must .* got 'r'"),
        ("dcmt", {"prior_weight": -1}, "prior_weight must be .* >= 0; got -1"),
        ("ddpo", {"teacher_weight": -1}, "teacher_weight must be .* >= 0; got -1"),
        ("escm2", {"variant": "ips"}, r"variant must be one of \['ipw', 'dr'\]; got"),
        ("fdn", {"orthogonality": "rows"}, "orthogonality must be .* got 'rows'"),
        ("fdn", {"aux_weight": -1}, "aux_weight must be finite and >= 0; got -1"),
        ("fdn", {"orthogonality_weight": -1}, "orthogonality_weight .* got -1"),
    ],
)
def test_bad_parameters_are_named(name, params, message):
    spec = NetworkSpec([3], 1, 2, [0.5, 0.1])
    with pytest.raises(ValueError, match=message):
        NETWORKS[name](spec, **params)


def test_random_numbers_of_training_come_from_the_active_generators(name):
    torch.manual_seed(0)
    spec = NetworkSpec(CARDINALITIES, 4, 6, RATES, category_dropout=0.2)
    network, inputs = NETWORKS[name](spec, dropout=0.3).train(), batch(40)
    state = torch.get_rng_state()

    def logits(seed):
        with active(Generators(seed)):
            return network(*inputs).logits

    torch.testing.assert_close(logits(0), logits(0), rtol=0, atol=0)
    assert not torch.allclose(logits(0), logits(1))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task_space"),
    [("stem", "conditional"), ("ple", "entire"), ("escm2", "entire")],
)
def test_compiles_to_one_graph(name, task_space):
    network = make(name, task_space=task_space, category_dropout=0.1).eval()
    inputs = batch(20)
    torch.compiler.reset()  # the number of compilations of one function is limited
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    found, expected = compiled(*inputs), network(*inputs)
    torch.testing.assert_close(parts(found), parts(expected))
    assert (found.conditional_logits is None) == (task_space == "entire")
    network.train()
    compiled(*inputs).logits.sum().backward()


@pytest.mark.parametrize("units", [(), (5,), (5, 3)])
@pytest.mark.parametrize("shape", [(7, 4), (3, 7, 4)])
def test_towers_that_are_computed_together(units, shape):
    towers = TaskTowers(4, units, torch.tensor([-1.0, -2.0, -3.0]))
    inputs = torch.randn(shape, requires_grad=True)
    wanted = [inputs, *towers.parameters()]
    factors = torch.randn(7, 3)
    results = [towers(inputs), towers._jointly(inputs)]
    torch.testing.assert_close(*results)
    slopes = [torch.autograd.grad((factors * x).sum(), wanted) for x in results]
    torch.testing.assert_close(*slopes)
    # Each task has the gradients of its own tower alone.
    own = torch.autograd.grad(towers._jointly(inputs)[:, 1].sum(), wanted[1:])
    size = len(own) // 3
    assert not any(bool(g.any()) for g in (*own[:size], *own[2 * size :]))
