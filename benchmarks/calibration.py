"""Calibration of PWiseR on later training rows, measured on the test rows of KuaiRand.

    SK_PWISER_DATA=/path/to/data python benchmarks/calibration.py

The last days of the training rows are held out. The estimator is trained on the days
before them, with cross-entropy and with PWiseR, and `FunnelCalibrator` is fitted to the
predictions of PWiseR for the days held out.

The figures are measured on the test rows, the eight days after the training days: the
expected calibration error in 20 bins of equally many rows, the predicted divided by the
observed number of events, the log loss, and the AUC. Cells are means over the seeds,
followed by the standard deviation. For comparison, the last lines give the calibration
error without a change of days: the calibrator is fitted to a random half of the rows
held out and measured on the other half.
"""

import warnings

import numpy as np
import pandas as pd
from _harness import begin, data_folder, make_parser
from _tables import days_of
from sklearn.metrics import log_loss, roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import load_kuairand
from sk_pwiser.metrics import expected_calibration_error, predicted_over_observed

METHODS = ("isotonic", "sigmoid")
FIGURES = {
    "ECE": expected_calibration_error,
    "predicted/observed": predicted_over_observed,
    "log loss": log_loss,
    "AUC": roc_auc_score,
}


def figures_of(Y, p):
    """Return the figures of each task, {(task, figure): value}."""
    pairs = {task: (Y[task].to_numpy(), q) for task, q in zip(Y, p.T, strict=True)}
    return {
        (task, name): figure(y, q.astype(float))
        for task, (y, q) in pairs.items()
        for name, figure in FIGURES.items()
    }


def run(train, test, late, seed, max_epochs):
    """Yield the name and the figures of each model of one seed.

    `late` marks the rows of the last days. The figures of the same days have names that
    end with "same days".
    """
    early, is_first = ~late, np.random.default_rng(seed).random(len(late)) < 0.5
    half, other = late & is_first, late & ~is_first
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


def print_table(report, rows):
    """Print a table: one row per task and model, one column per figure."""
    models = [n for n in dict.fromkeys(n for n, _ in rows) if "same days" not in n]
    report.table(FIGURES)
    for task in dict.fromkeys(task for task, _ in rows[0][1]):
        report.text(task)
        for model in models:
            cells = []
            for figure in FIGURES:
                values = [f[task, figure] for name, f in rows if name == model]
                cells.append(f"{np.mean(values):.4f} +- {np.std(values):.4f}")
            report.row(model, cells)


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
                f"{method}, {task}: log loss {loss:+.2%} relative to bce, AUC "
                f"{auc:+.5f} relative to pwiser, ECE {one[task, 'ECE']:.4f}"
            )
    for name in mean.index[mean.index.str.endswith("same days")]:
        eces = [
            f"{task} {e:.4f}" for (task, f), e in mean.loc[name].items() if f == "ECE"
        ]
        lines.append(f"{name}: ECE {', '.join(eces)}")
    return lines


def main():
    parser = make_parser(__doc__, seeds=3)
    parser.add_argument("--days", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--max-epochs", type=int, default=50)
    quick = {"seeds": 1, "max_epochs": 2, "days": [1]}
    arguments, report = begin("calibration", parser, **quick)
    path = data_folder()
    report.text(
        "KuaiRand-Pure, trained on the days before the last ones of the training rows, "
        "calibrated on",
        f"the last ones, measured on the test rows. {arguments.seeds} seeds, mean +- "
        "standard deviation.",
    )
    for second in ("engage", "long"):
        train, test = (
            load_kuairand(path, second, subset=part) for part in ("train", "test")
        )
        days = days_of(train)
        for n_days in arguments.days:
            late = days > days.max() - n_days
            rows = []
            for seed in range(arguments.seeds):
                rows += run(train, test, late, seed, arguments.max_epochs)
            sizes = [
                f"{name} {mask.sum():,} rows (rates "
                f"{', '.join(f'{r:.4f}' for r in train.target[mask].mean())})"
                for name, mask in (("trained on", ~late), ("calibrated on", late))
            ]
            rates = ", ".join(f"{r:.4f}" for r in test.target.mean())
            report.text(
                "",
                f"{second}, last {n_days} day(s) held out: {'; '.join(sizes)};",
                f"tested on {len(test.data):,} rows (rates {rates})",
            )
            print_table(report, rows)
            report.text(*differences(rows))
    report.save()


if __name__ == "__main__":
    main()
