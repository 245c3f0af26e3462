"""The level of predictions: the last rows in time move it as far as they tell."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, logit

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._levels import _last_rows, _levels
from sk_pwiser._training._levels._event_level import (
    PRIOR_DEVIATION,
    find_offset,
    read_heads,
)
from sk_pwiser._training._levels._last_rows import (
    FEWEST_BLOCKS,
    OWN_MOVES,
    LevelRecord,
    design_effect,
    offset_of_last_rows,
)
from sk_pwiser.metrics import predicted_over_observed

BY_TIME = {"encoding_params": {"time_column": "day"}}


def drifting_log(n=20_000, seed=0):
    """Return rows in time, labels and probabilities; events become rarer with time."""
    rng = np.random.default_rng(seed)
    day = np.sort(rng.integers(0, 100, n))
    x = rng.normal(size=n)
    rate = expit(x - 1 + np.where(day < 85, 0.0, -1.2))
    Y = pd.DataFrame(rng.random((n, 2)) < rate[:, np.newaxis]).astype(int)
    Y.columns = ["click", "conversion"]
    return pd.DataFrame({"day": day, "x": x}), Y.cumprod(axis=1), rate


def test_it_is_the_most_probable_one():
    rng = np.random.default_rng(0)
    heads, weights = rng.normal(size=(50, 2)), rng.uniform(size=(50, 2))
    y = (rng.random((50, 2)) < 0.4).cumprod(axis=1).astype(float)

    def minus_log_posterior(offset):
        p = expit(heads + offset)
        losses = -(y * np.log(p) + (1 - y) * np.log1p(-p))
        return (losses * weights).sum() + (offset**2).sum() / 2 / PRIOR_DEVIATION**2

    tensors = (torch.as_tensor(values) for values in (heads, y, weights))
    found = find_offset(*tensors, PRIOR_DEVIATION).numpy()
    expected = minimize(minus_log_posterior, np.zeros(2), tol=1e-10).x
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert abs(found).min() > 0.01


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"network": "esmm"},
        {"network_params": {"task_space": "conditional"}},
        {"negative_sampling_rate": 0.5},
    ],
    ids=str,
)
def test_predictions_have_the_level_of_the_last_rows(params):
    X, Y, rate = drifting_log()
    past, later = X["day"] < 95, X["day"] >= 95
    model = MultiTaskCTRCVRClassifier(random_state=0, max_epochs=5, **BY_TIME)
    model.set_params(**params).fit(X[past], Y[past])
    rate = rate[later]
    # Predictions are those of the full log.
    n_rows = rate + (1 - rate) / params.get("negative_sampling_rate", 1)
    expected = np.array([rate / n_rows, rate**2 / n_rows]).mean(axis=1)
    ratio = model.predict_proba(X[later]).mean(axis=0) / expected
    assert (abs(ratio - 1) < 0.15).all(), ratio
    model.net_.module_.shift_level(-model.net_.module_.level_offset)
    ratio = model.predict_proba(X[later]).mean(axis=0) / expected
    assert (ratio > 1.5).all(), ratio


def test_a_chain_stays_in_order():
    X, Y, _ = drifting_log(4_000)
    # Clicks become rarer, conversions of clicks more frequent.
    Y["conversion"] = Y["click"] & (Y["conversion"] | (X["day"] >= 85))
    model = MultiTaskCTRCVRClassifier(network="esmm", random_state=0, **BY_TIME)
    click, conversion = model.fit(X, Y).predict_proba(X).T
    assert model.net_.module_.level_offset[1] > 0.2
    assert (conversion <= click).all()


@pytest.mark.parametrize("params", [{}, BY_TIME | {"early_stopping": False}], ids=str)
@pytest.mark.filterwarnings("ignore:The rows are in an order that matters")
def test_rows_that_were_trained_on_have_no_say(params):
    X, Y, _ = drifting_log(2_000)
    # The last rows come first: the days alone do not say that they order the rows.
    X = X[::-1]
    Y = Y[::-1]
    model = MultiTaskCTRCVRClassifier(random_state=0, max_epochs=2, **params).fit(X, Y)
    assert model.net_.module_.level_offset is None


def test_copies_keep_it(tmp_path):
    X, Y, _ = drifting_log(4_000)
    model = MultiTaskCTRCVRClassifier(random_state=0, max_epochs=2, **BY_TIME).fit(X, Y)
    expected = model.predict_proba(X)
    model.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)


def test_updates_continue_from_it():
    X, Y, _ = drifting_log(4_000)
    model = MultiTaskCTRCVRClassifier(random_state=0, max_epochs=2, **BY_TIME).fit(X, Y)
    model.partial_fit(X[-500:], Y[-500:])
    observed = predicted_over_observed(
        Y["click"][-500:], model.predict_proba(X[-500:])[:, 0]
    )
    assert 0.7 < observed < 1.4


# How many rows say as much as one independent row.


def scores_of(y, p):
    """Return the derivatives of the log likelihoods of rows by an offset."""
    return y - p, np.broadcast_to(p * (1 - p), y.shape)


def test_the_design_effect_is_the_variance_over_logs_relative_to_independent_rows():
    rng = np.random.default_rng(0)
    n_logs, n_users, n_rows = 1_000, 60, 20
    user = np.repeat(np.arange(n_users), n_rows)
    rates = expit(rng.normal(-0.5, 0.7, (n_logs, n_users)))
    y = (rng.random((n_logs, n_users * n_rows)) < rates[:, user]).astype(float)
    means = y.mean(axis=1)
    # The offset of a log in which no column tells anything is the log-odds of its mean.
    variance = logit(means).var()
    effects = [
        design_effect(*scores_of(own[:, np.newaxis], p), iter([user]))[0]
        for own, p in zip(y, means, strict=True)
    ]
    independent = 1 / (means * (1 - means) * len(user)).mean()
    assert np.mean(effects) == pytest.approx(variance / independent, rel=0.1)
    assert np.mean(effects) > 2


def test_copies_say_as_much_as_the_rows_that_were_copied():
    rng = np.random.default_rng(1)
    n_rows, n_copies = 400, 7
    heads = rng.normal(-1, 0.5, (n_rows, 2))
    y = (rng.random((n_rows, 2)) < expit(heads + 0.4)).astype(float)
    once = [torch.tensor(each) for each in (heads, y, np.ones((n_rows, 2)))]
    expected = find_offset(*once, PRIOR_DEVIATION).numpy()
    copies = [np.repeat(each, n_copies, axis=0) for each in (heads, y)]
    row = np.repeat(np.arange(n_rows), n_copies)
    shifted = expit(copies[0] + expected)
    effect = design_effect(*scores_of(copies[1], shifted), iter([row]))
    np.testing.assert_allclose(effect, n_copies, rtol=0.15)
    weights = np.broadcast_to(1 / effect, copies[1].shape).copy()
    tensors = [torch.tensor(each) for each in (*copies, weights)]
    found = find_offset(*tensors, PRIOR_DEVIATION).numpy()
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_clusters_that_tell_nothing_change_nothing():
    y = np.tile([[1.0], [0.0], [0.0]], (100, 1))
    numbers = [np.zeros(300), np.arange(300), np.arange(300) // 3]
    effect = design_effect(*scores_of(y, y.mean(axis=0)), iter(numbers))
    # One cluster has no variance between clusters. Each row by itself is the standard,
    # up to the mean that was fitted, and three rows with one event are all alike.
    np.testing.assert_allclose(effect, 300 / 299)
    unlabelled = np.zeros((300, 1))
    assert design_effect(unlabelled, unlabelled, iter(numbers)) == [1.0]


# Whether earlier moves of the level have lasted.

PARENTS = (-1, 0)


def record_of(levels, n_rows=2_000, seed=0, parts=1):
    """Return a record of two tasks whose rates have these log-odds, block by block."""
    rng = np.random.default_rng(seed)
    rates = expit(np.repeat(levels, n_rows))
    times = np.arange(len(rates), dtype=float)
    y = (rng.random((len(rates), 2)) < rates[:, np.newaxis]).cumprod(axis=1)
    record = LevelRecord.of(times, 1 / len(levels), PARENTS)
    for rows in np.array_split(np.arange(len(rates)), parts):
        record.add(times[rows], y[rows].astype(float), None, times[rows] < 0)
    return record, y.reshape(len(levels), n_rows, 2)


@pytest.mark.parametrize("given_parents", [False, True])
@pytest.mark.parametrize("parts", [1, 3])
def test_the_share_is_the_slope_of_later_moves_by_earlier_ones(given_parents, parts):
    levels = np.random.default_rng(3).normal(0, 0.4, 10).cumsum()
    record, y = record_of(levels, parts=parts)
    offset = np.array([0.1, -0.2])
    found = record.lasting_share(offset, given_parents)
    for task in range(2):
        parent = y[:, :, 0] if task and given_parents else np.ones(y.shape[:2])
        pairs = []
        for last in range(1, 9):
            level, later, before = (
                logit(y[blocks, :, task].sum() / parent[blocks].sum())
                for blocks in (
                    slice(last, last + 1),
                    slice(last + 1, last + 2),
                    slice(last),
                )
            )
            pairs.append((level - before, later - before))
        pairs += [(offset[task], offset[task])] * int(OWN_MOVES)
        moves, lasted = np.transpose(pairs)
        assert found[task] == pytest.approx(
            min(moves @ lasted / (moves @ moves), 1), abs=2e-3
        )


@pytest.mark.parametrize(
    ("levels", "offset", "low", "high"),
    [
        (np.linspace(0, -1, 10), -0.1, 1.0, 1.0),
        (np.resize([0.4, -0.4], 10), 0.2, 0.0, 0.0),
        (np.resize([0.4, -0.4], 10), 2.0, 0.7, 0.9),
        (np.zeros(10), 0.5, 0.97, 1.0),
        # Too few blocks: nothing is known of earlier moves.
        (np.resize([0.4, -0.4], FEWEST_BLOCKS - 1), 0.2, 1.0, 1.0),
    ],
    ids=["trend", "up and down", "larger than before", "first move", "few blocks"],
)
def test_moves_count_as_much_as_earlier_ones_have_lasted(levels, offset, low, high):
    record, _ = record_of(levels)
    if len(levels) < FEWEST_BLOCKS:
        # As of a log with so many different times.
        record.exposures[len(levels) :] = 0
    share = record.lasting_share(np.full(2, offset), given_parents=False)
    assert (low <= share).all(), share
    assert (share <= high).all(), share


def test_labels_that_are_missing_do_not_lower_the_level():
    rng = np.random.default_rng(0)
    times = np.arange(20_000.0)
    y = (rng.random((20_000, 2)) < (0.3, 0.5)).cumprod(axis=1).astype(float)
    weights = np.ones(y.shape)
    # Later, fewer and fewer of the conversions of clicks are known.
    weights[:, 1] = (y[:, 0] == 0) | (rng.random(20_000) > times / 25_000)
    record = LevelRecord.of(times, 0.1, PARENTS)
    record.add(times, y, weights, times < 0)
    rates = record.events[:, 1] / record.exposures[:, 1]
    np.testing.assert_allclose(rates, 0.5, atol=0.06)


# Whole fits.


def users_come_and_go(seed, n=6_000):
    """Return a log without drift in which few users make the last rows."""
    rng = np.random.default_rng(seed)
    user = np.arange(n) // 150 + rng.integers(4, size=n)
    rate = expit(rng.normal(0, 1.0, user.max() + 1)[user] - 0.5)
    Y = (rng.random((n, 2)) < rate[:, np.newaxis]).cumprod(axis=1)
    X = pd.DataFrame({"day": np.arange(n) / 100, "user": user})
    X["user"] = X["user"].astype("category")
    return X, pd.DataFrame(Y, columns=["click", "conversion"])


def fitted_level(X, Y, monkeypatch, **params):
    """Return the offset of a fit, and what its last rows alone ask for."""
    caught = []

    def follow(net, rows, record):
        heads = read_heads(net, rows)
        caught.append(find_offset(*heads[:3], PRIOR_DEVIATION).numpy())
        original(net, rows, record)

    original = _last_rows.follow_last_rows
    monkeypatch.setattr(_levels, "follow_last_rows", follow)
    params = BY_TIME | {"max_epochs": 4, "random_state": 0} | params
    model = MultiTaskCTRCVRClassifier(**params).fit(X, Y)
    return model.net_.module_.level_offset.numpy(), caught[0]


def test_users_who_come_and_go_do_not_move_it(monkeypatch):
    ratios = []
    for seed in range(3):
        found, wholly = fitted_level(*users_come_and_go(seed), monkeypatch)
        ratios.append(abs(found).sum() / abs(wholly).sum())
    assert np.mean(ratios) < 0.6, ratios


def test_a_drift_is_followed_wholly(monkeypatch):
    X, Y, _ = drifting_log()
    found, wholly = fitted_level(X, Y, monkeypatch)
    assert (wholly < -0.5).all()
    np.testing.assert_allclose(found, wholly, rtol=0.1)


def test_rows_that_are_not_late_do_not_move_it():
    X, Y, _ = drifting_log(4_000)
    model = MultiTaskCTRCVRClassifier(random_state=0, max_epochs=2, **BY_TIME).fit(X, Y)
    days, y = X["day"].to_numpy(float), Y.to_numpy(float)
    rows = model._result.schema.transform(X.drop(columns="day"))
    offsets = []
    # As if whole groups were held out that have rows of all times.
    for held_out in (days >= 90, (days >= 90) | (days < 40)):
        record = LevelRecord.of(days, 0.1, PARENTS)
        record.add(days, y, None, held_out)
        chosen = torch.from_numpy(np.flatnonzero(held_out))
        own = replace(rows.labelled(np.float32(y)), rows=chosen)
        offsets.append(offset_of_last_rows(model.net_, own, record)[0].numpy())
    np.testing.assert_allclose(*offsets, rtol=5e-3)
