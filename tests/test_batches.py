import pytest
import torch

from sk_pwiser._batches import BatchIterator, Impressions


def impressions(n):
    rows = torch.arange(n)
    return Impressions(
        rows[:, None],
        rows[:, None].float(),
        y=(rows[:, None] % 2).float(),
        sample_weight=rows.float(),
    )


@pytest.mark.parametrize(("n", "size"), [(10, 3), (10, 10), (10, 100), (1, 1), (7, 2)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_row_once_in_batches_of_nearly_one_size(n, size, shuffle):
    batches = list(BatchIterator(impressions(n), size, shuffle))
    sizes = [len(y) for _, y in batches]
    assert len(sizes) == len(BatchIterator(impressions(n), size)) == -(-n // size)
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
    iterator = BatchIterator(part, 16, shuffle=True)
    first, second = (
        torch.cat([inputs["codes"][:, 0] for inputs, _ in iterator]) for _ in range(2)
    )
    assert not torch.equal(first, second)
    assert first.sort().values.tolist() == list(range(0, 100, 2))
    assert len(part) == 50
    assert torch.equal(part.labels(), torch.zeros(50, 1))
    assert torch.equal(part.weights(), torch.arange(0, 100, 2).float())


def test_rows_without_labels():
    rows = Impressions(torch.zeros(3, 0, dtype=torch.int64), torch.zeros(3, 2))
    inputs, _ = next(iter(BatchIterator(rows, 5)))
    assert set(inputs) == {"codes", "numeric"}
    assert rows.weights() is None
    assert rows.to(torch.device("cpu")).numeric.shape == (3, 2)
