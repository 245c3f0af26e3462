"""AUC with and without the weights of session critics, on KuaiRand.

    SK_PWISER_DATA=/path/to/data OMP_NUM_THREADS=1 python benchmarks/session_weights.py

A session is the list of rows that a user saw on one day, in order of time. The first
model has the defaults and cross-entropy. For each way to train the critics, a second
model with the same seed has `sample_weight = SessionCriticWeights(...).weights(X)`.
A cell is the mean over the seeds, followed by the standard deviation. `weight` is the
mean weight of each task and, in brackets, its standard deviation over the rows; `fits`
is how often the critics were fitted. The last table has differences to the first model.
"""

import numpy as np
import pandas as pd
from _harness import begin, data_folder, figures_of, make_parser, spread
from _tables import days_of
from sklearn.base import clone

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import load_kuairand
from sk_pwiser.weighting import SessionCriticWeights

CRITICS = {
    "own loss (gamma 0)": {"gamma": 0.0},
    "bootstrap, gamma 0.9": {"gamma": 0.9},
    "return, gamma 0.9": {"gamma": 0.9, "target": "return"},
}
COLUMNS = ("click AUC", "second AUC", "CVR AUC", "log loss")


def load(path):
    """Return training rows with their sessions and times, and held-out rows."""
    train, test = (
        load_kuairand(path, "engage", subset=part) for part in ("train", "test")
    )
    keys = [train.data["user_id"].to_numpy(), days_of(train)]
    sessions, _ = pd.factorize(pd.MultiIndex.from_arrays(keys))
    rows = train.data, train.target, sessions, train.time_ms
    return *rows, test.data, test.target


def measure(data, seed, results, notes):
    """Append the figures of one seed to `results` and `notes`, by label."""
    X, Y, sessions, times, X_test, Y_test = data
    model = MultiTaskCTRCVRClassifier(loss="bce", random_state=seed)
    first = clone(model).fit(X, Y)
    results["no weights"].append(figures_of(Y_test, first.predict_proba(X_test)))
    for critic, params in CRITICS.items():
        maker = SessionCriticWeights(model, random_state=seed, **params)
        weights = maker.fit(X, Y, groups=sessions, order=times).weights(X)
        p = clone(model).fit(X, Y, sample_weight=weights).predict_proba(X_test)
        label = f"{critic}, lam {maker.lam:g}"
        results.setdefault(label, []).append(figures_of(Y_test, p))
        of_tasks = (f"{w.mean():.2f} ({w.std():.2f})" for w in weights.T)
        notes[label] = ", ".join(of_tasks), str(maker.n_iter_)


def print_tables(report, results, notes):
    report.table([*COLUMNS, "weights", "fits"])
    for label, rows in results.items():
        cells = map(spread, np.transpose(rows))
        report.row(label, [*cells, *notes.get(label, ("", ""))])
    report.text("", "Differences of the AUC to no weights")
    report.table(COLUMNS[:3])
    report.row("no weights", ["0"] * 3)
    first = np.array(results.pop("no weights"))
    for label, rows in results.items():
        gains = (np.array(rows) - first)[:, :3]
        report.row(label, [spread(values, sign="+") for values in gains.T])


def main():
    parser = make_parser(__doc__, seeds=3)
    arguments, report = begin("session_weights", parser, seeds=1)
    data = load(data_folder())
    if arguments.quick:
        data = tuple(part[:5000] for part in data)
    lengths = np.unique(data[2], return_counts=True)[1]
    report.text(
        f"engage: {len(data[0]):,} rows in {len(lengths):,} sessions of "
        f"{lengths.mean():.2f} rows on average, at most {lengths.max()};",
        f"{len(data[4]):,} rows held out; {arguments.seeds} seeds; part: test",
    )
    results, notes = {"no weights": []}, {}
    for seed in range(arguments.seeds):
        measure(data, seed, results, notes)
    print_tables(report, results, notes)


if __name__ == "__main__":
    main()
