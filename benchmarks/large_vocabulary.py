"""Time and memory of training with up to 10^7 category values.

    python benchmarks/large_vocabulary.py
    python benchmarks/large_vocabulary.py --quick
    python benchmarks/large_vocabulary.py --parts epoch --rounds 5

Every value occurs in the rows: the number of values is checked against the embedding
table of the fitted network, which is printed.

- `epoch`: the processor's time of an epoch over the same number of rows, in batches of
  2,048 and with embeddings of width 16, for columns of few and of many values. "narrow"
  has one more column, a numeric one, so that much of the work is done on the embedding
  table; "wide" has 15 further category columns and 63 numeric ones, as in
  `train_speed.py`. The fits alternate. The first epoch is shown apart from the others.
- `memory`: the peak of resident memory of a whole process, with its rows, that fits a
  column of the largest size, with the defaults but for a small network.
- `encoder`: time and peak memory of encoding a column of distinct values.
"""

import resource
import sys
import time

import numpy as np
import pandas as pd
from _tables import CARDINALITIES, N_NUMERIC, draw_codes, draw_labels, impressions
from _timing import (
    PeakMemory,
    Report,
    at_most,
    in_fresh_process,
    make_parser,
    start,
)
from skorch.callbacks import Callback

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._table._encoder import TableEncoder

PARTS = ("epoch", "memory", "encoder")
GIB = 2**30


def complete_ids(n, n_values, generator):
    """Draw ids of uneven frequencies, such that each of them occurs."""
    ids = np.arange(n, dtype=np.int64)
    ids[n_values:] = draw_codes(n - n_values, n_values, generator)
    return generator.permutation(ids)


def table(n, n_values, wide, seed=0):
    """Return impressions whose first column has exactly this number of values."""
    generator = np.random.default_rng(seed)
    ids = pd.Categorical.from_codes(
        complete_ids(n, n_values, generator), np.arange(n_values)
    )
    if not wide:
        number = generator.standard_normal(n)
        return pd.DataFrame({"id": ids, "number": number}), draw_labels(n, generator)
    X, Y = impressions(n, CARDINALITIES[1:], N_NUMERIC, seed)
    X.insert(0, "id", ids)
    return X, Y


def fit(X, Y, **params):
    """Fit and return the estimator; check the size of its embedding table."""
    model = MultiTaskCTRCVRClassifier(
        loss="bce",
        embedding_dim=16,
        batch_size=2048,
        encoding_params={"min_frequency": 1},
        random_state=0,
        **params,
    ).fit(X, Y)
    # Two codes per column are those of missing and unseen values.
    n_codes = sum(X[c].nunique() + 2 for c in X if X[c].dtype == "category")
    (size,) = {len(e.weight) for e in model.net_.module_.input_layer.embeddings}
    assert size == n_codes, f"the table has {size} rows in place of {n_codes}"
    return model, size


class ProcessorTime(Callback):
    """Measures the time of each epoch on the processor, whatever else runs there."""

    def __init__(self):
        self.seconds = []

    def on_epoch_begin(self, net, **kwargs):
        self.started = time.process_time()

    def on_epoch_end(self, net, **kwargs):
        self.seconds.append(time.process_time() - self.started)


def measure_epochs(n, n_values, wide, n_epochs):
    """Return the processor's seconds per epoch and the number of rows of the table."""
    clock = ProcessorTime()
    _, size = fit(
        *table(n, n_values, wide),
        max_epochs=n_epochs,
        early_stopping=False,
        target_encoding=False,
        numeric_encoding="standard",
        callbacks=[clock],
    )
    return np.array(clock.seconds), size


def report_epochs(report, arguments):
    """Compare epochs over the same rows for vocabularies of several sizes."""
    for wide in (name == "wide" for name in arguments.tables):
        found = {n_values: [] for n_values in arguments.values}
        for turn in range(arguments.rounds):
            for n_values in arguments.values[:: 1 if turn % 2 else -1]:
                run = in_fresh_process(
                    measure_epochs,
                    arguments.rows,
                    n_values,
                    wide,
                    arguments.epochs,
                    threads=arguments.threads,
                )
                found[n_values].append(run)
        columns = "16 + 63 columns" if wide else "1 + 1 columns"
        smallest = arguments.values[0]
        title = f"Processor time of an epoch over {arguments.rows:,} rows, {columns}"
        report.section(title, f"over {smallest:,} values")
        for n_values, runs in found.items():
            seconds = np.array([dur for dur, _ in runs])
            base = np.array([dur for dur, _ in found[smallest]])
            label = f"{n_values:,} values, a table of {runs[0][1]:,} rows"
            is_goal = n_values >= 10**6
            report.line(
                label,
                np.median(seconds[:, 1:], axis=1) / np.median(base[:, 1:], axis=1),
                absolute=f"{np.median(seconds[:, 1:]):.2f} s",
                target=at_most(1.5) if is_goal else None,
            )
            report.line(
                "  its first epoch",
                seconds[:, 0] / base[:, 0],
                absolute=f"{np.median(seconds[:, 0]):.2f} s",
            )


def measure_process(n_values):
    """Return the peak of the process in bytes, the table's rows and the seconds."""
    X, Y = table(n_values, n_values, wide=False)
    started = time.perf_counter()
    # A small network: the time would otherwise be that of its layers.
    small = {"bottom_units": (8,), "tower_units": (4,)}
    _, size = fit(X, Y, max_epochs=1, network_params=small)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024), size, seconds


def report_memory(report, arguments):
    """Print the peak of a process that fits the largest column with the defaults."""
    n_values = arguments.largest
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
    n_values = arguments.largest
    report.section(f"Encoding {n_values:,} distinct values in as many rows", "GiB")
    for kind in ("numbers", "text"):
        for n_hash_buckets in (None, n_values // 10):
            peak, seconds = in_fresh_process(
                measure_encoder,
                n_values,
                kind,
                n_hash_buckets,
                threads=arguments.threads,
            )
            codes = f"{n_hash_buckets:,} buckets" if n_hash_buckets else "own codes"
            report.line(f"{kind}, {codes}", [peak / GIB], absolute=f"{seconds:.1f} s")


def main():
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    tables = ("narrow", "wide")
    parser.add_argument("--tables", nargs="+", choices=tables, default=["narrow"])
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--values", type=float, nargs="+", default=[1e3, 1e6])
    parser.add_argument("--largest", type=float, default=1e7)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.values, arguments.rounds = 1e4, [1e3, 1e4], 1
        arguments.largest, arguments.epochs = 1e4, 2
    for name in ("rows", "largest"):
        setattr(arguments, name, int(getattr(arguments, name)))
    arguments.values = sorted(int(n) for n in arguments.values)
    start(arguments)
    report = Report("large_vocabulary", arguments)
    parts = {
        "epoch": report_epochs,
        "memory": report_memory,
        "encoder": report_encoder,
    }
    for part in arguments.parts:
        parts[part](report, arguments)
    report.save()


if __name__ == "__main__":
    main()
