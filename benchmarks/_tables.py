"""Tables for the benchmarks of speed: random impressions of a realistic form."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

# 16 category columns as in ad logs: a few with many values, many with few.
CARDINALITIES = (16_000, 4_500, 4_300, 4_100, 1_200, 400, 100, 50, *(12,) * 8)
N_NUMERIC = 63

# The columns of KuaiRand-Pure: kind, number of values, share of missing values.
KUAIRAND = (
    *((("number", n, 0.0)) for n in (25_156, 6_361, 15, 24)),
    *((("number", n, 0.0)) for n in (2, 2, 2, 2, 7, 49, 1_421, 3, 115, 449)),
    *((("number", n, 0.02)) for n in (15, 34, 7, 5, 5, 2, 2, 2, 2, 2, 2)),
    *((("number", n, 0.0)) for n in (5_641, 6_063)),
    *((("text", n, 0.0)) for n in (9, 8, 9, 7, 8, 3, 12, 2)),
    ("text", 107, 0.01),
    *((("count", 0, missing)) for missing in (0.0, 0.0, 0.0, 0.0, 0.02)),
)
# Settings without target statistics, bins of numbers, weight decay and average of the
# weights: what a plain loop, or another package, does with the same network.
PLAIN = {
    "target_encoding": False,
    "numeric_encoding": "standard",
    "weight_decay": 0.0,
    "optimizer_params": {"average_decay": 0.0},
}
KINDS = ("mixed", "category", "text")


class Prepared(NamedTuple):
    """A table as tensors, for a bare loop.

    Parameters
    ----------
    codes : int64 Tensor of shape (n_samples, n_category_columns)
        Codes; each column has its own range, without overlap.
    numeric : float32 Tensor of shape (n_samples, n_numeric)
        Standardised values.
    y : float32 Tensor of shape (n_samples, 2)
        Labels.
    """

    codes: Tensor
    numeric: Tensor
    y: Tensor

    def to(self, device):
        return Prepared(*(tensor.to(device) for tensor in self))


def draw_codes(n, cardinality, generator):
    """Draw codes with frequencies as uneven as those of ids: low codes are frequent."""
    codes = generator.random(n)
    return (cardinality * codes**3).astype(np.int32)


def draw_labels(n, generator):
    """Draw clicks at 20 % and conversions at 10 % of these."""
    draws = generator.random((n, 2)) < (0.2, 0.1)
    return np.stack([draws[:, 0], draws.all(axis=1)], axis=1).astype(np.int64)


def impressions(n, cardinalities=CARDINALITIES, n_numeric=N_NUMERIC, seed=0):
    """Return a DataFrame of impressions and its labels."""
    generator = np.random.default_rng(seed)
    columns = {}
    for j, cardinality in enumerate(cardinalities):
        codes = draw_codes(n, cardinality, generator)
        # Ids are numbers in every second column and text in the others.
        values = range(cardinality)
        values = list(values) if j % 2 else [f"value {v}" for v in values]
        columns[f"category_{j}"] = pd.Categorical.from_codes(codes, values)
    for j in range(n_numeric):
        columns[f"numeric_{j}"] = generator.standard_normal(n)
    return pd.DataFrame(columns, copy=False), draw_labels(n, generator)


def prepare(X, Y, cardinalities=CARDINALITIES):
    """Return the tensors of a table made by `impressions`."""
    n_categories, n = len(cardinalities), len(X)
    codes = np.empty((n, n_categories), dtype=np.int64)
    offsets = np.cumsum([0, *cardinalities])
    for j in range(n_categories):
        codes[:, j] = X.iloc[:, j].cat.codes.to_numpy() + offsets[j]
    numeric = np.empty((n, X.shape[1] - n_categories), dtype=np.float32)
    for j in range(numeric.shape[1]):
        numeric[:, j] = X.iloc[:, n_categories + j].to_numpy()
    return Prepared(*map(torch.from_numpy, (codes, numeric, Y.astype(np.float32))))


def kuairand_like(n, kind="mixed", seed=0):
    """Return a table with columns like KuaiRand's: 36 of categories and 5 of counts.

    Parameters
    ----------
    n : int
        Number of rows.
    kind : {"mixed", "category", "text"}, default="mixed"
        The dtype of the categories: category dtype, as the reader of KuaiRand returns
        them; text in object columns; or "mixed": category dtype for numbered
        categories and object columns for text.
    seed : int, default=0
        Seed of the generator.

    Returns
    -------
    DataFrame of shape (n, 41)
    """
    generator = np.random.default_rng(seed)
    columns = {}
    for j, (holds, cardinality, missing) in enumerate(KUAIRAND):
        is_missing = generator.random(n) < missing if missing else None
        if holds == "count":
            values = np.floor(np.exp(generator.normal(4.0, 2.0, n)))
            if missing:
                values[is_missing] = np.nan
            columns[f"count_{j}"] = values
            continue
        codes = draw_codes(n, cardinality, generator)
        if missing:
            codes[is_missing] = -1
        name = f"{holds}_{j}"
        columns[name] = _categories(codes, cardinality, holds, kind)
    return pd.DataFrame(columns, copy=False)


def _categories(codes, cardinality, holds, kind):
    as_text = holds == "text" or kind == "text"
    values = [f"value {v}" for v in range(cardinality)] if as_text else None
    if kind == "category" or (kind == "mixed" and holds == "number"):
        return pd.Categorical.from_codes(codes, values or list(range(cardinality)))
    # Missing values, code -1, take the last entry.
    return pd.Series(np.array([*values, None], dtype=object)[codes], dtype=object)
