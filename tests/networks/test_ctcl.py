"""CTCL, written out in numpy, and the losses of its transfer nets."""

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
    mlp,
    row_losses,
    tower,
    weights_of,
)
from scipy.special import expit

from sk_pwiser.networks import CTCL, Labels
from sk_pwiser.networks._ctcl import consistency_loss

UNITS = {"bottom_units": (9,), "tower_units": (8, 7)}


@pytest.fixture(params=["prediction", "label"])
def consistency(request):
    return request.param


def extra_loss(output, y, sample_weight=None):
    return output.extra_losses["consistency"](Labels(y, sample_weight, row_losses))


def entropy(p):
    return -(p * np.log(p) + (1 - p) * np.log1p(-p))


def conditional_to_entire(heads, parents):
    probabilities = heads.copy()
    for k, parent in enumerate(parents):
        if parent >= 0:
            probabilities[:, k] *= probabilities[:, parent]
    return probabilities


@pytest.mark.parametrize(
    "parents", [(-1, 0), (-1, 0, 1), (-1, 0, 0), (-1, 0, 0, 1), (-1, -1, 1, -1)]
)
@pytest.mark.parametrize("task_space", ["entire", "conditional"])
def test_ctcl_equals_the_formula(consistency, parents, task_space):
    n_tasks = len(parents)
    params = {"consistency": consistency, "consistency_weight": 0.7, **UNITS}
    space = {"task_space": task_space, "task_parents": parents}
    network = make(CTCL, n_tasks, **space, **params)
    codes, numeric = batch(40)
    p = weights_of(network)
    bottom = mlp(dense_input(p, codes, numeric), p, "bottom")
    hidden = [mlp(bottom, p, f"towers.{k}.hidden") for k in range(n_tasks)]
    probabilities = expit(np.stack([tower(bottom, p, k) for k in range(n_tasks)], 1))
    if task_space == "conditional":
        probabilities = conditional_to_entire(probabilities, parents)
    output, y = network(codes, numeric), funnel(40, n_tasks)
    assert_allclose(output.logits.sigmoid().detach(), probabilities, rtol=1e-4)
    targets = probabilities if consistency == "prediction" else y.double().numpy()
    floor = entropy(probabilities).mean(axis=0) if consistency == "prediction" else 0
    floor = np.broadcast_to(floor, n_tasks)
    losses = [[] for _ in parents]
    children = [k for k in range(n_tasks) if parents[k] >= 0]
    for i, child in enumerate(children):
        parent = parents[child]
        ways = [(parent, child, i), (child, parent, len(children) + i)]
        for source, target, place in ways:
            z = tower(hidden[source], p, place, "transfer_nets")
            loss = cross_entropy(z, targets[:, target]).mean() - floor[target]
            losses[source].append(loss)
    expected = [0.7 * np.mean(own) if own else 0 for own in losses]
    assert_allclose(extra_loss(output, y).detach(), expected, rtol=1e-4)


def test_tasks_without_parents_have_no_neighbours(consistency):
    params = {"consistency": consistency, "task_parents": (-1, -1, -1), **UNITS}
    network = make(CTCL, 3, **params)
    output = network(*batch())
    assert output.extra_losses == {}
    assert not any(name.startswith("transfer_nets") for name in network.state_dict())


def test_the_transfer_from_a_task_trains_nothing_of_the_other_task(consistency):
    network = make(CTCL, 3, consistency=consistency, **UNITS)
    y = funnel(200, 3)
    found = dependencies(network, *batch(200), lambda o: extra_loss(o, y)[None])
    shared = {"input_layer", "bottom"}
    owners = [
        {"transfer_nets.0"},
        {"transfer_nets.1", "transfer_nets.2"},
        {"transfer_nets.3"},
    ]
    for task, masks in enumerate(found):
        parts = {".".join(n.split(".")[:2]) for n in masks}
        own = {f"towers.{task}"} | owners[task]
        assert {p for p in parts if p.split(".")[0] not in shared} == own
        # The last layer of a tower is behind the hidden vector that is read.
        assert not any("towers" in n and "output" in n for n in masks)


def draw_transfers(n, n_tasks):
    """Draw logits of a chain, by pair of neighbours."""
    up = {(j, j + 1): torch.randn(n) for j in range(n_tasks - 1)}
    return up | {(j + 1, j): torch.randn(n) for j in range(n_tasks - 1)}


@pytest.mark.parametrize("given", [True, False])
def test_weights_count_as_repetitions_of_rows(given):
    transfers, y = draw_transfers(12, 3), funnel(12, 3)
    known = torch.randn(12, 3) if given else None
    counts = torch.randint(0, 4, (12,))
    weights = counts / counts.float().mean()
    weighted = consistency_loss(Labels(y, weights, row_losses), transfers, known)
    transfers = {k: t.repeat_interleave(counts, 0) for k, t in transfers.items()}
    y, known = (t if t is None else t.repeat_interleave(counts, 0) for t in (y, known))
    repeated = consistency_loss(Labels(y, None, row_losses), transfers, known)
    torch.testing.assert_close(weighted, repeated)


def test_weights_per_task_are_those_of_the_predicted_task():
    transfers, y = draw_transfers(12, 2), funnel(12, 2)
    weights = torch.rand(12, 2)
    losses = consistency_loss(Labels(y, weights, row_losses), transfers)
    for task, other in [(0, 1), (1, 0)]:
        per_row = Labels(y, weights[:, other], row_losses)
        torch.testing.assert_close(
            losses[task], consistency_loss(per_row, transfers)[task]
        )


def test_predictions_as_targets_need_no_label():
    transfers, y = draw_transfers(12, 3), funnel(12, 3)
    known, weights = torch.randn(12, 3), torch.rand(12, 3)
    weights[y[:, 0] == 0, 1:] = 0  # as where labels after the first task are missing
    found = consistency_loss(Labels(y, weights, row_losses), transfers, known)
    per_row = Labels(y, weights[:, 0], row_losses)
    torch.testing.assert_close(found, consistency_loss(per_row, transfers, known))


@pytest.mark.parametrize("z", [-1000.0, 1000.0])
@pytest.mark.parametrize("sign", [None, -1, 1])
def test_finite_at_extreme_logits(z, sign):
    logits = torch.full((4,), z, requires_grad=True)
    known = None if sign is None else torch.full((4, 2), sign * z)
    labels = Labels(funnel(4, 2), None, row_losses)
    loss = consistency_loss(labels, {(0, 1): logits, (1, 0): logits}, known)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
