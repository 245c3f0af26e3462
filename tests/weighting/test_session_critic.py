"""Weights from critics, against closed forms on finite sets of states."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.tree import DecisionTreeRegressor
from small_model import small

from sk_pwiser.weighting import SessionCriticWeights


class Known(ClassifierMixin, BaseEstimator):
    """Predicts given probabilities per state; the state is the first column of X."""

    def __init__(self, p):
        self.p = p

    def fit(self, X, Y):
        self.classes_ = np.array([[0, 1]] * Y.shape[1])
        return self

    def predict_proba(self, X):
        return np.asarray(self.p)[np.asarray(X)[:, 0].astype(int)]


P = np.array([[0.2, 0.1], [0.7, 0.4], [0.5, 0.02]])  # per state and task


def cross_entropy(q, p):
    return -(q * np.log(p) + (1 - q) * np.log1p(-p))


def chains(n_sessions=400, seed=0):
    """Return sessions that move among three states: X, Y and the sessions."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, n_sessions)
    groups = np.repeat(np.arange(n_sessions), lengths)
    state = rng.integers(0, 3, len(groups))
    # A state is more probable after itself.
    for i in range(1, len(state)):
        if groups[i] == groups[i - 1] and rng.random() < 0.5:
            state[i] = state[i - 1]
    Y = (rng.random((len(state), 2)) < P[state] * 0.8).astype(int)
    return state[:, np.newaxis].astype(float), Y, groups


def exact(**params):
    """Return a maker of weights whose critics are exact on a finite set of states."""
    defaults = {
        "critic": DecisionTreeRegressor(random_state=0),
        "max_iter": 500,
        "tol": 1e-13,
    }
    return SessionCriticWeights(Known(P), **{**defaults, **params})


def means_by_state(values, state):
    return np.array([values[state == s].mean(axis=0) for s in range(3)])


@pytest.mark.parametrize("gamma", [0, 0.5, 0.9, 1.0])
def test_targets_on_a_markov_chain(gamma):
    X, Y, groups = chains()
    state = X[:, 0].astype(int)
    rewards = -cross_entropy(Y, P[state])
    # Transitions that were seen: from a state to another, or to the end.
    moves = np.zeros((3, 3))
    follows = groups[1:] == groups[:-1]
    np.add.at(moves, (state[:-1][follows], state[1:][follows]), 1)
    moves /= np.bincount(state)[:, np.newaxis]
    solved = np.linalg.solve(np.eye(3) - gamma * moves, means_by_state(rewards, state))
    states = np.arange(3.0)[:, np.newaxis]
    bootstrap = exact(gamma=gamma).fit(X, Y, groups=groups)
    assert_allclose(bootstrap.values(states), solved, rtol=1e-9)
    sums = rewards.copy()
    for i in range(len(sums) - 2, -1, -1):
        if follows[i]:
            sums[i] += gamma * sums[i + 1]
    observed = exact(gamma=gamma, target="return").fit(X, Y, groups=groups)
    assert_allclose(observed.values(states), means_by_state(sums, state), rtol=1e-10)
    assert (bootstrap.n_iter_ == 1) == (gamma == 0)
    if gamma:
        assert not np.allclose(observed.values(states), solved, rtol=1e-3)


def linear(**params):
    return SessionCriticWeights(
        MultiOutputClassifier(LogisticRegression()),
        critic=LinearRegression(),
        **{"tol": 1e-10, "max_iter": 200, **params},
    )


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    Y = (rng.random((300, 2)) < 0.3).astype(int)
    groups = np.repeat(np.arange(100), 3)
    return X, Y, groups, np.tile([2, 0, 1], 100)


def test_only_the_order_within_sessions_counts(table):
    X, Y, groups, order = table
    # The parts of the rewards depend on the names of the sessions: without parts.
    first = FrozenEstimator(MultiOutputClassifier(LogisticRegression()).fit(X, Y))

    def values(X, Y, groups, order):
        maker = linear().set_params(base_estimator=first)
        return maker.fit(X, Y, groups=groups, order=order).values(X)

    expected = values(X, Y, groups, order)
    shuffled = np.random.default_rng(1).permutation(300)
    names = np.array([f"session {g}" for g in groups[::-1]])
    # The sessions have other names and are mixed; rows keep their place within them.
    rows = X[shuffled], Y[shuffled], names[shuffled], order[shuffled] * 7.5
    assert_allclose(values(*rows)[np.argsort(shuffled)], expected, rtol=1e-6)
    times = np.datetime64("2022-04-25") + order * np.timedelta64(1, "h")
    assert_array_equal(values(X, Y, groups, times), expected)
    for other in (None, -order):
        assert not np.allclose(values(X, Y, groups, other), expected, rtol=1e-3)


@pytest.mark.parametrize("kind", ["float64", "datetime64[s]", "object"])
def test_a_missing_order_is_refused(table, kind):
    X, Y, groups, order = table
    order = order.astype(kind)
    order[7] = None
    with pytest.raises(ValueError, match="order is missing in row 7"):
        linear().fit(X, Y, groups=groups, order=order)


@pytest.mark.parametrize("kind", [str, object])
def test_an_order_of_text_is_refused(table, kind):
    X, Y, groups, order = table
    order = order.astype(int).astype(str).astype(kind)
    with pytest.raises(TypeError, match="order must be numbers or times; got"):
        linear().fit(X, Y, groups=groups, order=order)


def test_rows_without_an_order_are_in_the_order_given(table):
    X, Y, groups, _ = table
    expected = linear().fit(X, Y, groups=groups, order=np.arange(300)).values(X)
    assert_array_equal(linear().fit(X, Y, groups=groups).values(X), expected)
    # Equal values keep the order given, too.
    ties = linear().fit(X, Y, groups=groups, order=np.zeros(300)).values(X)
    assert_array_equal(ties, expected)


def test_weights_are_at_least_one_and_all_one_without_strength(table):
    X, Y, groups, order = table
    X = X * 5  # a linear critic then predicts positive values somewhere
    maker = linear(lam=2.0).fit(X, Y, groups=groups, order=order)
    raw = maker.critics_[0].predict(
        np.column_stack([X, maker.base_estimator_.estimators_[0].decision_function(X)])
    )
    weights = maker.weights(X)
    assert weights.shape == (300, 2)
    assert (weights >= 1).all()
    assert_allclose(weights[:, 0], 1 + 2 * np.maximum(-raw, 0), rtol=1e-6)
    assert (
        clone(maker).set_params(lam=0).fit(X, Y, groups=groups).weights(X) == 1
    ).all()


def test_a_single_task(table):
    X, Y, groups, _ = table
    one = SessionCriticWeights(
        DummyClassifier(), critic=LinearRegression(), target="return", gamma=0
    ).fit(X, Y[:, 0], groups=groups)
    rate = Y[:, 0].mean()
    assert one.values(X).shape == (300, 1)
    assert one.values(X).mean() == pytest.approx(-cross_entropy(rate, rate), rel=0.02)


def test_certain_and_wrong_predictions_have_finite_rewards(table):
    X, Y, groups, _ = table
    # Nobody converts in training, but the model was asked to be certain anyhow.
    certain = np.ones((3, 2))
    maker = SessionCriticWeights(Known(certain), critic=LinearRegression(), gamma=0)
    values = maker.fit(np.abs(X) % 3, Y * 0, groups=groups).values(np.abs(X) % 3)
    assert_allclose(values, np.log(1e-4), rtol=1e-6)


def frame(n=400, seed=0):
    """Return sessions of two rows by 20 users, of whom ten have uncertain outcomes."""
    rng = np.random.default_rng(seed)
    user = np.repeat(rng.integers(0, 20, n // 2), 2)
    X = pd.DataFrame(
        {
            "hour": rng.integers(0, 24, n),
            "user": pd.Categorical(user),
            "price": pd.array(rng.normal(size=n)).astype("Float64"),
            "page": rng.choice(["home", "search"], n),
        }
    )
    X.loc[rng.random(n) < 0.1, "price"] = pd.NA
    Y = (rng.random((n, 2)) < np.where(user < 10, 0.5, 0.02)[:, np.newaxis]).astype(int)
    return X, Y * Y[:, :1], np.arange(n) // 2


def test_default_critic_reads_categories_and_missing_values():
    X, Y, session = frame()
    maker = SessionCriticWeights(small(), gamma=0, max_iter=3, random_state=0)
    weights = maker.fit(X, Y, groups=session).weights(X)
    # Users with uncertain outcomes weigh more than those with almost certain ones.
    is_uncertain = X["user"].astype(int) < 10
    assert weights[is_uncertain, 0].mean() > weights[~is_uncertain, 0].mean() + 0.1
    again = clone(maker).fit(X, Y, groups=session).weights(X)
    assert_array_equal(again, weights)
    unseen = X.head().assign(user=pd.Categorical([99] * 5), page=["new"] * 5)
    assert np.isfinite(maker.weights(unseen)).all()
    # The model that predicts is fitted to all rows.
    found = maker.base_estimator_.predict_proba(X)
    assert_array_equal(found, small().fit(X, Y).predict_proba(X))


class SeesMissing(DummyRegressor):
    """Checks that the first column, and no other one, is NaN in every fifth row."""

    def fit(self, X, y):
        is_first = np.arange(X.shape[1]) == 0
        expected = np.outer(np.arange(len(X)) % 5 == 0, is_first)
        assert_array_equal(np.isnan(X), expected)
        return super().fit(X, y)


@pytest.mark.parametrize(
    "dtypes", [["object"], ["string"], ["string", "category"], "polars", "pyarrow"]
)
def test_missing_categories_are_nan(dtypes):
    X, Y, session = frame()
    page = [None if i % 5 == 0 else page for i, page in enumerate(X["page"])]
    columns = {"hour": X["hour"].tolist(), "page": page}
    if dtypes == "polars":
        X = pytest.importorskip("polars").DataFrame(columns).lazy()
    elif dtypes == "pyarrow":
        X = pytest.importorskip("pyarrow").table(columns)
    else:
        X = pd.DataFrame(columns)
        for dtype in dtypes:
            X["page"] = X["page"].astype(dtype)
    maker = SessionCriticWeights(
        DummyClassifier(), critic=SeesMissing(), target="return"
    ).fit(X, Y, groups=session)
    assert np.isfinite(maker.weights(X)).all()


def test_a_frozen_first_model_is_not_fitted_again():
    """It has seen no session, so that there may be fewer than parts."""
    X, Y, groups = chains(3)
    expected = exact(cv=3).fit(X, Y, groups=groups).values(X)
    first = FrozenEstimator(Known(P).fit(X, Y))
    maker = exact().set_params(base_estimator=first).fit(X, Y, groups=groups)
    assert_array_equal(maker.values(X), expected)
    assert maker.base_estimator_ is first


class Memory(ClassifierMixin, BaseEstimator):
    """Remembers the labels of its rows, and predicts their mean for others.

    The session of a row is its first column, and the row its second.
    """

    def fit(self, X, Y):
        self.sessions_, self.mean_ = set(X[:, 0]), Y.mean(axis=0)
        self.labels_ = dict(zip(X[:, 1], Y, strict=True))
        return self

    def predict_proba(self, X):
        return np.array([self.labels_.get(row, self.mean_) for row in X[:, 1]])


@pytest.mark.parametrize("cv", [2, 5])
def test_rewards_are_those_of_sessions_that_the_model_did_not_see(cv):
    """A model that knows all labels by heart has a loss of 0 on its own rows."""
    rng = np.random.default_rng(0)
    n = 20_000
    click = rng.random(n) < 0.02
    Y = np.column_stack([click, click & (rng.random(n) < 0.05)]) * 1
    groups = rng.permutation(n) // 4
    X = np.column_stack([groups, np.arange(n)]).astype(float)

    class Checked(Memory):
        def predict_proba(self, X):
            seen = self.sessions_ & set(X[:, 0])
            assert not seen or len(seen) == n // 4  # sessions are kept whole
            return super().predict_proba(X)

    maker = SessionCriticWeights(
        Checked(), critic=DummyRegressor(), gamma=0, target="return", cv=cv
    )
    values = maker.fit(X, Y, groups=groups).values(X)
    rate = Y.mean(axis=0)
    entropy = cross_entropy(rate, np.maximum(rate, 1e-4))
    assert_allclose(-values.mean(axis=0), entropy, rtol=0.1)


def test_labels_are_accepted_as_y_and_as_Y(table):
    X, Y, groups, _ = table
    expected = linear().fit(X, Y=Y, groups=groups).values(X)
    assert_array_equal(linear().fit(X, y=Y, groups=groups).values(X), expected)


def test_parameters_are_stored_untouched_and_global_generators_left_alone(table):
    X, Y, groups, _ = table
    base, critic = Known(P), DecisionTreeRegressor(random_state=0)
    maker = SessionCriticWeights(base, critic=critic, gamma=0.5, lam=2)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    maker.fit(np.abs(X) % 3, Y, groups=groups)
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert maker.base_estimator is base
    assert not hasattr(base, "classes_")
    assert not hasattr(critic, "tree_")
    copied = clone(maker).get_params(deep=False)
    assert copied.keys() == maker.get_params(deep=False).keys()
    assert copied["gamma"] == 0.5
    assert maker.n_features_in_ == 3


def test_a_critic_that_does_not_settle_gives_a_warning():
    X, Y, groups = chains()
    maker = exact(max_iter=2)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        maker.fit(X, Y, groups=groups)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"gamma": 1.1}, ValueError, "gamma must be .* <= 1; got 1.1"),
        ({"lam": -1}, ValueError, "lam must be .* >= 0; got -1"),
        ({"target": "td"}, ValueError, "target must be one of .* got 'td'"),
        ({"cv": 1}, ValueError, "cv must be an integer >= 2; got 1"),
        ({"max_iter": 0}, ValueError, "max_iter must be an integer >= 1; got 0"),
        ({"tol": "x"}, TypeError, "tol must be a number; got 'x'"),
    ],
)
def test_bad_parameters_are_named(params, error, message):
    X, Y, groups = chains(20)
    with pytest.raises(error, match=message):
        exact(**params).fit(X, Y, groups=groups)


def test_bad_data_are_refused_and_an_earlier_fit_stays():
    X, Y, groups = chains()
    maker = exact().fit(X, Y, groups=groups)
    expected = maker.weights(X)
    missing = [None, *groups[1:].tolist()]
    for labels, sessions, order, message in (
        (Y * 2, groups, None, "Labels must be 0 or 1; column 0 of Y"),
        (Y, groups[1:], None, "inconsistent numbers of samples"),
        (Y, groups, groups[1:], "inconsistent numbers of samples"),
        (Y[:, [0, 1, 1]], groups, None, r"predict_proba must return .* array \(\d+, 2"),
        (Y, missing, None, r"groups must not be missing; 1 are.* row 0"),
    ):
        with pytest.raises(ValueError, match=message):
            maker.fit(X, labels, groups=sessions, order=order)
    assert_array_equal(maker.weights(X), expected)
    with pytest.raises(ValueError, match="2 features"):
        maker.weights(np.hstack([X, X]))
    with pytest.raises(NotFittedError):
        exact().weights(X)
    with pytest.raises(ValueError, match="greater than the number of groups"):
        linear().fit(*chains(3)[:2], groups=chains(3)[2])


@pytest.mark.parametrize("shuffled", ["Y", "groups", "order"])
def test_another_order_of_the_index_is_refused(table, shuffled):
    values = dict(zip(("X", "Y", "groups", "order"), table, strict=True))
    values = {
        name: pd.DataFrame(value) if value.ndim == 2 else pd.Series(value)
        for name, value in values.items()
    }
    values[shuffled] = values[shuffled][::-1]
    message = f"X and {shuffled} have the same index labels in different orders: row 0"
    with pytest.raises(ValueError, match=message):
        linear().fit(**values)


class Unfitted(BaseEstimator):
    def fit(self, X, Y):
        raise AssertionError("The first model is fitted before the table is checked.")


def test_columns_are_checked_before_the_first_model_is_fitted(table):
    X, Y, groups, _ = table
    X[3, 1] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        SessionCriticWeights(Unfitted()).fit(X, Y, groups=groups)
