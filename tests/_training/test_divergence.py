"""Training that diverges: how it is found, and what may have caused it."""

import re

import numpy as np
import pytest
import torch
from refusals import X, Y, small
from scipy.special import xlogy

from sk_pwiser._training._end_of_training import advice, excess_loss
from sk_pwiser._training._settings import Settings


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rate", [0.3, 0.001])
def test_the_loss_is_compared_with_that_of_constant_probabilities(weighted, rate):
    rng = np.random.default_rng(0)
    y = (rng.random((2_000, 2)) < rate).astype(float)
    weights = rng.uniform(0.5, 2, len(y)) if weighted else np.ones(len(y))
    total = weights.sum()
    p = (weights @ y + 3) / (total + 6)
    constant = -(weights @ (xlogy(y, p) + xlogy(1 - y, 1 - p))).sum() / (total + 1)
    found = excess_loss(
        torch.full(y.shape, -1e5 * rate),
        torch.tensor(y),
        torch.tensor(weights) if weighted else None,
        p.tolist(),
    )
    assert re.fullmatch(
        rf"\d.*, where constant probabilities have {constant:.3g}", found
    )
    good = torch.tensor(y * 4 - 2)
    assert excess_loss(good, torch.tensor(y), None, p.tolist()) is None
    equal = torch.tensor(np.broadcast_to(np.log(p / (1 - p)), y.shape).copy())
    assert excess_loss(equal, torch.tensor(y), None, p.tolist()) is None


def test_rows_without_events_are_no_divergence():
    # Those of a new market, which had 4 % of clicks before.
    none, logits = torch.zeros(500, 2), torch.full((500, 2), -3.2)
    rates = [0.04, 0.04]
    assert excess_loss(logits, none, None, rates) is None
    assert excess_loss(-logits, none, None, rates) is not None
    # Training may have begun with weights of other rates than those of the rows.
    logits, rates = logits + 1.2, [1e-3, 1e-3]
    assert excess_loss(logits, none, None, rates) is not None
    assert excess_loss(logits, none, None, rates, [0.1, 0.1]) is None
    assert excess_loss(logits, none + 1, None, rates, [1.0, 1.0]) is None


@pytest.mark.filterwarnings("error:Training diverged")
def test_the_order_of_rows_and_their_selection_are_no_divergence():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4_000, 1))
    y = np.sort((rng.random(len(x)) < 0.15).astype(int))
    model = small(max_epochs=2, early_stopping=False).fit(x, y)
    assert model.best_epoch_ == model.n_iter_ == 2
    # Late conversions of a log with 2 % of them.
    y = (rng.random(len(x)) < 0.02).astype(int)
    model = small().partial_fit(x, y)
    model.partial_fit(x[y == 1], y[y == 1])
    # A log that kept few of the rows without a click.
    y = (rng.random(len(x)) < 0.8).astype(int)
    sampled = small(max_epochs=2, early_stopping=False, negative_sampling_rate=1e-4)
    assert sampled.fit(x, y).best_epoch_ == 2


def test_large_weights_of_a_term_are_no_divergence():
    # The pairwise term is a thousand times the cross-entropy from the beginning,
    # though batches of a few rows without a conversion have no pairs.
    model = small(pwiser_weight=1e4, lr=1e-4, batch_size=3, max_epochs=1, loss="pwiser")
    assert model.fit(X[:60], Y[:60]).history_[0, "train_loss"] > 100


@pytest.mark.slow
def test_labels_that_change_are_no_divergence():
    x, y = X[:100], Y.iloc[:100, :1]
    model = small(lr=0.05, weight_decay=0.0, batch_size=20)
    for _ in range(60):
        model.partial_fit(x, y)
    assert model.history_[-1, "train_loss"] < 0.1
    model.partial_fit(x, 1 - y)
    assert model.history_[-1, "train_loss"] > 1.0


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"lr": 0.5}, ["lr"]),
        ({"lr": 0.5, "optimizer": "sgd"}, []),
        ({"weight_decay": 5.0}, ["weight_decay"]),
        ({"lr": 0.5, "pwiser_weight": 1e3}, ["lr", "pwiser_weight"]),
        ({"loss_params": {"margins": [1.0, 1e4]}}, ["margins"]),
        (
            {"network_params": {"monotonicity_weight": 1e3, "tower_units": (512,)}},
            ["monotonicity_weight"],
        ),
        ({"optimizer_params": {"embedding_lr": 1.0}}, ["embedding_lr"]),
        ({"weighting_params": {"weights": [1.0, 1e5]}}, ["weights"]),
        ({}, []),
    ],
)
def test_advice_names_what_is_far_above_usual_values(params, names):
    text = advice(Settings.of(small(**params).get_params(deep=False)))
    found = [part.split(";")[0] for part in text.split("Use a smaller ")[1:]]
    assert found == names
    if not names:
        assert "No parameter is far above" in text
