"""What combinations of columns are worth where an event depends on them.

    pip install ".[benchmark]"
    python benchmarks/combinations.py

The tables are generated, so that the AUC of the true probabilities is known:

- "agreement": two binary categories, the event a little likelier where they agree;
- "cells": a key of 1,500 values crossed with twelve years, a level per cell, of which
  there are one or two rows;
- "incidents": 2,300 rows of 900 incidents with one level each, which no column names;
- "signs": the product of the signs of two numbers, of ten;
- "calendar": the hour crossed with the weekday, of a log in the order of time, whose
  last quarter is the test part;
- "plain" and "plain, rare": effects of single columns only.

The default fit is compared with the same one with `combinations=None`, with LightGBM
and with CatBoost, which combines categories, too. The seconds are the processor's.
"""

import warnings

import numpy as np
import pandas as pd
from _harness import begin, make_parser, processor_time, seeds_of, spread
from _peers import peer_models
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier

COMBINATIONS_OFF = "combinations=None"
DEFAULT = "default"
PEERS = ("LightGBM", "CatBoost")
QUICK_ROWS = 3_000


def agreement(generator, n_rows=100_000):
    """Return a table and the probabilities of its event."""
    X = pd.DataFrame(
        {
            "left": generator.choice(["red", "blue"], n_rows),
            "right": generator.choice(["red", "blue"], n_rows),
            "age": generator.integers(20, 40, n_rows),
            "shop": generator.choice(["north", "south"], n_rows, p=[0.8, 0.2]),
        }
    )
    agrees = (X["left"] == X["right"]).to_numpy()
    return X, expit(-0.6 + 0.3 * agrees + 0.05 * (X["age"].to_numpy() - 30))


def cells(generator, n_rows=27_000):
    """Return a table and the probabilities of its event."""
    key = generator.integers(1_500, size=n_rows)
    year = generator.integers(12, size=n_rows)
    level_of_key = 0.9 * generator.normal(size=1_500)
    level_of_cell = 2 * generator.normal(size=(1_500, 12))
    X = pd.DataFrame(
        {
            "key": np.char.add("key ", key.astype(str)).astype(object),
            "year": 2_000 + year,
            "is_weekend": generator.integers(2, size=n_rows),
        }
    )
    return X, expit(0.8 + level_of_key[key] + level_of_cell[key, year])


def incidents(generator, n_rows=3_100):
    """Return a table and the probabilities of its event."""
    n_incidents = n_rows * 2 // 7
    incident = np.repeat(
        np.arange(n_incidents), generator.integers(1, 7, size=n_incidents)
    )
    columns = {}
    level = 2.5 * generator.normal(size=n_incidents)
    for name, n_values, effect in (
        ("weather", 2, 0.0),
        ("district", 5, 0.8),
        ("road", 12, 0.0),
        ("street", 30, 0.6),
        ("hour", 90, 0.0),
    ):
        values = generator.integers(n_values, size=n_incidents)
        level += effect * generator.normal(size=n_values)[values]
        texts = np.char.add(f"{name} ", values[incident].astype(str))
        columns[name] = texts.astype(object)
    columns["age"] = generator.integers(15, 70, size=n_incidents)[incident]
    columns["role"] = generator.choice(list("abcdef"), len(incident))
    noise = 0.3 * generator.normal(size=len(incident))
    return pd.DataFrame(columns), expit(0.3 + level[incident] + noise)


def signs(generator, n_rows=60_000):
    """Return a table and the probabilities of its event."""
    numbers = generator.normal(size=(n_rows, 10))
    X = pd.DataFrame(numbers, columns=[f"number_{column}" for column in range(10)])
    log_odds = 0.7 * np.sign(numbers[:, 0] * numbers[:, 1]) + 0.2 * numbers[:, 2]
    return X, expit(log_odds - 1)


def calendar(generator, n_rows=60_000):
    """Return a table and the probabilities of its event, in the order of time."""
    time = np.sort(generator.integers(365 * 24, size=n_rows))
    hour = time % 24
    weekday = time // 24 % 7
    item = generator.integers(400, size=n_rows)
    level_of_hour = 0.8 * generator.normal(size=(7, 24))
    level_of_item = 0.5 * generator.normal(size=400)
    X = pd.DataFrame(
        {
            "time": time,
            "hour": hour,
            "weekday": weekday,
            "item": np.char.add("item ", item.astype(str)).astype(object),
        }
    )
    return X, expit(-1.2 + level_of_hour[weekday, hour] + level_of_item[item])


def plain(generator, n_rows=60_000, level=-1.0):
    """Return a table without combinations and the probabilities of its event."""
    columns = {}
    log_odds = np.full(n_rows, level)
    for column, n_values in enumerate((2, 5, 12, 50, 400, 2_000)):
        values = generator.integers(n_values, size=n_rows)
        log_odds += 0.4 * generator.normal(size=n_values)[values]
        columns[f"category_{column}"] = np.char.add("v", values.astype(str))
    for column in range(6):
        number = generator.normal(size=n_rows)
        log_odds += 0.3 * np.sin((column + 1) * number)
        columns[f"number_{column}"] = number
    return pd.DataFrame(columns).infer_objects(), expit(log_odds)


def rare(generator, n_rows=60_000):
    """Return a table without combinations, with an event of two in a hundred."""
    return plain(generator, n_rows, level=-4.5)


TABLES = {
    "agreement": agreement,
    "cells": cells,
    "incidents": incidents,
    "signs": signs,
    "calendar": calendar,
    "plain": plain,
    "rare": rare,
}


def models(name, seed):
    """Return the models to compare, by name."""
    params = {"random_state": seed}
    encoding = {"time_column": "time"} if name == "calendar" else {}
    peers = {peer: next(peer_models(peer, [seed])) for peer in PEERS}
    return {
        COMBINATIONS_OFF: MultiTaskCTRCVRClassifier(
            encoding_params={"combinations": None, **encoding}, **params
        ),
        DEFAULT: MultiTaskCTRCVRClassifier(encoding_params=encoding, **params),
        **peers,
    }


def run(report, name, arguments):
    """Compare the models on one table."""
    figures = {}
    found = []
    for seed in seeds_of(arguments):
        generator = np.random.default_rng(seed)
        sizes = [] if arguments.rows is None else [arguments.rows]
        X, p_true = TABLES[name](generator, *sizes)
        y = (generator.random(len(X)) < p_true).astype(int)
        order = np.arange(len(X))
        if name != "calendar":
            order = generator.permutation(len(X))
        train, test = np.split(order, [len(X) * 3 // 4])
        X_train = X.iloc[train].reset_index(drop=True)
        X_test = X.iloc[test].reset_index(drop=True)
        truth = p_true[test]
        rows = {"truth": (truth, 0.0)}
        for label, model in models(name, seed).items():
            Y = (
                y[train]
                if label in (COMBINATIONS_OFF, DEFAULT)
                else pd.DataFrame({"event": y[train]})
            )
            seconds, fitted = processor_time(model.fit, X_train, Y)
            rows[label] = np.asarray(fitted.predict_proba(X_test))[:, -1], seconds
            if label == DEFAULT:
                found.append(fitted.combinations_)
        for label, (p, seconds) in rows.items():
            figure = roc_auc_score(y[test], p), log_loss(y[test], p), seconds
            figures.setdefault(label, []).append(figure)
        print(
            name, seed, {k: round(v[-1][0], 4) for k, v in figures.items()}, found[-1]
        )
    report.text("", f"{name}: {len(train):,} rows; {found[0] or 'nothing'} found")
    report.table(["AUC", "log loss", "s"])
    for label, values in figures.items():
        auc, loss, seconds = np.transpose(values)
        report.row(label, [spread(auc), spread(loss), f"{seconds.mean():.1f}"])


def main():
    parser = make_parser(__doc__, seeds=5, tables=tuple(TABLES))
    parser.add_argument("--rows", type=int, help="rows of a table")
    arguments, report = begin(
        "combinations", parser, tables=["cells"], seeds=1, rows=QUICK_ROWS
    )
    for name in arguments.tables:
        run(report, name, arguments)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning)
    main()
