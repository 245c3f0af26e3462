"""Linear models of several tasks: AUC on real tables, and two experiments.

    SK_PWISER_DATA=/path/to/data python benchmarks/linear.py
    python benchmarks/linear.py --only recovery low_rank    # needs no files

`tables`: all models receive the same one-hot columns, without values of a single row,
and standardised numbers. The strength of the penalty of every model is chosen by the
mean AUC over the tasks on validation rows, which are held out of the training rows (the
last day on KuaiRand, a random part elsewhere); then the model is fitted to all training
rows. "penalty" is the chosen one of the benchmark's grids: 1 / C, `alpha`, or for the
sparse model `alpha` over the smallest alpha at which all coefficients are 0. "columns"
is the number of columns with coefficients, and "seconds" is the processor time of the
last fit, for the sparse model of its path from the largest penalty to the chosen one.
The group mode is a column of the table that is also among the one-hot columns. Each
model is fitted once, so there is no spread.

`recovery`: 100 features, of which 6 act on two binary tasks and one regression task,
with effects that differ by task, and 120 rows. The figure is the share of the 6 that
are among the 6 features with the largest norm of coefficients: the mean over 20 seeds,
followed by the standard error, for the best penalty of a path of 12 of each method.
Features are selected jointly, per task, and jointly with the values of the regression
task multiplied by 10, with and without `scale_targets`.

`low_rank`: clicks and conversions in 4 markets, 30 features, coefficients of rank 2 and
150 training rows per market. Every method chooses its penalty on 150 further rows per
market. The AUC on 1,000 test rows per market is the mean over events and markets, its
mean over 10 seeds followed by the standard error.
"""

import time

import numpy as np
from _harness import aucs, begin, data_folder, figures_of, make_parser
from _tables import load_tables
from scipy import sparse
from scipy.special import expit
from scipy.stats import rankdata, sem
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OrdinalEncoder

from sk_pwiser.linear_model import CPMultiTaskLogistic, multi_task_sparse_path
from sk_pwiser.model_selection._compare_models import one_hot_columns

# The group mode of each table.
GROUP_MODES = {"engage": "tab", "hillstrom": "channel", "oulad": "code_module"}
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
# Products of factors shrink less than single coefficients at the same penalty.
FACTOR_PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0)
# Of the sparse model, relative to the smallest alpha without any column.
SHARES = np.geomspace(1.0, 3e-4, 12)
MARKETS, FEATURES, ROWS = 4, 30, 150


class Linear:
    """Logits from coefficients and intercepts of all tasks."""

    def __init__(self, coef, intercept):
        self.coef_, self.intercept_ = coef, intercept

    def predict_proba(self, X):
        return expit(X[:, : self.coef_.shape[1]] @ self.coef_.T + self.intercept_)


def fit_per_task(X, Y, penalties):
    """Yield one logistic regression per task and penalty."""
    for penalty in penalties:
        models = [
            LogisticRegression(C=1.0 / penalty, max_iter=500).fit(X[:, :-1], y)
            for y in Y.T
        ]
        yield Linear(
            np.vstack([model.coef_ for model in models]),
            np.concatenate([model.intercept_ for model in models]),
        )


def fit_sparse(X, Y, shares):
    """Yield the models along the path of the sparse model."""
    X = X[:, :-1]
    largest = multi_task_sparse_path(X, Y, alphas=1)[0][0]
    _, coefs, intercepts = multi_task_sparse_path(X, Y, alphas=largest * shares)
    for i in range(len(shares)):
        yield Linear(coefs[..., i], intercepts[:, i])


def fit_events(X, Y, penalties):
    """Yield low-rank models whose only mode is the event."""
    for alpha in penalties:
        model = CPMultiTaskLogistic(alpha=alpha, tol=1e-4, random_state=0)
        model.fit(X[:, :-1], Y)
        yield Linear(model.coef_, model.intercept_)


def fit_grid(X, Y, penalties):
    """Yield low-rank models of event x mode, the last column of X."""
    for alpha in penalties:
        yield CPMultiTaskLogistic(
            alpha=alpha, group_modes=[-1], tol=1e-4, random_state=0
        ).fit(X, Y)


METHODS = {
    "LogisticRegression per task": (fit_per_task, PENALTIES),
    "MultiTaskSparseLinear": (fit_sparse, SHARES),
    "CPMultiTaskLogistic, event": (fit_events, FACTOR_PENALTIES),
    "CPMultiTaskLogistic, event x mode": (fit_grid, FACTOR_PENALTIES),
}


def mean_auc(Y, p):
    return np.mean(aucs(Y, p))


# Real tables.


def load_part(name, path, part, n_rows):
    """Return both parts with one-hot columns and the codes of the mode behind them."""
    tables = load_tables(name, path, part)
    columns = one_hot_columns().set_params(sparse_threshold=1.0)
    mode = [GROUP_MODES[name]]
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    X, X_held_out = columns.fit_transform(tables.X), columns.transform(tables.X_test)
    # Text, so that a missing value is a level.
    c = codes.fit_transform(tables.X[mode].astype(str))
    c_held_out = codes.transform(tables.X_test[mode].astype(str))
    X, X_held_out = (
        sparse.hstack(pair).tocsr() for pair in ([X, c], [X_held_out, c_held_out])
    )
    return X[:n_rows], tables.Y.to_numpy()[:n_rows], X_held_out, tables.Y_test


def run_table(report, name, path, n_rows):
    X, Y, X_valid, Y_valid = load_part(name, path, "validation", n_rows)
    X_train, Y_train, X_test, Y_test = load_part(name, path, "test", n_rows)
    report.text(
        "",
        f"{name}: {X_train.shape[0]:,} training rows, {X_test.shape[0]:,} test rows, "
        f"{X_train.shape[1] - 1:,} columns; mode: {GROUP_MODES[name]}",
    )
    heads = [f"{task} AUC" for task in Y_test] + ["CVR AUC", "penalty", "columns"]
    report.table([*heads, "seconds"])
    for label, (fit, penalties) in METHODS.items():
        fits = fit(X, Y, penalties)
        scores = [mean_auc(Y_valid, m.predict_proba(X_valid)) for m in fits]
        best = int(np.argmax(scores))
        is_path = fit is fit_sparse
        started = time.process_time()
        *_, model = fit(X_train, Y_train, penalties[0 if is_path else best : best + 1])
        seconds = time.process_time() - started
        figures = figures_of(Y_test, model.predict_proba(X_test))[:-1]
        coef = model.coef_.reshape(-1, model.coef_.shape[-1])
        cells = [f"{penalties[best]:.3g}", f"{coef.any(axis=0).sum():,}"]
        report.row(label, [*(f"{v:.4f}" for v in figures), *cells, f"{seconds:.1f}"])


# Support recovery.


def recovery_data(seed):
    """Return X, and labels of two binary tasks and a regression task."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((120, 100))
    W = np.zeros((100, 3))
    W[:6] = rng.choice([-1.0, 1.0], (6, 3)) * rng.uniform(0.2, 0.6, (6, 3))
    linear = X @ W
    labels = rng.random((120, 2)) < expit(2.0 * linear[:, :2])
    return X, np.column_stack([labels, linear[:, 2] + rng.standard_normal(120)])


def recovered(coefs):
    """Return, per alpha, the share of the true features among the six largest."""
    norms = np.linalg.norm(coefs, axis=0)
    ranks = rankdata(-norms, method="ordinal", axis=0)
    return ((ranks <= 6) & (norms > 0))[:6].mean(axis=0)


def recover(X, Y):
    """Return the shares of the methods along their paths."""
    types = ["binary", "binary", "regression"]
    grid = {"alphas": 12, "eps": 0.02}

    def joint(Y, **params):
        return multi_task_sparse_path(X, Y, task_types=types, **grid, **params)[1]

    apart = [
        multi_task_sparse_path(X, y, task_types=kind, **grid)[1]
        for y, kind in zip(Y.T, types, strict=True)
    ]
    ten = Y * [1.0, 1.0, 10.0]
    return {
        "jointly": recovered(joint(Y)),
        "per task": recovered(np.concatenate(apart)),
        "jointly, values x 10": recovered(joint(ten)),
        "jointly, values x 10, scaled": recovered(joint(ten, scale_targets=True)),
    }


def run_recovery(report, n_seeds):
    report.section(f"recovery: share of the true features, {n_seeds} seeds")
    results = [recover(*recovery_data(seed)) for seed in range(n_seeds)]
    for label in results[0]:
        shares = np.array([result[label] for result in results])
        print_mean(report, label, shares[:, shares.mean(axis=0).argmax()])


def print_mean(report, label, values):
    report.line(label, absolute=f"{np.mean(values):.3f} ({sem(values):.3f})")


# Coefficients of low rank.


def grid_data(seed):
    """Return X with the market behind the features, labels, and true logits."""
    rng = np.random.default_rng(seed)
    n = MARKETS * (2 * ROWS + 1_000)
    X = rng.standard_normal((n, FEATURES))
    market = np.arange(n) % MARKETS
    L = rng.standard_normal((FEATURES, 2)) / np.sqrt(FEATURES)
    event, level = rng.standard_normal((2, 2)), rng.standard_normal((MARKETS, 2))
    logits = 2.0 * ((X @ L) * level[market]) @ event.T - 0.5
    Y = (rng.random((n, 2)) < expit(logits)).astype(int)
    return np.column_stack([X, market]), Y, logits


def fit_cells(X, Y, penalties):
    """Yield one logistic regression per event, market and penalty."""
    for penalty in penalties:
        yield Cells(
            next(fit_per_task(X[rows], Y[rows], [penalty])) for rows in markets_of(X)
        )


def markets_of(X):
    """Return the rows of each market, whose codes are the last column."""
    return [X[:, -1] == market for market in range(MARKETS)]


class Cells:
    """One model per market."""

    def __init__(self, models):
        self.models = list(models)

    def predict_proba(self, X):
        p = np.empty((len(X), 2))
        for model, rows in zip(self.models, markets_of(X), strict=True):
            p[rows] = model.predict_proba(X[rows])
        return p


def cell_auc(X, Y, p):
    """Return the mean AUC over events and markets."""
    return np.mean([mean_auc(Y[rows], p[rows]) for rows in markets_of(X)])


def run_low_rank(report, n_seeds):
    report.section(f"low_rank: AUC within events and markets, {n_seeds} seeds")
    methods = {
        "CPMultiTaskLogistic, rank 2": fit_grid,
        "LogisticRegression per cell": fit_cells,
        "LogisticRegression per event": fit_per_task,
    }
    penalties = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    results = {label: [] for label in [*methods, "true logits"]}
    for seed in range(n_seeds):
        X, Y, logits = grid_data(seed)
        train, valid, test = np.split(
            np.arange(len(X)), MARKETS * ROWS * np.array([1, 2])
        )
        for label, fit in methods.items():
            fits = fit(X[train], Y[train], penalties)
            p = [model.predict_proba(X) for model in fits]
            best = np.argmax([cell_auc(X[valid], Y[valid], q[valid]) for q in p])
            results[label].append(cell_auc(X[test], Y[test], p[best][test]))
        results["true logits"].append(cell_auc(X[test], Y[test], logits[test]))
    for label, values in results.items():
        print_mean(report, label, values)


def main():
    parts = ["tables", "recovery", "low_rank"]
    parser = make_parser(__doc__, only=parts, data=GROUP_MODES)
    arguments, report = begin("linear", parser)
    quick = arguments.quick
    if "tables" in arguments.only:
        path = data_folder()
        for name in arguments.data:
            run_table(report, name, path, 3_000 if quick else None)
    if "recovery" in arguments.only:
        run_recovery(report, 2 if quick else 20)
    if "low_rank" in arguments.only:
        run_low_rank(report, 2 if quick else 10)


if __name__ == "__main__":
    main()
