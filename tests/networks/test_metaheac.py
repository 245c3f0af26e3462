"""MetaHeac, written out in numpy, and its mixture of probabilities."""

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
    make,
    mixed,
    mlp,
    softmax,
    weights_of,
)
from scipy.special import expit, log_expit, logit, logsumexp

from sk_pwiser.networks import MetaHeac
from sk_pwiser.networks._metaheac import mixture_logits

UNITS = {"expert_units": (8, 7), "tower_units": (6,)}


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
@pytest.mark.parametrize("values", [[3, 2], [1, 4], [2, 1], [1, 1]])
def test_equals_the_formula_written_out_in_numpy(values, n_tasks):
    params = dict(zip(["n_experts", "n_critics"], values, strict=True))
    network, inputs = make(MetaHeac, n_tasks, **params, **UNITS), batch()
    expected = metaheac(weights_of(network), inputs, n_tasks, **params)
    found = network(*inputs).logits.detach()
    assert_allclose(found, np.stack(expected, 1), rtol=1e-4, atol=1e-5)


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
