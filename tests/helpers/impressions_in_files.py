"""A small log in several Parquet files, and the same rows in memory."""

import threading
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from small_model import small

from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr

TARGETS = ["click", "conversion"]


def make_log(n_rows=1_200, seed=0):
    """Return rows with text, lists, missing values, weights and groups."""
    data = make_ctr_cvr(
        n_rows, n_numeric=2, n_categorical=2, n_categories=60, ctr=0.4, cvr=0.4,
        random_state=seed,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    log = data.data.astype({"category_0": str, "category_1": str})
    log["numeric_1"] = log["numeric_1"].mask(rng.random(n_rows) < 0.1)
    log["category_1"] = log["category_1"].mask(rng.random(n_rows) < 0.1)
    sizes = rng.integers(0, 4, n_rows)
    log["items"] = [[f"i{k}" for k in rng.integers(0, 30, n)] for n in sizes]
    log[TARGETS] = data.target.to_numpy()
    log["weight"] = rng.integers(0, 3, n_rows).astype(float)
    log["session"] = np.arange(n_rows) // 5
    return log


def write(log, folder, bounds=(0, 500, 1_200), row_group_size=150):
    """Write a log to files in a folder."""
    for number, (start, stop) in enumerate(pairwise(bounds)):
        path = folder / f"part-{number}.parquet"
        log[start:stop].to_parquet(path, row_group_size=row_group_size, index=False)
    return folder


FEATURES = ["numeric_0", "numeric_1", "category_0", "category_1", "items"]


def read(folder, **params):
    return ParquetImpressions(folder, FEATURES, TARGETS, **params)


def in_a_file(X, Y, folder, row_group_size=None, **columns):
    """Write rows and labels to a file in a folder, and return them as a dataset."""
    pytest.importorskip("pyarrow")
    X.join(Y).to_parquet(folder / "rows.parquet", row_group_size=row_group_size)
    return ParquetImpressions(folder, list(X), list(Y), **columns)


def in_memory(log):
    """Return the features of a log as an Arrow table."""
    import pyarrow as pa

    return pa.Table.from_pandas(pd.DataFrame(log[FEATURES]), preserve_index=False)


def make(**params):
    """Return an estimator that trains within a moment."""
    defaults = {
        "loss": "bce",
        "embedding_dim": 4,
        "lr": 0.01,
        "encoding_params": {"target_encoding_min_values": 20},
    }
    return small(**defaults | params)


def reader_threads():
    """Return the threads of fits and predictions that have not ended."""
    return [t for t in threading.enumerate() if t.name.startswith("sk_pwiser")]
