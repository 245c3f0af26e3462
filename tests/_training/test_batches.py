"""Batches: which rows a sampler draws, and the bags of these rows."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sk_pwiser._rows._batches import BatchIterator, grouped, stratified
from sk_pwiser._rows._encoded_rows import Impressions, gather_bags
from sk_pwiser.networks import Bags


def impressions(n):
    rows = torch.arange(n)
    return Impressions(
        rows[:, None],
        rows[:, None].float(),
        y=(rows[:, None] % 2).float(),
        sample_weight=rows.float(),
    )


@pytest.mark.parametrize(("n", "size"), [(10, 3), (10, 10), (10, 100), (1, 1), (7, 2)])
@pytest.mark.parametrize("sampler", ["sequential", "shuffled"])
def test_every_row_occurs_once_in_batches_of_nearly_equal_size(n, size, sampler):
    batches = list(BatchIterator(impressions(n), size, sampler))
    sizes = [len(y) for _, y in batches]
    assert len(sizes) == -(-n // size)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= size
    seen = torch.cat([inputs["codes"][:, 0] for inputs, _ in batches])
    assert seen.sort().values.tolist() == list(range(n))
    for inputs, y in batches:
        row = inputs["codes"][:, 0]
        assert torch.equal(inputs["numeric"][:, 0], row.float())
        assert torch.equal(inputs["sample_weight"], row.float())
        assert torch.equal(y[:, 0], (row % 2).float())


def test_every_pass_has_a_new_order_of_the_selected_rows():
    part = replace(impressions(100), rows=torch.arange(0, 100, 2))
    iterator = BatchIterator(part, 16, "shuffled")
    first, second = (
        torch.cat([inputs["codes"][:, 0] for inputs, _ in iterator]) for _ in range(2)
    )
    assert not torch.equal(first, second)
    assert first.sort().values.tolist() == list(range(0, 100, 2))
    assert len(part) == 50
    assert torch.equal(part.column("y"), torch.zeros(50, 1))
    assert torch.equal(part.column("sample_weight"), torch.arange(0, 100, 2).float())


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30), batch=st.integers(1, 12)
)
def test_grouped_batches_split_no_group_that_fits(sizes, batch):
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    groups = groups[torch.randperm(len(groups))] * 7
    indices = grouped(groups, batch)
    assert indices.order.sort().values.tolist() == list(range(len(groups)))
    batches_of = {}
    for number, (start, stop) in enumerate(pairwise(indices.bounds)):
        assert 0 < stop - start <= batch
        for group in groups[indices.order[start:stop]].tolist():
            batches_of.setdefault(group // 7, set()).add(number)
    for group, size in enumerate(sizes):
        assert size > batch or len(batches_of[group]) == 1


@given(groups=st.lists(st.integers(0, 9), min_size=1), batch=st.integers(1, 12))
def test_batches_that_keep_groups_are_not_random(groups, batch):
    every_second = torch.arange(0, len(groups) * 2, 2)
    rows = replace(impressions(len(groups) * 2), rows=every_second)
    rows = replace(rows, groups=torch.tensor(groups).repeat_interleave(2))
    iterator = BatchIterator(rows, batch, keeps_groups=True)
    first, second = (
        [inputs["codes"][:, 0] for inputs, _ in iterator] for _ in range(2)
    )
    assert list(map(len, first)) == list(map(len, second))
    assert torch.equal(torch.cat(first), torch.cat(second))
    assert torch.equal(iterator.in_row_order(torch.cat(first)), rows.rows)
    batches_of = {}
    for number, found in enumerate(first):
        for row in found.tolist():
            batches_of.setdefault(groups[row // 2], set()).add(number)
    for group, numbers in batches_of.items():
        assert groups.count(group) > batch or len(numbers) == 1


@given(
    n=st.integers(2, 300),
    rate=st.floats(0.001, 0.9),
    batch=st.integers(2, 40),
    seed=st.integers(0, 10**6),
)
def test_stratified_batches_have_a_converted_row_and_an_unbiased_mean(
    n, rate, batch, seed
):
    generator = torch.Generator().manual_seed(seed)
    converted = torch.rand(n, generator=generator) < rate
    indices = stratified(converted, batch)
    if indices is None:
        assert not 0 < converted.sum() < n - -(-n // batch)
        return
    sizes = [stop - start for start, stop in pairwise(indices.bounds)]
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1
    if 0 < converted.sum() < n - len(sizes):
        for start, stop in pairwise(indices.bounds):
            assert converted[indices.order[start:stop]].any()
    # The batches' means, weighted by their sizes, are the mean over all rows.
    loss = torch.rand(n, generator=generator, dtype=torch.float64)
    weight = indices.weight
    weight = torch.ones(len(indices.order)) if weight is None else weight
    weighted = weight * loss[indices.order]
    total = sum(
        (stop - start) * weighted[start:stop].mean()
        for start, stop in pairwise(indices.bounds)
    )
    expected = loss.mean().item()
    assert total.item() / len(indices.order) == pytest.approx(expected, rel=1e-6)


def test_the_weights_of_repeated_rows_sum_to_those_of_one_draw():
    data = impressions(60)
    # Only row 59 is at the end of the funnel.
    deep = Impressions(data.codes, data.numeric, (data.codes == 59).float())
    weight = torch.zeros(60, dtype=torch.float64)
    batches = list(BatchIterator(deep, 10, "stratified"))
    for inputs, y in batches:
        assert y.sum() == 1
        weight.index_add_(0, inputs["codes"][:, 0], inputs["sample_weight"].double())
    assert len(batches) == 7
    torch.testing.assert_close(weight, weight.mean().expand(60))


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
