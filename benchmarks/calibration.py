"""Calibration of PWiseR on later training rows, measured on the test rows of KuaiRand.

    SK_PWISER_DATA=/path/to/data python benchmarks/calibration.py
    SK_PWISER_DATA=/path/to/data python benchmarks/calibration.py --quick

The last days of the training rows are held out. The estimator is trained on the days
before them, with cross-entropy and with PWiseR, and `FunnelCalibrator` is fitted to the
predictions of PWiseR for the days held out.

The figures are those of the test rows, the eight days after the training days: the
expected calibration error in 20 bins of equally many rows, the predicted divided by the
observed number of events, the log loss, and the AUC. Cells are means over the seeds,
followed by the standard deviation. For comparison the last lines give the calibration
error without a change of days: the calibrator is fitted to a random half of the rows
held out and measured on the other half.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
from _real_tables import BEIJING, DAY
from sklearn.metrics import log_loss, roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import load_kuairand
from sk_pwiser.metrics import expected_calibration_error, predicted_over_observed

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "calibration.txt"
METHODS = ("isotonic", "sigmoid", "temperature")
FIGURES = ("ECE", "predicted/observed", "log loss", "AUC")


def figures_of(Y, p):
    """Return the figures of each task, {(task, figure): value}."""
    found = {}
    for k, task in enumerate(Y.columns):
        y, q = Y[task].to_numpy(), p[:, k].astype(float)
        found[task, "ECE"] = expected_calibration_error(y, q)
        found[task, "predicted/observed"] = predicted_over_observed(y, q)
        found[task, "log loss"] = log_loss(y, q)
        found[task, "AUC"] = roc_auc_score(y, q)
    return found


def split_days(train, n_days):
    """Return masks of the rows that are trained on, and of the last days."""
    day = (train.time_ms + BEIJING) // DAY
    late = day > day.max() - n_days
    return ~late, late


def random_halves(mask, seed):
    """Return two masks that split the rows of a mask at random."""
    is_first = np.random.default_rng(seed).random(len(mask)) < 0.5
    return mask & is_first, mask & ~is_first


def run(train, test, n_days, seed, max_epochs):
    """Yield the name and the figures of each model of one seed.

    The figures of the same days have names that end with "same days".
    """
    early, late = split_days(train, n_days)
    half, other = random_halves(late, seed)
    X, Y = train.data[early], train.target[early]
    for loss in ("bce", "pwiser"):
        model = MultiTaskCTRCVRClassifier(
            loss=loss, max_epochs=max_epochs, random_state=seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the number of epochs
            model.fit(X, Y)
        yield loss, figures_of(test.target, model.predict_proba(test.data))
    for method in METHODS:
        calibrated = FunnelCalibrator(model, method=method)
        calibrated.fit(train.data[late], train.target[late])
        p = calibrated.predict_proba(test.data)
        yield f"pwiser, {method}", figures_of(test.target, p)
        calibrated.fit(train.data[half], train.target[half])
        p = calibrated.predict_proba(train.data[other])
        yield f"{method}, same days", figures_of(train.target[other], p)
    p = model.predict_proba(train.data[other])
    yield "uncalibrated, same days", figures_of(train.target[other], p)


def format_cells(rows):
    """Return the lines of a table: one per model, one column per figure."""
    models = [n for n in dict.fromkeys(n for n, _ in rows) if "same days" not in n]
    width = max(map(len, models))
    lines = [" " * width + "".join(f"{name:>22}" for name in FIGURES)]
    for task in dict.fromkeys(task for task, _ in rows[0][1]):
        lines.append(task)
        for model in models:
            cells = []
            for figure in FIGURES:
                values = [f[task, figure] for name, f in rows if name == model]
                cells.append(f"{np.mean(values):13.4f} +- {np.std(values):.4f}")
            lines.append(f"{model:<{width}}" + "".join(f"{c:>22}" for c in cells))
    return lines


def differences(rows):
    """Return lines with the calibrated models relative to cross-entropy and PWiseR."""
    lines = []
    mean = pd.DataFrame([f for _, f in rows], index=[n for n, _ in rows])
    mean = mean.groupby(level=0).mean()
    for method in METHODS:
        one = mean.loc[f"pwiser, {method}"]
        for task in dict.fromkeys(task for task, _ in mean.columns):
            loss = one[task, "log loss"] / mean.loc["bce"][task, "log loss"] - 1
            auc = one[task, "AUC"] - mean.loc["pwiser"][task, "AUC"]
            lines.append(
                f"{method:<12}{task:<8} log loss {loss:+.2%} relative to bce, AUC "
                f"{auc:+.5f} relative to pwiser, ECE {one[task, 'ECE']:.4f}"
            )
    for name in mean.index[mean.index.str.endswith("same days")]:
        eces = [
            f"{task} {e:.4f}" for (task, f), e in mean.loc[name].items() if f == "ECE"
        ]
        lines.append(f"{name:<25}ECE {', '.join(eces)}")
    return lines


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("SK_PWISER_DATA"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--days", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--max-epochs", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("set --data or SK_PWISER_DATA to the folder of the data sets")
    if arguments.quick:
        arguments.seeds, arguments.max_epochs = 1, 2
    elif arguments.output is None:
        arguments.output = RESULT
    return arguments


def main():
    arguments = parse()
    torch.set_num_threads(1)
    lines = [
        "KuaiRand-Pure, trained on the days before the last ones of the training rows, "
        "calibrated on",
        f"the last ones, measured on the test rows. {arguments.seeds} seeds, mean +- "
        f"standard deviation. torch {torch.__version__}, scikit-learn "
        f"{sklearn.__version__}.",
    ]
    for second in ("engage", "long"):
        train, test = (
            load_kuairand(arguments.data, second, subset=s) for s in ("train", "test")
        )
        for n_days in arguments.days:
            early, late = split_days(train, n_days)
            rows = []
            for seed in range(arguments.seeds):
                rows += run(train, test, n_days, seed, arguments.max_epochs)
            parts = {"trained on": early, "calibrated on": late}
            sizes = [
                f"{name} {mask.sum():,} rows (rates "
                f"{', '.join(f'{r:.4f}' for r in train.target[mask].mean())})"
                for name, mask in parts.items()
            ]
            rates = ", ".join(f"{r:.4f}" for r in test.target.mean())
            lines += [
                "",
                f"{second}, last {n_days} day(s) held out: {'; '.join(sizes)};",
                f"tested on {len(test.data):,} rows (rates {rates})",
                *format_cells(rows),
                *differences(rows),
            ]
            print("\n".join(lines), flush=True)
    if arguments.output is not None:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
