"""The model of sharded tables, compared with counts and with tables that are built."""

import sys

import numpy as np
import pytest
from scipy import stats
from skorch.callbacks import Callback

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._optimizers import WeightAverage

pd = pytest.importorskip("pandas")


@pytest.fixture
def model(module):
    """Return the formulas."""
    return module("sharding_model")


def draw(n_ids, exponent, size, seed=0):
    """Draw ids from the exact distribution, without groups."""
    weights = np.arange(1, n_ids + 1) ** -exponent
    rng = np.random.default_rng(seed)
    return rng.choice(n_ids, size, p=weights / weights.sum())


def within_errors(counts, expected):
    """Return whether the mean of counts is as expected, within four standard errors."""
    return abs(np.mean(counts) - expected) < 4 * stats.sem(counts)


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.3])
def test_distinct_ids_are_as_many_as_in_batches(model, exponent):
    ids = draw(400_000, exponent, (30, 3_000))
    zipf = model.Zipf(400_000, exponent, n_single=1_000)
    counts = [np.unique(batch).size for batch in ids]
    assert within_errors(counts, zipf.expected_distinct(3_000))
    rng = np.random.default_rng(1)
    drawn = [np.unique(zipf.draw(3_000, rng)).size for _ in range(30)]
    assert within_errors(drawn, zipf.expected_distinct(3_000))


def test_probabilities_of_groups_are_those_of_their_ids(model):
    zipf = model.Zipf(50_000, 1.1, n_single=100)
    assert len(zipf.sizes) < 10_000
    exact = np.arange(1, 50_001) ** -1.1
    found = np.repeat(zipf.probability, zipf.sizes)
    np.testing.assert_allclose(found, exact / exact.sum(), rtol=0.006)


def test_frequent_ids_are_as_many_as_in_rows(model):
    counts = [
        (np.bincount(rows) >= 3).sum() for rows in draw(20_000, 1.0, (20, 10_000))
    ]
    expected = model.Zipf(20_000, 1.0).expected_frequent(10_000, 3)
    assert within_errors(counts, expected)


def send(batches, n_workers, dim):
    """Return the bytes that workers send, if rows of the table go between them.

    Worker k owns the ids whose remainder is k.
    """
    sent = np.zeros(n_workers)
    for worker, batch in enumerate(batches):
        for owner in set(range(n_workers)) - {worker}:
            wanted = np.unique(batch[batch % n_workers == owner])
            rows = np.zeros((wanted.size, dim), dtype=np.float32)
            sent[worker] += wanted.nbytes + rows.nbytes  # ids, and gradients later
            sent[owner] += rows.nbytes
    return sent


def test_traffic_is_as_counted_between_workers(model):
    n_workers, dim, n_rows = 4, 8, 2_000
    batches = draw(300_000, 1.0, (n_workers, n_rows))
    distinct = np.mean([np.unique(batch).size for batch in batches])
    step = model.Step(300_000, dim, n_workers, n_rows, distinct)
    sent = send(batches, n_workers, dim).mean()
    assert model.exchanged(step) == pytest.approx(sent, rel=0.03)
    others = sum(
        np.unique(batch).nbytes + 4 * dim * np.unique(batch).size
        for batch in batches[1:]
    )
    # In a ring, each worker forwards what it receives, but for the last part.
    assert model.all_gathered(step) == pytest.approx(others, rel=0.03)


@pytest.mark.parametrize("n_workers", [2, 5])
def test_a_ring_reduces_with_the_traffic_of_the_model(model, n_workers):
    n_rows, dim = 60, 4
    step = model.Step(n_rows, dim, n_workers, batch=1, distinct=1)
    tables = np.random.default_rng(0).normal(size=(n_workers, n_rows, dim))
    parts = [np.split(table.astype(np.float32), n_workers) for table in tables]
    sent = np.zeros(n_workers)
    for turn in range(2 * n_workers - 2):
        is_reducing = turn < n_workers - 1
        moved = []
        for worker in range(n_workers):
            part = (worker - turn) % n_workers
            moved.append((worker, part, parts[worker][part].copy()))
        for worker, part, values in moved:
            receiver = (worker + 1) % n_workers
            sent[worker] += values.nbytes
            kept = parts[receiver][part] if is_reducing else 0
            parts[receiver][part] = kept + values
    for each in parts:
        np.testing.assert_allclose(np.concatenate(each), tables.sum(0), rtol=1e-4)
    assert (sent == model.all_reduced(step)).all()


class Sizes(Callback):
    """Keeps the bytes of the gradient, and of the best epoch's copy of the table."""

    def on_batch_end(self, net, training=False, **kwargs):
        (table,) = net.module_.input_layer.tables
        if training:
            self.gradient = 0 if table.grad is None else table.grad.nbytes

    def on_epoch_end(self, net, **kwargs):
        weights = dict(net.callbacks_)["early_stopping"].best_model_weights_
        self.best = weights["input_layer.embeddings.0.weight"].nbytes


@pytest.mark.parametrize("is_lazy", [True, False])
def test_memory_is_that_of_a_built_table_and_its_copies(model, is_lazy):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"id": rng.integers(0, 500, 400).astype(str)})
    sizes = Sizes()
    estimator = MultiTaskCTRCVRClassifier(
        encoding_params={"n_hash_buckets": 2_000},
        embedding_dim=8,
        target_encoding=False,
        optimizer_params={"lazy_embeddings": is_lazy},
        early_stopping=True,
        max_epochs=1,
        callbacks=[sizes],
        random_state=0,
    ).fit(X, rng.integers(0, 2, 400))
    net = estimator.net_
    (table,) = net.module_.input_layer.tables
    moments = [m for m in net.optimizer_.state[table].values() if m.ndim]
    average = WeightAverage(net.module_, 0.99, [table]).parts[1].averages
    found = [table, *moments, *average]
    n_bytes = sum(each.nbytes for each in found) + sizes.gradient + sizes.best
    copies = model.Copies(2, gradient=int(not is_lazy), average=1, best=1)
    assert len(table) == 2_002  # two codes for missing and unseen values
    assert n_bytes == model.table_bytes(2_002, 8, copies)


def test_shards_of_row_wise_adagrad(model):
    # 10 rows of 4 weights and one number each, in two shards.
    copies = model.Copies(1 / 4)
    assert model.table_bytes(10, 4, copies, n_shards=2) == 10 * (4 + 1) * 4 / 2


def test_the_script_prints_every_size(module, monkeypatch, capsys):
    script = module("sharding_model")
    arguments = ["--rows", "1e4", "1e5", "--workers", "2", "4", "--batch", "64"]
    monkeypatch.setattr(sys, "argv", ["sharding_model.py", *arguments])
    script.main()
    printed = capsys.readouterr().out
    assert "A model" in printed
    assert printed.count("Sent per worker and step, MiB; 10^") == 2
    # 2 * (1 / 2) * 10^5 rows * 16 weights * 4 bytes = 6.10 MiB
    line = [x for x in printed.split("\n") if x.startswith("replicated, dense")][1]
    assert line.split()[-2] == "6.10"
