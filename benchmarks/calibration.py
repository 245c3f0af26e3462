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
    return {
        (task, name): figure(Y[task].to_numpy(), q.astype(float))
        for task, q in zip(Y, p.T, strict=True)
        for name, figure in FIGURES.items()
    }


def run(train, test, late, seed, params):
    """Yield the name and the figures of each model of one seed.

    `late` marks the rows of the last days. The figures of the same days have names that
    end with "same days".
    """
    early, is_first = ~late, np.random.default_rng(seed).random(len(late)) < 0.5
    half, other = late & is_first, late & ~is_first
    X, Y = train.data[early], train.target[early]
    for loss in ("bce", "pwiser"):
        model = MultiTaskCTRCVRClassifier(loss=loss, random_state=seed, **params)
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


def print_table(report, figures):
    """Print a table: one row per task and model, one column per figure."""
    mean, deviation = figures.mean(), figures.std(ddof=0)
    report.table(FIGURES)
    for task in mean.columns.levels[0]:
        report.text(task)
        for model in mean.index[~mean.index.str.endswith("same days")]:
            pairs = zip(mean.loc[model, task], deviation.loc[model, task], strict=True)
            report.row(model, [f"{m:.4f} ({d:.4f})" for m, d in pairs])


def print_same_days(report, title, mean):
    """Print the ECE on other rows of the days that the calibrators were fitted on."""
    tasks = mean.columns.levels[0]
    report.text("", f"{title}: ECE on rows of the same days")
    report.table(list(tasks))
    for name in sorted(mean.index[mean.index.str.endswith("same days")]):
        eces = [f"{mean.loc[name][task, 'ECE']:.4f}" for task in tasks]
        report.row(name.removesuffix(", same days"), eces)


def main():
    arguments, report = begin("calibration", make_parser(__doc__, seeds=3), seeds=1)
    params = {"max_epochs": 2} if arguments.quick else {}
    path = data_folder()
    report.text(
        "KuaiRand-Pure, trained on the days before the last ones of the training rows, "
        "calibrated on",
        f"the last ones, measured on the test rows. {arguments.seeds} seeds, mean "
        "and standard deviation.",
    )
    for second in ("engage", "long"):
        train, test = (
            load_kuairand(path, second, subset=part) for part in ("train", "test")
        )
        days = days_of(train)
        for n_days in (1,) if arguments.quick else (1, 2):
            late = days > days.max() - n_days
            rows = []
            for seed in range(arguments.seeds):
                rows += run(train, test, late, seed, params)
            sizes = [
                f"{name} {mask.sum():,} rows (rates "
                f"{', '.join(f'{r:.4f}' for r in train.target[mask].mean())})"
                for name, mask in (("trained on", ~late), ("calibrated on", late))
            ]
            rates = ", ".join(f"{r:.4f}" for r in test.target.mean())
            unit = "day" if n_days == 1 else "days"
            title = f"{second}, last {n_days} {unit} held out"
            report.text(
                "",
                f"{title}: {'; '.join(sizes)};",
                f"tested on {len(test.data):,} rows (rates {rates})",
            )
            names, figures = zip(*rows, strict=True)
            columns = pd.MultiIndex.from_tuples(figures[0])
            figures = pd.DataFrame([[*f.values()] for f in figures], columns=columns)
            figures = figures.groupby(np.array(names), sort=False)
            print_table(report, figures)
            print_same_days(report, title, figures.mean())


if __name__ == "__main__":
    main()
