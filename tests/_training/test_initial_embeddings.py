"""Embeddings of frequent values start apart, so that decay hides no combination."""

import numpy as np
import pandas as pd
import pytest
from helpers.small_model import small
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training import _initial_embeddings

# Rows of each value: one below the number from which values start apart, and two above.
ROWS = {"rare": 20, "frequent": 400, "most frequent": 1_580}
STILL = {"lr": 1e-12, "lr_schedule": None, "max_epochs": 1, "early_stopping": False}


def first_embeddings(X, **params):
    y = np.arange(len(X)) % 2
    params = STILL | {"target_encoding": False, "random_state": 0} | params
    model = small(**params).fit(X, y)
    return model, model.net_.module_.input_layer.column_embeddings(0).numpy()


def one_column():
    return pd.DataFrame({"value": np.repeat(list(ROWS), list(ROWS.values()))})


def test_the_start_grows_with_the_root_of_the_rows_of_a_value():
    model, apart = first_embeddings(one_column())
    # With a number, embeddings start as near 0 as those of rare values.
    _, near = first_embeddings(one_column(), weight_decay=5e-4)
    codes = model.net_.module_.input_layer.cardinalities[0]
    measured = np.sort((apart / near).mean(axis=1))
    # The codes of missing and unseen values have no rows.
    expected = np.ones(codes)
    expected[-2:] = np.sqrt(np.array([400, 1_580]) / 25)
    np.testing.assert_allclose(measured, expected, rtol=1e-4)


def test_the_start_has_a_largest_value(monkeypatch):
    monkeypatch.setattr(_initial_embeddings, "LARGEST_INITIAL_STD", 0.05)
    _, apart = first_embeddings(one_column())
    _, near = first_embeddings(one_column(), weight_decay=5e-4)
    assert (apart / near).max() == pytest.approx(5, rel=1e-4)


def test_lists_that_sum_embeddings_of_a_column_leave_it_near_zero():
    column = one_column()
    lists = column.assign(others=[[value] for value in column["value"]])
    params = {"encoding_params": {"shared_embeddings": {"others": "value"}}}
    _, apart = first_embeddings(lists, **params)
    assert np.abs(apart).max() < 0.1


def equal_columns(seed, n_rows, effect):
    """Return rows of two binary columns and a number, labels and probabilities."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 2, (2, n_rows))
    age = rng.integers(21, 36, n_rows)
    logits = -0.55 + effect * (first == second) + 0.06 * (age - 30) + 0.02 * first
    p = 1 / (1 + np.exp(-logits))
    names = np.array(["boy", "girl"])
    X = pd.DataFrame(
        {
            "first": names[first],
            "second": names[second],
            "age": age,
            "group": rng.choice(["x", "y", "z"], n_rows, p=[0.85, 0.1, 0.05]),
        }
    )
    return X, (rng.random(n_rows) < p).astype(int), p


def shortfall(seed, n_rows, effect, **params):
    """Return by how much the AUC of new rows is below that of the truth."""
    X, y, _ = equal_columns(seed, n_rows, effect)
    X_new, y_new, p = equal_columns(seed + 100, 25_000, effect)
    model = MultiTaskCTRCVRClassifier(loss="bce", random_state=seed, **params)
    predicted = model.fit(X, y).predict_proba(X_new)[:, 1]
    return roc_auc_score(y_new, p) - roc_auc_score(y_new, predicted)


def test_a_strong_combination_is_found_in_few_rows():
    assert shortfall(0, 10_000, 0.8) < 0.01  # and 0.06 without it


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_an_equality_of_two_binary_columns_is_found(seed):
    assert shortfall(seed, 75_000, 0.3) < 0.003
