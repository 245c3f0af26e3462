"""The value and the gradients of the criterion against numpy in float64."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import cross_entropy

from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser.losses import BCE, Focal, PWiseR
from sk_pwiser.networks import ESCM2, NetworkOutput, NetworkSpec
from sk_pwiser.weighting import Equal, Fixed

N = 12


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.fixture
def parts():
    """All that a network may return in entire space, as arrays."""
    rng = np.random.default_rng(0)
    y = np.logical_and.accumulate(rng.random((N, 2)) < 0.6, axis=1).astype(float)
    return {
        "y": y,
        "weight": rng.uniform(0.5, 1.5, N),
        "logits": rng.normal(size=(N, 2)),
        "aux": rng.normal(size=(3, N, 2)),
        "penalties": np.array([0.3, 0.1]),
        "heads": rng.normal(size=(N, 2)),
    }


def expected_value(parts, task_weights=(1, 1), monotonicity_weight=0.0):
    """Compute the criterion in float64, as the docstrings define it."""
    y, w = parts["y"], parts["weight"][:, np.newaxis]
    losses = (w * cross_entropy(parts["logits"], y)).mean(axis=0)
    for aux in parts["aux"]:
        losses += 0.3 * (w * cross_entropy(aux, y)).mean(axis=0)
    losses += 0.7 * (w * cross_entropy(parts["heads"], 0.5 * y)).mean(axis=0)
    rises = np.maximum(np.diff(sigmoid(parts["logits"]), axis=1), 0)
    return (
        task_weights @ losses
        + parts["penalties"].sum()
        + monotonicity_weight * np.mean(w * rises)
    )


def tensors(parts, dtype=torch.float32):
    """Return the network's part as leaves, its output, the labels and the weights."""
    leaf = {
        name: torch.tensor(values, dtype=dtype, requires_grad=True)
        for name, values in parts.items()
        if name not in ("y", "weight")
    }

    def per_task(labels):
        rows = labels.row_losses(leaf["heads"].float(), 0.5 * labels.y)
        return 0.7 * (labels.sample_weight.unsqueeze(1) * rows).mean(dim=0)

    output = NetworkOutput(
        leaf["logits"],
        aux_logits=leaf["aux"].unbind(0),
        aux_weight=0.3,
        extra_losses={
            "tensor": leaf["penalties"][0],
            "function": lambda labels: leaf["penalties"][1],
            "per_task": per_task,
        },
    )
    given = (torch.tensor(parts[name], dtype=torch.float32) for name in ("y", "weight"))
    return leaf, output, *given


def criterion(weighting=None, monotonicity_weight=0.0, loss=BCE, **params):
    weighting = Equal(2) if weighting is None else weighting
    loss = loss(["click", "conversion"], **params)
    return MultiTaskCriterion(loss, weighting, monotonicity_weight)


@pytest.mark.parametrize("monotonicity_weight", [0.0, 0.6])
@pytest.mark.parametrize("task_weights", [(1, 1), (0.5, 3)])
def test_value_and_gradients(parts, task_weights, monotonicity_weight):
    # The weight of a task applies to its auxiliary heads and its extra losses, but not
    # to penalties.
    weighting = Fixed(2, weights=task_weights)
    joined = criterion(weighting, monotonicity_weight)
    leaf, output, y, weight = tensors(parts)
    expected = expected_value(parts, task_weights, monotonicity_weight)
    assert joined(output, y, weight).item() == pytest.approx(expected, rel=1e-5)
    reported = joined(output, y, weight, parameters=leaf.values())
    assert not reported.requires_grad
    assert reported.item() == pytest.approx(expected, rel=1e-5)
    assert leaf["penalties"].grad.tolist() == [1.0, 1.0]
    w, p = parts["weight"][:, np.newaxis] / N, sigmoid(parts["logits"])
    slope = w * (p - parts["y"]) * task_weights
    slope += monotonicity_weight * w * p * (1 - p) * [-1, 1] * (p[:, 1:] > p[:, :1])
    assert_allclose(leaf["logits"].grad, slope, rtol=1e-4, atol=1e-7)
    slope = 0.3 * w * (sigmoid(parts["aux"]) - parts["y"]) * task_weights
    assert_allclose(leaf["aux"].grad, slope, rtol=1e-4, atol=1e-7)
    slope = 0.7 * w * (sigmoid(parts["heads"]) - 0.5 * parts["y"]) * task_weights
    assert_allclose(leaf["heads"].grad, slope, rtol=1e-4, atol=1e-7)


def test_the_order_of_the_calls_of_losses_and_weightings(parts):
    """Those of users may keep values from one of their methods to the next."""
    calls = []

    class Loss(BCE):
        def forward(self, *args):
            calls.append("loss")
            return super().forward(*args)

        def observe(self, *args):
            calls.append("observe")

    class Weighting(Equal):
        def forward(self, losses):
            calls.append("weighting")
            return super().forward(losses)

        def backward(self, *args):
            calls.append("backward")
            super().backward(*args)

        def report(self, losses):
            calls.append("report")
            return super().report(losses)

    leaf, output, y, weight = tensors(parts)
    criterion(Weighting(2), loss=Loss)(output, y, weight, parameters=leaf.values())
    heads = ["loss"] * 4  # with three auxiliary heads
    expected = [*heads, "observe", "backward", "report"]
    assert [each for each in calls if each != "weighting"] == expected


def test_bfloat16_outputs_are_computed_in_float32(parts):
    # bfloat16 outputs have three digits; the loss computed from them has seven.
    rounded = {
        name: torch.tensor(values).bfloat16().double().numpy()
        if name not in ("y", "weight")
        else values
        for name, values in parts.items()
    }
    _, output, y, weight = tensors(parts, torch.bfloat16)
    value = criterion(monotonicity_weight=0.6)(output, y, weight)
    assert value.dtype == torch.float32
    expected = expected_value(rounded, monotonicity_weight=0.6)
    assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 2), (N, 2)])
@pytest.mark.parametrize("as_function", [False, True])
def test_extra_losses_of_another_shape_are_refused(parts, shape, as_function):
    _, output, y, weight = tensors(parts)
    term = torch.ones(shape)
    extra = {"odd": (lambda labels: term) if as_function else term}
    found = str(shape).replace("(", r"\(").replace(")", r"\)")
    message = rf"extra_losses\['odd'\] must be .* shape \(\) .* \(2,\) .* {found}"
    with pytest.raises(ValueError, match=message):
        criterion()(output._replace(extra_losses=extra), y, weight)


def test_extra_losses_are_tensors(parts):
    _, output, y, _ = tensors(parts)
    with pytest.raises(
        ValueError, match=r"extra_losses\['zero'\] .* Tensor: .* got 0.5"
    ):
        criterion()(output._replace(extra_losses={"zero": lambda _: 0.5}), y)


def test_conditional_logits_of_a_wrong_shape_are_refused(parts):
    _, output, y, weight = tensors(parts)
    output = output._replace(conditional_logits=output.logits[:, :1])
    with pytest.raises(ValueError, match=r"conditional_logits .* got \(12, 1\)"):
        criterion()(output, y, weight)


def escm2_output():
    torch.manual_seed(0)
    spec = NetworkSpec([5], 1, 4, [0.5, 0.2])
    network = ESCM2(spec, variant="ipw", correction_weight=1.0)
    inputs = torch.randint(5, (N, 1)), torch.randn(N, 1)
    return network(*inputs), network.forward(*inputs).conditional_logits


@pytest.mark.parametrize(
    ("loss", "rows"),
    [
        (BCE, cross_entropy),
        # The focal loss with gamma = 2.
        (Focal, lambda z, y: abs(y - sigmoid(z)) ** 2 * cross_entropy(z, y)),
    ],
)
def test_the_correction_of_escm2_is_of_the_chosen_loss(parts, loss, rows):
    output, heads = escm2_output()
    _, _, y, weight = tensors(parts)
    params = {"gamma": 2.0} if loss is Focal else {}
    joined = criterion(loss=loss, **params)
    corrected = joined(output, y, weight) - joined(
        output._replace(extra_losses={}), y, weight
    )
    heads = heads.detach().double().numpy()
    known = parts["weight"] * parts["y"][:, 0] / sigmoid(heads[:, 0])
    expected = np.average(rows(heads, parts["y"])[:, 1], weights=known)
    assert corrected.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", [BCE, PWiseR])
def test_in_updates_a_task_with_few_events_leans_towards_its_parent(parts, loss):
    found = {}
    for leans in (False, True):
        joined = criterion(loss=loss)
        joined.leans_on_parents = leans
        leaf, output, y, weight = tensors(parts)
        output = NetworkOutput(output.logits)
        joined.count_rows(y, weight)
        joined(output, y, weight, parameters=leaf.values())
        found[leans] = leaf["logits"].grad.numpy()
    n_events = parts["y"].sum(axis=0)
    clicks, conversions = parts["weight"] @ parts["y"]
    share = 30 / (30 + n_events[1])
    expected = conversions / clicks * parts["y"][:, 0]
    pull = parts["weight"] / N * share * (parts["y"][:, 1] - expected)
    assert_allclose(found[True][:, 0], found[False][:, 0])
    assert_allclose(found[True][:, 1] - found[False][:, 1], pull, atol=1e-7)
    assert_allclose(joined.n_events, n_events)
    joined.eval()  # the loss of validation rows is that of their labels
    assert joined(output, y, weight) == criterion(loss=loss)(output, y, weight)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("weights", ["none", "rows", "missing labels"])
def test_the_prior_leaves_the_mean_prediction_as_it_is(weights, conditional):
    """Two siblings after the click: the pulls on all rows add up to 0."""
    rng, parents = np.random.default_rng(1), (-1, 0, 0)
    y = torch.tensor(rng.random((200, 3)) < [0.6, 0.3, 0.05]).float()
    y[:, 1:] *= y[:, :1]
    weight = {
        "none": None,
        "rows": torch.tensor(rng.uniform(0.1, 5, 200)).float(),
        "missing labels": torch.tensor(rng.random((200, 3)) < 0.5).float(),
    }[weights]
    if weights == "missing labels":  # of the siblings
        weight[:, 0] = 1
        y *= weight
    pulls = []
    for leans in (False, True):
        loss = BCE(["click", "buy", "call"])
        joined = MultiTaskCriterion(loss, Equal(3), parents=parents)
        joined.leans_on_parents = leans
        joined.count_rows(y, weight)
        logits = torch.zeros(200, 3, requires_grad=True)
        heads = {"conditional_logits": logits} if conditional else {}
        joined(NetworkOutput(logits, **heads), y, weight, parameters=[logits])
        pulls.append(logits.grad)
    change = pulls[1] - pulls[0]
    assert change[:, 0].abs().max() == 0
    assert change[:, 1:].abs().amax(dim=0).min() > 1e-4
    assert_allclose(change.sum(dim=0), 0, atol=1e-6)


def test_with_many_events_only_the_labels_count(parts):
    joined = criterion()
    joined.leans_on_parents = True
    joined.count_fit([[0.5, 0.1], [0.5, 0.1], [1, 0.5]], 10**10)
    leaf, output, y, weight = tensors(parts)
    joined(NetworkOutput(output.logits), y, weight, parameters=leaf.values())
    slope = (sigmoid(parts["logits"]) - parts["y"]) * parts["weight"][:, np.newaxis]
    assert_allclose(leaf["logits"].grad, slope / N, rtol=1e-4, atol=1e-7)
