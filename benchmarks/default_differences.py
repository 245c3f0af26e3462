"""Paired differences of the estimator's settings on validation rows.

    python benchmarks/default_differences.py pwiser_weight
    python benchmarks/default_differences.py numeric_encoding --data flights --seeds 3
    python benchmarks/default_differences.py early_stopping --rows 500 1000 2000

The first setting of a comparison is the reference. Each other setting is fitted on the
same rows with the same seeds. A line shows the mean difference in thousandths of AUC
per task (log loss in thousandths of a nat), followed by its standard error over the
seeds. The defaults of the estimator were chosen by these comparisons. No test row is
read: the held-out rows are a part of the training rows, on KuaiRand their last day.
Generated tables are new for each seed. Data sets whose files are absent are left out.

The lines of `dead_units` end with the number of the units of the bottom's last layer
whose activation is 0 on every training row, so that they have no gradient: the mean
over the seeds.

The lines "chosen" of `pwiser_weight` choose a setting per seed by its AUC of the last
task on the rows of early stopping, as a fit that finds its weight itself would do. With
"1 s.e." the first setting is kept unless another is ahead of it by a standard error of
the AUC. The numbers in brackets count how often each setting was chosen.
"""

import argparse
import os
import platform
import time
from unittest import mock

import numpy as np
import torch
from _pwiser_forms import (
    ConditionalHead,
    HalvedWeight,
    HardPairs,
    Memory,
    WithinGroups,
)
from _real_tables import KUAIRAND, load_tables
from sklearn.metrics import log_loss, roc_auc_score
from torch.nn import functional as F

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.networks import NetworkOutput, SharedBottom, _input


class LeakyBottom(SharedBottom):
    """A shared bottom whose units have a slope of 0.01 below 0."""

    def forward(self, codes, numeric):
        hidden = self.input_layer(codes, numeric)
        for layer in self.bottom.layers:
            hidden = F.leaky_relu(layer(hidden))
        return NetworkOutput(self.towers(hidden))


class AllBins(SharedBottom):
    """A shared bottom whose first layer reads every bin of the numeric columns."""

    def __init__(self, spec, **params):
        with mock.patch.object(_input, "FEW_BINS", max([0, *spec.numeric_bins])):
            super().__init__(spec, **params)


PAPER = {"surrogate": "squared_hinge", "score": "probability"}
DEFAULT_LR = MultiTaskCTRCVRClassifier().lr
COMPARISONS = {
    "pwiser_weight": {
        "bce": {"loss": "bce"},
        "pwiser 0.1": {"pwiser_weight": 0.1},
        "pwiser 0.3": {"pwiser_weight": 0.3},
        "pwiser 1": {"pwiser_weight": 1.0},
        "paper's form 0.3": {"pwiser_weight": 0.3, "loss_params": PAPER},
    },
    # At a weight at which the term acts more than at the default of 0.1.
    "pwiser_forms": {
        "bce": {"loss": "bce"},
        "pwiser": {"pwiser_weight": 0.3},
        "all depths": {"pwiser_weight": 0.3, "loss_params": {"pairs": "funnel"}},
        "hard pairs": {"pwiser_weight": 0.3, "loss": HardPairs},
        "same user": {"pwiser_weight": 0.3, "loss": WithinGroups},
        "conditional": {"pwiser_weight": 0.3, "loss": ConditionalHead},
        "memory": {"pwiser_weight": 0.3, "loss": Memory},
        "weight halved": {"pwiser_weight": 0.3, "callbacks": [HalvedWeight(0.3)]},
        "weight 1 halved": {"pwiser_weight": 1.0, "callbacks": [HalvedWeight(1.0)]},
    },
    "network": {
        name: {"network": name, "loss": "bce"}
        for name in ("shared_bottom", "mmoe", "ple", "aitm", "stem")
    },
    "numeric_encoding": {
        "standard": {"numeric_encoding": "standard", "loss": "bce"},
        "quantile": {"numeric_encoding": "quantile", "loss": "bce"},
        "piecewise_linear": {"numeric_encoding": "piecewise_linear", "loss": "bce"},
        "bins_and_scores": {"numeric_encoding": "bins_and_scores", "loss": "bce"},
    },
    "bin_projection": {
        "every bin": {"network": AllBins, "loss": "bce"},
        "projected": {"loss": "bce"},
    },
    "max_bins": {
        "16": {"encoding_params": {"max_bins": 16}, "loss": "bce"},
        "32": {"encoding_params": {"max_bins": 32}, "loss": "bce"},
        "64": {"encoding_params": {"max_bins": 64}, "loss": "bce"},
        "128": {"encoding_params": {"max_bins": 128}, "loss": "bce"},
    },
    "embedding_dim": {
        "16": {"embedding_dim": 16, "loss": "bce"},
        "auto": {"embedding_dim": "auto", "loss": "bce"},
        "8": {"embedding_dim": 8, "loss": "bce"},
        "32": {"embedding_dim": 32, "loss": "bce"},
    },
    "weight_decay": {
        "0": {"weight_decay": 0.0, "loss": "bce"},
        "1e-5": {"weight_decay": 1e-5, "loss": "bce"},
        "1e-4": {"weight_decay": 1e-4, "loss": "bce"},
        "1e-3": {"weight_decay": 1e-3, "loss": "bce"},
    },
    "embedding_weight_decay": {
        "embeddings 1e-4": {
            "loss": "bce",
            "optimizer_params": {"embedding_weight_decay": 1e-4},
        },
        "embeddings 5e-4": {
            "loss": "bce",
            "optimizer_params": {"embedding_weight_decay": 5e-4},
        },
        "embeddings 1e-3": {
            "loss": "bce",
            "optimizer_params": {"embedding_weight_decay": 1e-3},
        },
    },
    # A rare task that shares nothing has small gradients, which decay may outweigh.
    "single_task_decay": {
        "adam": {"network": "single_task", "loss": "bce"},
        "adamw": {"network": "single_task", "loss": "bce", "optimizer": "adamw"},
        "adam, weight_decay=0": {
            "network": "single_task",
            "loss": "bce",
            "weight_decay": 0.0,
        },
    },
    "dead_units": {
        "default": {"loss": "bce"},
        "weight_decay=0": {"weight_decay": 0.0, "loss": "bce"},
        "adamw": {"optimizer": "adamw", "loss": "bce"},
        "half the lr": {"lr": 0.5 * DEFAULT_LR, "loss": "bce"},
        "43 units for 64": {
            "network_params": {"bottom_units": (128, 43)},
            "loss": "bce",
        },
        "LeakyReLU": {"network": LeakyBottom, "loss": "bce"},
    },
    "early_stopping": {
        "50 epochs": {"early_stopping": False, "loss": "bce"},
        "early stopping": {"early_stopping": True, "loss": "bce"},
    },
    "average_decay": {
        "0": {"optimizer_params": {"average_decay": 0}, "loss": "bce"},
        "0.9": {"optimizer_params": {"average_decay": 0.9}, "loss": "bce"},
        "0.99": {"optimizer_params": {"average_decay": 0.99}, "loss": "bce"},
    },
    "target_encoding": {
        "False": {"target_encoding": False, "loss": "bce"},
        "auto": {"target_encoding": "auto", "loss": "bce"},
    },
}
# Per comparison, the settings to choose from by the rows of early stopping, and by how
# many standard errors another must be ahead of the first.
CHOICES = {
    "pwiser_weight": {
        "chosen of 0, 0.3": (("bce", "pwiser 0.3"), 0.0),
        "chosen of 0 to 1": (("bce", "pwiser 0.1", "pwiser 0.3", "pwiser 1"), 0.0),
        "chosen, 1 s.e.": (("bce", "pwiser 0.1", "pwiser 0.3", "pwiser 1"), 1.0),
    }
}
LABEL_WIDTH = 28
DATA = (
    "engage",
    "long",
    "rare",
    "hillstrom",
    "oulad",
    "flights",
    "adult",
    "columns-40",
    "generated-0.15-clean",
    "generated-0.5-clean",
    "generated-12-clean",
)


def figures(tables, params, seed, groups):
    """Fit once; return a list of figures and the model.

    The figures are the AUC of each task, the mean log loss, and the AUC of the last
    task on the rows of early stopping, to choose by.
    """
    model = MultiTaskCTRCVRClassifier(random_state=seed, **params)
    p = model.fit(tables.X, tables.Y, groups=groups).predict_proba(tables.X_test)
    y = tables.Y_test.to_numpy()
    losses = [log_loss(y[:, k], p[:, k], labels=[0, 1]) for k in range(y.shape[1])]
    aucs = [roc_auc_score(y[:, k], p[:, k]) for k in range(y.shape[1])]
    best = model.history_[model.best_epoch_ - 1]
    chosen_by = best.get(f"valid_auc_{tables.Y.columns[-1]}", np.nan)
    return [*aucs, np.mean(losses), chosen_by], model


@torch.no_grad()
def dead_units(model, X):
    """Return how many units of the bottom's last layer are 0 or less on all rows."""
    encoded = model.encode(X)
    largest = []
    last = model.net_.module_.bottom.layers[-1]
    hook = last.register_forward_hook(lambda *call: largest.append(call[-1].amax(0)))
    inputs = (torch.as_tensor(encoded.codes).long(), torch.as_tensor(encoded.numeric))
    for codes, numeric in zip(*(rows.split(4096) for rows in inputs), strict=True):
        model.net_.module_(codes, numeric)
    hook.remove()
    return int((torch.stack(largest).amax(0) <= 0).sum())


def auc_error(auc, n_positives, n_negatives):
    """Return the standard error of an AUC after Hanley and McNeil (1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc)
    variance += (n_positives - 1) * (q1 - auc**2) + (n_negatives - 1) * (q2 - auc**2)
    return np.sqrt(variance / (n_positives * n_negatives))


def choose(results, labels, n_errors, tables):
    """Return the index of the chosen setting per seed."""
    aucs = np.array([results[label][:, -1] for label in labels])
    share = MultiTaskCTRCVRClassifier().validation_fraction
    n_positives = share * tables.Y.iloc[:, -1].sum()
    error = auc_error(aucs[0], n_positives, share * len(tables.Y) - n_positives)
    best = aucs.argmax(axis=0)
    return np.where(aucs.max(axis=0) - aucs[0] >= n_errors * error, best, 0)


def print_differences(label, differences, note=""):
    """Print mean and standard error over the seeds, in thousandths, and a note."""
    errors = differences.std(axis=0, ddof=1) / np.sqrt(len(differences))
    cells = "".join(
        f"{f'{1000 * mean:+.1f} ({1000 * error:.1f})':>18}"
        for mean, error in zip(differences.mean(axis=0), errors, strict=True)
    )
    print(f"{label:<{LABEL_WIDTH}}{cells}{note}")


def some_rows(tables, n, seed):
    """Return tables with some of the training rows, in their order."""
    if n is None or n >= len(tables.X):
        return tables
    rows = np.sort(np.random.default_rng(seed).permutation(len(tables.X))[:n])
    return tables._replace(X=tables.X.iloc[rows], Y=tables.Y.iloc[rows])


def run(name, settings, choices, n_seeds, path, n_rows=None, counts_units=False):
    """Print the differences on one data set."""
    compares_groups = any(s.get("loss") is WithinGroups for s in settings.values())
    if compares_groups and name not in KUAIRAND:
        settings = {
            label: s
            for label, s in settings.items()
            if s.get("loss") is not WithinGroups
        }
    results = {label: [] for label in settings}
    dead = {label: [] for label in settings}
    started = time.perf_counter()
    for seed in range(n_seeds):
        tables = load_tables(name, path, "validation", seed=seed)
        tables = some_rows(tables, n_rows, seed)
        for label, params in settings.items():
            in_groups = params.get("loss") is WithinGroups
            groups = tables.X["user_id"] if in_groups else None
            row, model = figures(tables, params, seed, groups)
            results[label].append(row)
            if counts_units:
                dead[label].append(dead_units(model, tables.X))
    seconds = time.perf_counter() - started
    rates = ", ".join(f"{c} {r:.2%}" for c, r in tables.Y.mean().items())
    print(f"\n{name}: {len(tables.X):,} rows, {len(tables.X_test):,} held out; {rates}")
    columns = [*tables.Y.columns, "log loss"]
    print(" " * LABEL_WIDTH + "".join(f"{column:>18}" for column in columns))
    results = {label: np.array(rows) for label, rows in results.items()}
    reference, *others = settings
    base = results[reference][:, :-1]
    cells = "".join(f"{mean:>18.4f}" for mean in base.mean(axis=0))
    notes = {
        label: f"{np.mean(counts):>9.1f} dead units" if counts else ""
        for label, counts in dead.items()
    }
    print(f"{reference:<{LABEL_WIDTH}}{cells}{notes[reference]}")
    for label in others:
        print_differences(label, results[label][:, :-1] - base, notes[label])
    for label, (candidates, n_errors) in choices.items():
        chosen = choose(results, candidates, n_errors, tables)
        rows = [results[candidates[i]][seed] for seed, i in enumerate(chosen)]
        counts = np.bincount(chosen, minlength=len(candidates))
        note = " ".join(map(str, counts))
        print_differences(f"{label} ({note})", np.array(rows)[:, :-1] - base)
    print(f"{seconds / n_seeds / len(settings):.1f} s per fit", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--seeds", type=int, default=5, help="at least 2 (default 5)")
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[None],
        help="numbers of training rows, drawn at random per seed (default: all)",
    )
    arguments = parser.parse_args()
    path = os.environ.get("SK_PWISER_DATA")
    if not path:
        raise SystemExit("Set SK_PWISER_DATA to the folder of the data sets.")
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2, for a standard error")
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"{os.cpu_count()} CPU cores; {arguments.seeds} seeds"
    )
    print("differences in thousandths to the first line (standard error)")
    for name in arguments.data:
        settings = COMPARISONS[arguments.comparison]
        choices = CHOICES.get(arguments.comparison, {})
        try:
            for n_rows in arguments.rows:
                run(
                    name,
                    settings,
                    choices,
                    arguments.seeds,
                    path,
                    n_rows,
                    counts_units=arguments.comparison == "dead_units",
                )
        except FileNotFoundError as error:
            print(f"\n{name} is left out: {error}", flush=True)


if __name__ == "__main__":
    main()
