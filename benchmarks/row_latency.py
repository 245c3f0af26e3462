"""Latency of `predict_proba` for one row, by container, over the bare network.

    python benchmarks/row_latency.py
    python benchmarks/row_latency.py --quick

The default network on 6 numeric and 6 category columns, given as a NumPy array, a
pandas and a polars DataFrame with one row. "bare network" is the same network on
tensors that are encoded in advance. One thread; a figure is the mean of many calls, and
the containers alternate within a round.
"""

import numpy as np
import pandas as pd
import polars as pl
import torch
from _timing import Report, interleave, make_parser, start

from sk_pwiser import MultiTaskCTRCVRClassifier

N_ROWS, N_NUMERIC, N_CATEGORIES, N_VALUES = 3_000, 6, 6, 50
CATEGORIES = [f"category_{j}" for j in range(N_CATEGORIES)]
BARE = "bare network"


def tables():
    """Return the same impressions by container, and their labels."""
    rng = np.random.default_rng(0)
    columns = {f"numeric_{j}": rng.normal(size=N_ROWS) for j in range(N_NUMERIC)}
    columns |= {name: rng.integers(0, N_VALUES, N_ROWS) for name in CATEGORIES}
    frame = pd.DataFrame(columns)
    click = rng.random(N_ROWS) < 0.3
    Y = np.column_stack([click, click & (rng.random(N_ROWS) < 0.3)]).astype(int)
    as_categories = frame.astype(dict.fromkeys(CATEGORIES, "category"))
    X = {
        "numpy": frame.to_numpy(),
        "pandas": as_categories,
        "polars": pl.from_pandas(frame),
    }
    return X, Y


def fit(name, X, Y):
    """Fit the default estimator for an epoch."""
    features = "from_dtype"
    if name == "numpy":
        features = list(range(N_NUMERIC, N_NUMERIC + N_CATEGORIES))
    elif name == "polars":
        features = CATEGORIES
    model = MultiTaskCTRCVRClassifier(
        categorical_features=features, max_epochs=1, random_state=0
    )
    return model.fit(X, Y)


def bare(model, X):
    """Return a function that runs the network on one encoded row."""
    encoded = model.encode(X[5:6])
    codes = torch.from_numpy(encoded.codes.astype(np.int64))
    numeric = torch.from_numpy(encoded.numeric)
    network = model.net_.module_.eval()

    def run():
        with torch.no_grad():
            torch.sigmoid(network(codes, numeric).logits)

    return run


def repeated(run, times):
    def runs():
        for _ in range(times):
            run()

    return runs


def main():
    parser = make_parser(__doc__, rounds=10)
    parser.add_argument("--calls", type=int, default=300)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.calls, arguments.rounds = 5, 2
    arguments.threads = arguments.threads or 1
    start(arguments)
    report = Report("row_latency", arguments)
    X, Y = tables()
    models = {name: fit(name, table, Y) for name, table in X.items()}
    runs = {BARE: bare(models["numpy"], X["numpy"])}
    for name, model in models.items():
        row = X[name][5:6]
        runs[name] = lambda model=model, row=row: model.predict_proba(row)
    calls = {name: repeated(run, arguments.calls) for name, run in runs.items()}
    times = interleave(calls, arguments.rounds)
    report.section("one row, 12 columns", "over the bare network")
    for name in runs:
        seconds = times[name]["all"]
        report.line(
            name,
            seconds / times[BARE]["all"],
            absolute=f"{1000 * np.median(seconds) / arguments.calls:.3f} ms",
        )
    report.save()


if __name__ == "__main__":
    main()
