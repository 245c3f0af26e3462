"""The fitted attribute that says how each column was read."""

import numpy as np
import pandas as pd
from numpy.testing import assert_array_equal
from refusals import small
from scipy.sparse import csr_array

N = 400
RNG = np.random.default_rng(0)
Y = np.column_stack([RNG.integers(0, 2, N), np.zeros(N, dtype=int)])
Y[:, 1] = Y[:, 0] * RNG.integers(0, 2, N)
LISTS = [list(RNG.choice(["x", "y", "z"], n)) for n in RNG.integers(1, 4, N)]
USERS = np.where(
    np.arange(N) < 3, None, np.char.add("u", (np.arange(N) % 120).astype(str))
)
X = pd.DataFrame(
    {
        "user": USERS,
        "color": np.where(np.arange(N) == 7, "once", np.arange(N) % 2),
        "price": RNG.normal(size=N),
        "flat": np.arange(N) % 2 * 1.0,
        "items": LISTS,
    }
).astype({"user": object, "color": str})


def test_each_column_says_how_it_was_read():
    model = small().fit(X, Y)
    found = model.column_encodings_
    assert list(found) == list(X)
    assert {name: (each.kind, each.rates) for name, each in found.items()} == {
        "user": ("category", True),
        "color": ("category", False),
        "price": ("numeric", False),
        "flat": ("numeric", False),
        "items": ("list of categories", False),
    }
    # Values with an embedding of their own: not those of a single row.
    assert found["color"]["values"] == {"0": 2, "1": 3}
    assert found["items"]["values"] == {"x": 2, "y": 3, "z": 4}
    users = found["user"]["values"]
    assert users[None] == 0
    codes = model.encode(X).codes[:, 0]
    assert_array_equal(codes, [users[value] for value in USERS])
    assert found["price"]["values"] is None
    assert found["user"].bins is None
    # The position of an edge among the edges is its number.
    edges = found["price"].bins
    at_edges = X[: len(edges)].assign(price=edges)
    positions = model.encode(at_edges).numeric[:, 0]
    assert_array_equal(positions, np.arange(len(edges)))


def test_columns_without_names_are_counted():
    array = np.column_stack([X["price"], X["flat"]])
    assert list(small().fit(array, Y).column_encodings_) == [0, 1]
    sparse = small().fit(csr_array(array), Y).column_encodings_
    assert [each.kind for each in sparse.values()] == ["sparse"] * 2


def test_before_a_fit_there_are_none():
    assert not hasattr(small(), "column_encodings_")
