"""Paired differences of the estimator's settings on validation rows.

    python benchmarks/default_differences.py pwiser_weight
    python benchmarks/default_differences.py numeric_encoding --data flights --seeds 3

The first setting of a comparison is the reference. Each other setting is fitted on the
same rows with the same seeds. A line shows the mean difference in thousandths of AUC
per task (log loss in thousandths of a nat), followed by its standard error over the
seeds. The defaults of the estimator were chosen by these comparisons. No test row is
read: the held-out rows are a part of the training rows, on KuaiRand their last day.
Generated impressions, and the sample of the flights, are new for each seed.
"""

import argparse
import os
import platform
import time

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

from sk_pwiser import MultiTaskCTRCVRClassifier

PAPER = {"surrogate": "squared_hinge", "score": "probability"}
COMPARISONS = {
    "pwiser_weight": {
        "bce": {"loss": "bce"},
        "pwiser 0.1": {"pwiser_weight": 0.1},
        "pwiser 0.3": {"pwiser_weight": 0.3},
        "pwiser 1": {"pwiser_weight": 1.0},
        "paper's form 0.3": {"pwiser_weight": 0.3, "loss_params": PAPER},
    },
    "pwiser_forms": {
        "bce": {"loss": "bce"},
        "pwiser": {},
        "all depths": {"loss_params": {"pairs": "funnel"}},
        "hard pairs": {"loss": HardPairs},
        "same user": {"loss": WithinGroups},
        "conditional": {"loss": ConditionalHead},
        "memory": {"loss": Memory},
        "weight halved": {"callbacks": [HalvedWeight(0.3)]},
        "weight 1 halved": {"callbacks": [HalvedWeight(1.0)]},
    },
    "numeric_encoding": {
        "standard": {"numeric_encoding": "standard", "loss": "bce"},
        "quantile": {"numeric_encoding": "quantile", "loss": "bce"},
        "piecewise_linear": {"numeric_encoding": "piecewise_linear", "loss": "bce"},
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
DATA = (
    "engage",
    "long",
    "rare",
    "hillstrom",
    "oulad",
    "flights",
    "generated-0.15-clean",
    "generated-0.5-clean",
    "generated-12-clean",
)


def figures(tables, params, seed, groups):
    """Fit once; return the AUC of each task and the mean log loss."""
    model = MultiTaskCTRCVRClassifier(random_state=seed, **params)
    p = model.fit(tables.X, tables.Y, groups=groups).predict_proba(tables.X_test)
    y = tables.Y_test.to_numpy()
    losses = [log_loss(y[:, k], p[:, k], labels=[0, 1]) for k in range(y.shape[1])]
    aucs = [roc_auc_score(y[:, k], p[:, k]) for k in range(y.shape[1])]
    return [*aucs, np.mean(losses)]


def run(name, settings, n_seeds, path):
    """Print the differences on one data set."""
    compares_groups = any(s.get("loss") is WithinGroups for s in settings.values())
    if compares_groups and name not in KUAIRAND:
        settings = {
            label: s
            for label, s in settings.items()
            if s.get("loss") is not WithinGroups
        }
    results = {label: [] for label in settings}
    started = time.perf_counter()
    for seed in range(n_seeds):
        tables = load_tables(name, path, "validation", seed=seed)
        for label, params in settings.items():
            in_groups = params.get("loss") is WithinGroups
            groups = tables.X["user_id"] if in_groups else None
            results[label].append(figures(tables, params, seed, groups))
    seconds = time.perf_counter() - started
    rates = ", ".join(f"{c} {r:.2%}" for c, r in tables.Y.mean().items())
    print(f"\n{name}: {len(tables.X):,} rows, {len(tables.X_test):,} held out; {rates}")
    columns = [*tables.Y.columns, "log loss"]
    print(" " * 22 + "".join(f"{column:>18}" for column in columns))
    reference, *others = settings
    base = np.array(results[reference])
    cells = "".join(f"{mean:>18.4f}" for mean in base.mean(axis=0))
    print(f"{reference:<22}{cells}")
    for label in others:
        differences = 1000 * (np.array(results[label]) - base)
        errors = differences.std(axis=0, ddof=1) / np.sqrt(n_seeds)
        cells = "".join(
            f"{f'{mean:+.1f} ({error:.1f})':>18}"
            for mean, error in zip(differences.mean(axis=0), errors, strict=True)
        )
        print(f"{label:<22}{cells}")
    print(f"{seconds / n_seeds / len(settings):.1f} s per fit", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--seeds", type=int, default=5, help="at least 2 (default 5)")
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
        run(name, COMPARISONS[arguments.comparison], arguments.seeds, path)


if __name__ == "__main__":
    main()
