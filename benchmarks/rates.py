"""Predicted over observed events, and AUC, at the rates of advertising.

    python benchmarks/rates.py                       # generated impressions
    SK_PWISER_DATA=/path/to/data python benchmarks/rates.py --data rare hillstrom

Every network, loss and weighting is trained on generated impressions with 2 % clicks
and 0.1 % conversions, and with 10 % and 1 %, in batches of 512 rows. The ratio of
predicted to observed events is measured on the rows that were trained on, so that it
does not contain the noise of the labels; AUC is the expectation over the labels that
other rows could have had, from their true probabilities. The networks are small, and
the log is new for each seed.

With `--data`, the weightings and the networks that correct the CVR are trained on real
tables with the defaults of the estimator and cross-entropy. All figures are then
measured on the test rows, which are later than the training rows on KuaiRand.

A cell is the mean over the seeds, followed by the standard deviation.
"""

import argparse
import importlib.util
import os
import platform
import time
import warnings

import numpy as np
import torch
from _tables import load_tables
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS
from sk_pwiser.weighting import WEIGHTINGS

# Training rows, click rate, and conversion rate among the clicks.
RATES = {
    "2 % clicks, 0.1 % conversions": (50_000, 0.02, 0.05),
    "10 % clicks, 1 % conversions": (20_000, 0.1, 0.1),
}
N_TEST = 20_000
EXPERTS = {"expert_units": (32,), "tower_units": (8,)}
BOTTOM = {"bottom_units": (32,), "tower_units": (8,)}
TOWERS = {"tower_units": (32, 8)}
SIZES = {
    **dict.fromkeys(["aitm", "dcmt", "ddpo", "escm2", "esmm"], TOWERS),
    **dict.fromkeys(["ctcl", "shared_bottom", "single_task"], BOTTOM),
}
SMALL = {
    "batch_size": 512,
    "max_epochs": 4,
    "lr": 0.005,
    "early_stopping": False,
    "target_encoding": False,
    "numeric_encoding": "standard",
    "embedding_dim": 4,
}
DEBIASING = {
    "esmm": ("esmm", {}),
    "escm2, ipw": ("escm2", {}),
    "escm2, dr": ("escm2", {"variant": "dr"}),
    "ddpo": ("ddpo", {}),
    "dcmt": ("dcmt", {}),
    "single_task": ("single_task", {}),
}
FIGURES = ("predicted/observed", "AUC")
WIDTH = 18


def weighting_forms():
    """Return the parameters of every weighting that needs none and is installed."""
    names = sorted(WEIGHTINGS.keys() - {"equal", "fixed"})
    if importlib.util.find_spec("torchjd") is None:
        names.remove("torchjd")
    return {f"weighting {name}": {"weighting": name} for name in ["equal", *names]}


def debiasing_forms():
    """Return the parameters of the chains, and of their corrections of the CVR."""
    return {
        label: {"network": name, "network_params": params}
        for label, (name, params) in DEBIASING.items()
    }


def small_forms():
    """Return the parameters of all components, with small networks."""
    networks = {name: (name, {}) for name in sorted(NETWORKS)}
    forms = weighting_forms()
    forms |= {f"loss {name}": {"loss": name} for name in sorted(LOSSES)}
    bottom = {"network": "shared_bottom", "network_params": SIZES["shared_bottom"]}
    forms = {label: {**bottom, **params} for label, params in forms.items()}
    for label, (name, params) in (networks | DEBIASING).items():
        sizes = SIZES.get(name, EXPERTS)
        forms[f"network {label}"] = {
            "network": name,
            "network_params": {**sizes, **params},
        }
    del forms["network escm2"], forms["loss bce"]
    return forms


def fit(X, Y, params, seed):
    """Return a fitted estimator."""
    model = MultiTaskCTRCVRClassifier(**{"loss": "bce", "random_state": seed, **params})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the number of epochs
        return model.fit(X, Y)


def auc(y, p):
    """Return the ROC AUC for probabilities in place of labels; NaN for one class."""
    weights = np.concatenate([y, 1 - y])
    present, labels = weights > 0, np.repeat([1, 0], len(y))
    if len({*labels[present].tolist()}) < 2:
        return np.nan
    scores = np.tile(p, 2)
    return roc_auc_score(
        labels[present], scores[present], sample_weight=weights[present]
    )


def generated_figures(rates, forms, seeds):
    """Return the figures per form, {form: list of one array per seed}."""
    n, ctr, cvr = rates
    found = {label: [] for label in forms}
    for seed in range(seeds):
        sizes = {"n_numeric": 4, "n_categorical": 2, "n_categories": 20}
        data = make_ctr_cvr(n + N_TEST, ctr=ctr, cvr=cvr, random_state=seed, **sizes)
        truth = np.column_stack([data.ctr, data.ctr * data.cvr])[n:]
        X, Y = data.data[:n], data.target[:n]
        for label, params in forms.items():
            model = fit(X, Y, {**SMALL, **params}, seed)
            ratios = model.predict_proba(X).sum(axis=0) / Y.sum().to_numpy()
            p = model.predict_proba(data.data[n:])
            aucs = [auc(truth[:, k], p[:, k]) for k in range(2)]
            found[label].append(np.column_stack([ratios, aucs]).ravel())
    return found


def real_figures(tables, forms, seeds):
    """Return the figures per form on the test rows of a table."""
    y = tables.Y_test.to_numpy()
    found = {label: [] for label in forms}
    for seed in range(seeds):
        for label, params in forms.items():
            p = fit(tables.X, tables.Y, params, seed).predict_proba(tables.X_test)
            ratios = p.sum(axis=0) / y.sum(axis=0)
            aucs = [auc(y[:, k], p[:, k]) for k in range(y.shape[1])]
            found[label].append(np.column_stack([ratios, aucs]).ravel())
    return found


def print_table(caption, tasks, found):
    """Print the mean and the standard deviation of each figure."""
    print(f"\n{caption}")
    head = [f"{task} {figure}" for task in tasks for figure in FIGURES]
    widths = [max(WIDTH, len(name) + 2) for name in head]
    cells = "".join(f"{name:>{w}}" for name, w in zip(head, widths, strict=True))
    print(f"{'':<26}{cells}")
    for label, values in found.items():
        means, spreads = np.mean(values, axis=0), np.std(values, axis=0, ddof=1)
        texts = [f"{m:.3f} ({s:.3f})" for m, s in zip(means, spreads, strict=True)]
        cells = "".join(f"{text:>{w}}" for text, w in zip(texts, widths, strict=True))
        print(f"{label:<26}{cells}", flush=True)


def main():
    """Print one table per pair of rates, or per real table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", nargs="+", help="real tables, such as rare, hillstrom"
    )
    parser.add_argument(
        "--forms", help="only forms whose label contains one of these", nargs="+"
    )
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    args = parser.parse_args()

    def chosen(forms):
        parts = args.forms or [""]
        return {k: v for k, v in forms.items() if any(part in k for part in parts)}

    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"{os.cpu_count()} CPU cores; {args.seeds} seeds"
    )
    start = time.process_time()
    if args.data is None:
        for name, rates in RATES.items():
            found = generated_figures(rates, chosen(small_forms()), args.seeds)
            caption = f"{name}: {rates[0]:,} rows, {N_TEST:,} others"
            print_table(caption, ["click", "conversion"], found)
    for name in args.data or ():
        tables = load_tables(name, os.environ.get("SK_PWISER_DATA"))
        forms = chosen(weighting_forms() | debiasing_forms())
        found = real_figures(tables, forms, args.seeds)
        shares = ", ".join(f"{t} {100 * r:.2f} %" for t, r in tables.Y.mean().items())
        caption = f"{name}: {len(tables.X):,} rows, {len(tables.X_test):,} test rows; "
        print_table(caption + shares, list(tables.Y), found)
    print(f"\n{time.process_time() - start:.0f} s of CPU time")


if __name__ == "__main__":
    main()
