"""Paired differences of the estimator's settings on validation rows.

    python benchmarks/default_differences.py pwiser_weight
    python benchmarks/default_differences.py numeric_encoding --data flights --seeds 3

The first setting of a comparison is the reference. Each other setting is fitted on the
same rows with the same seeds. A line shows the mean difference in thousandths of AUC
per task (log loss in thousandths of a nat), followed by its standard error over the
seeds. No test row is read, unless with `--part test`: the held-out rows are a part of
the training rows, the last one in time where the tables are split by time. Some lines
end with the processor time of a fit, as a multiple of that of the first line.
"""

import time

import numpy as np
from _harness import (
    aucs,
    begin,
    data_folder,
    in_thousandths,
    literal,
    make_parser,
    mean_log_loss,
    processor_time,
    rates_of,
)
from _tables import load_tables
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from sk_pwiser import MultiTaskCTRCVRClassifier


def values_of(name, *texts, label="{}"):
    """Return settings that differ in one parameter, with cross-entropy.

    A name such as `encoding_params__max_bins` is an entry of a dictionary.
    """
    outer, _, inner = name.partition("__")
    values = {label.format(text): literal(text) for text in texts}
    return {
        key: {outer: {inner: value} if inner else value, "loss": "bce"}
        for key, value in values.items()
    }


def cross(**params):
    return {"network_params": {"interaction": "cross", **params}, "loss": "bce"}


BCE = {"bce": {"loss": "bce"}}
ALONE = {"network": "single_task", "loss": "bce"}
HALF = {"bottom_units": (64, 32), "tower_units": (16,)}


def calibrated_score(estimator, X, Y):
    """Return minus the log loss after a slope and a shift per task (arXiv 2501.19195).

    They are fitted to the log-odds of the same rows.
    """
    labels = np.asarray(Y).reshape(len(Y), -1)
    losses = []
    for task, p in enumerate(estimator.predict_proba(X)[:, -labels.shape[1] :].T):
        y = labels[:, task]
        known = ~np.isnan(y)
        if len(np.unique(y[known])) < 2:
            continue
        z = np.log(p[known]) - np.log1p(-p[known].clip(max=1 - 1e-7))
        curve = LogisticRegression(C=1e4).fit(z[:, np.newaxis], y[known])
        fitted = curve.predict_proba(z[:, np.newaxis])
        losses.append(log_loss(y[known], fitted[:, 1]))
    return -float(np.mean(losses))


PAPER = {"surrogate": "squared_hinge", "score": "probability"}
COMPARISONS = {
    "pwiser_weight": {
        **BCE,
        "pwiser 0.1": {"pwiser_weight": 0.1},
        "pwiser 0.3": {"pwiser_weight": 0.3},
        "pwiser 1": {"pwiser_weight": 1.0},
        "paper's form 0.3": {"pwiser_weight": 0.3, "loss_params": PAPER},
    },
    "network": values_of("network", "shared_bottom", "mmoe", "ple", "aitm", "stem"),
    "numeric_encoding": values_of(
        *("numeric_encoding", "standard", "quantile"),
        *("piecewise_linear", "bins_and_scores"),
    ),
    "max_bins": values_of("encoding_params__max_bins", "16", "32", "64", "128"),
    "embedding_dim": values_of("embedding_dim", "16", "auto", "8", "32"),
    "lr": values_of("lr", "0.01", "0.003", "0.005", "0.007"),
    "weight_decay": values_of("weight_decay", "auto", "0.0", "2e-5", "1e-4", "5e-4"),
    "small_batches": {
        name: {**params, "batch_size": 64}
        for name, params in values_of("weight_decay", "1e-4", "auto", "5e-4").items()
    },
    "embedding_weight_decay": values_of(
        *("optimizer_params__embedding_weight_decay", "None", "5e-4", "1e-3", "2e-3"),
        label="embeddings {}",
    ),
    # A rare task that shares nothing has small gradients, which decay may outweigh.
    "single_task_decay": {
        "adam": ALONE,
        "adamw": ALONE | {"optimizer": "adamw"},
        "adam, weight_decay=0": ALONE | {"weight_decay": 0.0},
    },
    "interaction": {
        "none": BCE["bce"],
        "fm": {"network_params": {"interaction": "fm"}, "loss": "bce"},
        "cross": cross(),
        "cross, rank 32": cross(cross_rank=32),
        "2 layers, rank 32": cross(n_cross_layers=2, cross_rank=32),
        "3 layers, rank 32": cross(n_cross_layers=3, cross_rank=32),
        "cross, lr=1e-3": cross() | {"lr": 1e-3},
    },
    "cross_layers": {
        "1 layer": cross(cross_rank=32),
        "none": BCE["bce"],
        **{f"{n} layers": cross(n_cross_layers=n, cross_rank=32) for n in (2, 3, 4)},
    },
    "batch_size": {
        f"{size:,} rows, lr {lr:g}": {"batch_size": size, "lr": lr, "loss": "bce"}
        for size in (512, 1024, 2048, 8192)
        # Kept, and in proportion to the size.
        for lr in dict.fromkeys([0.003, 0.003 * size / 512])
    },
    "lr_schedule": {
        "held, then decayed": BCE["bce"],
        "constant": {"lr_schedule": None, "loss": "bce"},
        "constant, lr 0.003, 512 rows": {
            **{"lr_schedule": None, "lr": 0.003, "batch_size": 512, "loss": "bce"},
            "weight_decay": 1e-4,
            "optimizer_params": {"embedding_weight_decay": 5e-4},
        },
    },
    "average_decay": values_of("optimizer_params__average_decay", "0", "0.9", "0.99"),
    "target_encoding": values_of("target_encoding", "False", "auto"),
    "calibrated_stopping": {
        "loss": {"early_stopping": True},
        "calibrated loss": {"early_stopping": calibrated_score},
    },
    "size": {
        "default": {},
        "half as wide": {"network_params": HALF},
        "10 epochs": {"max_epochs": 10},
    },
}
TIMED = (
    "calibrated_stopping",
    "size",
    "interaction",
    "cross_layers",
    "batch_size",
    "lr",
    "lr_schedule",
)
DATA = (
    *("engage", "long", "rare", "hillstrom", "oulad", "flights", "adult", "columns-40"),
    "equal-columns",
    *("generated-0.15-clean", "generated-0.5-clean", "generated-12-clean"),
    *("movielens", "insteval"),
)


def figures(tables, params, seed):
    """Fit; return the AUC of each task with the log loss, and the time."""
    model = MultiTaskCTRCVRClassifier(random_state=seed, **params)
    seconds, _ = processor_time(model.fit, tables.X, tables.Y)
    p = model.predict_proba(tables.X_test)
    return [*aucs(tables.Y_test, p), mean_log_loss(tables.Y_test, p)], seconds


def run(report, name, arguments, path):
    """Print the differences on one data set."""
    settings = COMPARISONS[arguments.comparison]
    results, times = ({label: [] for label in settings} for _ in "12")
    started = time.perf_counter()
    for seed in range(arguments.seeds):
        tables = load_tables(name, path, arguments.part, seed=seed)
        if arguments.rows:
            drawn = np.random.default_rng(seed).permutation(len(tables.X))
            rows = np.sort(drawn[: arguments.rows])  # in their order
            tables = tables._replace(X=tables.X.iloc[rows], Y=tables.Y.iloc[rows])
        for label, params in settings.items():
            row, duration = figures(tables, params, seed)
            results[label].append(row)
            times[label].append(duration)
    seconds = time.perf_counter() - started
    size = f"{len(tables.X):,} rows, {len(tables.X_test):,} held out"
    part = "" if arguments.part == "validation" else f"; part: {arguments.part}"
    report.text("", f"{name}: {size}; {rates_of(tables.Y, 2)}{part}")
    columns = [*tables.Y.columns, "log loss"]
    is_timed = arguments.comparison in TIMED
    report.table([*columns, "time"] if is_timed else columns)
    reference = next(iter(settings))
    base, base_times = np.array(results[reference]), np.array(times[reference])
    for label, rows in results.items():
        if label == reference:
            cells = [f"{mean:.4f}" for mean in base.mean(axis=0)]
        else:
            cells = [*map(in_thousandths, (np.array(rows) - base).T)]
        if is_timed:
            cells.append(f"{np.mean(times[label] / base_times):.1f}")
        report.row(label, cells)
    report.text(f"{seconds / arguments.seeds / len(settings):.1f} s per fit")


def main():
    parser = make_parser(__doc__, seeds=5, part="validation", data=DATA)
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--rows", type=int, help="training rows, drawn for each seed")
    arguments, report = begin(
        "default_differences", parser, data=["engage"], seeds=2, rows=2_000
    )
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2, for a standard error")
    report.text(
        f"{arguments.seeds} seeds; differences in thousandths to the first line "
        "(standard error)"
    )
    for name in arguments.data:
        try:
            run(report, name, arguments, data_folder())
        except (FileNotFoundError, ImportError) as error:
            report.text("", f"{name} is left out: {error}")


if __name__ == "__main__":
    main()
