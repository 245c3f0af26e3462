import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser.losses import BCE
from sk_pwiser.networks import Correction, NetworkOutput
from sk_pwiser.weighting import Equal, Fixed

N = 12


def cross_entropy(z, y):
    return np.logaddexp(0, z) - y * z


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.fixture
def parts():
    """What a network with everything might return, as arrays."""
    rng = np.random.default_rng(0)
    y = np.logical_and.accumulate(rng.random((N, 2)) < 0.6, axis=1).astype(float)
    return {
        "y": y,
        "weight": rng.uniform(0.5, 1.5, N),
        "logits": rng.normal(size=(N, 2)),
        "aux": rng.normal(size=(3, N, 2)),
        "penalties": np.array([0.3, 0.1]),
        "heads": rng.normal(size=(N, 2)),
        "propensity": rng.uniform(0.2, 0.9, (N, 1)),
        "imputed": rng.normal(size=(N, 1)),
    }


def by_hand(parts, task_weights=(1, 1), calibrator=0.0):
    """The criterion's value in float64, as the docstrings define it."""
    y, w = parts["y"], parts["weight"][:, np.newaxis]
    losses = (w * cross_entropy(parts["logits"], y)).mean(axis=0)
    for aux in parts["aux"]:
        losses += 0.3 * (w * cross_entropy(aux, y)).mean(axis=0)
    head = parts["heads"][:, 1:]
    guessed = cross_entropy(head, sigmoid(parts["imputed"]))
    error = cross_entropy(head, y[:, 1:]) - guessed
    corrected = guessed + y[:, :1] / parts["propensity"] * (error + error**2)
    losses[1] += 0.7 * (w * corrected).mean()
    rises = np.maximum(np.diff(sigmoid(parts["logits"]), axis=1), 0)
    return (
        task_weights @ losses
        + parts["penalties"].sum()
        + calibrator * np.mean(w * rises)
    )


def tensors(parts, dtype=torch.float32):
    """The network's part as leaves, and the output that they make."""
    leaf = {
        name: torch.tensor(values, dtype=dtype, requires_grad=True)
        for name, values in parts.items()
        if name not in ("y", "weight")
    }
    correction = Correction(leaf["propensity"].detach(), leaf["imputed"], weight=0.7)
    output = NetworkOutput(
        leaf["logits"],
        aux_logits=leaf["aux"].unbind(0),
        aux_weight=0.3,
        penalties={"one": leaf["penalties"][0], "two": leaf["penalties"][1]},
        conditional_logits=leaf["heads"],
        correction=correction,
    )
    given = (torch.tensor(parts[name], dtype=torch.float32) for name in ("y", "weight"))
    return leaf, output, *given


def criterion(weighting=None, calibrator=0.0):
    weighting = Equal(2) if weighting is None else weighting
    return MultiTaskCriterion(BCE(["click", "conversion"]), weighting, calibrator)


@pytest.mark.parametrize("calibrator", [0.0, 0.6])
@pytest.mark.parametrize("task_weights", [(1, 1), (0.5, 3)])
def test_value_and_gradients(parts, task_weights, calibrator):
    # A task's weight takes its auxiliary heads and its correction with it, but no
    # penalty.
    weighting = Equal(2) if task_weights == (1, 1) else Fixed(2, weights=task_weights)
    joined = criterion(weighting, calibrator)
    leaf, output, y, weight = tensors(parts)
    expected = by_hand(parts, task_weights, calibrator)
    assert joined(output, y, weight).item() == pytest.approx(expected, rel=1e-5)
    reported = joined.backward(output, y, weight, None, leaf.values())
    assert not reported.requires_grad
    assert reported.item() == pytest.approx(expected, rel=1e-5)
    assert leaf["penalties"].grad.tolist() == [1.0, 1.0]
    w, p = parts["weight"][:, np.newaxis] / N, sigmoid(parts["logits"])
    slope = w * (p - parts["y"]) * task_weights
    slope += calibrator * w * p * (1 - p) * [-1, 1] * (p[:, 1:] > p[:, :1])
    assert_allclose(leaf["logits"].grad, slope, rtol=1e-4, atol=1e-7)
    slope = 0.3 * w * (sigmoid(parts["aux"]) - parts["y"]) * task_weights
    assert_allclose(leaf["aux"].grad, slope, rtol=1e-4, atol=1e-7)
    label, guess = parts["y"][:, 1:], sigmoid(parts["imputed"])
    slope = sigmoid(parts["heads"][:, 1:]) - guess
    slope += parts["y"][:, :1] / parts["propensity"] * (guess - label)
    slope *= 0.7 * task_weights[1] * w
    assert_allclose(leaf["heads"].grad[:, 1:], slope, rtol=1e-4, atol=1e-7)
    assert (leaf["heads"].grad[:, :1] == 0).all()


def test_bare_logits_are_the_sum_of_the_losses(parts):
    _, output, y, _ = tensors(parts)
    value = criterion()(NetworkOutput(output.logits), y).item()
    expected = cross_entropy(parts["logits"], parts["y"]).mean(axis=0).sum()
    assert value == pytest.approx(expected, rel=1e-6)


def test_no_weights_are_weights_of_one(parts):
    _, output, y, _ = tensors(parts)
    joined = criterion(calibrator=0.6)
    assert joined(output, y).item() == joined(output, y, torch.ones(N)).item()


def test_bfloat16_outputs_are_computed_in_float32(parts):
    # What mixed precision hands over holds three digits; the loss of it has seven.
    rounded = {
        name: torch.tensor(values).bfloat16().double().numpy()
        if name not in ("y", "weight")
        else values
        for name, values in parts.items()
    }
    _, output, y, weight = tensors(parts, torch.bfloat16)
    value = criterion(calibrator=0.6)(output, y, weight)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(by_hand(rounded, calibrator=0.6), rel=1e-6)
