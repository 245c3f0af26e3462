"""Rows with lists of authors, their ages, and the settings that attend to them."""

import numpy as np
import pandas as pd

ATTENTION = {
    "list_pooling": {"last": "attention"},
    "shared_embeddings": {"last": "author", "also": "author"},
    "list_ages": {"last": "age"},
    "list_weights": {"also": "weight"},
}


def author_lists(rng, n, first=0):
    """Return rows whose authors start at another number than those of the lists.

    Another `first` gives authors that fit has not seen.
    """
    authors = np.array([f"a{i:02}" for i in range(first, first + 14)])
    last = [None if i % 11 == 3 else rng.choice(authors[4:], i % 5) for i in range(n)]
    also = [rng.choice(authors, 1 + i % 2).tolist() for i in range(n)]
    ages = [None if v is None else rng.exponential(1e4, len(v)) for v in last]
    known = [None if v is None else np.where(v < 1e3, np.nan, v) for v in ages]
    return pd.DataFrame(
        {
            "author": pd.Categorical(rng.choice(authors[:10], n)),
            "last": [None if v is None else v.tolist() for v in last],
            "age": [None if v is None else v.tolist() for v in known],
            "also": also,
        }
    )
