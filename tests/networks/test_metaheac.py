import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from rewrites import affine, batch, dense_input, make, mixed, mlp, softmax, weights_of
from scipy.special import expit, log_expit, logsumexp

from sk_pwiser.networks import MetaHeac
from sk_pwiser.networks._experts import mixture_logits

UNITS = {"expert_units": (8, 7), "tower_units": (6,)}


def critic(u, p, index):
    hidden = mlp(u, p, "critics", index)
    return affine(hidden, p, "output.linear", index)[:, 0]


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
@pytest.mark.parametrize(("n_experts", "n_critics"), [(3, 2), (1, 4), (2, 1)])
def test_equals_the_formula_written_out_in_numpy(n_tasks, n_experts, n_critics):
    network = make(MetaHeac, n_tasks, n_experts=n_experts, n_critics=n_critics, **UNITS)
    codes, numeric = batch()
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    experts = [mlp(x, p, "experts", j) for j in range(n_experts)]
    expected = np.empty((len(codes), n_tasks))
    for k in range(n_tasks):
        u = mixed(x, p, "gates", k, experts)
        judged = [critic(u, p, m) + p["task_bias"][k] for m in range(n_critics)]
        weights = softmax(affine(x, p, f"critic_gates.{k}"))
        expected[:, k] = (weights * expit(np.stack(judged, 1))).sum(axis=1)
    probabilities = network(codes, numeric).logits.sigmoid().detach()
    assert_allclose(probabilities, expected, rtol=1e-4)


def test_one_expert_and_one_critic_are_a_plain_perceptron():
    network = make(MetaHeac, n_experts=1, n_critics=1, **UNITS)
    codes, numeric = batch()
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    logit = critic(mlp(x, p, "experts", 0), p, 0)
    expected = logit[:, np.newaxis] + p["task_bias"]
    logits = network(codes, numeric).logits.detach()
    assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@given(
    n_critics=st.integers(1, 6),
    scale=st.sampled_from([0.1, 3, 30, 500]),
    seed=st.integers(0, 10**6),
)
def test_mixture_equals_the_log_odds_of_the_mean_probability(n_critics, scale, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=scale, size=(7, 2, n_critics))
    weights = softmax(rng.normal(scale=3, size=logits.shape), axis=2)
    ones, zeros = (
        logsumexp(log_expit(sign * logits), b=weights, axis=2) for sign in (1, -1)
    )
    tensors = torch.from_numpy(logits), torch.from_numpy(np.log(weights))
    found = mixture_logits(*tensors).numpy()
    assert_allclose(found, ones - zeros, rtol=1e-9, atol=1e-9)
    # Also the probabilities, within the range of float64.
    assert_allclose(expit(found), (weights * expit(logits)).sum(axis=2), rtol=1e-9)
    single = mixture_logits(*(tensor.float() for tensor in tensors))
    assert_allclose(single, ones - zeros, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_critics", [1, 5])
@pytest.mark.parametrize("z", [-1000.0, -7.0, 0.0, 7.0, 1000.0])
def test_equal_critics_give_their_logit_for_any_number(n_critics, z):
    # The weights sum to 1: dividing by the number of critics would be wrong.
    logits = torch.full((4, 2, n_critics), z, requires_grad=True)
    log_weights = torch.randn(4, 2, n_critics).log_softmax(2)
    found = mixture_logits(logits, log_weights)
    torch.testing.assert_close(found, torch.full((4, 2), z))
    found.sum().backward()
    # The spacing of float32 numbers near -1000 is 6e-5.
    assert_allclose(logits.grad.sum(2), 1, rtol=1e-4)


def test_tasks_share_critics_but_not_gates():
    network = make(MetaHeac, 3, **UNITS)
    network(*batch(50)).logits[:, 1].sum().backward()
    for gates in (network.gates, network.critic_gates):
        is_trained = [bool(gate.weight.grad.any()) for gate in gates]
        assert is_trained == [False, True, False]
    for shared in (network.critics, network.experts):
        assert shared.layers[0].weight.grad.flatten(1).any(dim=1).all()
