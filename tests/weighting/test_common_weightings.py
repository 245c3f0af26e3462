"""Properties of all weightings in the registry."""

import importlib.util
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from small_model import X, Y, small
from torch import nn

from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser.losses import BCE
from sk_pwiser.networks import NetworkOutput
from sk_pwiser.weighting import WEIGHTINGS

TASKS = ["click", "conversion"]
COLUMNS = [f"train_weight_{task}" for task in TASKS]
# It reports the weighted sum, and it has a required parameter.
SKIPPED = {"fixed"}
if importlib.util.find_spec("torchjd") is None:
    SKIPPED |= {"torchjd"}
NAMES = sorted(WEIGHTINGS.keys() - SKIPPED)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def weights_in(model):
    return np.array([model.history_[:, column] for column in COLUMNS])


def state_of(module):
    return dict([*module.named_parameters(), *module.named_buffers()])


class Toy(nn.Module):
    """Two losses of a shared parameter and of one further parameter per loss."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Parameter(torch.tensor([1.0, -0.5]))
        self.own = nn.ParameterList(
            nn.Parameter(torch.tensor(values)) for values in ([0.3, 0.7], [1.5, -0.2])
        )

    def forward(self):
        gaps = (self.shared - torch.tensor([[2.0, 0.0], [0.5, 1.0]])) ** 2
        own = torch.stack([(p**2).sum() for p in self.own])
        return gaps.sum(dim=1) * torch.tensor([1.0, 8.0]) + own


def descend(weighting, losses_of, n_steps=6):
    """Train the toy; return the parameter values after each step."""
    toy = Toy()
    optimizer = torch.optim.SGD([*toy.parameters(), *weighting.parameters()], lr=0.01)
    path = []
    for i in range(n_steps):
        optimizer.zero_grad()
        weighting.backward(losses_of(toy(), i), None, toy.parameters())
        optimizer.step()
        if i % 2:
            weighting.end_epoch()
        path.append(nn.utils.parameters_to_vector(toy.parameters()).detach())
    return torch.stack(path)


def test_the_order_of_two_tasks_does_not_matter(name):
    kept = descend(WEIGHTINGS[name](2), lambda losses, i: losses)
    flipped = descend(WEIGHTINGS[name](2), lambda losses, i: losses.flip(0))
    torch.testing.assert_close(flipped, kept)
    assert (kept[0] != kept[-1]).all()


def test_steps_are_finite_if_the_loss_of_a_task_is_0(name):
    def losses_of(losses, i):
        # 0 in the first step, then in two of three steps.
        return losses * torch.tensor([1.0, i % 3 == 1])

    weighting = WEIGHTINGS[name](2)
    assert descend(weighting, losses_of, n_steps=12).isfinite().all()
    assert all(value.isfinite().all() for value in state_of(weighting).values())


def test_the_reported_loss_is_the_plain_sum_in_training_and_evaluation(name):
    criterion = MultiTaskCriterion(BCE(TASKS), WEIGHTINGS[name](2))
    layer = nn.Linear(3, 2)
    x, y = torch.randn(40, 3), (torch.rand(40, 2) < 0.3).float()
    for _ in range(5):
        output = NetworkOutput(layer(x))
        expected = BCE(TASKS)(output.logits, y).sum().detach()
        step = criterion(output, y, parameters=layer.parameters())
        torch.testing.assert_close(step, expected, rtol=0, atol=0)
        reported = criterion.eval()(output, y).detach()
        torch.testing.assert_close(reported, expected, rtol=0, atol=0)
        criterion.train()
    record = criterion.pop_epoch_record()
    assert list(record) == ["weight_click", "weight_conversion"]


def test_one_task_is_trained_as_with_equal_weights(name):
    params = {"weight_decay": 0.01, "max_epochs": 3}
    model = small(weighting=name, **params).fit(X, Y["click"])
    equal = small(weighting="equal", **params).fit(X, Y["click"])
    assert_array_equal(model.predict_proba(X), equal.predict_proba(X))
    assert model.history_[:, "train_loss"] == equal.history_[:, "train_loss"]
    assert model.history_[:, COLUMNS[0]] == [1, 1, 1]


def test_the_history_contains_the_weights_of_all_tasks_and_epochs(name):
    model = small(weighting=name, max_epochs=3, early_stopping=True).fit(X, Y)
    weights = weights_in(model)
    assert weights.shape == (2, 3)
    assert np.isfinite(weights).all()
    assert not any("valid_weight" in key for row in model.history_ for key in row)


# With all rows in one batch and without category dropout, epochs differ only in the
# order of the rows, so that training can be split into two parts.
WHOLE = {
    "batch_size": len(X),
    "encoding_params": {"category_dropout": 0.0},
    "optimizer": "sgd",
    "optimizer_params": {"average_decay": 0},
    "lr": 0.05,
}


def test_a_pickled_model_continues_from_the_state_of_its_weighting(name):
    whole = small(weighting=name, max_epochs=5, **WHOLE).fit(X, Y)
    parts = small(weighting=name, max_epochs=3, **WHOLE).fit(X, Y)
    for _ in range(2):
        parts = pickle.loads(pickle.dumps(parts)).partial_fit(X, Y)
    assert_allclose(parts.predict_proba(X), whole.predict_proba(X), rtol=1e-4)
    assert_allclose(weights_in(parts), weights_in(whole), rtol=1e-3)
    states = [state_of(model.net_.criterion_) for model in (parts, whole)]
    torch.testing.assert_close(*states, rtol=1e-3, atol=1e-5)


def test_no_state_needs_float64_which_some_devices_lack(name):
    params = {"rate": "dwa"} if name == "ema" else {}
    weighting = WEIGHTINGS[name](2, **params)
    descend(weighting, lambda losses, i: losses)
    assert all(t.dtype != torch.float64 for t in state_of(weighting).values())


@pytest.mark.parametrize(
    ("name", "params"), [("dwa", {}), ("ema", {}), ("ema", {"rate": "plain"})]
)
def test_evaluation_changes_no_state(name, params):
    weighting = WEIGHTINGS[name](2, **params)
    descend(weighting, lambda losses, i: losses)
    before = {key: value.clone() for key, value in state_of(weighting).items()}
    totals = [weighting.eval()(torch.tensor([7.0, 0.2])) for _ in range(2)]
    assert torch.equal(*totals)
    torch.testing.assert_close(state_of(weighting), before, rtol=0, atol=0)


VALUE, TYPE = ValueError, TypeError


@pytest.mark.parametrize(
    ("name", "params", "error", "message"),
    [
        ("dwa", {"temperature": 0.0}, VALUE, r"temperature must be .* > 0; got 0\.0"),
        ("ema", {"decay": 1.0}, VALUE, r"decay must be .* >= 0 and < 1; got 1\.0"),
        ("ema", {"rate": "rema"}, VALUE, "rate must be one of .* got 'rema'"),
        ("ema", {"temperature": 0}, VALUE, "temperature must be .* > 0; got 0"),
        ("fixed", {"weights": [1.0]}, VALUE, r"sequence of 2 numbers, .* got \[1\.0\]"),
        ("fixed", {"weights": [0, 0]}, VALUE, r"and not only 0; got \[0, 0\]"),
        ("fixed", {"weights": [1, -1]}, VALUE, r"weights\[1\] must be .* >= 0; got -1"),
        ("fixed", {"weights": [1, None]}, TYPE, r"weights\[1\] must be a number"),
        ("fixed", {"weights": None}, VALUE, "weights must be a sequence .* got None"),
        ("fixed", {"weights": 1.0}, VALUE, r"weights must be a sequence .* got 1\.0"),
        ("fixed", {"weights": "12"}, VALUE, "weights must be a sequence .* got '12'"),
        ("fixed", {"weights": {0: 1, 1: 2}}, VALUE, "weights must be a .* got {"),
        ("nash", {"max_norm": 0}, VALUE, "max_norm must be finite and > 0; got 0"),
        ("nash", {"tol": float("nan")}, VALUE, "tol must be finite and > 0; got nan"),
        ("nash", {"max_iter": 0}, VALUE, "max_iter must be an integer >= 1; got 0"),
    ],
)
def test_invalid_parameters_are_named(name, params, error, message):
    with pytest.raises(error, match=message):
        WEIGHTINGS[name](2, **params)
