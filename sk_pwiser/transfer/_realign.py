"""Realignment: a short training of merged weights on labelled rows."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from sklearn.utils import check_random_state

from sk_pwiser._table import as_table, n_rows
from sk_pwiser._training import Freezer
from sk_pwiser._utils import check_integer
from sk_pwiser.transfer._fine_tune import fine_tune
from sk_pwiser.transfer._pool import check_labels

KEYS = ("X", "Y", "max_epochs")
LARGEST_SEED = np.iinfo(np.int32).max


class Realignment(NamedTuple):
    """On which rows, and for how many epochs, a merged estimator is trained.

    Parameters
    ----------
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions.
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Their labels.
    max_epochs : int
        Number of epochs.
    """

    X: object
    Y: object
    max_epochs: int

    def train(self, merged, frozen, random_state):
        """Train a copy of a merged estimator, but for the tensors in `frozen`."""
        random_state = check_random_state(random_state)
        trained = fine_tune(
            merged,
            self.X,
            self.Y,
            extend=False,
            max_epochs=self.max_epochs,
            early_stopping=False,
            random_state=int(random_state.randint(LARGEST_SEED)),
            callbacks=[*(merged.callbacks or ()), Freezer(sorted(frozen))],
        )
        before = dict(merged.net_.module_.named_parameters())
        with torch.no_grad():
            for name, parameter in trained.net_.module_.named_parameters():
                parameter.requires_grad_(before[name].requires_grad)
                if name in frozen:
                    # The average over the steps may have rounded it.
                    parameter.copy_(before[name])
        names = ("max_epochs", "early_stopping", "random_state", "callbacks")
        return trained.set_params(**{name: getattr(merged, name) for name in names})


def check_realign(realign, base, X, Y):
    """Return what to train a merged estimator on, None for nothing.

    Raises
    ------
    ValueError, TypeError
        If `realign` is neither a bool nor a dict with known keys, or if labels are
        missing or invalid.
    """
    if not isinstance(realign, bool | np.bool_ | Mapping):
        raise TypeError(f"realign must be a bool or a dict; got {realign!r}.")
    if not isinstance(realign, Mapping):
        if not realign:
            return None
        realign = {}
    if unknown := realign.keys() - set(KEYS):
        raise ValueError(
            f"realign holds {sorted(unknown)[0]!r}; its keys are {list(KEYS)}."
        )
    if ("X" in realign) != ("Y" in realign):
        raise ValueError("realign must hold both X and Y, or none of them.")
    X, Y = realign.get("X", X), realign.get("Y", Y)
    max_epochs = check_integer(
        "max_epochs in realign", realign.get("max_epochs", 1), at_least=0
    )
    X = as_table(X)
    if max_epochs == 0 or n_rows(X) == 0:
        return None
    if Y is None:
        raise ValueError("Y must not be None with realign: it trains on labelled rows.")
    check_labels(base, X, Y)
    return Realignment(X, Y, max_epochs)
