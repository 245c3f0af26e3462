"""Which rows early stopping shall hold out of a log, and what its times are worth.

    pip install ".[benchmark]"
    SK_PWISER_DATA=/path/to/data python benchmarks/held_out_rows.py
    SK_PWISER_DATA=/path/to/data python benchmarks/held_out_rows.py --times

The first table compares fits without a column of times, in folds whose test rows are
later ones, or other rows of shuffled tables:

- "random rows": the default;
- "last rows": the number of the row is the `time_column`, so that the last tenth of the
  rows is held out, and predictions are shifted to its level;
- "last rows, no shift": the same without the shift.

The title has the number of fits on random rows that warn of an order that matters.

The tables in the order of time are MovieLens, KuaiRand (click and `engage`), InstEval
(semesters), OULAD (course runs, whose rows are in the order of modules), the bookings
of `row_structure.py`, the log with drift of `refit.py`, and three generated logs of
`later_rows.py`. Hillstrom, flights and
`columns_40` of `_tables.py` are shuffled.

With `--times`, the date is the `time_column`, and its hour or its weekday is a column
of categories beside the others. The tables are MovieLens, KuaiRand, whose own column of
the hour is left out, and the flights in the order of their days, without columns of the
date; the hour of flights is that of the scheduled departure.

No test row of a table is used. The cells of the folds and seeds are means, followed by
the mean change against the first form and its standard error, in thousandths.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _harness import (
    aucs,
    begin,
    data_folder,
    make_parser,
    mean_log_loss,
    seeds_of,
    with_changes,
)
from _tables import load_tables, movielens
from later_rows import LEVEL_FOLDS, level_table
from refit import drifting_log
from row_structure import bookings

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import load_kuairand
from sk_pwiser.model_selection import FunnelTimeSplit

RANDOM, LAST, NO_SHIFT = "random rows", "last rows", "last rows, no shift"
BY_FOLDS = ("MovieLens", "KuaiRand", "InstEval", "stationary", "trend", "weeks")
SHUFFLED = ("hillstrom", "flights", "columns-40")
TABLES = (*BY_FOLDS, "OULAD", "bookings", "drift", *SHUFFLED)
# Generated logs of this and later seeds are in no table of their own benchmarks.
FIRST_GENERATED = 100
COURSE_RUNS = ("2013B", "2013J", "2014B")
WITHOUT_PARTS = "time alone"
PARTS_OF_TIMES = {
    WITHOUT_PARTS: [],
    "with hour": ["hour_of_time"],
    "with weekday": ["weekday_of_time"],
}
TIMED = ("MovieLens", "KuaiRand", "flights")
QUICK_ROWS = 3_000


# ---------------------------------------------------------------- rows in order


def ordered_table(name, seed):
    """Return a table without times, its labels, and pairs of rows to train and test."""
    if name in BY_FOLDS:
        generated_seed = FIRST_GENERATED + seed
        X, Y, folds = level_table(name, generated_seed)
        return X.drop(columns="time"), Y, folds
    if name == "OULAD":
        return course_runs()
    if name == "bookings":
        log = bookings(FIRST_GENERATED + seed)
        Y = log[["click", "conversion"]]
        X = log.drop(columns=["date", *Y])
        rows = np.arange(len(log))
        n_train = int(0.8 * len(log))
        return X, Y, [(rows[:n_train], rows[n_train:])]
    if name == "drift":
        tables = drifting_log("validation", FIRST_GENERATED + seed)
    else:
        path = os.environ.get("SK_PWISER_DATA")
        tables = load_tables(name, path, "validation", seed=seed)
    X = pd.concat([tables.X, tables.X_test], ignore_index=True)
    Y = pd.concat([tables.Y, tables.Y_test], ignore_index=True)
    rows = np.arange(len(X))
    folds = [(rows[: len(tables.X)], rows[len(tables.X) :])]
    return X.drop(columns="day") if name == "drift" else X, Y, folds


def course_runs():
    """Return OULAD up to the last training run; a fold tests a run on those before."""
    folder = data_folder()
    tables = load_tables("oulad", folder, "test")
    path = Path(folder) / "oulad" / "oulad_funnel.csv.gz"
    runs = pd.read_csv(path)["code_presentation"]
    run = runs[runs != "2014J"].map(COURSE_RUNS.index).to_numpy()
    order = np.argsort(run, kind="stable")
    run = run[order]
    X = tables.X.iloc[order].reset_index(drop=True)
    Y = tables.Y.iloc[order].reset_index(drop=True)
    folds = [
        (np.flatnonzero(run < tested), np.flatnonzero(run == tested))
        for tested in (1, 2)
    ]
    return X, Y, folds


def fit_in_order(form, X, Y, seed):
    """Return a fit of a form, and whether it says that the order of rows matters."""
    params = {}
    if form != RANDOM:
        X = X.assign(row_number=np.arange(len(X)))
        params["encoding_params"] = {"time_column": "row_number"}
    model = MultiTaskCTRCVRClassifier(random_state=seed, **params)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y)
    texts = [str(warning.message) for warning in caught]
    return model, any("in an order that matters" in text for text in texts)


def compare_order(report, name, arguments):
    """Print the table of the forms of one table."""
    results = {RANDOM: [], LAST: [], NO_SHIFT: []}
    warned = []
    for seed in seeds_of(arguments):
        X, Y, folds = ordered_table(name, seed)
        for train, test in folds:
            if arguments.quick:
                train, test = train[-QUICK_ROWS:], test[:QUICK_ROWS]
            for form in (RANDOM, LAST):
                model, warns = fit_in_order(form, X.iloc[train], Y.iloc[train], seed)
                results[form].append(figures(model, X.iloc[test], Y.iloc[test]))
                if form == RANDOM:
                    warned.append(warns)
            # The last fit is that with times.
            model.net_.module_.level_offset = None
            results[NO_SHIFT].append(figures(model, X.iloc[test], Y.iloc[test]))
    title = f"{name}: a warning in {sum(warned)} of {len(warned)} fits"
    print_changes(report, title, results, Y)


# ---------------------------------------------------------------- parts of times


def timed_table(name):
    """Return a table with a column "time" of dates, its labels, and folds by time."""
    if name == "MovieLens":
        X, Y, _ = movielens("validation")
        X = X.drop(columns="day")
    elif name == "KuaiRand":
        rows = load_kuairand(data_folder(), "engage", subset="train")
        time = pd.to_datetime(np.asarray(rows.time_ms), unit="ms")
        X = rows.data.drop(columns="hour")
        X = X.assign(time=time.tz_localize("UTC").tz_convert("Asia/Shanghai"))
        Y = rows.target
    else:
        tables = load_tables(name, None, "test")
        minutes = pd.to_timedelta(tables.X["sched_dep_time"], unit="min")
        dates = tables.X[["month", "day"]].assign(year=2013)
        X = tables.X.drop(columns=["month", "day", "weekday"])
        X = X.assign(time=pd.to_datetime(dates) + minutes)
        X = X.sort_values("time", kind="stable")
        Y = tables.Y.loc[X.index].reset_index(drop=True)
        X = X.reset_index(drop=True)
    time = X["time"].dt
    X = X.assign(
        hour_of_time=time.hour.astype("category"),
        weekday_of_time=time.day_of_week.astype("category"),
    )
    return X, Y, list(FunnelTimeSplit(LEVEL_FOLDS, time=X["time"]).split(X, Y))


def compare_parts_of_times(report, name, arguments):
    """Print the table of hours and weekdays as columns."""
    X, Y, folds = timed_table(name)
    results = {form: [] for form in PARTS_OF_TIMES}
    all_parts = {part for parts in PARTS_OF_TIMES.values() for part in parts}
    for seed in seeds_of(arguments):
        for train, test in folds:
            if arguments.quick:
                train, test = train[-QUICK_ROWS:], test[:QUICK_ROWS]
            for form, parts in PARTS_OF_TIMES.items():
                table = X.drop(columns=list(all_parts.difference(parts)))
                model = MultiTaskCTRCVRClassifier(
                    encoding_params={"time_column": "time"}, random_state=seed
                )
                model.fit(table.iloc[train], Y.iloc[train])
                results[form].append(figures(model, table.iloc[test], Y.iloc[test]))
    print_changes(report, name, results, Y)


# ---------------------------------------------------------------- figures


def figures(model, X, Y):
    """Return the AUC of the first and the last task, and the mean log loss."""
    p = model.predict_proba(X).astype(float)
    y = Y.to_numpy()
    areas = aucs(y, p)
    return [areas[0], areas[-1], mean_log_loss(y, p)]


def print_changes(report, title, results, Y):
    """Print the figures by form, with their changes against the first form."""
    base = next(iter(results.values()))
    report.text("", f"{title}; {len(base)} folds and seeds; part: validation")
    columns = [f"{Y.columns[0]} AUC", f"{Y.columns[-1]} AUC", "log loss"]
    report.table([text for column in columns for text in (column, "to first")])
    for form, rows in results.items():
        report.row(form, with_changes(rows, base))


def main():
    parser = make_parser(__doc__, seeds=3, data=TABLES)
    parser.add_argument("--times", action="store_true", help="hours and weekdays")
    arguments, report = begin("held_out_rows", parser, seeds=1)
    names, compare = arguments.data, compare_order
    if arguments.times:
        names = [name for name in TIMED if name in names]
        compare = compare_parts_of_times
        if report.path is not None:
            report.path = report.path.with_stem("held_out_rows_times")
    for name in names:
        compare(report, name, arguments)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
