"""Penalties against closed forms and numpy, and the separation of features."""

import numpy as np
import pytest
import torch
from markets import SECOND, fit_source, rows
from numpy.testing import assert_allclose
from scipy.optimize import brentq
from scipy.special import expit

from sk_pwiser.transfer import fine_tune
from sk_pwiser.transfer._fine_tune import (
    REGULARIZERS,
    distance_penalty,
    l2_sp_penalty,
    separate,
    squared_discrepancy,
)

RNG = np.random.default_rng(0)


def tensor(array):
    return torch.from_numpy(np.asarray(array))


def test_l2_sp_is_half_the_squared_distance_of_what_counts():
    a, b = RNG.standard_normal((2, 3)), RNG.standard_normal((2, 5, 4))
    mask = np.array([True, False, True, True, False])
    table = tensor(b[0]).requires_grad_()
    penalty = l2_sp_penalty(
        {"bias": tensor(a[0]), "table": table},
        {"bias": tensor(a[1]), "table": tensor(b[1])},
        {"table": tensor(mask).unsqueeze(1)},
    )
    expected = ((a[0] - a[1]) ** 2).sum() + ((b[0] - b[1])[mask] ** 2).sum()
    assert_allclose(penalty.item(), expected / 2, rtol=1e-12)
    penalty.backward()
    assert_allclose(table.grad, (b[0] - b[1]) * mask[:, None], rtol=1e-12)


@pytest.mark.parametrize("n_copies", [1, 12])
def test_the_distance_is_the_mean_squared_distance_whatever_the_width(n_copies):
    x, y = RNG.standard_normal((2, 7, 3))
    pairs = zip(x.ravel(), y.ravel(), strict=True)
    expected = np.mean([(a - b) ** 2 for a, b in pairs])
    wide = (tensor(each).repeat(1, n_copies) for each in (x, y))
    assert_allclose(distance_penalty(*wide).item(), expected)


def test_the_discrepancy_equals_a_loop_over_pairs():
    x, y = RNG.standard_normal((6, 2)), 1 + RNG.standard_normal((4, 2))
    z = np.vstack([x, y])
    squared = [[np.sum((a - b) ** 2) for b in z] for a in z]
    width = np.sum(squared) / (10 * 9)

    def kernel(a, b):
        d = np.sum((a - b) ** 2)
        return np.mean([np.exp(-d / (width * f)) for f in (0.25, 0.5, 1, 2, 4)])

    def mean(one, two):
        return np.mean([kernel(a, b) for a in one for b in two])

    expected = mean(x, x) + mean(y, y) - 2 * mean(x, y)
    assert_allclose(squared_discrepancy(tensor(x), tensor(y)).item(), expected)
    assert abs(squared_discrepancy(tensor(x), tensor(x)).item()) < 1e-12


@pytest.mark.parametrize("scale", [1e-30, 0.0, 1e15])
def test_the_discrepancy_is_finite(scale):
    points = tensor((scale * RNG.standard_normal((8, 2))).astype(np.float32))
    x = points.requires_grad_()
    squared_discrepancy(x[:4], x[4:]).backward()
    assert x.grad.isfinite().all()


def draw_labels(score, rate, rng):
    """Draw labels of a logistic model with a base rate, shape `(n_samples, 1)`."""
    intercept = brentq(lambda b: expit(score + b).mean() - rate, -30, 30)
    labels = rng.random(len(score)) < expit(score + intercept)
    return tensor(labels[:, None].astype(np.float32))


def draw_features(n, seed, rate=0.5):
    """Return four features that decide the label, four of noise, and labels."""
    rng = np.random.default_rng(seed)
    features = np.maximum(rng.standard_normal((n, 8)), 0).astype(np.float32)
    score = 2 * (features[:, :4] @ [1.0, -1.0, 1.0, -1.0])
    return tensor(features), draw_labels(score, rate, rng)


# Rates and rows: 1,000, 400 and 200 positive labels.
@pytest.mark.parametrize(
    ("rate", "n"), [(0.5, 2_000), (0.02, 20_000), (0.001, 200_000)]
)
def test_the_separation_keeps_what_matters_and_loses_noise(rate, n):
    features, labels = draw_features(n, 0, rate)
    gates = separate(features.__getitem__, labels, None, seed=0).numpy()
    assert gates[:4].min() > 0.9
    assert gates[4:].max() < 0.1
    # R^2 of the relevant part as a prediction of each feature.
    kept, x = (gates * features.numpy()), features.numpy()
    r2 = 1 - ((x - kept) ** 2).mean(axis=0) / x.var(axis=0)
    assert r2[:4].min() > 0.9
    assert r2[4:].max() < 0.2


@pytest.mark.slow
def test_the_separation_leaves_out_tasks_with_labels_of_one_class():
    features, labels = draw_features(2_000, 0)
    expected = separate(features.__getitem__, labels, None, seed=0)
    both = torch.cat([labels, torch.zeros_like(labels)], dim=1)
    assert torch.equal(separate(features.__getitem__, both, None, seed=0), expected)
    # Without any information, all features are kept.
    gates = separate(features.__getitem__, torch.zeros_like(labels), None, seed=0)
    assert torch.equal(gates, torch.ones(8))


@pytest.mark.slow
def test_the_separation_follows_weights_of_rows_and_labels():
    features, labels = draw_features(2_000, 0)
    other = features[:, [4, 5, 6, 7, 0, 1, 2, 3]]
    both, y = torch.cat([features, other]), labels.repeat(2, 1)
    weight = torch.cat([torch.ones(2_000), torch.full((2_000,), 1e-6)])
    for weights in (weight, (weight > 0.5).float().unsqueeze(1)):
        gates = separate(both.__getitem__, y, weights, seed=0).numpy()
        assert gates[:4].min() > 0.5 > 0.1 > gates[4:].max()


@pytest.mark.slow
def test_the_separation_repeats_and_copes_with_dead_features():
    features, labels = draw_features(300, 1)
    features[:, 2] = 0
    gates = separate(features.__getitem__, labels, None, seed=5)
    assert torch.equal(gates, separate(features.__getitem__, labels, None, seed=5))
    assert gates.isfinite().all()
    assert not torch.equal(gates, separate(features.__getitem__, labels, None, seed=6))


@pytest.mark.parametrize("n_positive", [30, 2_000])
def test_the_separation_reads_few_rows_at_once_and_all_of_a_rare_label(n_positive):
    n, rng = 50_000, np.random.default_rng(0)
    features, seen = tensor(rng.standard_normal((n, 3)).astype(np.float32)), []
    labels = torch.zeros(n, 1)
    labels[:n_positive] = 1  # sorted by label

    def read(rows):
        seen.append(rows)
        return features[rows]

    separate(read, labels, None, seed=0)
    assert max(map(len, seen)) <= 10_000
    positive = torch.cat(seen[1:]).unique()
    assert (positive < n_positive).sum() > 0.99 * n_positive


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_only_tred_starts_above_0_and_only_in_the_training_loss(regularizer):
    encoding = {"target_encoding_min_values": 2, "category_dropout": 0.0}
    source, (X, Y) = fit_source(encoding_params=encoding), rows(SECOND)
    params = {"max_epochs": 1, "lr": 1e-30, "eval_set": (X[:90], Y[:90])}
    plain, penalised = (
        fine_tune(source, X, Y, early_stopping=True, **params, **penalty).history_[0]
        for penalty in ({}, {"regularizer": regularizer, "regularizer_weight": 1.0})
    )
    if regularizer == "tred":
        assert penalised["train_loss"] > plain["train_loss"] + 1e-3
    else:
        assert_allclose(penalised["train_loss"], plain["train_loss"], rtol=1e-6)
    assert penalised["valid_loss"] == plain["valid_loss"]
