"""Target encoding in the estimator: what is encoded by what, and bad input."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score

from sk_pwiser import MultiTaskCTRCVRClassifier


def table(n=3000, n_users=200, seed=0):
    """Return impressions of users whose click rates differ, and a noise column."""
    rng = np.random.default_rng(seed)
    rates = rng.beta(1, 3, size=n_users)
    user = rng.integers(n_users, size=n)
    click = rng.random(n) < rates[user]
    conversion = click & (rng.random(n) < 0.3)
    X = pd.DataFrame({"user": [f"u{u}" for u in user], "x": rng.normal(size=n)})
    return X, np.c_[click, conversion].astype(int)


def small(**params):
    params = {"max_epochs": 3, "early_stopping": False, "random_state": 0} | params
    return MultiTaskCTRCVRClassifier(loss="bce", **params)


def test_statistics_help_where_values_have_few_rows():
    X, Y = table()
    X_test, Y_test = table(seed=0, n=6000)
    aucs = [
        roc_auc_score(
            Y_test[3000:, 0],
            small(target_encoding=value).fit(X, Y).predict_proba(X_test[3000:])[:, 0],
        )
        for value in (False, True)
    ]
    assert aucs[1] > aucs[0] + 0.02


def test_columns_are_chosen_by_their_number_of_values():
    X, Y = table()
    X["device"] = np.where(X["x"] > 0, "phone", "tablet")

    def n_inputs(**params):
        return small(**params).fit(X, Y).net_.module_.spec.n_numeric

    assert n_inputs(target_encoding=False) == 1
    assert n_inputs() == n_inputs(target_encoding=True) == 1 + 3
    assert n_inputs(target_encoding=["device"]) == 1 + 3
    assert n_inputs(target_encoding=[0, -1]) == 1 + 6
    few = {"target_encoding_min_values": 2}
    assert n_inputs(encoding_params=few) == 1 + 6


def test_unique_ids_change_nothing():
    X, Y = table()
    scores = [
        cross_val_score(small(), data, Y, cv=3).mean()
        for data in (X, X.assign(id=[f"i{k}" for k in range(len(X))]))
    ]
    assert scores[1] == pytest.approx(scores[0], abs=0.01)


def test_validation_rows_are_encoded_like_new_rows():
    X, Y = table()
    model = small(early_stopping=True, validation_fraction=0.3).fit(X, Y)
    # Labels of validation rows must not enter the inputs of any row: with noise as
    # labels the validation AUC stays at chance, which shared statistics would break.
    rng = np.random.default_rng(1)
    noise = (rng.random((len(X), 2)) < 0.3).astype(int)
    noise[:, 1] *= noise[:, 0]
    params = {"target_encoding_min_values": 1}
    by_chance = small(
        early_stopping=True, validation_fraction=0.3, encoding_params=params
    ).fit(X, noise)
    assert max(model.history_[:, "valid_auc_click"]) > 0.65
    assert max(by_chance.history_[:, "valid_auc_click"]) < 0.56


def test_partial_fit_encodes_before_it_adds():
    X, Y = table()
    model = small().partial_fit(X[:1000], Y[:1000])
    statistics = model._result.schema.statistics
    counts = statistics.counts_[0].copy()
    encoded = model._result.schema.transform(X[1000:2000])
    model.partial_fit(X[1000:2000], Y[1000:2000])
    assert model._result.schema.statistics is statistics
    added = statistics.counts_[0] - counts
    seen = X["user"][1000:2000].isin(X["user"][:1000])
    assert added[0, 0].sum() == seen.sum()
    assert added[1, 0].sum() == Y[1000:2000, 0][seen].sum()
    after = model._result.schema.transform(X[1000:2000])
    assert (encoded.numeric != after.numeric).any()


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"target_encoding": ["item"]}, ValueError, "'item', which is not a column"),
        ({"target_encoding": ["x"]}, ValueError, "'x', which is not a category column"),
        ({"target_encoding": [True, False]}, ValueError, "True, which is not a column"),
        ({"target_encoding": "always"}, ValueError, "target_encoding.*'always'"),
        (
            {"target_encoding": False, "encoding_params": {"time_column": "when"}},
            ValueError,
            "time_column is 'when', which is not a column of X",
        ),
        (
            {"encoding_params": {"target_encoding_blocks": 1}},
            ValueError,
            "target_encoding_blocks must be an integer >= 2; got 1",
        ),
    ],
)
def test_bad_input(params, error, message):
    X, Y = table()
    X.loc[5, "x"] = np.nan
    with pytest.raises(error, match=message):
        small(**params).fit(X, Y)


def test_a_warm_start_has_the_columns_of_the_earlier_fit():
    X, Y = table()
    model = small(warm_start=True, max_epochs=1).fit(X, Y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match=r"encoding=False: .*\[\], .*\['user'\]"):
        model.set_params(target_encoding=False).fit(X, Y)
    assert_array_equal(model.predict_proba(X), before)
    assert model.set_params(target_encoding=["user"]).fit(X, Y).n_iter_ == 2
