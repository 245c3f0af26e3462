"""How to keep a model up to date: partial_fit every day, refits, or both.

    pip install ".[benchmark,polars]"
    python benchmarks/retraining.py --data movielens
    SK_PWISER_DATA=/path/to/data python benchmarks/retraining.py --data kuairand

The rows are in the order of time. The first ones are those of the first fit; the others
come day by day. Every strategy predicts the rows of a day, and only then learns from
them. MovieLens spans years: 40 % of its rows come in eight parts of equal size, which
take the place of days. KuaiRand (click and engage) has eight days after the first
ones. A refit takes place every fourth day, as a weekly one would.

- never: the first fit.
- partial_fit daily: the first fit, and one call of `partial_fit` per day.
- refit, newest held out: every fourth day, a fit on all rows so far that stops early on
  the newest tenth of them, from which it does not learn.
- refit: the same with `refit=True`, which then trains a new network on all rows.
- refit and partial_fit: that refit, and one call of `partial_fit` on each day between.
- refit daily: a fit with `refit=True` every day.

In all fits the number of the row is the `time_column`: predictions are shifted to the
level of the newest tenth.

The columns are those of the form "windows" of `history.py`, which are brought up to
date with every row for all strategies, without the user of MovieLens, most of whom are
new. The scores are means over the days; the differences are to the first strategy, on
the same days and with the same seeds. The seconds are those of the processor per day.
"""

import pickle
import warnings

import numpy as np
from _harness import (
    aucs,
    begin,
    make_parser,
    mean_log_loss,
    processor_time,
    rates_of,
    spread,
    with_changes,
)
from history import DATA

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.history import HistoryFeatures

N_DAYS, EVERY = 8, 4
UNUSED = {"movielens": ["user", "day"], "kuairand": ["day"]}
TIME = "row_number"


def load(name, quick):
    """Return the columns, the labels and the first row of each day, and the end."""
    title, _, forms, read = DATA[name]
    X, Y, _ = read("test")
    if quick:
        X, Y = X[-20_000:].reset_index(drop=True), Y[-20_000:].reset_index(drop=True)
    if name == "kuairand" and not quick:
        date = X["time"].dt.normalize()
        days = np.sort(date.unique())[-N_DAYS:]
        starts = [*np.searchsorted(date, days), len(X)]
    else:
        starts = np.linspace(0.6 * len(X), len(X), N_DAYS + 1).astype(int).tolist()
    history = HistoryFeatures(time="time", **forms["windows"][0])
    X = history.fit_transform(X, Y).drop(columns=UNUSED[name])
    return title, X.assign(**{TIME: np.arange(len(X))}), Y, starts


class Log:
    """Rows that come day by day, and the fits of one seed on those so far."""

    def __init__(self, X, Y, starts, seed):
        self.X, self.Y, self.starts, self.seed = X, Y, starts, seed
        self.fits, self.seconds = {}, {}

    def rows(self, first, last):
        return self.X.iloc[first:last], self.Y.iloc[first:last]

    def fit(self, kind, day, *, refit):
        """Fit before a day, unless another strategy did so; note the seconds."""
        key = kind, day
        if key not in self.fits:
            model = MultiTaskCTRCVRClassifier(
                refit=refit,
                encoding_params={"time_column": TIME},
                random_state=self.seed,
            )
            rows = self.rows(0, self.starts[day])
            self.seconds[key], self.fits[key] = processor_time(model.fit, *rows)
        return self.fits[key]

    def fit_stopped(self, day):
        """Return a fit before a day that holds out the newest tenth of the rows."""
        return self.fit("stopped", day, refit=False)

    def fit_full(self, day):
        """Return a fit on all rows before a day."""
        return self.fit("full", day, refit=True)

    def scores(self, model, day):
        X, Y = self.rows(*self.starts[day : day + 2])
        p = model.predict_proba(X)
        return [*aucs(Y, p), mean_log_loss(Y, p)]


def of_fits(fit, every):
    """Return a strategy of fits alone, which is a function of the log."""

    def run(log):
        for day in range(N_DAYS):
            model = fit(log, day - day % every)
            yield log.scores(model, day)

    return run


def with_updates(every):
    """Return a strategy of refits, and of calls of `partial_fit` between them."""

    def run(log):
        for day in range(N_DAYS):
            if day % every == 0:
                # The fit of another strategy stays as it is.
                model = pickle.loads(pickle.dumps(log.fit_full(day)))
            else:
                rows = log.rows(*log.starts[day - 1 : day + 1])
                key = "update", every, day
                log.seconds[key], _ = processor_time(model.partial_fit, *rows)
            yield log.scores(model, day)

    return run


STRATEGIES = {
    "never": of_fits(Log.fit_full, N_DAYS),
    "partial_fit daily": with_updates(N_DAYS),
    "refit, newest held out": of_fits(Log.fit_stopped, EVERY),
    "refit": of_fits(Log.fit_full, EVERY),
    "refit and partial_fit": with_updates(EVERY),
    "refit daily": of_fits(Log.fit_full, 1),
}


def seconds_per_day(log):
    """Return the processor's seconds of each strategy, per day after the first."""
    n = N_DAYS - 1
    of = {"stopped": 0.0, "full": 0.0, "weekly": 0.0}
    updates = []
    for (kind, *_, day), seconds in log.seconds.items():
        if kind == "update":
            updates.append(seconds)
        elif day:
            of[kind] += seconds / n
            of["weekly"] += seconds / n if kind == "full" and day % EVERY == 0 else 0
    update = np.mean(updates or [0])
    return {
        "never": 0,
        "partial_fit daily": update,
        "refit, newest held out": of["stopped"],
        "refit": of["weekly"],
        "refit and partial_fit": of["weekly"] + update * (n - n // EVERY) / n,
        "refit daily": of["full"],
    }


def main():
    parser = make_parser(__doc__, seeds=3, strategies=STRATEGIES)
    parser.add_argument("--data", choices=UNUSED, default="movielens")
    arguments, report = begin("retraining", parser, seeds=1)
    if report.path is not None:
        report.path = report.path.with_stem(f"retraining_{arguments.data}")
    title, X, Y, starts = load(arguments.data, arguments.quick)
    results, seconds = {name: [] for name in arguments.strategies}, []
    for seed in range(arguments.seeds):
        log = Log(X, Y, starts, seed)
        for name in results:
            results[name].append(list(STRATEGIES[name](log)))
            print(seed, name, np.mean(results[name][-1], axis=0).round(4), flush=True)
        seconds.append(seconds_per_day(log))
    report.text(
        "",
        f"{title}: {starts[0]:,} rows of the first fit; {len(X) - starts[0]:,} rows of "
        f"{N_DAYS} days, {rates_of(Y[starts[0] :])}; {arguments.seeds} seeds",
    )
    names = [text for task in Y for text in (f"{task} AUC", "to first")]
    report.table([*names, "log loss", "s per day"])
    base = np.array(results[arguments.strategies[0]]).mean(axis=1)
    for name, found in results.items():
        values = np.array(found).mean(axis=1)  # the mean over days, per seed
        cells = with_changes(values[:, :-1], base[:, :-1])
        cost = np.mean([each[name] for each in seconds])
        report.row(name, [*cells, spread(values[:, -1]), f"{cost:.1f}"])
    report.text("Differences are in thousandths, with the standard error over seeds.")


if __name__ == "__main__":
    # The estimator warns of users and films that are new, which many are.
    warnings.filterwarnings("ignore", category=UserWarning)
    main()
