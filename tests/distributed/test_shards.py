"""The files of the rows are dealt to the workers without loss or repetition."""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from sk_pwiser._rows._batches import BatchIterator
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._utils._random import Generators
from sk_pwiser.distributed._workers import Clock, JointIterator, Shard

pytestmark = pytest.mark.slow


class Store(NamedTuple):
    """A store that has sizes of files, and no rows."""

    sizes: list[int]

    def __len__(self):
        return sum(self.sizes)


def make_shards(sizes, n_workers, seed=0):
    store = Store(sizes)
    return [
        Shard(store, None, None, 10, rank=rank, n_workers=n_workers, clock=Clock(seed))
        for rank in range(n_workers)
    ]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("n_workers", [1, 2, 3, 7])
def test_every_file_is_read_by_one_worker(n_workers, shuffled):
    sizes = [100, 100, 100, 40, 100, 7, 100, 100, 100, 100]
    shards = make_shards(sizes, n_workers, seed=1)
    orders = [shard._order(shuffled) for shard in shards]
    assert sorted(np.concatenate(orders)) == list(range(len(sizes)))
    shares = [sum(sizes[file] for file in order) for order in orders]
    assert max(shares) - min(shares) <= 2 * max(sizes)


def test_unshuffled_files_follow_each_other():
    orders = [shard._order(False) for shard in make_shards([10] * 6, 3)]
    assert orders == [[0, 1], [2, 3], [4, 5]]


def test_each_epoch_has_an_order_of_its_own():
    sizes = [10] * 20
    first, again, later = (make_shards(sizes, 2, seed=3)[0] for _ in range(3))
    later.clock.epoch = 1
    assert first._order(True) == again._order(True)
    assert first._order(True) != later._order(True)


def test_all_workers_have_as_many_batches():
    shards = make_shards([100] * 9 + [35], 2)
    for shard in shards:
        n_own = sum(shard.store.sizes[file] for file in shard._order(False))
        n_batches = -(-n_own // shard.batch_rows(64, False))
        assert abs(n_batches - -(-935 // 64)) <= 1


def test_a_worker_without_rows_goes_on_with_a_row_that_does_not_count():
    """Of two workers one has two batches and the other three."""
    rows = Impressions(torch.zeros(8, 1), torch.zeros(8, 1), torch.zeros(8, 2))
    other = iter([[4, 0], [4, 1], [4, 0], [0, 0]])
    workers = SimpleNamespace(gather_numbers=lambda *own: [own, next(other)])
    steps = JointIterator(BatchIterator(rows, 5), workers, Generators(0))
    found = [(len(y), list(steps.sizes), steps.n_weights) for _, y in steps]
    assert found == [(4, [4, 4], 0), (4, [4, 4], 1), (1, [0, 4], 0)]
