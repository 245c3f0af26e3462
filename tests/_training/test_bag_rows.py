"""Gathered bags, compared with scipy's row indexing."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sk_pwiser._training._batches import gather_bags
from sk_pwiser.networks import Bags


@given(
    st.lists(st.integers(0, 3), min_size=4, max_size=24),
    st.sampled_from([1, 2, 4]),
    st.data(),
)
def test_gathered_rows_are_those_of_a_matrix(sizes, n_bags, data):
    n_rows = len(sizes) // n_bags
    sizes = sizes[: n_rows * n_bags]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    indices = np.arange(offsets[-1], dtype=np.int32)
    weights = None
    if data.draw(st.booleans()):
        weights = torch.from_numpy(indices.astype(np.float32) / 2)
    bags = Bags(torch.from_numpy(offsets), torch.from_numpy(indices), weights)
    # One row of the matrix per bag.
    shape = len(sizes), len(indices) + 1
    matrix = csr_array((indices, indices, offsets), shape=shape)
    rows = data.draw(st.lists(st.integers(0, n_rows - 1), max_size=9))
    of_rows = [row * n_bags + bag for row in rows for bag in range(n_bags)]
    start = data.draw(st.integers(0, n_rows))
    stop = data.draw(st.integers(start, n_rows))
    for chosen, expected in (
        (torch.tensor(rows, dtype=torch.int64), matrix[of_rows]),
        (slice(start, stop), matrix[start * n_bags : stop * n_bags]),
    ):
        found = gather_bags(bags, chosen, n_bags)
        assert found.offsets.tolist() == expected.indptr.tolist()
        assert found.indices.tolist() == expected.indices.tolist()
        if weights is not None:
            assert found.weights.tolist() == (expected.data / 2).tolist()
