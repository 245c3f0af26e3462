"""AUC with and without the weights of session critics, on KuaiRand.

    SK_PWISER_DATA=/path/to/data OMP_NUM_THREADS=1 python benchmarks/session_weights.py
    python benchmarks/session_weights.py --part validation --strengths 0.5 2 8
    python benchmarks/session_weights.py --quick

A session is what a user saw on one day, in order of time. The first model is the
estimator with its defaults and cross-entropy. For each way to train the critics, a
second model with the same settings and the same seed is fitted with
`sample_weight = SessionCriticWeights(...).weights(X)`, once per strength `lam`. With
`--part test` (the default) the test rows are those of the later days; with
`--part validation` the last training day is held out and the test rows are not used.

A cell is the mean over the seeds, followed by the standard deviation: AUC of both
tasks, AUC of the CVR among clicks, mean log loss. `weight` is the mean weight of each
task and, in brackets, its standard deviation over the rows; `fits` is how often the
critics were fitted. The last table has the differences of the AUC to the first model
with the same seed.
"""

import argparse
import os
import platform

import numpy as np
import pandas as pd
import torch
from _real_tables import BEIJING, DAY
from sklearn.base import clone
from sklearn.metrics import log_loss, roc_auc_score

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
    train = load_kuairand(path, name, subset="train")
    day = (train.time_ms + BEIJING) // DAY
    sessions = pd.factorize(
        pd.MultiIndex.from_arrays([train.data["user_id"].to_numpy(), day])
    )[0]
    if part == "test":
        held_out = load_kuairand(path, name, subset="test")
        is_train = np.ones(len(day), dtype=bool)
        X_test, Y_test = held_out.data, held_out.target
    else:
        is_train = day < day.max()
        X_test, Y_test = train.data[~is_train], train.target[~is_train]
    rows = train.data[is_train], train.target[is_train]
    return *rows, sessions[is_train], train.time_ms[is_train], X_test, Y_test


def evaluate(model, X, Y):
    p, Y = model.predict_proba(X), Y.to_numpy()
    clicked = Y[:, 0] == 1
    return (
        roc_auc_score(Y[:, 0], p[:, 0]),
        roc_auc_score(Y[:, 1], p[:, 1]),
        roc_auc_score(Y[clicked, 1], model.predict_cvr(X)[clicked]),
        np.mean([log_loss(Y[:, k], p[:, k]) for k in range(2)]),
    )


def measure(data, seed, strengths, results, notes):
    """Append the figures of one seed to `results` and `notes`, by label."""
    X, Y, sessions, times, X_test, Y_test = data
    model = MultiTaskCTRCVRClassifier(loss="bce", random_state=seed)
    first = clone(model).fit(X, Y)
    results["no weights"].append(evaluate(first, X_test, Y_test))
    for critic, params in CRITICS.items():
        maker = SessionCriticWeights(model, random_state=seed, **params)
        maker.fit(X, Y, groups=sessions, order=times)
        for lam in strengths:
            label = f"{critic}, lam {lam:g}"
            weights = maker.set_params(lam=lam).weights(X)
            second = clone(model).fit(X, Y, sample_weight=weights)
            results.setdefault(label, []).append(evaluate(second, X_test, Y_test))
            notes[label] = (weights.mean(axis=0), weights.std(axis=0), maker.n_iter_)


def print_tables(results, notes):
    print(f"{'':<32}" + "".join(f"{c:>17}" for c in COLUMNS) + "   weight; fits")
    for label, rows in results.items():
        line = f"{label:<32}" + cells(np.array(rows))
        if label in notes:
            mean, spread, n_fits = notes[label]
            parts = [f"{m:.2f} ({s:.2f})" for m, s in zip(mean, spread, strict=True)]
            line += f"   {', '.join(parts)}; {n_fits}"
        print(line)
    print(f"\n{'difference of the AUC':<32}" + "".join(f"{c:>17}" for c in COLUMNS[:3]))
    first = np.array(results.pop("no weights"))
    for label, rows in results.items():
        print(f"{label:<32}" + cells((np.array(rows) - first)[:, :3], "+"))


def cells(rows, sign=""):
    cells = []
    for values in rows.T:
        spread = f" ({values.std(ddof=1):.4f})" if len(values) > 1 else ""
        cells.append(f"{values.mean():{sign}.4f}{spread}")
    return "".join(f"{cell:>17}" for cell in cells)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=["engage", "long"], default="engage")
    parser.add_argument("--part", choices=["test", "validation"], default="test")
    parser.add_argument("--strengths", nargs="+", type=float, default=[0.5])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few rows, one seed")
    arguments = parser.parse_args()
    path = os.environ.get("SK_PWISER_DATA")
    if not path:
        raise SystemExit("Set SK_PWISER_DATA to the folder of the data sets.")
    data = load(arguments.data, path, arguments.part)
    if arguments.quick:
        data, arguments.seeds = tuple(part[:5000] for part in data), 1
    lengths = np.unique(data[2], return_counts=True)[1]
    device = "CUDA" if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {device}")
    print(
        f"{arguments.data}: {len(data[0]):,} rows in {len(lengths):,} sessions of "
        f"{lengths.mean():.2f} rows on average, at most {lengths.max()};\n"
        f"{len(data[4]):,} rows held out; {arguments.seeds} seeds; part: "
        f"{arguments.part}"
    )
    results, notes = {"no weights": []}, {}
    for seed in range(arguments.seeds):
        measure(data, seed, arguments.strengths, results, notes)
    print_tables(results, notes)


if __name__ == "__main__":
    main()
