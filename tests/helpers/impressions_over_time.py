"""Impressions over ten days, and a history with all kinds of columns."""

import numpy as np
import pandas as pd

from sk_pwiser.history import HistoryFeatures

DAY = np.datetime64("2026-03-01", "ns")


def make_log(n=3000, ctr=0.02, cvr=0.05, seed=0, signal=0.0):
    """Return impressions in the order of time; `signal` varies rates by user."""
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.integers(0, 10 * 86_400, n) // 60 * 60)
    user = rng.integers(0, n // 20, n)
    odds = np.log(ctr / (1 - ctr)) + signal * rng.normal(size=n // 20)[user]
    click = rng.random(n) < 1 / (1 + np.exp(-odds))
    X = pd.DataFrame(
        {
            "user": user,
            "item": [f"item {i}" for i in rng.integers(0, 30, n)],
            "time": DAY + seconds.astype("m8[s]"),
        }
    )
    Y = pd.DataFrame({"click": click, "conversion": click & (rng.random(n) < cvr)})
    return X, Y.astype(int)


def make_history(**params):
    settings = {
        "keys": ["user", "item", ("user", "item")],
        "time": "time",
        "label_delay": {"click": "1min", "conversion": "1h"},
        "windows": ["1d"],
        "half_lives": ["12h"],
        "lists": [
            {"column": "item", "n": 5, "task": "click", "ages": "buckets"},
            {"column": "user", "key": "item", "n": 3},
        ],
    }
    return HistoryFeatures(**(settings | params))
