"""Time and memory of encoding a table, compared with scikit-learn's transformers.

    python benchmarks/encode_speed.py                   # 10^6 rows
    python benchmarks/encode_speed.py --quick
    python benchmarks/encode_speed.py --rows 1e5 --kinds category text

The table has columns like the 41 of KuaiRand: 27 of numbered categories, four of them
with thousands of values, 9 of text categories and 5 of counts, some with missing
values. `TableEncoder`, the encoder of `fit` and `predict_proba`, is compared with a
`ColumnTransformer` of `OrdinalEncoder` and `StandardScaler`.

- `category`: all category columns have category dtype, as `load_kuairand` returns them.
- `text`: all are text in object columns.
- `mixed`: numbered categories have category dtype, text is in object columns.

Memory is the peak above the table, measured once in a new process. `result` is the size
of the encoder's output.
"""

import numpy as np
from _tables import KINDS, kuairand_like
from _timing import (
    MIB,
    PeakMemory,
    Report,
    at_least,
    in_fresh_process,
    interleave,
    make_parser,
    start,
)
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from sk_pwiser._table._encoder import TableEncoder

OWN, OTHER = "TableEncoder", "ColumnTransformer"


def column_transformer():
    """Return the usual encoder of such a table."""
    return make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        remainder=OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    )


ENCODERS = {OWN: TableEncoder, OTHER: column_transformer}


def make_runs(X):
    """Return the runs of both encoders: `fit_transform` and `transform`."""
    runs = {}
    for name, make in ENCODERS.items():
        fitted = make()
        fitted.fit_transform(X)
        runs[name, "fit_transform"] = fit_transform(make, X)
        runs[name, "transform"] = transform(fitted, X)
    return runs


def fit_transform(make, X):
    def run():
        make().fit_transform(X)

    return run


def transform(fitted, X):
    def run():
        fitted.transform(X)

    return run


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
    times = interleave(make_runs(kuairand_like(n, kind)), arguments.rounds, warm_ups=0)
    report.section(f"{kind} columns, {n:,} rows", f"times faster than {OTHER}")
    for method in ("fit_transform", "transform"):
        seconds = {name: times[name, method]["all"] for name in ENCODERS}
        target = at_least(2.0) if kind == "mixed" else None
        for name, own in seconds.items():
            is_own = name == OWN
            report.line(
                f"{method}, {name}",
                seconds[OTHER] / own if is_own else None,
                absolute=f"{np.median(own):.2f} s",
                target=target if is_own else None,
            )
    for name in ENCODERS:
        peak, result = in_fresh_process(
            measure_memory, name, kind, n, threads=arguments.threads
        )
        label = f"peak memory, {name}, over its result"
        report.line(label, [peak / result], absolute=f"{peak / MIB:,.0f} MiB")


def main():
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.rounds = 5_000, 2
    arguments.rows = int(arguments.rows)
    start(arguments)
    report = Report("encode_speed", arguments)
    for kind in arguments.kinds:
        report_kind(report, arguments, kind)
    report.save()


if __name__ == "__main__":
    main()
