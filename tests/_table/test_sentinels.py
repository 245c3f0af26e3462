"""A few huge values in a column leave what the other values tell."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier

N_TRAIN, N_TEST = 3_000, 1_500


def table(seed=0):
    """Return a column on which both labels depend, and the labels."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(N_TRAIN + N_TEST)
    click = rng.random(len(x)) < 1 / (1 + np.exp(-4 * x))
    converts = rng.random(len(x)) < 0.5 / (1 + np.exp(-4 * x))
    return x, np.column_stack([click, click & converts]).astype(int)


def aucs(x, Y):
    """Return the AUC of a default fit on later rows, per task."""
    X = x[:, None]
    model = MultiTaskCTRCVRClassifier(max_epochs=5, random_state=0)
    p = model.fit(X[:N_TRAIN], Y[:N_TRAIN]).predict_proba(X[N_TRAIN:])
    return [roc_auc_score(Y[N_TRAIN:, k], p[:, k]) for k in range(2)]


def with_sentinels(value):
    def change(x):
        is_sentinel = np.random.default_rng(1).random(len(x)) < 0.01
        return np.where(is_sentinel, value, x)

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_sentinels(1e5),
        with_sentinels(-999.0),
        with_sentinels(1e30),
        np.sinh,
        lambda x: np.exp(5 * x),
        lambda x: np.sign(x) * np.exp(10 * np.abs(x)),
    ],
    ids=["1e5", "-999", "1e30", "sinh", "log-normal", "both tails"],
)
def test_the_default_survives_sentinels_and_heavy_tails(change):
    x, Y = table()
    # The labels of the rows with a sentinel cannot be told: 1 % of the rows.
    assert np.subtract(aucs(x, Y), aucs(change(x), Y)).max() < 0.02
