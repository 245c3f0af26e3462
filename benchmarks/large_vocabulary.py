"""Time and memory of training with up to 10^7 category values.

    python benchmarks/large_vocabulary.py
    python benchmarks/large_vocabulary.py --parts epoch

Every value occurs in the rows: the number of values is checked against the embedding
table of the fitted network, which is printed.

- `epoch`: the processor's time of an epoch over the same number of rows, in batches of
  2,048 and with embeddings of width 16, for a column of few and of many values. The
  table has one more column, a numeric one, so that much of the work is done on the
  embedding table. The fits, of two epochs each, alternate. The first epoch is shown
  apart from the second.
- `memory`: the peak of resident memory of a whole process, with its rows, that fits a
  column of the largest size for one epoch, with the defaults except for the network,
  which is small.
- `encoder`: time and peak memory of encoding a column of distinct values.
"""

import time

import numpy as np
import pandas as pd
from _harness import (
    GIB,
    EpochClock,
    PeakMemory,
    at_most,
    begin,
    in_fresh_process,
    in_turns,
    make_parser,
    peak_bytes,
)
from _tables import draw_codes, draw_labels

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._encoder import TableEncoder

LARGEST, QUICK_LARGEST = 10**7, 10**4


def table(n, n_values, seed=0):
    """Return impressions whose first column has exactly this number of values."""
    generator = np.random.default_rng(seed)
    ids = np.arange(n, dtype=np.int64)
    # Uneven frequencies, such that each value occurs.
    ids[n_values:] = draw_codes(n - n_values, n_values, generator)
    ids = pd.Categorical.from_codes(generator.permutation(ids), np.arange(n_values))
    X = pd.DataFrame({"id": ids, "number": generator.standard_normal(n)})
    return X, draw_labels(n, generator)


def fit(X, Y, **params):
    """Fit and return the size of the embedding table, which is checked."""
    model = MultiTaskCTRCVRClassifier(
        loss="bce",
        embedding_dim=16,
        batch_size=2048,
        encoding_params={"min_frequency": 1},
        random_state=0,
        **params,
    ).fit(X, Y)
    # Two codes stand for missing and unseen values.
    n_codes = X["id"].nunique() + 2
    (size,) = {len(e.weight) for e in model.net_.module_.input_layer.embeddings}
    assert size == n_codes, f"the table has {size} rows in place of {n_codes}"
    return size


def measure_epochs(n, n_values):
    """Return the processor's seconds per epoch and the number of rows of the table."""
    clock = EpochClock()
    size = fit(
        *table(n, n_values),
        max_epochs=2,
        early_stopping=False,
        target_encoding=False,
        numeric_encoding="standard",
        callbacks=[clock],
    )
    return np.array(clock.seconds), size


def report_epochs(report, arguments):
    """Compare epochs over the same rows for vocabularies of several sizes."""
    n, values = (10**4, (10**3, 10**4)) if arguments.quick else (10**6, (10**3, 10**6))
    found = in_turns(measure_epochs, {k: (n, k) for k in values}, arguments)
    title = f"Processor time of an epoch over {n:,} rows, 1 + 1 columns"
    report.section(title, f"over {values[0]:,} values")
    seconds = {k: np.array([run[0] for run in runs]).T for k, runs in found.items()}
    for k in values:
        (first, second), base = seconds[k], seconds[values[0]]
        report.line(
            f"{k:,} values, a table of {found[k][0][1]:,} rows",
            second / base[1],
            absolute=f"{np.median(second):.2f} s",
            target=at_most(1.5) if k >= 10**6 else None,
        )
        absolute = f"{np.median(first):.2f} s"
        report.line("  its first epoch", first / base[0], absolute=absolute)


def measure_process(n_values):
    """Return the peak of the process in bytes, the table's rows and the seconds."""
    X, Y = table(n_values, n_values)
    # A small network, whose layers take little of the time.
    small = {"bottom_units": (8,), "tower_units": (4,)}
    started = time.perf_counter()
    size = fit(X, Y, max_epochs=1, network_params=small)
    return peak_bytes(), size, time.perf_counter() - started


def report_memory(report, arguments):
    """Print the peak of a process that fits the largest column with the defaults."""
    n_values = QUICK_LARGEST if arguments.quick else LARGEST
    peak, size, seconds = in_fresh_process(
        measure_process, n_values, threads=arguments.threads
    )
    report.section(f"Peak memory of a process, {n_values:,} values and rows", "GiB")
    report.line(
        f"fit, a table of {size:,} rows",
        [peak / GIB],
        absolute=f"{seconds:.0f} s",
        target=at_most(8.0),
    )


def measure_encoder(n_values, kind, n_hash_buckets):
    """Return the peak above the column and the seconds of encoding it."""
    ids = np.random.default_rng(0).permutation(n_values)
    values = ids if kind == "numbers" else [f"value {v}" for v in ids.tolist()]
    X = pd.DataFrame({"id": values})
    encoder = TableEncoder(["id"], 1, n_hash_buckets=n_hash_buckets)
    with PeakMemory() as memory:
        started = time.perf_counter()
        encoder.fit_transform(X)
        seconds = time.perf_counter() - started
    n_codes = encoder.cardinalities_[0]
    assert n_codes == 2 + (n_hash_buckets or n_values)
    return memory.n_bytes, seconds


def report_encoder(report, arguments):
    """Print time and memory of the encoder for a column of distinct values."""
    n_values = QUICK_LARGEST if arguments.quick else LARGEST
    report.section(f"Encoding {n_values:,} distinct values in as many rows", "GiB")
    for kind in ("numbers", "text"):
        for n_hash_buckets in (None, n_values // 10):
            given = n_values, kind, n_hash_buckets
            peak, seconds = in_fresh_process(
                measure_encoder, *given, threads=arguments.threads
            )
            codes = f"{n_hash_buckets:,} buckets" if n_hash_buckets else "own codes"
            report.line(f"{kind}, {codes}", [peak / GIB], absolute=f"{seconds:.1f} s")


PARTS = {"epoch": report_epochs, "memory": report_memory, "encoder": report_encoder}


def main():
    parser = make_parser(__doc__, rounds=3, device=False, parts=PARTS)
    arguments, report = begin("large_vocabulary", parser, rounds=1)
    for part in arguments.parts:
        PARTS[part](report, arguments)


if __name__ == "__main__":
    main()
