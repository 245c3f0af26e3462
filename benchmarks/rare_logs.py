"""Rare conversions: what PWiseR adds to cross-entropy, and what adds as much.

    pip install ".[benchmark]"
    SK_PWISER_DATA=/path/to/data python benchmarks/rare_logs.py --threads 1

The generated logs are those of `python -m sk_pwiser`: 20,000 training rows, 12 columns
of 1,000 values each, 40 % clicks, of which half are accidental, and 0.8 % conversions.
Each seed draws another log. Their true probabilities are known: AUC is its expectation
over the labels that 60,000 further rows could have had. On KuaiRand, `rare` is a click
with a follow, a comment or a forward (0.4 %); its test days are later.

The models are the estimator's defaults with the changes that their names say. "PWiseR,
searched" chooses `pwiser_weight` by `GridSearchCV` in three folds by the AUC of the
conversions. Logistic regression reads one-hot columns, and LightGBM, with small trees,
the rates of all tasks per value; both have one model per task.

A row has the mean AUC of each task and the predicted over the observed number of
conversions, then the mean difference in AUC to "bce" with the same seeds in
thousandths, followed by its standard error.
"""

import warnings

import numpy as np
from _harness import (
    begin,
    data_folder,
    expected_auc,
    in_thousandths,
    make_parser,
    seeds_of,
)
from _peers import OF_ALL, SMALL, peer_models
from _tables import load_tables
from sklearn.model_selection import GridSearchCV

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.__main__ import N_TEST, N_TRAIN, RARE_LOG
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import ctcvr_auc_scorer
from sk_pwiser.model_selection import FunnelStratifiedKFold

WEIGHTS = (0.03, 0.1, 0.3, 1.0)
BCE = "bce"
MODELS = {
    BCE: {"loss": "bce"},
    "PWiseR": {},
    **{f"PWiseR, weight {w:g}": {"pwiser_weight": w} for w in WEIGHTS},
    "PWiseR, squared hinge": {"loss_params": {"surrogate": "squared_hinge"}},
    "PWiseR, stratified batches": {"stratified_batches": True},
    "bce, embedding decay 0.005": {
        "loss": "bce",
        "optimizer_params": {"embedding_weight_decay": 5e-3},
    },
    "bce, no target statistics": {"loss": "bce", "target_encoding": False},
    "PWiseR, no target statistics": {"target_encoding": False},
    "bce, one network per task": {"loss": "bce", "network": "single_task"},
}
SEARCHED, LOGISTIC = "PWiseR, searched", "logistic regression"
TREES = f"LightGBM, {SMALL}, {OF_ALL}"
NAMES = (*MODELS, SEARCHED, LOGISTIC, TREES)
# The first seed of the generated logs; those of the trials began at 0.
FIRST_LOG = 1_000
QUICK_ROWS = 2_000


def generated(seed):
    """Return the rows of a log, and the probabilities of the labels of test rows."""
    log = make_ctr_cvr(N_TRAIN + N_TEST, random_state=FIRST_LOG + seed, **RARE_LOG)
    train, test = slice(N_TRAIN), slice(N_TRAIN, None)
    p = np.column_stack([log.ctr[test], log.ctr[test] * log.cvr[test]])
    return log.data[train], log.data[test], log.target[train], p


def make_model(name, seed):
    """Return a model by its name in the table."""
    if name in (LOGISTIC, TREES):
        return next(peer_models(name, [seed]))
    model = MultiTaskCTRCVRClassifier(random_state=seed)
    if name != SEARCHED:
        return model.set_params(**MODELS[name])
    folds = FunnelStratifiedKFold(3, random_state=seed)
    grid = {"pwiser_weight": list(WEIGHTS)}
    return GridSearchCV(model, grid, scoring=ctcvr_auc_scorer, cv=folds)


def figures(model, X, X_test, Y, truth):
    """Fit a model; return its AUCs and predicted over observed conversions."""
    p = model.fit(X, Y).predict_proba(X_test).astype(float)
    return [*map(expected_auc, truth.T, p.T), p[:, -1].mean() / truth[:, -1].mean()]


def run(report, name, load, arguments):
    """Print the table of one log, or of several of a kind."""
    found = {model: [] for model in (BCE, *arguments.models)}
    for seed in seeds_of(arguments):
        X, X_test, Y, truth = load(seed)
        if arguments.quick:
            X, Y = X[:QUICK_ROWS], Y[:QUICK_ROWS]
        for model in found:
            rows = figures(make_model(model, seed), X, X_test, Y, np.asarray(truth))
            found[model].append(rows)
    n_events = np.asarray(Y)[:, -1].sum()
    size = f"{len(X):,} training rows, {n_events:,} conversions in the last"
    report.text("", f"{name}: {size}; {arguments.seeds} seeds")
    columns = ["click AUC", "conversion AUC", "pred/obs", "click", "conversion"]
    report.table(columns)
    for model, rows in found.items():
        click, conversion, ratio = np.mean(rows, axis=0)
        change = np.subtract(rows, found[BCE])[:, :2]
        differences = ["", ""] if model == BCE else map(in_thousandths, change.T)
        means = f"{click:.4f}", f"{conversion:.4f}", f"{ratio:.2f}"
        report.row(model, [*means, *differences])


def main():
    parser = make_parser(__doc__, seeds=8, data=["generated", "kuairand"], models=NAMES)
    parser.set_defaults(data=["generated"])
    arguments, report = begin("rare_logs", parser, seeds=1)
    # On rare conversions, and on batches without pairs.
    warnings.simplefilter("ignore")
    if "generated" in arguments.data:
        run(report, "Generated logs", generated, arguments)
    if "kuairand" in arguments.data:
        tables = load_tables("rare", data_folder())[:4]
        run(report, "KuaiRand, rare", lambda seed: tables, arguments)


if __name__ == "__main__":
    main()
