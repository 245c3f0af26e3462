"""The networks that correct ESMM, and their losses over all rows."""

import weakref
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import (
    RATES,
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

from sk_pwiser.networks import (
    DCMT,
    DDPO,
    ESCM2,
    ESMM,
    Labels,
)
from sk_pwiser.networks._corrected_esmm import LaterHeads

UNITS = {"tower_units": (8, 7)}


CORRECTED = {
    "ipw": (ESCM2, {}),
    "dr": (ESCM2, {"variant": "dr"}),
    "mirrored": (DCMT, {"prior_weight": 0.3}),
    "observed": (DCMT, {"prior_weight": 0.3, "counterfactual_label": "observed"}),
    "dual": (DDPO, {"teacher_weight": 0.3}),
}


# The towers beside those of the heads.
SECOND = {"dr": "imputation", "mirrored": "twins", "observed": "twins"}


SECOND["dual"] = "teachers"


every_network = pytest.mark.parametrize("name", CORRECTED)


def corrected(name, n_tasks=3, **params):
    kind, given = CORRECTED[name]
    return make(kind, n_tasks, **given, **params, **UNITS)


def brier(logits, targets):
    return (logits.sigmoid() - targets) ** 2


ROW_LOSSES = {
    "cross-entropy": (row_losses, cross_entropy),
    "brier": (brier, lambda z, y: (expit(z) - y) ** 2),
}


def average(values, weights):
    return (weights * values).sum(axis=0) / weights.sum(axis=0)


def corrections(name, loss, y, heads, others, propensities):
    """Return the losses of the heads after the first, by name, without weights."""
    o, r, q = y[:, :-1], y[:, 1:], heads[:, 1:]
    a, b = o / propensities[0], (1 - o) / propensities[1]
    known = average(loss(q, r), a)
    if name == "ipw":
        return {"correction": known}
    if name == "dr":
        guessed = loss(q, expit(others))
        rest = average(loss(q, r) - guessed + loss(others, r), a)
        return {"correction": guessed.mean(axis=0) + rest}
    if name == "dual":
        unknown = average(loss(q, expit(others)), b)
        return {"correction": known + unknown, "teacher": average(loss(others, r), o)}
    unknown = average(loss(others, 1 - r if name == "mirrored" else r), b)
    gap = np.abs(1 - expit(q) - expit(others)).mean(axis=0)
    return {"correction": known + unknown, "prior": gap}


@pytest.mark.parametrize("n_tasks", [2, 3])
@pytest.mark.parametrize("row_loss", ROW_LOSSES)
@every_network
def test_equals_the_formula_written_out_in_numpy(name, row_loss, n_tasks):
    params = {"correction_weight": 0.7, "task_space": "conditional"}
    network, inputs = corrected(name, n_tasks, **params), batch(40)
    p, y = weights_of(network), funnel(40, n_tasks)
    x = dense_input(p, *inputs)
    heads = np.stack([tower(x, p, k) for k in range(n_tasks)], 1)
    chain, others = np.cumprod(expit(heads), axis=1), None
    if name in SECOND:
        second = [tower(x, p, k, SECOND[name]) for k in range(n_tasks - 1)]
        others = np.stack(second, 1)
    # Some of the propensities are clipped.
    smallest = float(np.quantile(chain[:, :-1], 0.3))
    network.smallest_propensities.fill_(smallest)
    propensities = [np.maximum(v, smallest) for v in (chain[:, :-1], 1 - chain[:, :-1])]
    output, (of_torch, of_numpy) = network(*inputs), ROW_LOSSES[row_loss]
    assert_allclose(output.logits.sigmoid().detach(), chain, rtol=1e-4)
    assert_allclose(output.conditional_logits.detach(), heads, rtol=1e-4, atol=1e-5)
    expected = corrections(name, of_numpy, y.numpy(), heads, others, propensities)
    labels = Labels(y, None, of_torch)
    assert output.extra_losses.keys() == expected.keys()
    for loss, values in expected.items():
        weight = 0.7 if loss == "correction" else 0.3
        found = output.extra_losses[loss](labels).detach()
        assert_allclose(found, np.append(0, weight * values), rtol=1e-4)


@every_network
def test_one_task_needs_no_correction(name):
    network = corrected(name, 1)
    assert network(*batch()).extra_losses == {}
    parts = {key.partition(".")[0] for key in network.state_dict()}
    assert parts == {"input_layer", "towers"}


@every_network
def test_propensities_are_limited_and_take_no_gradient(name):
    network = corrected(name, scale=30, min_propensity=0.01)
    rates = np.array(RATES[:2])
    limits = 0.01 * np.array([rates, 1 - rates])
    assert_allclose(network.smallest_propensities, limits, rtol=1e-5)
    logits = network(*batch(200)).logits
    found = network._propensities(Labels(funnel(200, 3), None, row_losses, logits))
    for propensity, smallest in zip(found, network.smallest_propensities, strict=True):
        assert not propensity.requires_grad
        assert (propensity >= smallest).all()
        assert (propensity == smallest).any()
        assert propensity.max() <= 1


@pytest.mark.parametrize("name", SECOND)
def test_the_second_towers_start_at_the_rates(name):
    network = CORRECTED[name][0](make(ESMM, 3).spec, **CORRECTED[name][1])
    towers = getattr(network, SECOND[name])
    biases = torch.cat([tower.output.linear.bias for tower in towers])
    # The probabilities of a head and its twin add up to 1.
    sign = -1 if SECOND[name] == "twins" else 1
    torch.testing.assert_close(biases, sign * network.conditional_base_logits[1:])


@pytest.mark.parametrize(
    ("name", "loss", "has_second"),
    [
        ("ipw", "correction", False),
        ("dr", "correction", True),
        ("mirrored", "correction", True),
        # The correction trains no teacher and, through the propensity, no earlier head.
        ("dual", "correction", False),
        ("dual", "teacher", True),
    ],
)
def test_a_loss_trains_the_towers_of_its_task(name, loss, has_second):
    network, y = corrected(name), funnel(200, 3)
    y[:50] = 0
    labels = Labels(y, None, row_losses)
    found = dependencies(
        network, *batch(200), lambda o: o.extra_losses[loss](labels)[None]
    )
    parts = [{".".join(n.split(".")[:2]) for n in masks} for masks in found]
    parts = [{p for p in names if "input" not in p} for names in parts]
    for k in range(3):
        expected = {f"towers.{k}"} if k and loss == "correction" else set()
        if k and has_second:
            expected |= {f"{SECOND[name]}.{k - 1}"}
        assert parts[k] == expected


@pytest.mark.parametrize("name", ["ipw", "dr"])
def test_the_correction_is_not_kept_by_the_network(name):
    network = corrected(name, task_space="conditional")
    heads = weakref.ref(network(*batch()).conditional_logits)
    assert heads() is None


# The losses, of labels, heads, the second towers, and propensities.

LOSSES = {name: (name, "correction") for name in CORRECTED}


LOSSES |= {"prior": ("mirrored", "prior"), "teacher": ("dual", "teacher")}


def extra_loss(name, labels, heads, others, propensities):
    """Return the loss of a network whose second towers return `others`."""
    of_network, loss = LOSSES[name]
    kind, given = CORRECTED[of_network]
    weights = {key: 1.0 for key in given if key.endswith("weight")}
    network = make(
        kind, 1 + heads.shape[1], **{**given, **weights}, correction_weight=1
    )
    if of_network in SECOND:
        setattr(network, SECOND[of_network], torch.nn.Identity())
    later = LaterHeads(labels, heads, propensities)
    losses = network._corrections(others)[loss](later)
    return torch.nn.functional.pad(losses, (1, 0))


@pytest.mark.parametrize("name", LOSSES)
def test_weights_count_as_repetitions_of_rows(name):
    heads, others, p = torch.randn(12, 2), torch.randn(12, 2), torch.rand(12, 2)
    p, y, counts = 0.1 + 0.8 * p, funnel(12, 3), torch.randint(0, 4, (12,))
    weights = counts / counts.float().mean()
    loss = partial(extra_loss, name)
    weighted = loss(Labels(y, weights, row_losses), heads, others, (p, 1 - p))
    y, heads, others, p = (
        t.repeat_interleave(counts, 0) for t in (y, heads, others, p)
    )
    repeated = loss(Labels(y, None, row_losses), heads, others, (p, 1 - p))
    torch.testing.assert_close(weighted, repeated)


@pytest.mark.parametrize("name", ["ipw", "dr", "mirrored", "dual", "prior"])
def test_weights_per_task_are_those_of_the_label_that_is_used(name):
    heads, others, y = torch.randn(40, 2), torch.randn(40, 2), funnel(40, 3)
    half, weights = torch.full((40, 2), 0.5), torch.rand(40, 3)
    args = heads, others, (half, half)
    losses = extra_loss(name, Labels(y, weights, row_losses), *args)
    for k in (1, 2):
        # The label of the task where the previous one happened, and else that label.
        used = torch.where(y[:, k - 1] == 1, weights[:, k], weights[:, k - 1])
        if name == "prior":  # which reads no label
            used = weights[:, k - 1]
        expected = extra_loss(name, Labels(y, used, row_losses), *args)[k]
        if name == "dr":
            # Imputed labels need no label of the later task.
            guessed = row_losses(heads[:, k - 1], others[:, k - 1].sigmoid())
            expected += (guessed * (weights[:, k - 1] - used)).mean()
        torch.testing.assert_close(losses[k], expected)


@pytest.mark.parametrize("z", [-1000.0, 1000.0])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_losses_are_finite_without_rows_of_a_kind(z, sign, y):
    heads = torch.full((4, 1), z, requires_grad=True)
    others = torch.full((4, 1), sign * z, requires_grad=True)
    labels = Labels(torch.full((4, 2), y), None, row_losses)
    p = torch.full((4, 1), 1e-3), torch.full((4, 1), 1 - 1e-3)
    losses = torch.stack([extra_loss(n, labels, heads, others, p) for n in LOSSES])
    losses.sum().backward()
    assert losses.isfinite().all()
    assert heads.grad.isfinite().all()
    assert others.grad.isfinite().all()


@pytest.mark.parametrize("name", ["ipw", "dr", "dual", "mirrored"])
def test_probabilities_as_labels_count_as_the_rows_that_they_stand_for(name):
    """A row with P(click) and P(conversion) is a mixture of rows with labels."""
    torch.manual_seed(0)
    n, (z, extra) = 6, torch.randn(2, 6, 1).double().requires_grad_().unbind()
    propensities = tuple((torch.rand(2, n, 1) * 0.8 + 0.1).double())
    click = torch.rand(n, 1).double()
    conversion = click * torch.rand(n, 1).double()
    soft = Labels(torch.cat([click, conversion], dim=1), None, row_losses)
    # The rows without a click, with a click, and with a conversion, by their shares.
    hard = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]).double()
    shares = torch.cat([1 - click, click - conversion, conversion])[:, 0]
    hard = Labels(hard.repeat_interleave(n, 0), 3 * shares, row_losses)
    gradients = []
    for labels, n_copies in ((soft, 1), (hard, 3)):
        z_copies, copies = (t.repeat(n_copies, 1) for t in (z, extra))
        args = z_copies, copies, [p.repeat(n_copies, 1) for p in propensities]
        losses = extra_loss(name, labels, *args)
        if name == "dual":
            losses = losses + extra_loss("teacher", labels, *args)
        # The twins learn from 1 - CVR instead of the labels without a click.
        read = (z,) if name in ("ipw", "mirrored") else (z, extra)
        gradients.append(torch.autograd.grad(losses.sum(), read))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("is_robust", [False, True])
def test_gradients_of_escm2(is_robust):
    rng, n = np.random.default_rng(0), 7
    z, p, imputed = rng.normal(size=n), *rng.uniform(0.1, 0.9, (2, n))
    o = np.array([1, 0, 1, 1, 0, 1, 0])
    r = o * rng.integers(0, 2, n)
    labels = Labels(torch.from_numpy(np.stack([o, r], 1) * 1.0), None, row_losses)
    heads, guess = (
        torch.tensor(values).unsqueeze(1).requires_grad_() for values in (z, imputed)
    )
    name, propensity = "dr" if is_robust else "ipw", torch.tensor(p).unsqueeze(1)
    given = heads, guess.logit(), (propensity, 1 - propensity)
    extra_loss(name, labels, *given).sum().backward()
    predicted, w = expit(z), o / p / (o / p).sum()
    if is_robust:
        # Rows without a label move the head towards the imputed label.
        expected = (predicted - imputed) / n + w * (imputed - r)
        pull = w * (imputed - r) / (imputed * (1 - imputed))
        assert_allclose(guess.grad[:, 0], pull, rtol=1e-10)
    else:
        expected = w * (predicted - r)
        assert guess.grad is None
    assert_allclose(heads.grad[:, 0], expected, rtol=1e-10)
