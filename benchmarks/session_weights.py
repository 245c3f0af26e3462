"""AUC with and without the weights of session critics, on KuaiRand.

    SK_PWISER_DATA=/path/to/data OMP_NUM_THREADS=1 python benchmarks/session_weights.py
    python benchmarks/session_weights.py --part validation --strengths 0.5 2 8

A session is the list of rows that a user saw on one day, in order of time. The first
model is the estimator with its defaults and cross-entropy. For each way to train the
critics, a second model with the same settings and the same seed is fitted with
`sample_weight = SessionCriticWeights(...).weights(X)`, once per strength `lam`. With
`--part test` (the default) the test rows come from the later days; with
`--part validation` the last training day is held out and the test rows are not used.

A cell is the mean over the seeds, followed by the standard deviation: AUC of both
tasks, AUC of the CVR among clicks, mean log loss. `weight` is the mean weight of each
task and, in brackets, its standard deviation over the rows; `fits` is how often the
critics were fitted. The last table has the differences of the AUC to the first model
with the same seed.
"""

import numpy as np
import pandas as pd
from _harness import begin, data_folder, figures_of, make_parser, spread
from _tables import days_of, load_tables
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


def load(name, path, part):
    """Return training rows with their sessions and times, and held-out rows."""
    X, X_test, Y, Y_test = load_tables(name, path, part)[:4]
    train = load_kuairand(path, name, subset="train")
    day = days_of(train)
    is_train = day < day.max() if part == "validation" else np.ones(len(day), bool)
    keys = pd.MultiIndex.from_arrays([train.data["user_id"].to_numpy(), day])
    sessions, _ = pd.factorize(keys)
    return X, Y, sessions[is_train], train.time_ms[is_train], X_test, Y_test


def measure(data, seed, strengths, results, notes):
    """Append the figures of one seed to `results` and `notes`, by label."""
    X, Y, sessions, times, X_test, Y_test = data
    model = MultiTaskCTRCVRClassifier(loss="bce", random_state=seed)
    first = clone(model).fit(X, Y)
    results["no weights"].append(figures_of(Y_test, first.predict_proba(X_test)))
    for critic, params in CRITICS.items():
        maker = SessionCriticWeights(model, random_state=seed, **params)
        maker.fit(X, Y, groups=sessions, order=times)
        for lam in strengths:
            label = f"{critic}, lam {lam:g}"
            weights = maker.set_params(lam=lam).weights(X)
            p = clone(model).fit(X, Y, sample_weight=weights).predict_proba(X_test)
            results.setdefault(label, []).append(figures_of(Y_test, p))
            notes[label] = (weights.mean(axis=0), weights.std(axis=0), maker.n_iter_)


def print_tables(report, results, notes):
    report.table([*COLUMNS, "weight; fits"])
    for label, rows in results.items():
        text = ""
        if label in notes:
            mean, deviation, n_fits = notes[label]
            parts = [f"{m:.2f} ({s:.2f})" for m, s in zip(mean, deviation, strict=True)]
            text = f"{', '.join(parts)}; {n_fits}"
        report.row(label, [*map(spread, np.transpose(rows)), text])
    report.text("")
    report.table(COLUMNS[:3], label="difference of the AUC")
    first = np.array(results.pop("no weights"))
    for label, rows in results.items():
        gains = (np.array(rows) - first)[:, :3]
        report.row(label, [spread(values, sign="+") for values in gains.T])


def main():
    parser = make_parser(__doc__, seeds=3)
    parser.add_argument("--data", choices=["engage", "long"], default="engage")
    parser.add_argument("--part", choices=["test", "validation"], default="test")
    parser.add_argument("--strengths", nargs="+", type=float, default=[0.5])
    arguments, report = begin("session_weights", parser, seeds=1)
    data = load(arguments.data, data_folder(), arguments.part)
    if arguments.quick:
        data = tuple(part[:5000] for part in data)
    lengths = np.unique(data[2], return_counts=True)[1]
    report.text(
        f"{arguments.data}: {len(data[0]):,} rows in {len(lengths):,} sessions of "
        f"{lengths.mean():.2f} rows on average, at most {lengths.max()};",
        f"{len(data[4]):,} rows held out; {arguments.seeds} seeds; part: "
        f"{arguments.part}",
    )
    results, notes = {"no weights": []}, {}
    for seed in range(arguments.seeds):
        measure(data, seed, arguments.strengths, results, notes)
    print_tables(report, results, notes)
    report.save()


if __name__ == "__main__":
    main()
