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

import importlib.util
import os
import warnings

import numpy as np
from _harness import begin, expected_auc, make_parser, spread
from _tables import load_tables

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


def generated_figures(n, n_test, rates, forms, seeds):
    """Return the figures per form, {form: list of one array per seed}."""
    ctr, cvr = rates
    found = {label: [] for label in forms}
    for seed in range(seeds):
        sizes = {"n_numeric": 4, "n_categorical": 2, "n_categories": 20}
        data = make_ctr_cvr(n + n_test, ctr=ctr, cvr=cvr, random_state=seed, **sizes)
        truth = np.column_stack([data.ctr, data.ctr * data.cvr])[n:]
        X, Y = data.data[:n], data.target[:n]
        for label, params in forms.items():
            model = fit(X, Y, {**SMALL, **params}, seed)
            ratios = model.predict_proba(X).sum(axis=0) / Y.sum().to_numpy()
            p = model.predict_proba(data.data[n:])
            aucs = list(map(expected_auc, truth.T, p.T))
            found[label].append(np.column_stack([ratios, aucs]).ravel())
    return found


def real_figures(tables, forms, seeds):
    """Return the figures per form on the test rows of a table."""
    y = tables.Y_test.to_numpy()
    found = {label: [] for label in forms}
    for seed in range(seeds):
        for label, params in forms.items():
            p = fit(tables.X, tables.Y, params, seed).predict_proba(tables.X_test)
            aucs = list(map(expected_auc, y.T, p.T))
            ratios = p.sum(axis=0) / y.sum(axis=0)
            found[label].append(np.column_stack([ratios, aucs]).ravel())
    return found


def print_table(report, caption, tasks, found):
    """Print the mean and the standard deviation of each figure."""
    report.text("", caption)
    head = [f"{task} {figure}" for task in tasks for figure in FIGURES]
    report.table(head, label_width=26, width=max(map(len, head)) + 2)
    for label, values in found.items():
        report.row(label, [spread(column, 3) for column in np.transpose(values)])


def main():
    """Print one table per pair of rates, or per real table."""
    parser = make_parser(__doc__, seeds=3)
    real = "real tables, such as rare, hillstrom"
    parser.add_argument("--data", nargs="+", help=real)
    arguments, report = begin("rates", parser, seeds=2)
    seeds = arguments.seeds
    report.text(f"{seeds} seeds")
    for name, (n, *rates) in RATES.items() if arguments.data is None else ():
        n, n_test = (n // 25, N_TEST // 25) if arguments.quick else (n, N_TEST)
        found = generated_figures(n, n_test, rates, small_forms(), seeds)
        caption = f"{name}: {n:,} rows, {n_test:,} others"
        print_table(report, caption, ["click", "conversion"], found)
    for name in arguments.data or ():
        tables = load_tables(name, os.environ.get("SK_PWISER_DATA"))
        found = real_figures(tables, weighting_forms() | debiasing_forms(), seeds)
        shares = ", ".join(f"{t} {100 * r:.2f} %" for t, r in tables.Y.mean().items())
        caption = f"{name}: {len(tables.X):,} rows, {len(tables.X_test):,} test rows; "
        print_table(report, caption + shares, list(tables.Y), found)
    report.save()


if __name__ == "__main__":
    main()
