"""Latency of `predict_proba` for one row, by container, over the bare network.

    python benchmarks/row_latency.py

The default network on 6 numeric and 6 category columns, fitted for one epoch and given
one row as a NumPy array, a pandas and a polars DataFrame. "bare network" is the same
network on tensors that are encoded in advance. One thread; a figure is the mean of many
calls, and the containers alternate within a round.
"""

from functools import partial

import numpy as np
import polars as pl
import torch
from _harness import begin, interleave, make_parser, repeated

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

BARE = "bare network"


def tables():
    """Return the same impressions by container, with category columns, and labels."""
    data = make_ctr_cvr(
        3_000,
        **{"n_numeric": 6, "n_categorical": 6, "n_categories": 50},
        **{"ctr": 0.3, "cvr": 0.3, "random_state": 0},
    )
    names = list(data.data.select_dtypes("category"))
    plain = data.data.astype(dict.fromkeys(names, int))
    places = [plain.columns.get_loc(name) for name in names]
    X = {
        "numpy": (plain.to_numpy(), places),
        "pandas": (data.data, "from_dtype"),
        "polars": (pl.from_pandas(plain), names),
    }
    return X, data.target


def bare(model, X):
    """Return a function that runs the network on one encoded row."""
    encoded = model.encode(X)
    codes = torch.from_numpy(encoded.codes.astype(np.int64))
    numeric = torch.from_numpy(encoded.numeric)
    network = model.net_.module_.eval()

    def run():
        with torch.no_grad():
            torch.sigmoid(network(codes, numeric).logits)

    return run


def main():
    parser = make_parser(__doc__, rounds=10, device=False)
    parser.set_defaults(threads=1)
    arguments, report = begin("row_latency", parser, rounds=2)
    X, Y = tables()
    runs = {}
    for name, (table, categories) in X.items():
        model = MultiTaskCTRCVRClassifier(
            categorical_features=categories, max_epochs=1, random_state=0
        ).fit(table, Y)
        row = table[5:6]
        runs.setdefault(BARE, bare(model, row))
        runs[name] = partial(model.predict_proba, row)
    n_calls = 5 if arguments.quick else 300
    calls = {name: repeated(run, n_calls) for name, run in runs.items()}
    times = interleave(calls, arguments.rounds)
    report.section("one row, 12 columns", "over the bare network")
    for name, parts in times.items():
        milliseconds = 1000 * np.median(parts["all"]) / n_calls
        ratios = parts["all"] / times[BARE]["all"]
        report.line(name, ratios, absolute=f"{milliseconds:.3f} ms")


if __name__ == "__main__":
    main()
