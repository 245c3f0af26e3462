"""Merged networks: entropy and log loss, a corrupted member, and markets of KuaiRand.

    python benchmarks/merging.py                    # all three parts, 5 seeds

"rates" and "corrupted" generate three markets with `make_ctr_cvr`: in market m the
column numeric_m has the opposite sign, and 20 % of the clicks convert. A base is fitted
on rows of all markets, and fine-tuned on each market. The coefficients of the merges
are searched on further rows of all markets, and all figures are measured on test rows
of all markets.

- "rates" varies the click rate, and compares the two objectives of `merge_estimators`;
- "corrupted" adds a fourth member, whose labels were shuffled or which has noise of a
  standard deviation of 0.3 on all weights, at a click rate of 10 %;
- "tabs" takes the tabs 1, 0, 4 and 6 of KuaiRand as markets (label `engage`, the data
  from the folder that SK_PWISER_DATA names). Base, members and coefficients have
  disjoint training rows; the test rows come from later days. "pooled" is one fit on the
  rows of base, members and coefficients together.

A cell is the mean over the seeds (standard deviation). The log loss is the mean over
the tasks, "rate" the mean predicted click probability divided by the share of clicks.
Seeds draw the data and all random numbers. The estimators have their defaults, except
for early stopping, which is on in fits on the rows of all tabs only, and `max_epochs`:
8 for the base, 4 for the members.
"""

from functools import partial
from itertools import chain

import numpy as np
import pandas as pd
from _harness import aucs, begin, data_folder, make_parser, mean_log_loss, spread

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import load_kuairand, make_ctr_cvr
from sk_pwiser.transfer import (
    distill,
    fine_tune,
    merge_estimators,
    merge_interference,
    select_estimators,
)

RATES = (0.3, 0.1, 0.03)
N_MARKETS = 3
ROWS = {"base": 1_500, "member": 2_500, "held_out": 1_000, "test": 5_000}  # per market
TABS = (1, 0, 4, 6)
TAB_ROWS = {"base": 2_000, "member": 3_000, "held_out": 700}  # at most, per tab
TEST_ROWS = 20_000
BASE_EPOCHS, MEMBER_EPOCHS = 8, 4
NOISE = 0.3
COLUMNS = ("log loss", "click AUC", "conversion AUC", "rate")


def estimator(seed, **params):
    params = {"early_stopping": False, **params}
    return MultiTaskCTRCVRClassifier(random_state=seed, **params)


def generate(rate, divisor, seed):
    """Return the tables of each part: a list of one (X, Y) per market."""
    sizes = {part: n // divisor for part, n in ROWS.items()}
    n = sum(sizes.values())
    data = make_ctr_cvr(N_MARKETS * n, ctr=rate, cvr=0.2, random_state=seed)
    parts = {part: [] for part in sizes}
    for market in range(N_MARKETS):
        start = market * n
        for part, size in sizes.items():
            X = data.data[start : start + size]
            flipped = {f"numeric_{market}": -X[f"numeric_{market}"]}
            parts[part].append((X.assign(**flipped), data.target[start : start + size]))
            start += size
    return parts


def read_tabs(path, divisor, seed):
    """Return the tables of each part, one (X, Y) per tab; test rows are one table."""
    rng = np.random.default_rng(seed)
    train = load_kuairand(path, "engage", subset="train")
    test = load_kuairand(path, "engage", subset="test")
    parts = {part: [] for part in TAB_ROWS}
    for tab in TABS:
        left = rng.permutation(np.flatnonzero(train.data["tab"] == tab))
        for part, size in TAB_ROWS.items():
            rows, left = np.sort(left[: size // divisor]), left[size // divisor :]
            parts[part].append((train.data.iloc[rows], train.target.iloc[rows]))
    rows = rng.permutation(np.flatnonzero(test.data["tab"].isin(TABS)))
    rows = np.sort(rows[: TEST_ROWS // divisor])
    parts["test"] = [(test.data.iloc[rows], test.target.iloc[rows])]
    return parts


def pool(*parts):
    """Concatenate tables of several markets."""
    tables = zip(*chain(*parts), strict=True)
    return tuple(pd.concat(table, ignore_index=True) for table in tables)


def fit_members(parts, seed):
    """Return the base and one member per market."""
    base = estimator(seed, max_epochs=BASE_EPOCHS).fit(*pool(parts["base"]))
    members = [
        fine_tune(base, X, Y, extend=False, max_epochs=MEMBER_EPOCHS)
        for X, Y in parts["member"]
    ]
    return base, members


class MeanOf:
    """The mean of the predictions of several estimators."""

    def __init__(self, estimators):
        self.estimators = estimators

    def predict_proba(self, X):
        return np.mean([each.predict_proba(X) for each in self.estimators], axis=0)


def merge(base, members, held_out, **params):
    """Return a merged estimator, and its coefficients if there is one per member."""
    merged, found = merge_estimators(
        base, members, *held_out, return_coefficients=True, **params
    )
    return merged, None if isinstance(found, dict) else found


def merges(base, members, held_out):
    """Yield the name of each merge, its estimator and coefficients."""
    fixed = {"objective": None, "bounds": (0, 1)}
    n = len(members)
    for name, params in {
        "prior, 0.3 each": {**fixed, "prior": 0.3},
        f"mean of weights, 1/{n} each": {**fixed, "prior": 1 / n},
        "entropy": {"objective": "entropy"},
        "entropy, per layer": {"objective": "entropy", "granularity": "layer"},
        "log loss": {},
        "log loss, per layer": {"granularity": "layer"},
    }.items():
        yield name, *merge(base, members, held_out, **params)


def rate_methods(base, members, parts, _seed):
    """Yield the methods of the part "rates"."""
    yield "base", base, None
    yield "mean of predictions", MeanOf(members), None
    yield from merges(base, members, pool(parts["held_out"]))


def corrupt(base, parts, seed):
    """Return the corrupted members by name."""
    rng = np.random.default_rng(seed)
    X, Y = pool(parts["member"])
    shuffled = Y.iloc[rng.permutation(len(Y))].reset_index(drop=True)
    noisy = fine_tune(base, *parts["member"][0], extend=False, max_epochs=1)
    for parameter in noisy.net_.module_.parameters():
        noise = rng.normal(0, NOISE, parameter.shape).astype(np.float32)
        parameter.data += parameter.data.new_tensor(noise)
    epochs = {"max_epochs": MEMBER_EPOCHS}
    return {
        "shuffled": fine_tune(base, X, shuffled, extend=False, **epochs),
        "noise": noisy,
    }


def corrupted_methods(base, members, parts, seed):
    """Yield the methods of the part "corrupted"."""
    held_out = pool(parts["held_out"])
    unlabelled = held_out[0]
    n_good = len(members)
    yield "base", base, None
    yield "sound members: log loss", *merge(base, members, held_out)
    for kind, bad in corrupt(base, parts, seed).items():
        everyone = [*members, bad]
        fixed = {"objective": None, "prior": 0.3}
        yield f"{kind}: prior, 0.3 each", *merge(base, everyone, held_out, **fixed)
        realigned = merge(base, everyone, held_out, realign=True, **fixed)
        yield f"{kind}: prior, realigned", *realigned
        entropy = merge(base, everyone, held_out, objective="entropy")
        yield f"{kind}: entropy", *entropy
        yield f"{kind}: log loss", *merge(base, everyone, held_out)
        yield f"{kind}: mean of predictions", MeanOf(everyone), None
        found = select_estimators(
            everyone, *held_out, n_select=n_good, random_state=seed
        )
        chosen = [everyone[index] for index in found.indices]
        yield f"{kind}: selected, mean", MeanOf(chosen), found.weights
        for name, weights in (("all", None), ("selected", found.weights)):
            model = distill(everyone, unlabelled, weights=weights, student=base)
            yield f"{kind}: distilled, {name}", model, None


def tab_methods(base, members, parts, seed):
    """Yield the methods of the part "tabs"."""
    held_out = pool(parts["held_out"])
    everything = pool(parts["base"], parts["member"], parts["held_out"])
    yield "base", base, None
    pooled = estimator(seed, max_epochs=BASE_EPOCHS, early_stopping=True)
    pooled.fit(*everything)
    yield "pooled", pooled, None
    tuned = fine_tune(
        base,
        *pool(parts["member"]),
        extend=False,
        max_epochs=MEMBER_EPOCHS,
        early_stopping=True,
    )
    yield "base, fine-tuned on all tabs", tuned, None
    yield "mean of predictions", MeanOf(members), None
    yield from merges(base, members, held_out)
    yield "log loss, realigned", *merge(base, members, held_out, realign=True)
    X, _ = pool(parts["member"])
    yield "distilled, mean of members", distill(members, X, student=base), None


def figures(model, X, Y):
    """Return the figures of `COLUMNS`."""
    p, Y = model.predict_proba(X), Y.to_numpy()
    return [mean_log_loss(Y, p), *aucs(Y, p), p[:, 0].mean() / Y[:, 0].mean()]


def print_table(report, title, make_parts, methods, seeds):
    """Print the means over the seeds, one row per method."""
    results, numbers, disturbance = {}, {}, []
    for seed in range(seeds):
        parts = make_parts(seed)
        test = pool(parts["test"])
        base, members = fit_members(parts, seed)
        disturbance.append(merge_interference(base, members, test[0]))
        for name, model, found in methods(base, members, parts, seed):
            results.setdefault(name, []).append(figures(model, *test))
            numbers.setdefault(name, []).append(found)
    interference = f"interference of the sound members: {spread(disturbance, 3)}"
    report.text("", f"{title}; {seeds} seeds", interference)
    report.table([*COLUMNS, "coefficients or weights"])
    for name, rows in results.items():
        found = numbers[name]
        means = () if found[0] is None else np.mean(found, axis=0)
        text = " ".join(f"{value:.2f}" for value in means)
        report.row(name, [*map(spread, np.transpose(rows)), text])


def main():
    arguments, report = begin("merging", make_parser(__doc__, seeds=5), seeds=1)
    divisor = 10 if arguments.quick else 1

    def sizes(rows):
        return ", ".join(f"{n // divisor:,} {name}" for name, n in rows.items())

    per_market = f"rows per market: {sizes(ROWS)}"
    corrupted = f"corrupted member, click rate 10%; {per_market}"
    tabs = (
        f"tabs {', '.join(map(str, TABS))} of KuaiRand; rows per tab, at most: "
        f"{sizes(TAB_ROWS)}; {TEST_ROWS // divisor:,} test rows"
    )
    tables = [
        (f"click rate {rate:.0%}; {per_market}", partial(generate, rate), rate_methods)
        for rate in (RATES[1:2] if arguments.quick else RATES)
    ]
    tables += [
        (corrupted, partial(generate, 0.1), corrupted_methods),
        (tabs, partial(read_tabs, data_folder()), tab_methods),
    ]
    report.text("", "Merged networks; cells are means over seeds (standard deviation)")
    for title, make, methods in tables:
        print_table(report, title, partial(make, divisor), methods, arguments.seeds)


if __name__ == "__main__":
    main()
