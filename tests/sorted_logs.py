"""A log of users and items, and the orders in which warehouses export it."""

import numpy as np
import pandas as pd

EFFECTS = np.random.default_rng(7)
USERS, ITEMS = EFFECTS.normal(size=1_500), 0.7 * EFFECTS.normal(size=400)
SORTED = "The rows are sorted by"


def make_sorted_log(n_rows, seed):
    """Return rows in the order of time, of users and items with rates of their own."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 1_500, n_rows), rng.integers(0, 400, n_rows)
    x, late = rng.normal(size=n_rows), np.linspace(-0.5, 0.5, n_rows)
    logits = USERS[user] + ITEMS[item] + 0.5 * x - 1.5 + 0.6 * late
    click = rng.random(n_rows) < 1 / (1 + np.exp(-logits))
    conversion = click & (rng.random(n_rows) < 1 / (1 + np.exp(0.5 - ITEMS[item])))
    names = [f"u{k:04d}" for k in user], [f"i{k:03d}" for k in item]
    X = pd.DataFrame({"user": names[0], "item": names[1], "x": x})
    return X, pd.DataFrame({"click": click, "conversion": conversion}).astype(int)


# Functions of the features and the labels: the order of the rows, and what sorts them.
ORDERS = {
    "shuffled": (lambda X, Y: np.random.default_rng(0).permutation(len(X)), None),
    "by label": (
        lambda X, Y: np.argsort(-Y["click"], kind="stable"),
        "the labels of 'click'",
    ),
    "by user": (lambda X, Y: np.argsort(X["user"], kind="stable"), "column 'user'"),
    "by item": (lambda X, Y: np.argsort(X["item"], kind="stable"), "column 'item'"),
    "by time": (lambda X, Y: np.arange(len(X)), None),
}


def in_order(name, X, Y):
    """Return the rows in one of the orders."""
    order = np.asarray(ORDERS[name][0](X, Y))
    return X.iloc[order].reset_index(drop=True), Y.iloc[order].reset_index(drop=True)
