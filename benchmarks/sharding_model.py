"""A model of large embedding tables on several workers: memory and traffic per step.

    python benchmarks/sharding_model.py
    python benchmarks/sharding_model.py --workers 8 16 --exponent 0.9

Nothing is measured: sizes follow from the formulas of `_sharding.py` and from the
number of distinct ids in a batch. Ids are drawn from a Zipf distribution: the id of
rank i has a probability proportional to i to the power of minus `--exponent`. The
package itself has whole tables only; sharded tables are a plan (see the guide to huge
tables). `tests/benchmarks/test_sharding_model.py` compares the formulas with counts.
"""

import argparse
import platform

import numpy as np
from _sharding import TRAFFIC, Copies, Step, Zipf, table_bytes

MIB, GIB = 2**20, 2**30


def print_table(caption, head, rows):
    """Print a table in the form of the other files of results."""
    width = max(len(label) for label, _ in rows) + 2
    print(f"\n{caption}")
    print(" " * width + "".join(f"{name:>18}" for name in head))
    for label, cells in rows:
        print(f"{label:<{width}}" + "".join(f"{cell:>18}" for cell in cells))


def rounded(value):
    """Return a number with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def power(n_rows):
    """Return a number as a power of ten, if it is one."""
    exponent = round(np.log10(n_rows))
    return f"10^{exponent}" if 10**exponent == n_rows else f"{n_rows:,}"


def print_distinct(arguments):
    """Print the distinct ids of batches, expected and drawn."""
    rng = np.random.default_rng(0)
    rows = []
    for exponent in sorted({0.8, 1.2, arguments.exponent}):
        for n_ids in arguments.rows:
            zipf, cells = Zipf(n_ids, exponent), []
            for batch in arguments.batches:
                counts = [np.unique(zipf.draw(batch, rng)).size for _ in range(5)]
                expected = f"{zipf.expected_distinct(batch):,.0f}"
                cells += [expected, f"{np.mean(counts):,.0f}"]
            rows.append((f"{power(n_ids)} ids, exponent {exponent:g}", cells))
    head = [name for n in arguments.batches for name in (f"of {n:,} rows", "drawn")]
    caption = "Distinct ids of rows: expected, and as drawn (mean of 5 draws)"
    print_table(caption, head, rows)


def print_frequent(arguments):
    """Print how many ids reach a frequency."""
    rows = []
    n_ids = max(arguments.rows)
    zipf = Zipf(n_ids, arguments.exponent)
    for n_rows in arguments.impressions:
        found = [zipf.expected_frequent(n_rows, k) for k in arguments.frequencies]
        cells = [rounded(n / 1e6) for n in found]
        rows.append((f"{power(n_rows)} impressions", cells))
    head = [f"{k} or more" for k in arguments.frequencies]
    caption = f"Millions of {power(n_ids)} ids by the rows in which they occur"
    print_table(f"{caption}, exponent {arguments.exponent:g}", head, rows)


def print_memory(arguments):
    """Print the memory per worker."""
    defaults = Copies(2, average=1, best=1)
    cases = [
        ("whole table, Adam, dense gradients", defaults._replace(gradient=1), 1),
        ("whole table, Adam by rows", defaults, 1),
        ("the same without average and best epoch", Copies(2), 1),
    ]
    for n in arguments.workers:
        cases.append((f"{n} shards, Adam", Copies(2), n))
        cases.append((f"{n} shards, row-wise Adagrad", Copies(1 / arguments.dim), n))
    rows = [
        (
            label,
            [
                rounded(table_bytes(n_rows, arguments.dim, copies, n_shards) / GIB)
                for n_rows in arguments.rows
            ],
        )
        for label, copies, n_shards in cases
    ]
    head = [f"{power(n)} rows" for n in arguments.rows]
    caption = f"Memory per worker, GiB; embeddings of width {arguments.dim} in float32"
    print_table(caption, head, rows)


def print_traffic(arguments):
    """Print the bytes that a worker sends per step, for each size of the table."""
    for n_rows in arguments.rows:
        distinct = Zipf(n_rows, arguments.exponent).expected_distinct(arguments.batch)
        steps = [
            Step(n_rows, arguments.dim, n, arguments.batch, distinct)
            for n in arguments.workers
        ]
        rows = [
            (label, [rounded(sent(step) / MIB) for step in steps])
            for label, sent in TRAFFIC.items()
        ]
        caption = (
            f"Sent per worker and step, MiB; {power(n_rows)} rows of width "
            f"{arguments.dim}, {arguments.batch:,} impressions per worker"
        )
        print_table(caption, [f"{n} workers" for n in arguments.workers], rows)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=float, nargs="+", default=[1e7, 1e8, 1e9])
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--batch", type=int, default=4_096, help="rows per worker")
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--exponent", type=float, default=1.0)
    arguments = parser.parse_args()
    arguments.rows = [int(n) for n in arguments.rows]
    arguments.batches = [arguments.batch, max(arguments.workers) * arguments.batch]
    arguments.impressions = [10**9, 10**10]
    arguments.frequencies = [1, 2, 10, 100]
    print(f"Python {platform.python_version()}, numpy {np.__version__}")
    print("\nA model: figures follow from formulas, nothing was measured.")
    print_distinct(arguments)
    print_frequent(arguments)
    print_memory(arguments)
    print_traffic(arguments)


if __name__ == "__main__":
    main()
