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

from sk_pwiser.networks import DDPO, Labels
from sk_pwiser.networks._entire_space import dual_propensity_loss

UNITS = {"tower_units": (8, 7)}


@pytest.mark.parametrize("n_tasks", [2, 3])
def test_equals_the_formula_written_out_in_numpy(n_tasks):
    network = make(
        DDPO,
        n_tasks,
        correction_weight=0.7,
        teacher_weight=0.3,
        task_space="conditional",
        **UNITS,
    )
    codes, numeric = batch(40)
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    heads = np.stack([tower(x, p, k) for k in range(n_tasks)], 1)
    chain = np.cumprod(expit(heads), axis=1)
    teachers = np.stack([tower(x, p, k, "teachers") for k in range(n_tasks - 1)], 1)
    # Some of the propensities are clipped.
    smallest = float(np.quantile(chain[:, :-1], 0.3))
    network.smallest_propensities.fill_(smallest)
    output, y = network(codes, numeric), funnel(40, n_tasks)
    assert_allclose(output.conditional_logits.detach(), heads, rtol=1e-4, atol=1e-5)
    o, r, q = y[:, :-1].numpy(), y[:, 1:].numpy(), heads[:, 1:]
    a = o / np.maximum(chain[:, :-1], smallest)
    b = (1 - o) / np.maximum(1 - chain[:, :-1], smallest)
    expected = (a * cross_entropy(q, r)).sum(0) / a.sum(0)
    expected += (b * cross_entropy(q, expit(teachers))).sum(0) / b.sum(0)
    labels = Labels(y, None, row_losses)
    losses = {name: term(labels) for name, term in output.extra_losses.items()}
    found = losses["correction"].detach()
    assert_allclose(found, np.append(0, 0.7 * expected), rtol=1e-4)
    of_teacher = (o * cross_entropy(teachers, r)).sum(0) / o.sum(0)
    found = losses["teacher"].detach()
    assert_allclose(found, np.append(0, 0.3 * of_teacher), rtol=1e-4)


@pytest.mark.parametrize("teacher_is_right", [True, False])
def test_each_half_is_a_consistent_estimate_of_the_mean_loss(teacher_is_right):
    # Over all patterns of clicks, each half is a ratio of expected sums. The half of
    # the rows without a click needs a right teacher.
    rng = np.random.default_rng(0)
    n = 6
    z, labels, p = rng.normal(size=n), rng.integers(0, 2, n), rng.uniform(0.2, 0.8, n)
    teacher = np.where(labels == 1, 1000.0, -1000.0)
    if not teacher_is_right:
        teacher = -teacher
    column = [torch.from_numpy(v).unsqueeze(1) for v in (z, teacher, p, 1 - p)]
    sums = np.zeros((2, 2))
    for pattern in itertools.product([0, 1], repeat=n):
        o = np.array(pattern)
        probability = np.prod(np.where(o == 1, p, 1 - p))
        y = torch.from_numpy(np.stack([o, o * labels], 1).astype(float))
        for half, is_in in enumerate((o, 1 - o)):
            # A weight of 0 leaves the rows of the other half out.
            labelled = Labels(y, torch.from_numpy(is_in.astype(float)), row_losses)
            args = column[0], column[1], (column[2], column[3])
            loss = dual_propensity_loss(labelled, *args)[1].item()
            total = (is_in / (1 - p if half else p)).sum()
            sums[half] += probability * np.array([loss * total, total])
    known, guessed = sums[:, 0] / sums[:, 1]
    right, wrong = (cross_entropy(z, y).mean() for y in (labels, 1 - labels))
    assert known == pytest.approx(right, rel=1e-12)
    assert guessed == pytest.approx(right if teacher_is_right else wrong, rel=1e-12)


def test_the_losses_train_what_they_should():
    network, y = make(DDPO, 3, **UNITS), funnel(200, 3)
    labels = Labels(y, None, row_losses)

    def parts(name):
        found = dependencies(
            network, *batch(200), lambda o: o.extra_losses[name](labels)[None]
        )
        names = [{".".join(n.split(".")[:2]) for n in masks} for masks in found]
        return [{n for n in each if "input" not in n} for each in names]

    # The correction trains no teacher and, through the propensity, no earlier head.
    assert parts("correction") == [set(), {"towers.1"}, {"towers.2"}]
    assert parts("teacher") == [set(), {"teachers.0"}, {"teachers.1"}]


def test_gradient_of_the_head_is_the_difference_to_label_or_teacher():
    z = torch.randn(20, 1, dtype=torch.float64, requires_grad=True)
    teacher, y = torch.randn(20, 1, dtype=torch.float64), funnel(20, 2).double()
    p = 0.1 + 0.8 * torch.rand(20, 1, dtype=torch.float64)
    labels = Labels(y, None, row_losses)
    dual_propensity_loss(labels, z, teacher, (p, 1 - p)).sum().backward()
    o, r = y[:, :1], y[:, 1:]
    q, guess = z.detach().sigmoid(), teacher.sigmoid()
    a, b = o / p, (1 - o) / (1 - p)
    expected = a * (q - r) / a.sum() + b * (q - guess) / b.sum()
    torch.testing.assert_close(z.grad, expected)
