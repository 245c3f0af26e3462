"""Growth of the time and memory of `fit` with rows, columns and batch.

    python benchmarks/scaling.py                 # up to 10^6 rows

The MMoE of `train_speed.py` with cross-entropy, one epoch, encoding included; later
epochs are compared with the first one by `train_speed.py`. Every fit has a new process,
which first fits a small table to load all libraries. The sizes of one part alternate
within a round; the ratio is that to the first size. The growth with the number of
category values is measured by `large_vocabulary.py`.

Memory is the peak of `fit` above the table and its labels, relative to the memory that
is needed: the encoded data (codes in the types of `fit`, numbers and labels as float32)
and the memory of the model, which is 16 bytes per parameter (weight, gradient and the
two moments of Adam) and the working memory of the steps of a small fit.
"""

import time
from itertools import pairwise

import numpy as np
import pandas as pd
from _harness import (
    MIB,
    PeakMemory,
    at_most,
    begin,
    in_turns,
    make_parser,
    synchronize,
)
from _tables import CARDINALITIES, N_NUMERIC, impressions
from train_speed import own_model

from sk_pwiser._columns._encoder import TableEncoder

BATCH_SIZE = 2048


def fit(X, Y, batch_size, device):
    """Return the peak bytes and the seconds of a fit, and its number of parameters."""
    model = own_model(batch_size, device)
    with PeakMemory(device) as memory:
        started = time.perf_counter()
        model.fit(X, Y)
        synchronize(device)
        seconds = time.perf_counter() - started
    n_parameters = sum(p.numel() for p in model.net_.module_.parameters())
    return memory.n_bytes, seconds, n_parameters


def encoded_size(X, Y):
    """Return the size of the encoded table in bytes."""
    tables = TableEncoder().fit_transform(X)
    return sum(table.nbytes for table in tables) + 4 * Y.size


def measure(n, multiple, batch_size, device):
    """Return the seconds, the peak of memory and the memory that is needed.

    `multiple` is that of the columns.
    """
    columns = CARDINALITIES * multiple, N_NUMERIC * multiple
    small = impressions(2 * batch_size, *columns)
    fit(*small, batch_size, device)  # for lazy imports
    peak, _, n_parameters = fit(*small, batch_size, device)
    working = max(0, peak - encoded_size(*small) - 16 * n_parameters)
    del small
    X, Y = impressions(n, *columns)
    peak, seconds, n_parameters = fit(X, Y, batch_size, device)
    needed = encoded_size(X, Y) + 16 * n_parameters + working
    return {"seconds": seconds, "peak": peak, "needed": needed}


def cases_of(rows, fixed_rows, multiples, batches):
    """Return the arguments of `measure` for the sizes of each part, by label."""
    return {
        "rows": {f"{n:,} rows": (n, 1, BATCH_SIZE) for n in rows},
        # A fifth of the columns are categories, as in `train_speed.py`.
        "columns": {
            f"{16 * k} + {63 * k} columns": (fixed_rows, k, BATCH_SIZE)
            for k in multiples
        },
        "batch": {f"batch {n:,}": (fixed_rows, 1, n) for n in batches},
    }


def report_part(report, arguments, part, sizes):
    """Measure, round by round, and print both tables of one part."""
    cases = {label: (*size, arguments.device) for label, size in sizes.items()}
    found = in_turns(measure, cases, arguments)
    found = {label: pd.DataFrame(runs) for label, runs in found.items()}
    first = next(iter(sizes))
    report.section(f"Time of fit, by {part}", f"over {first}")
    for label, runs in found.items():
        rate = f"{1e6 * np.median(runs['seconds']) / sizes[label][0]:.1f} us per row"
        ratios = runs["seconds"] / found[first]["seconds"]
        report.line(label, ratios, absolute=rate)
    if part == "rows":
        for small, large in pairwise(n for n, *_ in sizes.values()):
            if large == 10 * small and small >= 10_000:
                runs = (found[f"{n:,} rows"]["seconds"] for n in (large, small))
                target = at_most(10.5) if small >= 100_000 else None
                label = f"{large:,} rows over {small:,}"
                report.line(label, np.divide(*runs), target=target)
    report.section(f"Peak memory of fit beyond X, by {part}", "over the needed memory")
    for label, runs in found.items():
        is_large = part == "rows" and sizes[label][0] >= 100_000
        report.line(
            label,
            runs["peak"] / runs["needed"],
            absolute=f"{np.median(runs['peak']) / MIB:,.0f} MiB",
            target=at_most(1.0) if is_large else None,
        )


def main():
    arguments, report = begin("scaling", make_parser(__doc__, rounds=3), rounds=1)
    sizes = [10**4, 10**5, 10**6], 10**5, [1, 2, 4], [256, 2048, 16_384]
    if arguments.quick:
        sizes = [1_000, 10_000], 3_000, [1, 2], [512, 2048]
    for part, cases in cases_of(*sizes).items():
        report_part(report, arguments, part, cases)


if __name__ == "__main__":
    main()
