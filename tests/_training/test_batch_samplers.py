from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sk_pwiser._training._batch_samplers import BatchIterator, grouped, stratified
from sk_pwiser._training._dataset import Impressions


def impressions(n):
    rows = torch.arange(n)
    return Impressions(
        rows[:, None],
        rows[:, None].float(),
        y=(rows[:, None] % 2).float(),
        sample_weight=rows.float(),
    )


@pytest.mark.parametrize(("n", "size"), [(10, 3), (10, 10), (10, 100), (1, 1), (7, 2)])
@pytest.mark.parametrize("plan", ["as_they_are", "shuffled"])
def test_every_row_once_in_batches_of_nearly_one_size(n, size, plan):
    batches = list(BatchIterator(impressions(n), size, plan))
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


def test_shuffling_takes_a_new_order_a_pass_and_keeps_to_the_part():
    part = impressions(100).part(torch.arange(0, 100, 2))
    iterator = BatchIterator(part, 16, "shuffled")
    first, second = (
        torch.cat([inputs["codes"][:, 0] for inputs, _ in iterator]) for _ in range(2)
    )
    assert not torch.equal(first, second)
    assert first.sort().values.tolist() == list(range(0, 100, 2))
    assert len(part) == 50
    assert torch.equal(part.labels(), torch.zeros(50, 1))
    assert torch.equal(part.weights(), torch.arange(0, 100, 2).float())


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30), batch=st.integers(1, 12)
)
def test_grouped_batches_cut_no_group_that_fits(sizes, batch):
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    groups = groups[torch.randperm(len(groups))] * 7
    plan = grouped(groups, batch)
    assert plan.order.sort().values.tolist() == list(range(len(groups)))
    where = {}
    for number, (start, stop) in enumerate(pairwise(plan.bounds)):
        assert 0 < stop - start <= batch
        for group in groups[plan.order[start:stop]].tolist():
            where.setdefault(group // 7, set()).add(number)
    for group, size in enumerate(sizes):
        assert size > batch or len(where[group]) == 1


@given(
    n=st.integers(2, 300),
    rate=st.floats(0.001, 0.9),
    batch=st.integers(2, 40),
    seed=st.integers(0, 10**6),
)
def test_stratified_batches_hold_a_converted_row_and_count_every_row_once(
    n, rate, batch, seed
):
    generator = torch.Generator().manual_seed(seed)
    converted = torch.rand(n, generator=generator) < rate
    plan = stratified(converted, batch)
    sizes = [stop - start for start, stop in pairwise(plan.bounds)]
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1
    if 0 < converted.sum() < n - len(sizes):
        for start, stop in pairwise(plan.bounds):
            assert converted[plan.order[start:stop]].any()
    # The batches' means, weighted by their sizes, are the mean over all rows.
    loss = torch.rand(n, generator=generator, dtype=torch.float64)
    weight = torch.ones(len(plan.order)) if plan.weight is None else plan.weight
    weighted = weight * loss[plan.order]
    total = sum(
        (stop - start) * weighted[start:stop].mean()
        for start, stop in pairwise(plan.bounds)
    )
    expected = loss.mean().item()
    assert total.item() / len(plan.order) == pytest.approx(expected, rel=1e-6)


def test_stratified_batches_weight_repeated_rows_down():
    data = impressions(60)
    # Row 59 alone is at the end of the funnel.
    deep = Impressions(data.codes, data.numeric, (data.codes == 59).float())
    weight = torch.zeros(60, dtype=torch.float64)
    batches = list(BatchIterator(deep, 10, "stratified"))
    for inputs, y in batches:
        assert y.sum() == 1
        weight.index_add_(0, inputs["codes"][:, 0], inputs["sample_weight"].double())
    assert len(batches) == 7
    torch.testing.assert_close(weight, weight.mean().expand(60))


def test_rows_without_labels():
    rows = Impressions(torch.zeros(3, 0, dtype=torch.int64), torch.zeros(3, 2))
    inputs, _ = next(iter(BatchIterator(rows, 5)))
    assert set(inputs) == {"codes", "numeric"}
    assert rows.weights() is None
    assert rows.to(torch.device("cpu")).numeric.shape == (3, 2)
