"""Generated impressions at advertising rates, and small fits of them."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

# Number of training rows, click rate, and conversion rate among the clicks.
RATES = {"2 %, 0.1 %": (50_000, 0.02, 0.05), "10 %, 1 %": (20_000, 0.1, 0.1)}
N_TEST = 20_000


class Log(NamedTuple):
    """Training rows, and other rows with their true probabilities.

    Parameters
    ----------
    X, Y : DataFrame
        Training rows.
    X_test, Y_test : DataFrame
        Other rows.
    truth : ndarray of shape (n_test, 2)
        P(click | row) and P(conversion | row) in the other rows.
    """

    X: pd.DataFrame
    Y: pd.DataFrame
    X_test: pd.DataFrame
    Y_test: pd.DataFrame
    truth: np.ndarray


def make_log(n, ctr, cvr):
    sizes = {"n_numeric": 4, "n_categorical": 2, "n_categories": 20}
    data = make_ctr_cvr(n + N_TEST, ctr=ctr, cvr=cvr, random_state=0, **sizes)
    truth = np.column_stack([data.ctr, data.ctr * data.cvr])
    halves = data.data[:n], data.target[:n], data.data[n:], data.target[n:]
    return Log(*halves, truth[n:])


def make_model(**params):
    """Return a small estimator with batches of 512 rows and cross-entropy."""
    defaults = {
        "network_params": {"bottom_units": (32,), "tower_units": (8,)},
        "loss": "bce",
        "batch_size": 512,
        "max_epochs": 4,
        "lr": 0.005,
        "early_stopping": False,
        "target_encoding": False,
        "numeric_encoding": "standard",
        "embedding_dim": 4,
        "random_state": 0,
    }
    return MultiTaskCTRCVRClassifier(**{**defaults, **params})


def expected_auc(score, probability):
    """Return the AUC of a score, averaged over the labels that may be drawn."""
    order = np.argsort(score)
    ones, zeros = probability[order], 1 - probability[order]
    return ones @ (zeros.cumsum() - zeros / 2) / (ones.sum() * zeros.sum())


class Fits:
    """Fits of a log, each made once."""

    def __init__(self, log):
        self.log, self._models = log, {}

    def model(self, **params):
        key = repr(sorted(params.items()))
        if key not in self._models:
            model = make_model(**params).fit(self.log.X, self.log.Y)
            self._models[key] = model
        return self._models[key]

    def aucs(self, model):
        """Return the expected AUC of each task in the rows that were not trained on."""
        p = model.predict_proba(self.log.X_test)
        pairs = zip(p.T, self.log.truth.T, strict=True)
        return np.array([expected_auc(*pair) for pair in pairs])
