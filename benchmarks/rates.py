"""Predicted over observed events, and AUC, at the rates of advertising.

    python benchmarks/rates.py                       # generated impressions
    python benchmarks/rates.py --defaults --rates 0.1       # the estimator's defaults
    SK_PWISER_DATA=/path/to/data python benchmarks/rates.py --data rare hillstrom

Every network, loss and weighting is trained on generated impressions with 2 % clicks
and 0.1 % conversions, and with 10 % and 1 %, in batches of 512 rows. The ratio of
predicted to observed events is measured on the rows that were trained on, so that it
does not contain the noise of the labels; AUC is the expectation over the labels that
other rows could have had, from their true probabilities. The networks are small, are
trained for 4 epochs, and the log is new for each seed.

With `--defaults`, every weighting is trained with the defaults of the estimator, among
them early stopping, but with the loss in `--loss`, on other logs of the same rates.
"ratio" is predicted over observed events. The figures of a log are means over the seeds
of the fits, and a cell is the mean over the logs, followed by the standard deviation.
"to equal" is the mean difference in AUC to equal weights on the same logs, in
thousandths, followed by the standard error.

With `--data`, the weightings and the networks that correct the CVR are trained on real
tables with the defaults of the estimator and cross-entropy. All figures are then
measured on the test rows, which are later than the training rows on KuaiRand.

A cell is the mean over the seeds, followed by the standard deviation.
"""

import importlib.util
import os
import warnings

import numpy as np
from _harness import Report, expected_auc, in_thousandths, make_parser, parse, spread
from _tables import load_tables

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS
from sk_pwiser.weighting import WEIGHTINGS

# By conversions in %: clicks in %, training rows, click rate, and conversion rate among
# the clicks.
RATES = {"0.1": (2, 50_000, 0.02, 0.05), "1": (10, 20_000, 0.1, 0.1)}
N_TEST = 20_000
# Logs of `--defaults`: generated with other random states than the first tables.
FIRST_LOG, N_LOGS = 100, 6
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
SMALL_LOG = {"n_numeric": 4, "n_categorical": 2, "n_categories": 20}
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
    forms = weighting_forms()
    forms |= {f"loss {name}": {"loss": name} for name in sorted(LOSSES)}
    bottom = {"network": "shared_bottom", "network_params": BOTTOM}
    forms = {label: bottom | params for label, params in forms.items()}
    networks = {name: (name, {}) for name in sorted(NETWORKS)}
    for label, (name, params) in (networks | DEBIASING).items():
        sizes = SIZES.get(name, EXPERTS) | params
        forms[f"network {label}"] = {"network": name, "network_params": sizes}
    del forms["network escm2"], forms["loss bce"]
    return {label: SMALL | params for label, params in forms.items()}


def fit(X, Y, params, seed):
    """Return a fitted estimator."""
    model = MultiTaskCTRCVRClassifier(**{"loss": "bce", "random_state": seed, **params})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the number of epochs
        return model.fit(X, Y)


def figures_of(model, data, n):
    """Return ratio on the n training rows and AUC on the others, of each task."""
    truth = np.column_stack([data.ctr, data.ctr * data.cvr])[n:]
    observed = data.target[:n].sum().to_numpy()
    ratios = model.predict_proba(data.data[:n]).sum(axis=0) / observed
    aucs = list(map(expected_auc, truth.T, model.predict_proba(data.data[n:]).T))
    return np.column_stack([ratios, aucs]).ravel()


def log_figures(n, n_test, rates, forms, seeds_of_logs, **columns):
    """Return figures and epochs per form, {form: list of one array per log}.

    `seeds_of_logs` maps the seed of each log to those of its fits, whose mean is taken.
    """
    ctr, cvr = rates
    found = {label: [] for label in forms}
    for log, seeds in seeds_of_logs.items():
        data = make_ctr_cvr(n + n_test, ctr=ctr, cvr=cvr, random_state=log, **columns)
        X, Y = data.data[:n], data.target[:n]
        for label, params in forms.items():
            models = [fit(X, Y, params, seed) for seed in seeds]
            figures = [[*figures_of(m, data, n), m.n_iter_] for m in models]
            found[label].append(np.mean(figures, axis=0))
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
    report.table(head)
    for label, values in found.items():
        figures = np.transpose(values)[: len(head)]
        report.row(label, [spread(column, 3) for column in figures])


def print_comparison(report, caption, found):
    """Print the figures of the logs, with the difference in AUC to equal weights."""
    report.text("", caption)
    heads = ("{} ratio", "{} AUC", "to equal")
    head = [h.format(task) for task in ("click", "conversion") for h in heads]
    report.table([*head, "epochs"])
    equal = np.transpose(found["weighting equal"])
    for label, values in found.items():
        figures = np.transpose(values)
        cells = []
        for ratio, auc in ((0, 1), (2, 3)):
            difference = in_thousandths(figures[auc] - equal[auc])
            cells += [spread(figures[ratio], 3), spread(figures[auc], 3), difference]
        report.row(label, [*cells, spread(figures[4], 1)])


def main():
    """Print one table per pair of rates, or per real table."""
    parser = make_parser(__doc__, seeds=3)
    real = "real tables, such as rare, hillstrom"
    parser.add_argument("--data", nargs="+", help=real)
    parser.add_argument("--defaults", action="store_true", help="see above")
    parser.add_argument("--rates", nargs="+", choices=RATES, default=[*RATES])
    parser.add_argument("--loss", choices=sorted(LOSSES), default="bce")
    parser.add_argument("--logs", type=int, default=N_LOGS, help="of --defaults")
    parser.add_argument("--weightings", nargs="+", help="beside equal, of --defaults")
    arguments = parse(parser, seeds=2, logs=2)
    report = Report("rates_defaults" if arguments.defaults else "rates", arguments)
    seeds, logs = arguments.seeds, arguments.logs
    report.text(
        f"{logs} logs, {seeds} seeds" if arguments.defaults else f"{seeds} seeds"
    )
    forms = {
        label: {"loss": arguments.loss, **params}
        for label, params in weighting_forms().items()
        if params["weighting"] in ["equal", *(arguments.weightings or WEIGHTINGS)]
    }
    for name in arguments.rates if arguments.data is None else ():
        percent, n, *rates = RATES[name]
        n, n_test = (n // 25, N_TEST // 25) if arguments.quick else (n, N_TEST)
        caption = f"{percent} % clicks, {name} % conversions: "
        caption += f"{n:,} rows, {n_test:,} others"
        if not arguments.defaults:
            # A log and a fit per seed.
            runs, sizes = {seed: [seed] for seed in range(seeds)}, SMALL_LOG
            found = log_figures(n, n_test, rates, small_forms(), runs, **sizes)
            print_table(report, caption, ["click", "conversion"], found)
        else:
            runs = dict.fromkeys(range(FIRST_LOG, FIRST_LOG + logs), range(seeds))
            found = log_figures(n, n_test, rates, forms, runs)
            print_comparison(report, f"{caption}; loss {arguments.loss}", found)
    for name in arguments.data or ():
        tables = load_tables(name, os.environ.get("SK_PWISER_DATA"))
        found = real_figures(tables, weighting_forms() | debiasing_forms(), seeds)
        shares = ", ".join(f"{t} {100 * r:.2f} %" for t, r in tables.Y.mean().items())
        caption = f"{name}: {len(tables.X):,} rows, {len(tables.X_test):,} test rows; "
        print_table(report, caption + shares, list(tables.Y), found)
    report.save()


if __name__ == "__main__":
    main()
