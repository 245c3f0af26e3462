"""Selection of estimators, with a corrupted one in the pool."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pools import with_noise
from scipy.special import softmax
from sklearn.metrics import get_scorer, log_loss
from small_model import small

from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import ctr_auc_scorer, cvr_auc_scorer, mean_auc_scorer
from sk_pwiser.transfer import select_estimators
from sk_pwiser.transfer._pool import draw, learn_policy, log_probability_gradient

DATA = make_ctr_cvr(2_000, ctr=0.4, cvr=0.4, random_state=0)
X, Y = DATA.data[1_000:], DATA.target[1_000:]


@pytest.fixture(scope="module")
def pool():
    """Three estimators; the second was fitted with flipped labels."""
    rows, labels = DATA.data[:1_000], DATA.target[:1_000]
    flipped = np.column_stack([1 - labels["click"], np.zeros(1_000, dtype=int)])
    flipped[:, 1] = flipped[:, 0] * np.random.default_rng(0).integers(0, 2, 1_000)
    return [
        small(max_epochs=10, random_state=seed).fit(rows, y)
        for seed, y in enumerate([labels.to_numpy(), flipped, labels.to_numpy()], 2)
    ]


@pytest.mark.parametrize("n_select", [1, 2])
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(value, marks=() if value in {0} else pytest.mark.slow)
        for value in range(3)
    ],
)
def test_a_corrupted_estimator_ends_with_a_weight_below_5_percent(pool, n_select, seed):
    found = select_estimators(pool, X, Y, n_select=n_select, random_state=seed)
    expected = select_estimators(pool, X, Y, n_select=n_select, method="exhaustive")
    assert found.weights[1] < 0.05
    assert_allclose(found.weights.sum(), 1)
    assert_array_equal(found.indices, expected.indices)
    assert found.score == expected.score


@pytest.mark.parametrize("scoring", [None, mean_auc_scorer, cvr_auc_scorer])
def test_the_exhaustive_choice_is_that_of_all_sets(pool, scoring):
    found = select_estimators(
        pool, X, Y, n_select=2, method="exhaustive", scoring=scoring
    )
    p = np.array([model.predict_proba(X).astype(float) for model in pool])
    y = Y.to_numpy()
    sets = [(0, 1), (0, 2), (1, 2)]
    if scoring is None:
        scores = [
            -np.mean([log_loss(y[:, k], p[list(s)].mean(axis=0)[:, k]) for k in (0, 1)])
            for s in sets
        ]
        assert_allclose(found.score, max(scores))
    else:
        scores = [1.0 * (1 not in s) for s in sets]  # without the corrupted one
    assert tuple(found.indices) == sets[int(np.argmax(scores))]
    assert found.weights.tolist() == [0.5, 0, 0.5]


def test_greedy_adds_the_estimator_that_improves_most(pool):
    larger = [*pool, with_noise(pool[0], 0.3, 0)]
    first = select_estimators(larger, X, Y, n_select=1, method="exhaustive").indices[0]
    found = select_estimators(larger, X, Y, n_select=2, method="greedy")
    p = np.array([model.predict_proba(X).astype(float) for model in larger])
    y = Y.to_numpy()
    losses = {
        other: np.mean(
            [log_loss(y[:, k], p[[first, other]].mean(axis=0)[:, k]) for k in (0, 1)]
        )
        for other in range(4)
        if other != first
    }
    assert set(found.indices) == {first, min(losses, key=losses.get)}
    assert_allclose(found.score, -min(losses.values()))


def test_all_estimators_may_be_selected(pool):
    for method in ("policy", "greedy", "exhaustive"):
        found = select_estimators(pool, X, Y, n_select=3, method=method, n_iter=5)
        assert found.indices.tolist() == [0, 1, 2]


def test_a_single_task_and_scorers_of_scikit_learn(pool):
    target = np.where(DATA.target["click"] == 1, "yes", "no")
    models = [
        small(max_epochs=5).fit(DATA.data[:1_000], labels)
        for labels in (target[:1_000], pd.Series(target[999::-1], name="other"))
    ]
    for scoring in (None, ctr_auc_scorer, get_scorer("roc_auc")):
        found = select_estimators(
            models, X, target[1_000:], n_select=1, scoring=scoring, method="greedy"
        )
        assert found.indices.tolist() == [0]


def test_networks_and_encoders_may_differ(pool):
    other = small(network="mmoe", network_params=None, embedding_dim=4)
    other.fit(DATA.data[:1_000], DATA.target[:1_000])
    found = select_estimators([other, pool[1]], X, Y, n_select=1, random_state=0)
    assert found.indices.tolist() == [0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"estimators": []}, ValueError, "it is empty"),
        ({"n_select": 4}, ValueError, "at most 3 estimators; got 4"),
        ({"n_select": 0}, ValueError, "n_select must be an integer >= 1; got 0"),
        ({"n_select": 1.5}, TypeError, "n_select must be an integer"),
        ({"method": "best"}, ValueError, "method must be one of.*'best'"),
        ({"scoring": "roc_auc"}, TypeError, "scoring must be callable or None"),
        ({"scoring": lambda *_: np.nan}, ValueError, "finite number; it returned nan"),
        ({"X": X[:0], "Y": Y[:0]}, ValueError, "X must have at least one row"),
        ({"Y": Y[:-1]}, ValueError, "X has 1000 rows, Y has 999"),
        ({"Y": Y[::-1]}, ValueError, "X and Y have the same index labels in different"),
        ({"Y": Y.to_numpy()[:, :1]}, ValueError, r"uses the tasks \['click', 'c"),
        ({"n_iter": 0}, ValueError, "n_iter must be an integer >= 1"),
    ],
)
def test_invalid_arguments_are_refused(pool, change, error, message):
    arguments = {"estimators": pool, "X": X, "Y": Y, "n_select": 1, **change}
    with pytest.raises(error, match=message):
        select_estimators(**arguments)


def test_too_many_sets_are_refused(pool):
    many = pool[:1] * 30
    message = "at most 100,000 sets; there are 142,506 of n_select=5 among 30"
    with pytest.raises(ValueError, match=message):
        select_estimators(many, X, Y, n_select=5, method="exhaustive")


def test_the_score_of_the_cvr_takes_the_tree_of_the_tasks():
    rng = np.random.default_rng(0)
    labels = DATA.target.assign(like=rng.integers(0, 2, len(DATA.target)))
    labels, tree = labels[["like", "click", "conversion"]], {"conversion": "click"}
    model = small(task_parents=tree).fit(DATA.data[:1_000], labels[:1_000])
    found = select_estimators(
        [model], X, labels[1_000:], n_select=1, method="greedy", scoring=cvr_auc_scorer
    )
    # A few pairs of ratios that float32 cannot tell apart may be ties.
    expected = cvr_auc_scorer(model, X, labels[1_000:])
    assert found.score == pytest.approx(expected, abs=2e-4)


def test_missing_labels_are_left_out_of_the_scores(pool):
    known = Y.astype(float)
    known.iloc[::3, 1] = np.nan
    with pytest.raises(ValueError, match="missing_labels='ignore'"):
        select_estimators(pool, X, known, n_select=1)
    pool[0].set_params(missing_labels="ignore")
    try:
        found = select_estimators(pool, X, known, n_select=1, method="exhaustive")
    finally:
        pool[0].set_params(missing_labels="error")
    p = pool[found.indices[0]].predict_proba(X).astype(float)
    has_label = known["conversion"].notna()
    losses = [
        log_loss(Y["click"], p[:, 0]),
        log_loss(Y["conversion"][has_label], p[has_label.to_numpy(), 1]),
    ]
    assert_allclose(found.score, -np.mean(losses))


SCORES = np.array([0.3, -0.5, 1.1, 0.0])


def log_probability(scores, drawn):
    """Compute the log-probability of an ordered draw without replacement."""
    p, total, value = softmax(scores), 1.0, 0.0
    for member in drawn:
        value += np.log(p[member] / total)
        total -= p[member]
    return value


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_gradient_is_that_of_the_log_probability(size):
    step = 1e-6
    for drawn in permutations(range(4), size):
        found = log_probability_gradient(softmax(SCORES), drawn)
        for i, unit in enumerate(np.eye(4)):
            differences = [
                log_probability(SCORES + sign * step * unit, drawn) for sign in (1, -1)
            ]
            expected = (differences[0] - differences[1]) / (2 * step)
            assert_allclose(found[i], expected, atol=1e-8)


def test_draws_have_the_probabilities_of_the_policy():
    rng, p = np.random.RandomState(0), softmax(SCORES)
    n_draws = 20_000
    drawn = np.array([draw(p, 2, rng) for _ in range(n_draws)])
    assert (drawn[:, 0] != drawn[:, 1]).all()
    for first, second in permutations(range(4), 2):
        share = ((drawn[:, 0] == first) & (drawn[:, 1] == second)).mean()
        expected = p[first] * p[second] / (1 - p[first])
        error = np.sqrt(expected * (1 - expected) / n_draws)
        assert abs(share - expected) < 4.5 * error


def learn(reward, size=1, n_iter=300, seed=0):
    rng = np.random.RandomState(seed)
    return learn_policy(reward, 4, size, n_iter, rng)


def test_equal_rewards_leave_the_policy_uniform():
    assert_array_equal(learn(lambda _members: 0.7), np.full(4, 0.25))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0])
def test_the_scale_of_the_rewards_does_not_matter(scale):
    rewards = scale * np.array([0.0, 0.0, 1.0, 0.0])
    p = learn(lambda members: rewards[members[0]])
    assert p[2] > 0.9


def test_a_vanished_member_is_still_drawn_if_all_are():
    p = np.array([1.0, 0.0, 0.0])
    drawn = draw(p, 3, np.random.RandomState(0))
    assert sorted(drawn.tolist()) == [0, 1, 2]
    assert np.isfinite(log_probability_gradient(p, drawn)).all()
