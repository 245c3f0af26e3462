"""The cost of a step of several workers: measured for one and two, modelled beyond.

    python benchmarks/workers.py

A step of `batch_size` rows is divided among workers, which are processes of this
machine with one thread each, connected through the loopback interface. Its parts:

- compute: forward and backward pass of the network on the rows of a worker;
- criterion: the loss of the joined batch, which every worker computes;
- join: logits and labels of all workers;
- gradients: their sum over the workers;
- optimiser: the step, the same in every worker.

There are two data sets: one with small embedding tables, whose gradients are dense, and
one with a large table, whose gradient is exchanged by rows. All steps have the same
batch.

For more than two workers the times are modelled, not measured. With W workers

- compute = a + b x batch_size / W, with a and b from steps of a whole and of half a
  batch;
- join and gradients = 2 (W - 1) / W x the time of two workers: of the same batch, a
  worker receives the rows of the others, and the parts of a ring of sums or the rows of
  a table that the others used;
- criterion and optimiser as measured.

Rounds of one and of two workers alternate; a figure is the median over the rounds, and
the last column of two workers the median of the ratios within a round.

The latency of a network between machines is not in the model. The join and the sums of
gradients contain the time that a worker waits for the other.
"""

import multiprocessing
import tempfile
import time
from datetime import timedelta
from itertools import product
from types import SimpleNamespace

import numpy as np
import torch.distributed as dist
import torch.multiprocessing
from _harness import begin, limit_threads, make_parser

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.distributed._workers import Workers, join

BATCHES = (2_048, 16_384)
TABLES = {
    "small tables, dense gradients": 100,
    "a table of 10^6 rows, gradients by rows": 1_000_000,
}
ALONE = SimpleNamespace(size=1)
PARTS = ("compute", "join", "criterion", "gradients", "optimiser")


def make_net(n_categories, n_rows, batch_size):
    """Return a net and the tensors of a batch."""
    data = make_ctr_cvr(n_rows, ctr=0.2, cvr=0.2, n_categories=100, random_state=0)
    X, Y = data.data, data.target
    encoding = {"n_hash_buckets": {"category_0": n_categories}}
    if n_categories <= 100:
        encoding = None
    else:
        numbers = np.random.default_rng(0).integers(0, 10**9, n_rows)
        X = X.assign(category_0=numbers.astype(str))
    model = MultiTaskCTRCVRClassifier(
        max_epochs=1,
        early_stopping=False,
        encoding_params=encoding,
        target_encoding=False,
        batch_size=batch_size,
        random_state=0,
    ).fit(X, Y)
    rows = model._result.schema.transform(X[:batch_size])
    return model.net_, rows.labelled(Y[:batch_size].to_numpy("float32"))


def time_step(net, batch, workers, sizes, tables):
    """Take one step; return the seconds of its parts."""
    marks = [time.perf_counter()]

    def mark():
        marks.append(time.perf_counter())

    inputs, y = batch
    net.optimizer_.zero_grad(set_to_none=True)
    output = net.infer(inputs)
    mark()
    own = (output, y, None, None)
    joined = own if workers.size == 1 else join(own, workers, sizes, 0)
    mark()
    logits = joined[0].logits
    held = logits.detach().requires_grad_()
    loss = net.criterion_(joined[0]._replace(logits=held), *joined[1:])
    (gradient,) = torch.autograd.grad(loss, held)
    mark()
    logits.backward(gradient)
    mark()
    if workers.size > 1:
        workers.sum_gradients(net.module_.parameters(), tables)
    mark()
    net.optimizer_.step()
    mark()
    forward, joining, criterion, backward, gradients, optimiser = np.diff(marks)
    return [forward + backward, joining, criterion, gradients, optimiser]


def run_worker(rank, size, meeting, n_categories, batch_size, n_steps, queue):
    """Measure the steps of a worker; the first one reports."""
    from sk_pwiser._training._embedding_tables import sparse_tables

    limit_threads(1)
    workers = ALONE
    if size > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=300),
        )
        workers = Workers(torch.device("cpu"))
    net, impressions = make_net(n_categories, max(batch_size, 4_000), batch_size)
    net._set_training(True)
    tables = list(sparse_tables(net.module_))
    share = batch_size // size
    batch = impressions[slice(rank * share, (rank + 1) * share)]
    steps = [
        time_step(net, batch, workers, [share] * size, tables) for _ in range(n_steps)
    ]
    half = impressions[slice(0, batch_size // 2)]
    halves = [
        time_step(net, half, ALONE, [batch_size // 2], tables)[0]
        for _ in range(n_steps)
    ]
    if rank == 0:
        warm = n_steps // 5
        figures = np.median(steps[warm:], axis=0), np.median(halves[warm:])
        queue.put((figures, sum(p.numel() for p in net.module_.parameters())))
    if size > 1:
        dist.destroy_process_group()


def measure(size, n_categories, batch_size, n_steps):
    """Return the median seconds of the parts of a step of some workers."""
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        given = size, f"{folder}/meeting", n_categories, batch_size, n_steps, queue
        torch.multiprocessing.spawn(run_worker, given, nprocs=size)
    return queue.get()


def modelled(n_workers, one, two, half):
    """Return the seconds of the parts of a step of more workers, by the formulas."""
    fixed = max(0.0, 2 * half - one[0])
    exchange = 2 * (n_workers - 1) / n_workers
    return [
        fixed + (one[0] - fixed) / n_workers,
        two[1] * exchange,
        two[2],
        two[3] * exchange,
        two[4],
    ]


def print_table(report, title, n_categories, batch_size, arguments):
    """Measure one table, in rounds of one and two workers; print the milliseconds."""
    ones, twos, halves = [], [], []
    given = n_categories, batch_size, 10 if arguments.quick else 100
    for _ in range(arguments.rounds):
        (one, half), n_weights = measure(1, *given)
        (two, _), _ = measure(2, *given)
        ones.append(one)
        twos.append(two)
        halves.append(half)
    ratios = np.sum(twos, axis=1) / np.sum(ones, axis=1)
    one, two, half = (np.median(each, axis=0) for each in (ones, twos, halves))
    report.text("", f"{batch_size:,} rows, {title}, {n_weights:,} weights")
    report.table([*PARTS, "all", "of one"])
    lines = {"1 worker": (one, 1.0), "2 workers": (two, np.median(ratios))}
    for n_workers in (4, 8, 16, 32):
        parts = modelled(n_workers, one, two, half)
        lines[f"{n_workers} workers, modelled"] = parts, sum(parts) / sum(one)
    for label, (parts, ratio) in lines.items():
        figures = [*(1000 * seconds for seconds in (*parts, sum(parts))), ratio]
        report.row(label, [f"{each:.2f}" for each in figures])
    report.text(
        f"2 workers of one, over {arguments.rounds} rounds: {ratios.min():.2f} to "
        f"{ratios.max():.2f}"
    )


def main():
    parser = make_parser(__doc__, rounds=3, device=False)
    parser.set_defaults(threads=1)
    arguments, report = begin("workers", parser, rounds=1)
    for batch_size, (title, n_categories) in product(BATCHES, TABLES.items()):
        print_table(report, title, n_categories, batch_size, arguments)


if __name__ == "__main__":
    main()
