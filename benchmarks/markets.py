"""AUC in a new market: from scratch, pooled, fine-tuned, merged and distilled.

    python benchmarks/markets.py                        # all data sets
    python benchmarks/markets.py --data generated --seeds 3
    python benchmarks/markets.py --methods pooled none l2_sp tred

All markets but the last give the source, one fit on their rows. Then 500, 5,000 and all
training rows of the last market become available, and each method predicts its test
rows:

- "source": the source itself, without the new rows;
- "scratch": a fit on the new rows alone;
- "pooled": one fit on the rows of all markets;
- "none", "l2_sp", "tred": `fine_tune` of the source on the new rows, with this
  regulariser;
- "merged": the source, fine-tuned on each market, merged with coefficients that
  minimise the log loss of a fifth of the new rows, which the members have not seen;
- "distilled": a student of these members, on the new rows.

`generated` has three markets of equal size from one call of `make_ctr_cvr`. In the last
market numeric_0 has the opposite sign and the values of category_0 are permuted: the
effects of these two columns differ from the other markets, and the effects of the other
ten are the same. `rare` is the same with 10 % of clicks, a tenth of which convert;
`generated` has 20 % and a fifth. `tabs` are the surfaces of the app in KuaiRand (label
`engage`), from the folder that SK_PWISER_DATA names: the last market is tab 4, the
others are tabs 1 and 0, of which at most 20,000 rows each are drawn. The test rows come
from later days.

A cell is the mean AUC over the seeds (standard deviation), and the mean difference to
"pooled" with the same seed, in thousandths (standard error). Seeds draw the new rows,
all random numbers of training, and the generated data. All fits have early stopping,
and those on the new rows alone batches of 64 rows; the other settings are the defaults.
`--methods` chooses some of the methods; "pooled" is always among them.
"""

import time
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from _harness import (
    aucs,
    begin,
    data_folder,
    make_parser,
    rates_of,
    with_changes,
)

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import load_kuairand, make_ctr_cvr
from sk_pwiser.model_selection import FunnelStratifiedKFold
from sk_pwiser.transfer import distill, fine_tune, merge_estimators

WEIGHTS = {"l2_sp": 0.01, "tred": 0.5}
METHODS = ("pooled", "source", "scratch", "none", *WEIGHTS, "merged", "distilled")
SOURCE_TABS, LAST_TAB = (1, 0), 4
# The largest number stands for all rows.
SIZES = (500, 5_000, 10**9)
ROWS_PER_MARKET, ROWS_PER_TAB = 10_000, 20_000
BATCH_SIZE = 64  # of fits on the new rows alone


class Markets(NamedTuple):
    """Training rows of the markets, the last one apart, and its test rows."""

    others: list  # one (X, Y) per other market
    X: pd.DataFrame
    Y: pd.DataFrame
    X_test: pd.DataFrame
    Y_test: pd.DataFrame

    def pool(self, rows=()):
        """Return the rows of the other markets, and some rows of the last."""
        parts = [*self.others, (self.X.iloc[list(rows)], self.Y.iloc[list(rows)])]
        return tuple(
            pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True)
        )


def generated(seed, quick, rate=0.2):
    """Generate three markets, the last one with a shift; `rate` is the CTR and CVR."""
    n = 1_000 if quick else ROWS_PER_MARKET
    data = make_ctr_cvr(4 * n, ctr=rate, cvr=rate, n_categories=100, random_state=seed)
    X, Y = data.data, data.target
    last = X.index >= 2 * n
    order = np.random.default_rng(seed).permutation(100)
    codes = X["category_0"].cat.codes.to_numpy()
    moved = np.where(last, order[codes], codes)
    X = X.assign(
        numeric_0=np.where(last, -X["numeric_0"], X["numeric_0"]),
        category_0=pd.Categorical.from_codes(moved, categories=range(100)),
    )
    parts = [(X[a:b], Y[a:b]) for a, b in ((0, n), (n, 2 * n), (2 * n, 3 * n))]
    return Markets(parts[:2], *parts[2], X[3 * n :], Y[3 * n :])


def tabs(seed, quick):
    """Read the tabs of KuaiRand."""
    data = load_kuairand(data_folder(), "engage")
    tab, X = data.data["tab"].to_numpy(), data.data.drop(columns="tab")
    step = 20 if quick else 1

    def rows(which, is_test):
        chosen = np.flatnonzero((tab == which) & (data.is_test == is_test))[::step]
        return X.iloc[chosen], data.target.iloc[chosen]

    others = [
        [
            table.sample(min(ROWS_PER_TAB, len(table)), random_state=seed).sort_index()
            for table in rows(which, False)
        ]
        for which in SOURCE_TABS
    ]
    return Markets(others, *rows(LAST_TAB, False), *rows(LAST_TAB, True))


DATA = {"generated": generated, "rare": partial(generated, rate=0.1), "tabs": tabs}


def estimator(seed, **params):
    return MultiTaskCTRCVRClassifier(early_stopping=True, random_state=seed, **params)


def draw_rows(markets, n, seed):
    """Return indices of new rows with the shares of each depth in the market."""
    if n >= len(markets.X):
        return np.arange(len(markets.X))
    order = np.random.default_rng(seed).permutation(len(markets.X))
    depth = markets.Y.iloc[order].sum(axis=1).to_numpy()
    ranks = np.argsort(np.argsort(depth, kind="stable"), kind="stable")
    chosen = np.linspace(0, len(order) - 1, n).astype(int)
    return np.sort(order[np.isin(ranks, chosen)])


def methods(markets, source, members, rows, seed, chosen):
    """Yield the name of each method and a function that returns its estimator."""
    X, Y = markets.X.iloc[rows], markets.Y.iloc[rows]
    small = {"batch_size": BATCH_SIZE}
    yield "pooled", lambda: estimator(seed).fit(*markets.pool(rows))
    if "source" in chosen:
        yield "source", lambda: source
    if "scratch" in chosen:
        yield "scratch", lambda: estimator(seed, **small).fit(X, Y)
    if "none" in chosen:
        yield "fine-tuned, no penalty", lambda: fine_tune(source, X, Y, **small)
    for name in [name for name in WEIGHTS if name in chosen]:
        penalty = {"regularizer": name, "regularizer_weight": WEIGHTS[name]}
        yield (
            f"fine-tuned, {name}",
            partial(fine_tune, source, X, Y, **penalty, **small),
        )
    if not {"merged", "distilled"} & {*chosen}:
        return
    fold = FunnelStratifiedKFold(5, random_state=seed)
    train, held_out = next(fold.split(X, Y))
    # With the encoder of the source, as merging requires.
    own = fine_tune(source, X.iloc[train], Y.iloc[train], extend=False, **small)
    tuned = [*members(), own]
    if "merged" in chosen:
        held_out_rows = X.iloc[held_out], Y.iloc[held_out]
        yield "merged", lambda: merge_estimators(source, tuned, *held_out_rows)
    if "distilled" in chosen:
        student = estimator(seed, **small)
        yield "distilled", lambda: distill(tuned, X, weights=None, student=student)


def run_seed(markets, seed, chosen, results):
    """Run the methods with one seed; add their AUC by number of rows and method."""
    source = estimator(seed).fit(*markets.pool())

    @cache
    def members():
        return [fine_tune(source, X, Y, seen=True) for X, Y in markets.others]

    for n in SIZES:
        rows = draw_rows(markets, n, seed)
        by_name = results.setdefault(len(rows), {})
        for name, fit in methods(markets, source, members, rows, seed, chosen):
            p = fit().predict_proba(markets.X_test)
            by_name.setdefault(name, []).append(aucs(markets.Y_test, p))


def print_table(report, results, tasks):
    report.table(cell for task in tasks for cell in (f"{task} AUC", "to pooled"))
    for n, by_name in results.items():
        report.text(f"{n:,} rows of the last market")
        for name, values in by_name.items():
            report.row(name, with_changes(values, by_name["pooled"]))


def main():
    parser = make_parser(__doc__, seeds=5, data=DATA, methods=METHODS)
    arguments, report = begin("markets", parser, seeds=1)
    for name in arguments.data:
        results, started = {}, time.process_time()
        for seed in range(arguments.seeds):
            markets = DATA[name](seed, arguments.quick)
            run_seed(markets, seed, arguments.methods, results)
        report.text(
            "",
            f"{name}: {len(markets.pool()[0]):,} rows of {len(markets.others)} other "
            f"markets, {len(markets.X_test):,} test rows of the last; "
            f"{arguments.seeds} seeds; part: test",
            rates_of(markets.Y_test),
        )
        print_table(report, results, markets.Y_test.columns)
        seconds = (time.process_time() - started) / arguments.seeds
        report.text(f"{seconds:.0f} s of CPU time per seed")


if __name__ == "__main__":
    main()
