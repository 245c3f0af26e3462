"""Throughput of predictions, relative to the bare forward pass on prepared tensors.

    python benchmarks/predict_speed.py
    python benchmarks/predict_speed.py --device cuda

The MMoE of `train_speed.py` is fitted for one epoch: the time of a prediction depends
on its size, not on its weights. `predict_proba` reads a DataFrame, as in a service. The
bare pass runs a torch MMoE of the same shape on prepared codes and standardised
numbers, in batches of 8,192, sigmoid included. Of the parts of `predict_proba`,
`encoding` is from the DataFrame to tensors and `network` from tensors to logits; both
are listed separately, relative to the same bare pass.

For few rows a figure is the mean of many calls; the milliseconds are the latency of a
request.
"""

import numpy as np
import torch
from _harness import at_least, begin, interleave, make_parser, repeated
from _peers import BareMMoE, predict_bare
from _tables import CARDINALITIES, N_NUMERIC, Prepared, as_text, impressions, prepare
from train_speed import own_model

from sk_pwiser._rows._encoded_rows import Impressions

BARE, PREDICT, ENCODE, NETWORK = "bare", "predict_proba", "encoding", "network"
BATCH_SIZE = 8192


def report_rows(report, arguments, heading, model, X, data, bare, batch_size):
    """Measure and print the parts of a prediction of all rows of a table."""
    encoder = model._result.schema.encoder
    rows = Impressions(*map(torch.from_numpy, encoder.transform(X)))
    runs = {
        BARE: lambda: predict_bare(bare, data, batch_size).cpu(),
        PREDICT: lambda: model.predict_proba(X),
        ENCODE: lambda: encoder.transform(X),
        NETWORK: lambda: model.net_.forward(rows),
    }
    n = len(X)
    times = max(1, min(200, 2_000 // n))
    calls = {name: repeated(run, times) for name, run in runs.items()}
    found = interleave(calls, arguments.rounds, arguments.device)
    report.section(heading, "over the bare pass")
    is_measured = heading.startswith("category columns") and n >= 10_000
    has_target = is_measured and batch_size == BATCH_SIZE
    for name, parts in found.items():
        middle = np.median(parts["all"]) / times
        rate = f"{n / middle / 1e3:,.0f} krows/s"
        report.line(
            name,
            found[BARE]["all"] / parts["all"],
            absolute=rate if n > 1_000 else f"{1e3 * middle:.3g} ms",
            target=at_least(0.5) if has_target and name == PREDICT else None,
        )


def main():
    parser = make_parser(__doc__, rounds=7)
    arguments, report = begin("predict_speed", parser, rounds=2)
    sizes, batch_sizes = (1, 100, 10**4, 10**5), (1024, 8192, 65_536)
    if arguments.quick:
        sizes, batch_sizes = (1, 3_000), (1024,)
    torch.manual_seed(0)
    X, Y = impressions(sizes[-1])
    data = prepare(X, Y).to(arguments.device)
    bare = BareMMoE(CARDINALITIES, N_NUMERIC).to(arguments.device)
    train = slice(0, 20_000)
    models = {}
    for kind, table in {"category": X, "text": as_text(X)}.items():
        models[kind] = own_model(2048, arguments.device).fit(table[train], Y[train])
        for n in sizes:
            heading = f"{kind} columns, {n:,} row(s)"
            part = table.iloc[:n], Prepared(*(tensor[:n] for tensor in data))
            report_rows(
                report, arguments, heading, models[kind], *part, bare, BATCH_SIZE
            )
    model = models["category"]
    for batch_size in batch_sizes:
        # skorch's `set_params` would initialise parts of the net again.
        model.net_.iterator_valid__batch_size = batch_size
        heading = f"category columns, {len(X):,} rows, both in batches of {batch_size}"
        report_rows(report, arguments, heading, model, X, data, bare, batch_size)


if __name__ == "__main__":
    main()
