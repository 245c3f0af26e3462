"""The frozen tables of the arena: training rows, later or held-out rows, and units.

A unit is what is drawn when rows are drawn: a user with all of the rows, or one row.
Tables in the order of time keep their column of times, from which every model takes its
validation rows: the last tenth. The tables with histories have columns of the past
beside their own ones.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from _tables import (
    KUAIRAND,
    data_folder,
    insteval,
    load_tables,
    movielens,
)
from history import DATA as HISTORY_DATA
from history import load_engagement
from refit import drifting_log

from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.history import HistoryFeatures

TIME = "time"


@dataclass(frozen=True, kw_only=True)
class ArenaTable:
    """A table with a fixed split; `units` are those of the test rows."""

    X: pd.DataFrame
    Y: pd.DataFrame
    X_test: pd.DataFrame
    Y_test: pd.DataFrame
    units: np.ndarray

    @property
    def has_times(self):
        return TIME in self.X


def with_single_rows(X, Y, X_test, Y_test):
    """Return a table in which each test row is a unit."""
    return ArenaTable(
        X=X.reset_index(drop=True),
        Y=Y.reset_index(drop=True),
        X_test=X_test.reset_index(drop=True),
        Y_test=Y_test.reset_index(drop=True),
        units=np.arange(len(X_test)),
    )


def read_shuffled(name):
    """Return a table of `_tables.py` whose rows have no order."""
    path = data_folder() if name in ("hillstrom", "oulad") else None
    tables = load_tables(name, path)
    return with_single_rows(tables.X, tables.Y, tables.X_test, tables.Y_test)


def read_kuairand(labels):
    """Return KuaiRand in the order of time; its units are users."""
    X, Y, n_train = load_engagement("test")
    if labels != "engage":
        Y = _other_labels(labels)
    return _by_time(X.drop(columns="day"), Y, n_train, user="user_id")


def _other_labels(labels):
    """Return other labels of KuaiRand, in the order of time."""
    from sk_pwiser.datasets import load_kuairand

    log = load_kuairand(data_folder(), "engage", subset="all")
    tables = load_tables(labels, data_folder())
    Y = pd.concat([tables.Y, tables.Y_test], ignore_index=True)
    order = np.argsort(np.asarray(log.time_ms), kind="stable")
    clicks = log.target["click"].to_numpy()
    if not np.array_equal(Y["click"], clicks):
        raise ValueError(f"The rows of {labels} are not those of KuaiRand's log.")
    return Y.iloc[order].reset_index(drop=True)


def read_by_time(read, user):
    """Return a rated log in the order of time; its units are users."""
    X, Y, n_train = read("test")
    X = X.drop(columns="day")
    if not pd.api.types.is_datetime64_any_dtype(X[TIME]):
        X[TIME] = pd.Timestamp("2000-01-01") + pd.to_timedelta(X[TIME], unit="D")
    return _by_time(X, Y, n_train, user=user)


def _by_time(X, Y, n_train, *, user):
    return ArenaTable(
        X=X[:n_train],
        Y=Y[:n_train],
        X_test=X[n_train:].reset_index(drop=True),
        Y_test=Y[n_train:].reset_index(drop=True),
        units=np.unique(X[user][n_train:].astype(str), return_inverse=True)[1],
    )


def read_drift():
    """Return a generated log whose level moves from day to day."""
    tables = drifting_log("test", seed=0)
    start = pd.Timestamp("2026-01-01")

    def with_time(X):
        days = pd.to_timedelta(X["day"], unit="D")
        return X.drop(columns="day").assign(**{TIME: start + days})

    return with_single_rows(
        with_time(tables.X), tables.Y, with_time(tables.X_test), tables.Y_test
    )


def read_generated(*, ctr, cvr, n_rows=100_000):
    """Return generated impressions without an order; half of them are test rows."""
    log = make_ctr_cvr(n_rows, ctr=ctr, cvr=cvr, random_state=0)
    half = n_rows // 2
    X, Y = log.data, log.target
    return with_single_rows(X[:half], Y[:half], X[half:], Y[half:])


def read_with_history(name, user):
    """Return a log with columns of the past: form "windows" of `history.py`."""
    _, _, forms, read = HISTORY_DATA[name]
    X, Y, n_train = read("test")
    X = X.drop(columns="day")
    params, _ = forms["windows"]
    history = HistoryFeatures(time=TIME, **params)
    train = history.fit_transform(X[:n_train], Y[:n_train])
    test = history.replay(X[n_train:], Y[n_train:])
    times = X[TIME]
    if not pd.api.types.is_datetime64_any_dtype(times):
        times = pd.Timestamp("2000-01-01") + pd.to_timedelta(times, unit="D")
    columns = pd.concat([train, test], ignore_index=True).assign(**{TIME: times})
    categories = X.select_dtypes("category").columns.intersection(columns.columns)
    columns = columns.astype({column: X[column].dtype for column in categories})
    rows = columns.assign(**{"unit of the row": X[user]})
    table = _by_time(rows, Y, n_train, user="unit of the row")
    return ArenaTable(
        X=table.X.drop(columns="unit of the row"),
        Y=table.Y,
        X_test=table.X_test.drop(columns="unit of the row"),
        Y_test=table.Y_test,
        units=table.units,
    )


TABLES = {
    **{name: partial(read_kuairand, name) for name in KUAIRAND},
    "movielens": partial(read_by_time, movielens, "user"),
    "insteval": partial(read_by_time, insteval, "student"),
    "oulad": partial(read_shuffled, "oulad"),
    "hillstrom": partial(read_shuffled, "hillstrom"),
    "flights": partial(read_shuffled, "flights"),
    "adult": partial(read_shuffled, "adult"),
    "drift": read_drift,
    "generated, 0.5 % conversions": partial(read_generated, ctr=0.05, cvr=0.1),
    "engage, histories": partial(read_with_history, "kuairand", "user_id"),
    "movielens, histories": partial(read_with_history, "movielens", "user"),
    "insteval, histories": partial(read_with_history, "insteval", "student"),
}
