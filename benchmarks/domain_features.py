"""AUC of one network for several markets: with gates, with products, or one per market.

    python benchmarks/domain_features.py                       # all data sets
    python benchmarks/domain_features.py --data tabs --seeds 3
    python benchmarks/domain_features.py --part validation
    python benchmarks/domain_features.py --methods column gates

- "pooled": one fit on the rows of all markets, without the column that names them;
- "column": the same with this column;
- "gates": with `network_params={"domain_features": ["market"]}` in addition;
- "cross": with `network_params={"interaction": "cross"}` instead;
- "crossed": with every category column crossed with the market, and a copy of every
  numeric column per market, which is 0 in the others, instead;
- "tuned": "pooled", fine-tuned on each market with L2-SP;
- "alone": one fit per market.

`tabs` are the five largest surfaces of the app in KuaiRand (label `engage`), from the
folder that SK_PWISER_DATA names, with at most 12,000 training rows each; the test rows
come from later days. `noise` and `signs` have 20 generated markets with 750 training
rows each. In `noise`, a third of the columns, drawn for each market, carry no
information about its rows; in `signs`, a third of the numeric columns have the opposite
effect.

A cell is the AUC within markets, averaged over the markets or, in a second table of the
tabs, over their test rows, most of which are of tab 1. It is the mean over the seeds
(standard deviation), followed by the mean difference to "column" with the same seed, in
thousandths (standard error). The seconds are processor time, of fits and predictions.
Seeds draw the training rows of the tabs, the generated data, and all random numbers.
All fits have early stopping, those on the rows of one market batches of 64 rows; the
other settings are the defaults. With `--part validation` the test rows are the last
third of the training rows of the tabs, and generated data has other seeds.
"""

from functools import partial

import numpy as np
import pandas as pd
from _harness import (
    aucs,
    begin,
    data_folder,
    make_parser,
    processor_time,
    with_changes,
)

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import load_kuairand, make_ctr_cvr
from sk_pwiser.metrics import grouped_auc
from sk_pwiser.transfer import fine_tune

TABS, ROWS_PER_TAB = (0, 1, 2, 4, 6), 12_000
N_MARKETS, ROWS, TEST_ROWS, N_VALUES = 20, 750, 2_000, 50
SHARE = 1 / 3  # of the columns that differ in a market
BATCH_SIZE = 64  # of fits on the rows of one market
VALIDATION_SEED = 1_000


def tabs(part, seed, quick):
    """Return training and test rows of the tabs of KuaiRand."""
    data = load_kuairand(data_folder(), "engage")
    X, is_test = data.data.rename(columns={"tab": "market"}), data.is_test
    rows, later = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    if part == "validation":
        rows, later = np.split(rows, [2 * len(rows) // 3])
    rng, limit = np.random.default_rng(seed), ROWS_PER_TAB // (20 if quick else 1)
    market = X["market"].to_numpy()
    chosen = [rng.permutation(rows[market[rows] == tab])[:limit] for tab in TABS]
    rows, later = np.sort(np.concatenate(chosen)), later[np.isin(market[later], TABS)]
    return X.iloc[rows], data.target.iloc[rows], X.iloc[later], data.target.iloc[later]


def generated(kind, part, seed, quick):
    """Generate markets in which a share of the columns differ."""
    n_train, n_test = (n // (5 if quick else 1) for n in (ROWS, TEST_ROWS))
    seed += VALIDATION_SEED if part == "validation" else 0
    rng, n = np.random.default_rng(seed), n_train + n_test
    options = {"ctr": 0.2, "cvr": 0.2, "n_categories": N_VALUES}
    data = make_ctr_cvr(N_MARKETS * n, **options, random_state=seed)
    X, market = data.data.copy(), rng.permutation(np.repeat(np.arange(N_MARKETS), n))
    for name in X if kind == "noise" else X.columns[X.dtypes != "category"]:
        is_category = X[name].dtype == "category"
        values = (X[name].cat.codes if is_category else X[name]).to_numpy().copy()
        for each in np.flatnonzero(rng.random(N_MARKETS) < SHARE):
            own = values[market == each]
            values[market == each] = rng.permutation(own) if kind == "noise" else -own
        if is_category:
            values = pd.Categorical.from_codes(values, categories=range(N_VALUES))
        X[name] = values
    X["market"] = pd.Categorical(market)
    is_train = X.groupby(market).cumcount().to_numpy() < n_train
    Y = data.target
    return X[is_train], Y[is_train], X[~is_train], Y[~is_train]


DATA = {
    "tabs": tabs,
    "noise": partial(generated, "noise"),
    "signs": partial(generated, "signs"),
}


def estimator(seed, network_params=None, **params):
    return MultiTaskCTRCVRClassifier(
        early_stopping=True, network_params=network_params, random_state=seed, **params
    )


def crossed(X):
    """Add columns that are particular to a market."""
    market, added = X["market"].astype(str), {}
    for name in X.columns.drop("market"):
        if X[name].dtype == "category":
            pairs = market + "|" + X[name].astype(str)
            added[f"market x {name}"] = pairs.astype("category")
            continue
        for each in X["market"].cat.categories:
            added[f"{name} in {each}"] = X[name].where(X["market"] == each, 0.0)
    return X.assign(**added)


def one_fit(X, Y, X_test, seed, *, change=lambda X: X, **network_params):
    """Predict by one network for all markets."""
    model = estimator(seed, network_params).fit(change(X), Y)
    return model.predict_proba(change(X_test))


def fit_per_market(X, Y, X_test, seed, *, tunes):
    """Predict each market by a network of its own."""
    of_rows, of_test = (table["market"].to_numpy() for table in (X, X_test))
    X, X_test = without_market(X), without_market(X_test)
    source = estimator(seed).fit(X, Y) if tunes else None
    p = np.empty((len(X_test), Y.shape[1]))
    for each in np.unique(of_test):
        own = of_rows == each
        if tunes:
            options = {"regularizer": "l2_sp", "seen": True, "batch_size": BATCH_SIZE}
            model = fine_tune(source, X[own], Y[own], **options)
        else:
            model = estimator(seed, batch_size=BATCH_SIZE).fit(X[own], Y[own])
        p[of_test == each] = model.predict_proba(X_test[of_test == each])
    return p


def without_market(X):
    return X.drop(columns="market")


METHODS = {
    "column": one_fit,
    "gates": partial(one_fit, domain_features=["market"]),
    "cross": partial(one_fit, interaction="cross"),
    "crossed": partial(one_fit, change=crossed),
    "pooled": partial(one_fit, change=without_market),
    "tuned": partial(fit_per_market, tunes=True),
    "alone": partial(fit_per_market, tunes=False),
}


def within_markets(Y, p, market):
    """Return the AUC of each task, averaged over the markets, and over their rows."""
    own = [market == each for each in np.unique(market)]
    over_markets = np.mean([aucs(Y[rows], p[rows]) for rows in own], axis=0)
    return over_markets, [grouped_auc(*c, market) for c in zip(Y.T, p.T, strict=True)]


def print_rows(report, found, by_rows):
    report.text("averaged over " + ("test rows" if by_rows else "markets"))
    base = [values[by_rows] for values, _ in found["column"]]
    for name, figures in found.items():
        cells = with_changes([values[by_rows] for values, _ in figures], base)
        seconds = np.mean([seconds for _, seconds in figures])
        report.row(name, [*cells, f"{seconds:.1f}"])


def main():
    parser = make_parser(__doc__, seeds=5, part="test", data=DATA, methods=METHODS)
    arguments, report = begin("domain_features", parser, seeds=1)
    for data in arguments.data:
        found = {name: [] for name in dict.fromkeys(["column", *arguments.methods])}
        for seed in range(arguments.seeds):
            X, Y, X_test, Y_test = DATA[data](arguments.part, seed, arguments.quick)
            market = X_test["market"].to_numpy()
            for name, figures in found.items():
                seconds, p = processor_time(METHODS[name], X, Y, X_test, seed)
                figures.append((within_markets(Y_test.to_numpy(), p, market), seconds))
        report.text(
            "",
            f"{data}: {len(X):,} training rows of {X['market'].nunique()} markets, "
            f"{len(X_test):,} test rows; {arguments.seeds} seeds; part: "
            f"{arguments.part}",
        )
        columns = [cell for task in Y for cell in (f"{task} AUC", "to column")]
        report.table([*columns, "seconds"])
        for by_rows in (False, True) if data == "tabs" else (False,):
            print_rows(report, found, by_rows)


if __name__ == "__main__":
    main()
