"""Time and memory of encoding a table, compared with scikit-learn's transformers.

    python benchmarks/encode_speed.py                   # 10^6 rows
    python benchmarks/encode_speed.py --rows 1e5

The table has columns like the 41 of KuaiRand: 27 of numbered categories, four of them
with thousands of values, 9 of text categories and 5 of counts, some with missing
values. `TableEncoder`, the encoder of `fit` and `predict_proba`, is compared with a
`ColumnTransformer` of `OrdinalEncoder` and `StandardScaler`, so it standardises
numbers, too. The bins of the estimator's default encoding of numbers, and target
statistics, are not part of this comparison.

- `category`: all category columns have category dtype, as `load_kuairand` returns them.
- `text`: all category columns are text in object columns.
- `mixed`: numbered categories have category dtype, text is in object columns.

Memory is the peak above the table, measured once in a new process, over the size of the
encoder's output.
"""

from functools import partial

import numpy as np
from _harness import (
    MIB,
    PeakMemory,
    at_least,
    begin,
    count,
    in_fresh_process,
    interleave,
    make_parser,
    repeated,
)
from _tables import KINDS, kuairand_like
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from sk_pwiser._columns._encoder import TableEncoder

OWN, OTHER = "TableEncoder", "ColumnTransformer"


def column_transformer():
    """Return the usual encoder of such a table."""
    return make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        remainder=OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    )


ENCODERS = {OWN: TableEncoder, OTHER: column_transformer}


def measure_memory(name, kind, n):
    """Return the peak of memory during encoding and the size of its result."""
    ENCODERS[name]().fit_transform(kuairand_like(1_000, kind))
    X = kuairand_like(n, kind)
    with PeakMemory() as memory:
        result = ENCODERS[name]().fit_transform(X)
    arrays = result if isinstance(result, tuple) else [result]
    return memory.n_bytes, sum(array.nbytes for array in arrays)


def report_kind(report, arguments, kind):
    """Print the figures for one kind of table."""
    n = arguments.rows
    X, runs = kuairand_like(n, kind), {}
    for name, make in ENCODERS.items():
        fitted = make()
        fitted.fit_transform(X)
        runs[name, "fit_transform"] = repeated(partial(make().fit_transform, X), 1)
        runs[name, "transform"] = repeated(partial(fitted.transform, X), 1)
    times = interleave(runs, arguments.rounds, warm_ups=0)
    report.section(f"{kind} columns, {n:,} rows", f"times faster than {OTHER}")
    target = at_least(2.0) if kind == "mixed" else None
    for method in ("fit_transform", "transform"):
        own, other = (times[name, method]["all"] for name in ENCODERS)
        absolute = f"{np.median(own):.2f} s"
        label = f"{method}, {OWN}"
        report.line(label, other / own, absolute=absolute, target=target)
        report.line(f"{method}, {OTHER}", absolute=f"{np.median(other):.2f} s")
    for name in ENCODERS:
        threads = arguments.threads
        peak, result = in_fresh_process(measure_memory, name, kind, n, threads=threads)
        label = f"peak memory, {name}, over its result"
        report.line(label, [peak / result], absolute=f"{peak / MIB:,.0f} MiB")


def main():
    parser = make_parser(__doc__, rounds=3, device=False)
    parser.add_argument("--rows", type=count, default=10**6)
    arguments, report = begin("encode_speed", parser, rows=5_000, rounds=2)
    for kind in KINDS:
        report_kind(report, arguments, kind)


if __name__ == "__main__":
    main()
