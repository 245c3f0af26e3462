"""Networks with experts, written out in numpy; the parts of FDN and MetaHeac."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from rewrites import (
    affine,
    batch,
    dense_input,
    dependencies,
    elu,
    make,
    mixed,
    mlp,
    softmax,
    tower,
    weights_of,
)
from scipy.special import expit, log_expit, logit, logsumexp

from sk_pwiser.networks import FDN, PLE, STEM, MetaHeac, MMoE, OMoE
from sk_pwiser.networks._experts import PENALTIES, mixture_logits

UNITS = {"expert_units": (8, 7), "tower_units": (6,)}


def owners(n_tasks, n_experts, n_shared_experts):
    """Return the task that each expert belongs to; n_tasks for shared ones."""
    own = [k for k in range(n_tasks) for _ in range(n_experts)]
    return own + [n_tasks] * n_shared_experts


def mmoe(p, inputs, n_tasks, n_experts):
    x = dense_input(p, *inputs)
    experts = [mlp(x, p, "experts", j) for j in range(n_experts)]
    # OMoE has one gate for all tasks.
    gates = [k if f"gates.{k}.weight" in p else 0 for k in range(n_tasks)]
    return [tower(mixed(x, p, "gates", g, experts), p, k) for k, g in enumerate(gates)]


def ple(p, inputs, n_tasks, n_levels, **counts):
    streams = [dense_input(p, *inputs)] * (n_tasks + 1)
    for level in range(n_levels):
        name, of = f"levels.{level}", owners(n_tasks, **counts)
        experts = [
            mlp(streams[own], p, f"{name}.experts", j) for j, own in enumerate(of)
        ]
        new = []
        for k in range(n_tasks):
            seen = [experts[j] for j, own in enumerate(of) if own in (k, n_tasks)]
            new.append(mixed(streams[k], p, f"{name}.task_gates", k, seen))
        # No layer reads a shared stream of the last level.
        if level < n_levels - 1:
            new.append(mixed(streams[-1], p, f"{name}.shared_gate", 0, experts))
        else:
            assert not any(f"{name}.shared_gate" in key for key in p)
        streams = new
    return [tower(streams[k], p, k) for k in range(n_tasks)]


def stem(p, inputs, n_tasks, **counts):
    x = [dense_input(p, *inputs, table) for table in range(n_tasks + 1)]
    of = owners(n_tasks, **counts)
    experts = [mlp(x[own], p, "experts", j) for j, own in enumerate(of)]
    read = [(x[k] + x[-1]) / 2 for k in range(n_tasks)]
    return [tower(mixed(r, p, "gates", k, experts), p, k) for k, r in enumerate(read)]


def metaheac(p, inputs, n_tasks, n_experts, n_critics):
    x = dense_input(p, *inputs)
    experts = [mlp(x, p, "experts", j) for j in range(n_experts)]
    logits = []
    for k in range(n_tasks):
        u = mixed(x, p, "gates", k, experts)
        judged = [
            affine(mlp(u, p, "critics", m), p, "output.linear", m) + p["task_bias"][k]
            for m in range(n_critics)
        ]
        weights = softmax(affine(x, p, f"critic_gates.{k}"))
        logits.append(logit((weights * expit(np.hstack(judged))).sum(axis=1)))
    return logits


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "written_out", "names", "values"),
    [
        *((kind, mmoe, ["n_experts"], [3]) for kind in (MMoE, OMoE)),
        *(
            (PLE, ple, ["n_experts", "n_shared_experts", "n_levels"], values)
            for values in ([1, 1, 1], [3, 1, 3], [1, 4, 1], [2, 3, 3])
        ),
        *(
            (STEM, stem, ["n_experts", "n_shared_experts"], values)
            for values in ([1, 1], [3, 1], [1, 2])
        ),
        *(
            (MetaHeac, metaheac, ["n_experts", "n_critics"], values)
            for values in ([3, 2], [1, 4], [2, 1], [1, 1])
        ),
    ],
)
def test_equals_the_formula_written_out_in_numpy(
    kind, written_out, names, values, n_tasks
):
    params = dict(zip(names, values, strict=True))
    network, inputs = make(kind, n_tasks, **params, **UNITS), batch()
    expected = written_out(weights_of(network), inputs, n_tasks, **params)
    found = network(*inputs).logits.detach()
    assert_allclose(found, np.stack(expected, 1), rtol=1e-4, atol=1e-5)


# FDN.


def cosine(s, h):
    lengths = np.linalg.norm(s, axis=1) * np.linalg.norm(h, axis=1)
    return (s * h).sum(axis=1) / lengths


def squared_correlation(s, h):
    s, h = s - s.mean(axis=0), h - h.mean(axis=0)
    s, h = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (s, h))
    return np.linalg.norm(s.T @ h) ** 2 / len(s) ** 2


def mean_length_of_outer_products(s, h):
    return np.mean([np.linalg.norm(np.outer(a, b)) for a, b in zip(s, h, strict=True)])


WRITTEN_OUT = {
    "row": lambda s, h: np.mean(cosine(s, h) ** 2),
    "batch": squared_correlation,
    "norm_product": mean_length_of_outer_products,
}


@pytest.mark.parametrize("orthogonality", sorted(PENALTIES))
@pytest.mark.parametrize(
    ("n_tasks", "n_pairs", "tower_units"), [(1, 2, ()), (2, 1, (6,)), (3, 2, ())]
)
def test_fdn_equals_the_formula(n_tasks, n_pairs, tower_units, orthogonality):
    network = make(
        FDN,
        n_tasks,
        n_pairs=n_pairs,
        expert_units=(8, 7),
        tower_units=tower_units,
        aux_weight=0.7,
        orthogonality=orthogonality,
        orthogonality_weight=0.4,
    )
    inputs, p = batch(), weights_of(network)
    x, n_each = dense_input(p, *inputs), n_tasks * n_pairs
    experts = [mlp(x, p, "experts", j, elu) for j in range(2 * n_each)]
    specific, shared = experts[:n_each], experts[n_each:]
    output = network(*inputs)
    logits, aux = output.logits, output.aux_logits
    for k in range(n_tasks):
        own = specific[k * n_pairs : (k + 1) * n_pairs]
        expected = tower(np.hstack([*own, *shared]), p, k)
        assert_allclose(logits[:, k].detach(), expected, rtol=1e-4, atol=1e-5)
        for j, s in enumerate(own):
            expected = tower(s, p, k * n_pairs + j, "aux_heads")
            assert_allclose(aux[j][:, k].detach(), expected, rtol=1e-4, atol=1e-5)
    assert len(aux) == n_pairs
    assert output.aux_weight == 0.7
    of_pair = WRITTEN_OUT[orthogonality]
    total = sum(of_pair(s, h) for s, h in zip(specific, shared, strict=True))
    assert_allclose(output.extra_losses["orthogonality"].item(), 0.4 * total, rtol=1e-4)
    # Workers may add up means of rows, but not the penalty of a whole batch.
    assert network.extra_losses_are_means == (orthogonality == "row")


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("shape", [(2, 1, 4), (2, 5, 4)])
def test_penalties_have_gradients_at_zero_and_for_one_row(penalty, shape):
    for start in (torch.zeros(shape), torch.ones(shape), torch.randn(shape)):
        s, h = start.clone().requires_grad_(), start.clone().requires_grad_()
        penalty(s, h).sum().backward()
        assert s.grad.isfinite().all()
        assert h.grad.isfinite().all()


def test_an_auxiliary_loss_trains_only_its_expert_and_head():
    network = make(FDN, n_pairs=2, expert_units=(8,))
    for pair in range(2):
        found = dependencies(network, *batch(50), lambda o, j=pair: o.aux_logits[j])
        for task, masks in enumerate(found):
            assert masks.keys() == {
                "input_layer.embeddings.0.weight",
                f"experts.{task}.layers.0.weight",
                f"experts.{task}.layers.0.bias",
                f"aux_heads.{2 * task + pair}.output.linear.weight",
                f"aux_heads.{2 * task + pair}.output.linear.bias",
            }
            # Of the two experts of the task, the one of the pair.
            experts = masks[f"experts.{task}.layers.0.bias"].flatten(1).any(dim=1)
            assert experts.tolist() == [pair == 0, pair == 1]


def test_auxiliary_heads_start_at_the_rates_of_their_tasks():
    network = FDN(make(FDN, 3).spec, n_pairs=2)
    biases = torch.cat([head.output.linear.bias for head in network.aux_heads])
    torch.testing.assert_close(biases, network.base_logits.repeat_interleave(2))


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
    # Also the probabilities, within the range of normal float64.
    means = (weights * expit(logits)).sum(axis=2)
    assert_allclose(expit(found), means, rtol=1e-9, atol=1e-300)
    single = mixture_logits(*(tensor.float() for tensor in tensors))
    assert_allclose(single, ones - zeros, rtol=1e-4, atol=1e-5)
