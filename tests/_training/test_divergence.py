"""Finite losses far above those that training starts from, and their causes."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from refusals import X, Y, small
from scipy.special import xlogy

from sk_pwiser._training import Impressions
from sk_pwiser._training._diagnostics import LossCheck, advice
from sk_pwiser._training._settings import Settings


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"lr": 10.0},
            r"in epoch \d: the .*loss.* is .*, where training starts from .* lr; it",
        ),
        # With one batch and one epoch, the only loss is that before the only step.
        (
            {"lr": 1e6, "max_epochs": 1, "batch_size": len(X)},
            r"in epoch \d: the loss after the last step is .* lr; it is 1000000.0\.$",
        ),
    ],
)
def test_a_finite_blow_up_is_refused(earlier, params, message, method):
    before, n_iter = earlier.predict_proba(X), earlier.n_iter_
    earlier.set_params(**{"batch_size": 10, **params})
    with pytest.raises(ValueError, match=message):
        getattr(earlier, method)(X, Y)
    assert_array_equal(earlier.predict_proba(X), before)
    assert earlier.n_iter_ == n_iter == len(earlier.history_)


def check_of(loss, weights=None):
    """Return a check of the losses of a fit to X and Y."""
    net = small(loss=loss).fit(X, Y).net_
    tensors = {"y": torch.tensor(Y.to_numpy(), dtype=torch.float32)}
    if weights is not None:
        tensors["sample_weight"] = torch.tensor(weights, dtype=torch.float32)
    rows = Impressions(torch.zeros(len(Y), 1), torch.zeros(len(Y), 1), **tensors)
    return LossCheck(net.criterion_, rows, torch.device(net.device))


@pytest.mark.parametrize(
    ("first", "losses", "is_large"),
    [
        # As with lr=0.03 and RMSprop, which recovers.
        (1.0, [600.0, 1.4], [False, False]),
        (1.0, [600.0, 40.0], [False, True]),
        (1.0, [10_000.0], [True]),
        # The first batch had no converted row.
        (0.01, [1.0, 1.0], [False, False]),
        (0.01, [1.0, 40.0], [False, True]),
        (100.0, [600.0, 600.0], [False, False]),
    ],
)
def test_the_first_epoch_may_overshoot(first, losses, is_large):
    check = check_of("bce")
    check.observe(torch.tensor(first))
    check.observe(torch.tensor(1e9))  # not the first batch
    assert [check.excess(loss) is not None for loss in losses] == is_large


def test_large_weights_of_a_term_are_no_divergence():
    # The pairwise term is a thousand times the cross-entropy from the beginning,
    # though batches of a few rows without a conversion have no pairs.
    model = small(pwiser_weight=1e4, lr=1e-4, batch_size=3, max_epochs=1, loss="pwiser")
    assert model.fit(X[:60], Y[:60]).history_[0, "train_loss"] > 100


def test_labels_that_change_are_no_divergence():
    x, y = X[:100], Y.iloc[:100, :1]
    model = small(lr=0.05, weight_decay=0.0, batch_size=20)
    for _ in range(60):
        model.partial_fit(x, y)
    assert model.history_[-1, "train_loss"] < 0.1
    model.partial_fit(x, 1 - y)
    assert model.history_[-1, "train_loss"] > 1.0


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_constant_probabilities(weighted):
    weights = np.random.default_rng(0).uniform(0.5, 2, len(Y)) if weighted else None
    check = check_of("bce", weights)
    weights = np.ones(len(Y)) if weights is None else weights
    ones, total = weights @ Y.to_numpy(), weights.sum()
    p = (ones + 0.5) / (total + 1)
    expected = -(xlogy(ones, p) + xlogy(total - ones, 1 - p)).sum() / len(Y)
    assert check._constant_loss(len(Y)) == pytest.approx(expected, rel=1e-5)


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
