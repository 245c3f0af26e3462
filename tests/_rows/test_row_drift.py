"""Rows in an order that matters are found; rows in random order are not."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, f_oneway

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._rows import _row_drift
from sk_pwiser._rows._row_drift import find_drift
from sk_pwiser.datasets import make_ctr_cvr

TASKS = ("click", "conversion")


def encoded(X, Y):
    encoder = TableEncoder()
    codes, numeric, *_ = encoder.stack(encoder.fit(X))
    return codes, numeric, Y.astype(float), np.ones(Y.shape), encoder


def drift_of(X, Y):
    *arrays, encoder = encoded(X, np.asarray(Y))
    return find_drift(*arrays, encoder=encoder, task_names=TASKS)


def test_rows_in_random_order_do_not_drift():
    for seed in range(20):
        data = make_ctr_cvr(4_000, n_categories=200, ctr=0.05, random_state=seed)
        assert drift_of(data.data, data.target) == []


@pytest.mark.parametrize("what", ["click", "numeric_0", "category_0"])
def test_what_drifts_is_named_first(what):
    data = make_ctr_cvr(4_000, n_categories=200, ctr=0.2, random_state=0)
    X, Y = data.data, data.target.copy()
    rng = np.random.default_rng(0)
    late = np.arange(4_000) / 4_000
    if what == "click":
        Y["click"] = (rng.random(4_000) < 0.1 + 0.2 * late).astype(int)
        Y["conversion"] = 0
    elif what == "numeric_0":
        X = X.assign(numeric_0=X["numeric_0"] + 0.5 * late)
    else:  # values come and go
        values = (rng.integers(0, 100, 4_000) + 100 * late).astype(int)
        X = X.assign(category_0=pd.Categorical(values))
    assert drift_of(X, Y)[0] == what


def test_the_chances_are_those_of_the_usual_tests():
    rng = np.random.default_rng(0)
    block = np.arange(5_000) * 10 // 5_000
    values = rng.integers(0, 3, 5_000)
    table = pd.crosstab(block, values)
    chance = np.exp(_row_drift._chance_of_counts(values, block, 3))
    assert chance == pytest.approx(chi2_contingency(table).pvalue, rel=1e-6)
    inputs = rng.normal(size=(5_000, 1))
    parts = [inputs[block == number, 0] for number in range(10)]
    chance = np.exp(_row_drift._chance_of_means(inputs, block)[0])
    assert chance == pytest.approx(f_oneway(*parts).pvalue, rel=0.05)


def test_a_fit_says_so_once_and_how_to_name_the_time():
    data = make_ctr_cvr(3_000, n_categorical=1, ctr=0.3, random_state=0)
    X, Y = data.data, data.target
    order = np.argsort(X["numeric_0"] + np.random.default_rng(0).normal(size=3_000))
    X = X.iloc[order].reset_index(drop=True)
    Y = Y.iloc[order].reset_index(drop=True)
    model = MultiTaskCTRCVRClassifier(max_epochs=1, early_stopping=True)
    with pytest.warns(UserWarning, match="'numeric_0'.* differ between earlier and"):
        model.fit(X, Y)
    # The line that the message gives, and rows in random order, are silent.
    model.set_params(encoding_params={"time_column": "row"})
    model.fit(X.assign(row=range(len(X))), Y)
    model.set_params(encoding_params=None)
    model.fit(data.data, data.target)
