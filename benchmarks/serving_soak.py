"""Memory and latency of many predictions in one process.

    python benchmarks/serving_soak.py                       # 10^6 predictions, minutes
    python benchmarks/serving_soak.py --calls 20000
    python benchmarks/serving_soak.py --quick

`Scorer` predicts single rows as dictionaries, and `predict_proba` DataFrames of 1 to
200 rows, one call in `--mixed` (default 50). Among the rows are values that were not
seen in fit and missing ones. Resident memory is read after each tenth of the calls. It
must stay within 2 % of that after the first tenth, in which caches fill. p50 and p99
are those of the last tenth, on one thread; compare them between runs of one machine
only.
"""

import time

import numpy as np
from _tables import impressions
from _timing import MIB, at_most, make_parser, start

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.export import Scorer

CARDINALITIES = (4_300, 1_200, 400, 100, 50, 12, 12, 12)
N_NUMERIC = 12
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


def call(kind, scorer, model, rows, X, rng):
    """Predict once; return the seconds."""
    if kind == "Scorer":
        argument, predict = rows[rng.integers(len(rows))], scorer
    else:
        first = rng.integers(len(X) - LARGEST_TABLE)
        argument = X.iloc[first : first + 1 + rng.integers(LARGEST_TABLE)]
        predict = model.predict_proba
    started = time.perf_counter()
    p = predict(argument)
    seconds = time.perf_counter() - started
    if not ((p > 0) & (p < 1)).all():
        raise RuntimeError(f"A probability is not inside (0, 1): {p}")
    return seconds


def main():
    parser = make_parser(__doc__, rounds=1)
    parser.add_argument("--calls", type=float, default=1e6)
    parser.add_argument("--mixed", type=int, default=50)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.calls = 2_000
    arguments.threads = arguments.threads or 1
    start(arguments)
    X, Y = impressions(10_000, CARDINALITIES, N_NUMERIC)
    model = MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0).fit(X, Y)
    scorer = Scorer(model)
    X = with_gaps(X)
    rows = X[:2_000].to_dict("records")
    rng = np.random.default_rng(0)
    per_part = int(arguments.calls) // N_PARTS
    seconds = {"Scorer": [], "predict_proba": []}
    memory = []
    print(f"Resident memory\n{'':<20}{'MiB':>12}{'growth %':>12}")
    for part in range(N_PARTS):
        # Lists of times would grow: only those of the last part are kept.
        seconds = {kind: [] for kind in seconds}
        for number in range(per_part):
            kind = "Scorer" if number % arguments.mixed else "predict_proba"
            seconds[kind].append(call(kind, scorer, model, rows, X, rng))
        memory.append(resident_bytes())
        label = f"{(part + 1) * per_part:,} calls"
        growth = 100 * (memory[-1] / memory[0] - 1)
        print(f"{label:<20}{memory[-1] / MIB:>12,.1f}{growth:>+12.2f}", flush=True)
    heads = "".join(f"{head:>12}" for head in ("p50 ms", "p99 ms", "calls"))
    print(f"\nLatency of the last tenth\n{'':<20}{heads}")
    for kind, values in seconds.items():
        if not values:
            continue
        p50, p99 = 1000 * np.quantile(values, [0.5, 0.99])
        print(f"{kind:<20}{p50:>12.2f}{p99:>12.2f}{len(values):>12,}")
    growth = max(memory[1:]) / memory[0] - 1
    target = at_most(0.02)
    verdict = "met" if target.is_met(growth) else "missed"
    print(f"\nlargest growth {100 * growth:.2f} %, {target}: {verdict}")


if __name__ == "__main__":
    main()
