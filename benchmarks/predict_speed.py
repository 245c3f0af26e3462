"""Throughput of predictions, relative to the bare forward pass on prepared tensors.

    python benchmarks/predict_speed.py
    python benchmarks/predict_speed.py --quick
    python benchmarks/predict_speed.py --device cuda --rows 1 1e4 1e6

The MMoE of `train_speed.py` is fitted for one epoch. `predict_proba` reads a DataFrame,
as in a service. The bare pass runs a torch MMoE of the same shape on prepared codes and
standardised numbers, in batches of 8,192, sigmoid included. Of the parts of
`predict_proba`, `encoding` is from the DataFrame to tensors and `network` from tensors
to logits; both are listed separately, relative to the same bare pass.

For few rows a figure is the mean of many calls; the milliseconds are the latency of a
request.
"""

import numpy as np
import torch
from _bare import BareMMoE, predict_bare
from _tables import CARDINALITIES, Prepared, impressions, prepare
from _timing import Report, at_least, interleave, make_parser, start
from train_speed import own_model

from sk_pwiser._training._batches import Impressions

BARE, PREDICT, ENCODE, NETWORK = "bare", "predict_proba", "encoding", "network"
BATCH_SIZE = 8192


def as_text(X):
    """Return the table with its categories as text, in columns of the default dtype."""
    names = X.select_dtypes("category").columns
    return X.assign(**{name: X[name].astype(str) for name in names})


def repeated(run, times):
    """Return a function that runs several times."""

    def runs():
        for _ in range(times):
            run()

    return runs


def make_runs(model, X, data, bare, batch_size=BATCH_SIZE):
    """Return the runs over some rows, and the number of repetitions of each."""
    encoder = model._result.schema.encoder
    codes, numeric = map(torch.from_numpy, encoder.transform(X))
    rows = Impressions(codes, numeric)
    times = max(1, min(200, 2_000 // len(X)))
    runs = {
        BARE: lambda: predict_bare(bare, data, batch_size).cpu(),
        PREDICT: lambda: model.predict_proba(X),
        ENCODE: lambda: encoder.transform(X),
        NETWORK: lambda: model.net_.forward(rows),
    }
    return {name: repeated(run, times) for name, run in runs.items()}, times


def report_rows(report, arguments, kinds, bare):
    """Print the figures for tables of several lengths."""
    for kind, (model, X, data) in kinds.items():
        for n in arguments.rows:
            first = Prepared(*(tensor[:n] for tensor in data))
            runs, times = make_runs(model, X.iloc[:n], first, bare)
            found = interleave(runs, arguments.rounds, arguments.device)
            heading = f"{kind} columns, {n:,} row(s)"
            is_measured = kind == "category" and n >= 10_000
            target = at_least(0.5) if is_measured else None
            print_rows(report, heading, found, n, times, target)


def print_rows(report, heading, found, n, times, target):
    report.section(heading, "over the bare pass")
    bare = found[BARE]["all"]
    for name, parts in found.items():
        seconds = parts["all"] / times
        middle = np.median(seconds)
        rate = f"{n / middle / 1e3:,.0f} krows/s"
        report.line(
            name,
            bare / times / seconds,
            absolute=rate if n > 1_000 else f"{1e3 * middle:.3g} ms",
            target=target if name == PREDICT else None,
        )


def report_batches(report, arguments, model, X, data, bare):
    """Print the figures for batches of several sizes."""
    own = model.net_.iterator_valid__batch_size
    for batch_size in arguments.batch:
        # skorch's `set_params` would initialise parts of the net again.
        model.net_.iterator_valid__batch_size = batch_size
        runs, times = make_runs(model, X, data, bare, batch_size)
        found = interleave(runs, arguments.rounds, arguments.device)
        heading = f"category columns, {len(X):,} rows, both in batches of {batch_size}"
        print_rows(report, heading, found, len(X), times, None)
    model.net_.iterator_valid__batch_size = own


def main():
    parser = make_parser(__doc__, rounds=7)
    sizes = [1, 100, 1e4, 1e5]
    parser.add_argument("--rows", type=float, nargs="+", default=sizes)
    batches = [1024, 8192, 65_536]
    parser.add_argument("--batch", type=int, nargs="*", default=batches)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.batch, arguments.rounds = [1, 3_000], [1024], 2
    arguments.rows = sorted(int(n) for n in arguments.rows)
    start(arguments)
    torch.manual_seed(0)
    X, Y = impressions(arguments.rows[-1])
    data = prepare(X, Y).to(arguments.device)
    train = slice(0, 20_000)
    kinds = {}
    for kind, table in {"category": X, "text": as_text(X)}.items():
        model = own_model(2048, arguments.device).fit(table[train], Y[train])
        kinds[kind] = model, table, data
    bare = BareMMoE(CARDINALITIES, X.shape[1] - len(CARDINALITIES))
    bare.to(arguments.device)
    report = Report("predict_speed", arguments)
    report_rows(report, arguments, kinds, bare)
    report_batches(report, arguments, *kinds["category"], bare)
    report.save()


if __name__ == "__main__":
    main()
