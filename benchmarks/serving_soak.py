"""Memory and latency of many predictions in one process.

    python benchmarks/serving_soak.py                       # 10^6 predictions, minutes

`Scorer` predicts single rows as dictionaries, and `predict_proba` DataFrames of 1 to
200 rows, one call in 50. Among the rows are values that were not seen in fit and
missing ones. Resident memory is read after each tenth of the calls. It
must stay within 2 % of its value after the first tenth, in which caches fill. p50 and
p99 are measured in the last tenth, on one thread; compare them between runs on one
machine only.
"""

import time

import numpy as np
from _harness import MIB, begin, make_parser
from _tables import SERVED, impressions

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.export import Scorer

N_PARTS = 10
LARGEST_TABLE = 200


def resident_bytes():
    """Return the resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def with_gaps(X, seed=1):
    """Return a table in which some values are missing and some are new."""
    rng = np.random.default_rng(seed)
    X = X.astype(dict.fromkeys(X.select_dtypes("category"), object))
    for column in X:
        X.loc[rng.random(len(X)) < 0.02, column] = None
    X.loc[rng.random(len(X)) < 0.02, X.columns[0]] = "not seen in fit"
    return X


def main():
    parser = make_parser(__doc__)
    parser.set_defaults(threads=1)
    arguments, report = begin("serving_soak", parser)
    X, Y = impressions(10_000, *SERVED)
    model = MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0).fit(X, Y)
    scorer = Scorer(model)
    X = with_gaps(X)
    rows = X[:2_000].to_dict("records")
    rng = np.random.default_rng(0)
    per_part = (2_000 if arguments.quick else 10**6) // N_PARTS
    memory = []
    report.text("", "Resident memory")
    report.table(["MiB", "growth %"])
    for part in range(N_PARTS):
        # Lists of times would grow: only the times of the last part are kept.
        seconds = {"Scorer": [], "predict_proba": []}
        for number in range(per_part):
            if number % 50:
                kind, predict = "Scorer", scorer
                argument = rows[rng.integers(len(rows))]
            else:
                kind, predict = "predict_proba", model.predict_proba
                first = rng.integers(len(X) - LARGEST_TABLE)
                argument = X.iloc[first : first + 1 + rng.integers(LARGEST_TABLE)]
            started = time.perf_counter()
            p = predict(argument)
            seconds[kind].append(time.perf_counter() - started)
            if not ((p > 0) & (p < 1)).all():
                raise RuntimeError(f"A probability is not inside (0, 1): {p}")
        memory.append(resident_bytes())
        growth = 100 * (memory[-1] / memory[0] - 1)
        cells = f"{memory[-1] / MIB:,.1f}", f"{growth:.2f}"
        report.row(f"{(part + 1) * per_part:,} calls", cells)
    report.text("", "Latency of the last tenth")
    report.table(["p50 ms", "p99 ms", "calls"])
    for kind, values in seconds.items():
        p50, p99 = 1000 * np.quantile(values, [0.5, 0.99])
        report.row(kind, [f"{p50:.2f}", f"{p99:.2f}", f"{len(values):,}"])
    growth = max(memory[1:]) / memory[0] - 1
    report.text("", f"The largest growth is {growth:.2%}; the limit is 2 %.")


if __name__ == "__main__":
    main()
