"""A model of large embedding tables on several workers: memory and traffic per step.

    python benchmarks/sharding_model.py
    python benchmarks/sharding_model.py --workers 8 16 --exponent 0.9

Nothing is measured: sizes follow from formulas and from the number of distinct ids in a
batch. Ids are drawn from a Zipf distribution: the id of rank i has a probability
proportional to i to the power of minus `--exponent`. The package itself has whole
tables only; sharded tables are a plan (see the guide to huge tables).
`tests/benchmarks/test_sharding_model.py` compares the formulas with counts.
"""

from typing import NamedTuple

import numpy as np
from _harness import GIB, MIB, begin, count, make_parser
from scipy.stats import poisson

ID_BYTES, WEIGHT_BYTES = 8, 4  # int64 and float32
# Beside the number of rows per worker, the sizes of which distinct ids are counted.
IMPRESSIONS, FREQUENCIES = (10**9, 10**10), (1, 2, 10, 100)


# ---------------------------------------------------------------- the distribution


class Zipf:
    """Ids 0 to n_ids - 1, whose probability falls with a power of their rank.

    The first ids have a probability each. Further ids are in groups whose ranks differ
    by at most a thousandth, and those of a group are equally likely, so that memory
    does not grow with `n_ids`.
    """

    def __init__(self, n_ids, exponent, n_single=2**16):
        starts = np.arange(min(n_ids, n_single) + 1)
        if n_ids > n_single:
            n_groups = int(np.ceil(np.log(n_ids / n_single) / np.log(1.001)))
            further = np.geomspace(n_single, n_ids, n_groups + 1)[1:].round()
            starts = np.concatenate([starts, np.unique(further.astype(np.int64))])
        self.starts, self.sizes = starts[:-1], np.diff(starts)
        middles = (starts[:-1] + 1 + starts[1:]) / 2
        weights = middles**-exponent
        self.probability = weights / (weights * self.sizes).sum()

    def draw(self, n_rows, rng):
        """Return the ids of random rows."""
        ends = np.cumsum(self.probability * self.sizes)
        group = np.searchsorted(ends, rng.random(n_rows) * ends[-1], side="right")
        return self.starts[group] + rng.integers(0, self.sizes[group])

    def expected_distinct(self, n_rows):
        """Return the expected number of distinct ids in random rows.

        Each id is missing with the probability (1 - p)^n_rows.
        """
        missing = np.expm1(n_rows * np.log1p(-self.probability))
        return float(-(self.sizes * missing).sum())

    def expected_frequent(self, n_rows, min_frequency):
        """Return the expected number of ids that occur in `min_frequency` rows or more.

        The number of rows of an id is taken as a Poisson variable.
        """
        tail = poisson.sf(min_frequency - 1, n_rows * self.probability)
        return float((self.sizes * tail).sum())


# ---------------------------------------------------------------- memory


class Copies(NamedTuple):
    """Numbers that are stored beside the weights of a table, per weight."""

    state: float  # 2 for Adam, 1 for Adagrad, 1 / dim for row-wise Adagrad
    gradient: int = 0  # 1 for a dense one; a gradient by rows is not counted
    average: int = 0  # 1 for the average of the weights (`average_decay`)
    best: int = 0  # 1 for the weights of the best epoch (early stopping)


def table_bytes(n_rows, dim, copies, n_shards=1):
    """Return the bytes per worker of a table, all copies included."""
    return n_rows * dim * WEIGHT_BYTES * (1 + sum(copies)) / n_shards


# ---------------------------------------------------------------- traffic


class Step(NamedTuple):
    """A step of training on several workers.

    Parameters
    ----------
    n_rows, dim : int
        Size of the table.
    n_workers : int
        Number of workers.
    batch : int
        Rows per worker and step, each with one id.
    distinct : float
        Distinct ids in the batch of a worker.
    """

    n_rows: int
    dim: int
    n_workers: int
    batch: int
    distinct: float

    @property
    def elsewhere(self):
        """Share of the rows of an evenly divided table that other workers own."""
        return (self.n_workers - 1) / self.n_workers

    @property
    def vector(self):
        """Bytes of an embedding."""
        return self.dim * WEIGHT_BYTES


def all_reduced(step):
    """Dense gradients in a ring: the table is sent twice, except for one part."""
    return 2 * step.elsewhere * step.n_rows * step.vector


def all_gathered(step):
    """Gradients by rows: each worker sends its own, with their ids, to all others."""
    return (step.n_workers - 1) * step.distinct * (ID_BYTES + step.vector)


def exchanged(step):
    """Rows of a sharded table: ids to the owners, rows back, gradients to the owners.

    Each distinct id of a batch is requested once (in TorchRec: an EmbeddingCollection
    with `use_index_dedup`), and owners have equal shares of the distinct ids.
    """
    return step.elsewhere * step.distinct * (ID_BYTES + 2 * step.vector)


def sums_scattered(step):
    """Sums over bags of a sharded table: every worker sends its part of all sums.

    This is row-wise sharding of an EmbeddingBagCollection: ids to the owners, a
    reduce-scatter of the sums of all workers' rows, and an all-gather of gradients.
    """
    ids = step.elsewhere * step.batch * ID_BYTES
    return ids + 2 * (step.n_workers - 1) * step.batch * step.vector


def on_one_worker(step):
    """A whole table on one worker: ids to it, a vector per row back, and its gradient.

    This is table-wise sharding of an EmbeddingBagCollection. The figure is the mean
    over the workers; the owner alone sends the vectors of all rows. Tables of several
    columns on different workers even this out.
    """
    return step.elsewhere * step.batch * (ID_BYTES + 2 * step.vector)


TRAFFIC = {
    "replicated, dense gradients all-reduced": all_reduced,
    "replicated, gradients by rows all-gathered": all_gathered,
    "row-wise, distinct rows all-to-all": exchanged,
    "row-wise, sums reduce-scattered": sums_scattered,
    "table-wise, vectors all-to-all": on_one_worker,
}


# ---------------------------------------------------------------- the tables


def print_table(report, caption, head, rows):
    """Print a table, given as labels with their cells."""
    report.text("", caption)
    report.table(head, max(map(len, rows)) + 2, width=18)
    for label, cells in rows.items():
        report.row(label, cells)


def rounded(value):
    """Return a number with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def power(n_rows):
    """Return a number as a power of ten, if it is one."""
    exponent = round(np.log10(n_rows))
    return f"10^{exponent}" if 10**exponent == n_rows else f"{n_rows:,}"


def print_distinct(report, arguments):
    """Print the distinct ids of batches, expected and drawn."""
    rng, rows = np.random.default_rng(0), {}
    batches = arguments.batch, max(arguments.workers) * arguments.batch
    for exponent in sorted({0.8, 1.2, arguments.exponent}):
        for n_ids in arguments.rows:
            zipf, cells = Zipf(n_ids, exponent), []
            for batch in batches:
                counts = [np.unique(zipf.draw(batch, rng)).size for _ in range(5)]
                expected = f"{zipf.expected_distinct(batch):,.0f}"
                cells += [expected, f"{np.mean(counts):,.0f}"]
            rows[f"{power(n_ids)} ids, exponent {exponent:g}"] = cells
    head = [name for n in batches for name in (f"of {n:,} rows", "drawn")]
    caption = "Distinct ids of rows: expected, and as drawn (mean of 5 draws)"
    print_table(report, caption, head, rows)


def print_frequent(report, arguments):
    """Print how many ids reach a frequency."""
    n_ids = max(arguments.rows)
    zipf, rows = Zipf(n_ids, arguments.exponent), {}
    for n in IMPRESSIONS:
        found = [zipf.expected_frequent(n, k) / 1e6 for k in FREQUENCIES]
        rows[f"{power(n)} impressions"] = map(rounded, found)
    head = [f"{k} or more" for k in FREQUENCIES]
    caption = f"Millions of {power(n_ids)} ids by the rows in which they occur"
    print_table(report, f"{caption}, exponent {arguments.exponent:g}", head, rows)


def print_memory(report, arguments):
    """Print the memory per worker."""
    defaults, dim = Copies(2, average=1, best=1), arguments.dim
    cases = {
        "whole table, Adam, dense gradients": (defaults._replace(gradient=1), 1),
        "whole table, Adam by rows": (defaults, 1),
        "the same without average and best epoch": (Copies(2), 1),
    }
    for n in arguments.workers:
        cases[f"{n} shards, Adam"] = Copies(2), n
        cases[f"{n} shards, row-wise Adagrad"] = Copies(1 / dim), n
    rows = {
        label: [rounded(table_bytes(n, dim, *case) / GIB) for n in arguments.rows]
        for label, case in cases.items()
    }
    head = [f"{power(n)} rows" for n in arguments.rows]
    caption = f"Memory per worker, GiB; embeddings of width {dim} in float32"
    print_table(report, caption, head, rows)


def print_traffic(report, arguments):
    """Print the bytes that a worker sends per step, for each size of the table."""
    dim, batch = arguments.dim, arguments.batch
    for n_rows in arguments.rows:
        distinct = Zipf(n_rows, arguments.exponent).expected_distinct(batch)
        steps = [Step(n_rows, dim, n, batch, distinct) for n in arguments.workers]
        rows = {
            label: [rounded(sent(step) / MIB) for step in steps]
            for label, sent in TRAFFIC.items()
        }
        caption = (
            f"Sent per worker and step, MiB; {power(n_rows)} rows of width {dim}, "
            f"{batch:,} impressions per worker"
        )
        head = [f"{n} workers" for n in arguments.workers]
        print_table(report, caption, head, rows)


def main():
    parser = make_parser(__doc__)
    sizes = [10**7, 10**8, 10**9]
    parser.add_argument("--rows", type=count, nargs="+", default=sizes)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--batch", type=int, default=4_096, help="rows per worker")
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--exponent", type=float, default=1.0)
    arguments, report = begin("sharding_model", parser, rows=[10**4])
    report.text("", "A model: figures follow from formulas, nothing was measured.")
    print_distinct(report, arguments)
    print_frequent(report, arguments)
    print_memory(report, arguments)
    print_traffic(report, arguments)
    report.save()


if __name__ == "__main__":
    main()
