"""Rows with rare, missing and numeric categories, and numbers of several kinds."""

import numpy as np
import pandas as pd
import pytest

N = 240
# For tests that fit on these rows, one column of which is constant.
HAS_CONSTANT = pytest.mark.filterwarnings(
    r"ignore:The columns \['same'\] have the same"
)


def make_rows(seed=0):
    rng = np.random.default_rng(seed)
    shop = rng.choice([f"shop {i}" for i in range(40)], N).astype(object)
    shop[::11] = None
    return pd.DataFrame(
        {
            "shop": pd.Categorical(shop),
            "hour": rng.integers(0, 24, N),
            "price": np.where(rng.random(N) < 0.1, np.nan, rng.lognormal(3, 2, N)),
            "area": pd.Categorical(rng.integers(0, 5, N)),
            "same": np.ones(N),
            "time": 1.7e9 + rng.integers(0, 10**6, N),
        }
    )


def make_labels(seed=1):
    rng = np.random.default_rng(seed)
    click = rng.random(N) < 0.4
    return np.column_stack([click, click & (rng.random(N) < 0.5)]).astype(int)


X, Y = make_rows(), make_labels()
# Also values that were not seen in fit, and numbers beyond those of fit.
OTHER = make_rows(2).assign(
    shop=[*["new"] * 5, *["shop 1"] * (N - 5)], price=np.linspace(-5, 1e9, N)
)


def one_row_each(table):
    """Return rows of Python values, None where they are missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def raw_inputs(table, text=("shop",)):
    """Return the inputs of a graph: an array per column, of shape (n_samples, 1)."""
    arrays = {}
    for name, column in table.items():
        if name in text:
            values = column.astype(object).where(column.notna(), "")
        else:
            values = column.astype(float)
        arrays[str(name)] = values.to_numpy(copy=True).reshape(-1, 1)
    return arrays
