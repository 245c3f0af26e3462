import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import (
    batch,
    cross_entropy,
    dense_input,
    dependencies,
    funnel,
    make,
    row_losses,
    tower,
    weights_of,
)
from scipy.special import expit

from sk_pwiser.networks import DCMT, Labels
from sk_pwiser.networks._entire_space import counterfactual_loss, prior_loss

UNITS = {"tower_units": (8, 7)}


@pytest.mark.parametrize("label", ["mirrored", "observed"])
@pytest.mark.parametrize("n_tasks", [2, 3])
def test_equals_the_formula_written_out_in_numpy(label, n_tasks):
    network = make(
        DCMT,
        n_tasks,
        counterfactual_label=label,
        correction_weight=0.7,
        prior_weight=0.3,
        task_space="conditional",
        **UNITS,
    )
    codes, numeric = batch(40)
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    heads = np.stack([tower(x, p, k) for k in range(n_tasks)], 1)
    chain = np.cumprod(expit(heads), axis=1)
    twins = np.stack([tower(x, p, k, "twins") for k in range(n_tasks - 1)], 1)
    # Some of the propensities are clipped.
    smallest = float(np.quantile(chain[:, :-1], 0.3))
    network.smallest_propensities.fill_(smallest)
    output, y = network(codes, numeric), funnel(40, n_tasks)
    assert_allclose(output.conditional_logits.detach(), heads, rtol=1e-4, atol=1e-5)
    o, r, q = y[:, :-1].numpy(), y[:, 1:].numpy(), heads[:, 1:]
    a = o / np.maximum(chain[:, :-1], smallest)
    b = (1 - o) / np.maximum(1 - chain[:, :-1], smallest)
    other = 1 - r if label == "mirrored" else r
    expected = (a * cross_entropy(q, r)).sum(0) / a.sum(0)
    expected += (b * cross_entropy(twins, other)).sum(0) / b.sum(0)
    labels = Labels(y, None, row_losses)
    losses = {name: term(labels) for name, term in output.extra_losses.items()}
    found = losses["correction"].detach()
    assert_allclose(found, np.append(0, 0.7 * expected), rtol=1e-4)
    gap = np.abs(1 - expit(q) - expit(twins)).mean(0)
    assert_allclose(losses["prior"].detach(), np.append(0, 0.3 * gap), rtol=1e-4)


def test_the_average_by_propensities_is_consistent():
    # Over all patterns of clicks, the ratio of the expected sums is the mean loss.
    rng = np.random.default_rng(0)
    n = 6
    z, labels = rng.normal(size=n), rng.integers(0, 2, n)
    p = rng.uniform(0.2, 0.8, n)
    numerator = denominator = 0.0
    for pattern in itertools.product([0, 1], repeat=n):
        o = np.array(pattern)
        if not o.any():
            continue
        y = torch.from_numpy(np.stack([o, o * labels], 1).astype(float))
        column = [torch.from_numpy(v).unsqueeze(1) for v in (z, p, 1 - p)]
        # A twin that is certain of its label has no loss.
        loss = counterfactual_loss(
            Labels(y, None, row_losses),
            column[0],
            torch.full((n, 1), 1000.0, dtype=torch.float64),
            (column[1], column[2]),
        )
        probability = np.prod(np.where(o == 1, p, 1 - p))
        numerator += probability * loss[1].item() * (o / p).sum()
        denominator += probability * (o / p).sum()
    truth = cross_entropy(z, labels).mean()
    assert numerator / denominator == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("label", ["mirrored", "observed"])
def test_a_twin_alone_learns_a_constant_that_the_prior_carries_over(label):
    heads = torch.zeros(50, 1, requires_grad=True)
    twins = torch.zeros(50, 1, requires_grad=True)
    labels = Labels(torch.zeros(50, 2), None, row_losses)
    half = torch.full((50, 1), 0.5)
    counterfactual_loss(
        labels, heads, twins, (half, half), label == "mirrored"
    ).sum().backward()
    # No row has a click: heads learn nothing, and all twins move in one direction.
    assert heads.grad.eq(0).all()
    assert (twins.grad < 0).all() == (label == "mirrored")
    assert twins.grad.unique().numel() == 1
    twins = torch.full((50, 1), 3.0 if label == "mirrored" else -3.0)
    prior_loss(labels, heads, twins).sum().backward()
    assert (heads.grad > 0).all() == (label == "mirrored")


def test_prior_is_zero_where_probabilities_add_up_to_one():
    heads = torch.tensor([[-30.0], [0.3], [30.0]])
    labels = Labels(funnel(3, 2), None, row_losses)
    assert prior_loss(labels, heads, -heads).tolist() == [0.0, 0.0]
    assert prior_loss(labels, heads, -heads + 1)[1] > 0


def test_twins_and_heads_start_in_balance():
    network = DCMT(make(DCMT, 3).spec).eval()
    heads = network(*batch(300)).extra_losses["prior"].keywords
    sums = heads["heads"].sigmoid() + heads["twins"].sigmoid()
    assert_allclose(sums.mean(0).detach(), 1, atol=0.05)


def test_the_correction_of_a_task_trains_its_head_and_its_twin():
    network, y = make(DCMT, 3, **UNITS), funnel(200, 3)
    y[:50] = 0
    labels = Labels(y, None, row_losses)
    found = dependencies(
        network, *batch(200), lambda o: o.extra_losses["correction"](labels)[None]
    )
    parts = [{".".join(n.split(".")[:2]) for n in masks} for masks in found]
    parts = [{p for p in names if "input" not in p} for names in parts]
    assert parts == [set(), {"towers.1", "twins.0"}, {"towers.2", "twins.1"}]
