"""Cross-entropy and PWiseR on real and generated impressions: where the term gains.

    pip install ".[benchmark]"
    export SK_PWISER_DATA=/path/to/data OMP_NUM_THREADS=1
    python benchmarks/paper_table.py --save
    python benchmarks/paper_table.py --data rare --networks mmoe stem --details
    python benchmarks/paper_table.py --data rare hillstrom generated-0.5-noisy \
        --seeds 10 --losses bce pwiser "pwiser 1" auto combined_pair jrc focal --details

The inputs of the networks are, with "embeddings", embeddings of the category columns
and the encoded numbers, as in the paper (`target_encoding=False`); with "statistics",
the defaults, which add the rates of the tasks per value. All other parameters have
their defaults. Each network is fitted with cross-entropy and with PWiseR, at the weight
that follows the rate (`pwiser_weight=None`), at 1, and as `fit` chooses it ("auto", the
default), on the same rows and with the same seeds. `--losses` has rivals, too.

KuaiRand has three second tasks: `engage` (3.4 %), `long` (31 %) and `rare`, a follow,
comment or forward (0.4 %). The seed selects the initial weights, the rows of early
stopping and the order of the rows; the split is fixed, so that intervals on real data
do not cover the noise of the test rows. Generated impressions are new for each seed,
and their figures are expectations over the labels.

The table has a row per data set, kind of inputs and network: the AUC of the conversions
(the last task, over all impressions) with cross-entropy, and what PWiseR adds to it at
both weights; then what a weight of 1 adds to the AUC of the clicks (the first task) and
to the log loss of the conversions. A difference is the mean over seeds in thousandths,
followed by half the width of its 95 % interval. With `--details`, a table per data set,
kind of inputs and figure follows, with the AUC of the CVR (the last task, over the
clicked rows) and the calibration error (ECE, 20 bins of equally many rows) as well.
"""

import os
import warnings
from itertools import product

import numpy as np
import pandas as pd
from _harness import (
    begin,
    cvr_of,
    expected_auc,
    expected_log_loss,
    make_parser,
    processor_time,
    seeds_of,
)
from _tables import GENERATED, KUAIRAND, load_tables
from scipy import stats

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.metrics import expected_calibration_error
from sk_pwiser.networks import NETWORKS

DATA = (*KUAIRAND, "movielens", "hillstrom", "oulad", "adult", *GENERATED)
# One log with rare conversions, 0.4 %, and two with frequent ones; one network.
DEFAULT_DATA = ("rare", "engage", "movielens")
DEFAULT_NETWORKS = ("shared_bottom",)
INPUTS = {"embeddings": {"target_encoding": False}, "statistics": {}}
BCE = "bce"
DEFAULT_WEIGHT = "pwiser"
WEIGHT_1 = "pwiser 1"
AUTO = "auto"
DEFAULT_LOSSES = (BCE, DEFAULT_WEIGHT, WEIGHT_1, AUTO)
RIVALS = ("combined_pair", "jrc", "focal")
LOSSES = {
    BCE: {"loss": "bce"},
    DEFAULT_WEIGHT: {"loss": "pwiser", "pwiser_weight": None},
    WEIGHT_1: {"loss": "pwiser", "pwiser_weight": 1.0},
    AUTO: {"loss": "pwiser"},
    **{name: {"loss": name} for name in RIVALS},
}
# What the columns of the table compare with cross-entropy.
GAINS = {
    "conversion AUC, weight by rate": (DEFAULT_WEIGHT, "ctcvr_auc"),
    "conversion AUC, auto": (AUTO, "ctcvr_auc"),
    "conversion AUC, weight 1": (WEIGHT_1, "ctcvr_auc"),
    "click AUC, weight 1": (WEIGHT_1, "ctr_auc"),
    "conversion log loss, weight 1": (WEIGHT_1, "ctcvr_log_loss"),
}
METRICS = {
    "ctcvr_auc": "conversion AUC",
    "ctr_auc": "click AUC",
    "cvr_auc": "CVR AUC",
    "ctcvr_log_loss": "conversion log loss",
    "ctcvr_ece": "conversion ECE",
}


def figures_of(y, p):
    """Return the metrics of predictions; `y` are labels, or their probabilities."""
    clicks, deepest = y[:, 0], y[:, -1]
    clicked = clicks > 0
    among_clicks = deepest[clicked] / clicks[clicked]
    return {
        "ctcvr_auc": expected_auc(deepest, p[:, -1]),
        "ctr_auc": expected_auc(clicks, p[:, 0]),
        "cvr_auc": expected_auc(among_clicks, cvr_of(p)[clicked], clicks[clicked]),
        "ctcvr_log_loss": expected_log_loss(deepest, p[:, -1]),
        "ctcvr_ece": expected_calibration_error(deepest, p[:, -1]),
    }


def fit(tables, inputs, network, loss, seed):
    """Fit one network; return its figures, epochs and seconds."""
    estimator = MultiTaskCTRCVRClassifier(
        network=network, random_state=seed, **INPUTS[inputs], **LOSSES[loss]
    )
    with warnings.catch_warnings():
        # Warnings on rare conversions and on the number of epochs.
        warnings.simplefilter("ignore")
        seconds, _ = processor_time(estimator.fit, tables.X, tables.Y)
    y = tables.probabilities if tables.probabilities is not None else tables.Y_test
    p = estimator.predict_proba(tables.X_test).astype(float)
    figures = figures_of(np.asarray(y, dtype=float), p)
    return {**figures, "epochs": estimator.n_iter_, "seconds": seconds}


def fit_all(arguments):
    """Return a row per fit; data sets whose files are absent are left out."""
    rows = []
    for data, seed in product(arguments.data, seeds_of(arguments)):
        try:
            tables = load_tables(data, os.environ.get("SK_PWISER_DATA"), seed=seed)
        except (FileNotFoundError, ImportError) as error:
            print(f"{data}: absent, left out ({str(error).splitlines()[0]})")
            continue
        for case in product(arguments.inputs, arguments.networks, arguments.losses):
            row = fit(tables, *case, seed)
            print(data, *case, seed, *(f"{v:.4g}" for v in row.values()), flush=True)
            names = dict(zip(("inputs", "network", "loss"), case, strict=True))
            rate = float(np.asarray(tables.Y)[:, -1].mean())
            rows.append({"data": data, "rate": rate, "seed": seed, **names, **row})
    return pd.DataFrame(rows)


def difference(values, digits):
    """Return a mean and half the width of its 95 % interval, in thousandths."""
    values, n = 1000 * np.asarray(values), len(values)
    text = f"{np.mean(values):+.{digits}f}"
    if n < 2:
        return text
    half_width = stats.t.ppf(0.975, n - 1) * stats.sem(values)
    return f"{text} ({half_width:.{digits}f})"


def print_gains(report, results):
    """Print a row per data set, kind of inputs and network."""
    report.table(["conversion AUC, bce", *GAINS], label="log")
    has_several_networks = results["network"].nunique() > 1
    rows_of = results.groupby(["data", "inputs", "network"], sort=False)
    for (data, inputs, network), rows in rows_of:
        by_loss = rows.pivot(index="seed", columns="loss")
        cells = [f"{by_loss['ctcvr_auc', BCE].mean():.4f}"]
        for loss, metric in GAINS.values():
            change = by_loss[metric, loss] - by_loss[metric, BCE]
            cells.append(difference(change, digits_of(metric)))
        rate = rows["rate"].mean()
        label = f"{data} ({rate:.1%}), {inputs}"
        if has_several_networks:
            label += f", {network}"
        report.row(label, cells)


def digits_of(metric):
    return 1 if metric.endswith("auc") else 2


def print_table(report, results, metric):
    """Print one metric on one data set: a row per network, differences to the first."""
    digits = digits_of(metric)
    by_loss = results.pivot_table(metric, ["network", "seed"], "loss", sort=False)
    first, *others = by_loss.columns
    report.table([first, *others], label="network")
    differences = by_loss[others].sub(by_loss[first], axis=0)
    for network, values in differences.groupby("network", sort=False):
        cells = [difference(values[loss], digits) for loss in others]
        report.row(network, [f"{by_loss.loc[network, first].mean():.4f}", *cells])
    if differences.index.get_level_values("network").nunique() > 1:
        # Per seed, as the networks of a seed have the same test rows.
        means = differences.groupby("seed").mean()
        cells = [difference(means[loss], digits) for loss in others]
        report.row("mean", [f"{by_loss[first].mean():.4f}", *cells])


def main():
    parser = make_parser(
        __doc__, seeds=3, data=DATA, inputs=INPUTS, networks=NETWORKS, losses=LOSSES
    )
    parser.add_argument("--details", action="store_true", help="a table per figure")
    parser.set_defaults(
        threads=1,
        data=DEFAULT_DATA,
        networks=DEFAULT_NETWORKS,
        losses=DEFAULT_LOSSES,
    )
    quick = {"data": ["generated-0.5-clean"], "seeds": 1}
    arguments, report = begin("paper_table", parser, **quick)
    results = fit_all(arguments)
    if set(DEFAULT_LOSSES) <= set(arguments.losses):
        report.text("", f"What PWiseR adds to cross-entropy; {arguments.seeds} seeds")
        print_gains(report, results)
    if arguments.details:
        for (data, inputs), rows in results.groupby(["data", "inputs"], sort=False):
            for metric, name in METRICS.items():
                caption = f"{data}: {name}, {inputs}; {arguments.seeds} seeds"
                report.text("", caption)
                print_table(report, rows, metric)
    report.text(
        "",
        "Differences to the first loss, with the same seeds, in thousandths, followed "
        "by half the width of their 95 % interval over the seeds.",
    )


if __name__ == "__main__":
    main()
