"""Daily updates of a log whose ids come and go: size of the model, and AUC.

    python benchmarks/growing_vocabulary.py --threads 1

The log is generated, with known probabilities. Every day, 5 % of the active users are
replaced by new ones, and so are 5 % of the items. A user or item has an effect on
clicks and one on conversions, a popularity, and three numbers that tell a part of the
effects. The first fit reads 20 days; 30 days follow, each of which is predicted before
the model learns from it.

- no growth: `partial_fit` every day; new ids are unseen values.
- growth: the same with `grow_vocabulary`.
- growth, forgets: the same with `forget_after`, the number of updates after which the
  ids that no row had make room.
- daily refit: every day, a fit on the last 20 days, of as many epochs as the first
  one.

Size is that of the file of `save` after the last day, relative to that after the first
fit; ids are those with an embedding. The delta is what changed on the last day, by
`export.delta`, relative to the file after it. AUC is the expected one by the true
probabilities, a mean over the last 15 days; differences are to the daily refit, on the
same days and with the same seeds.
"""

import copy
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _harness import (
    begin,
    expected_auc,
    in_thousandths,
    make_parser,
    processor_time,
    seeds_of,
    spread,
)
from scipy.special import expit

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.export import delta

N_FIRST_DAYS = 20
N_DAYS = 30
N_SCORED_DAYS = 15  # the last ones
NEW_SHARE = 0.05  # of the active ids, per day
N_NUMBERS = 3  # per kind of id, which tell a part of its effects
TOLD = 0.5  # share of the variance of the effects that the numbers tell
BASE_CLICK, BASE_CONVERSION = -3.0, -2.2  # log-odds


class Ids:
    """Active users or items, some of which are replaced every day."""

    def __init__(self, n_active, rng):
        self.n_active = n_active
        self.rng = rng
        self.n_drawn = 0
        self.ids = np.zeros(n_active, dtype=np.int64)
        self.effects = np.zeros((n_active, 2))
        self.numbers = np.zeros((n_active, N_NUMBERS))
        self.popularity = np.zeros(n_active)
        self.directions = rng.standard_normal((N_NUMBERS, 2)) / np.sqrt(N_NUMBERS)
        self.draw(np.arange(n_active))

    def draw(self, places):
        """Put new ids at some places."""
        n = len(places)
        self.ids[places] = self.n_drawn + np.arange(n)
        self.n_drawn += n
        numbers = self.rng.standard_normal((n, N_NUMBERS))
        self.numbers[places] = numbers
        told = np.sqrt(TOLD) * numbers @ self.directions
        other = np.sqrt(1 - TOLD) * self.rng.standard_normal((n, 2))
        self.effects[places] = told + other
        self.popularity[places] = self.rng.pareto(1.5, n) + 0.2

    def next_day(self):
        n_new = round(NEW_SHARE * self.n_active)
        self.draw(self.rng.choice(self.n_active, n_new, replace=False))

    def rows(self, n):
        """Return the places of the ids of some rows."""
        shares = self.popularity / self.popularity.sum()
        return self.rng.choice(self.n_active, n, p=shares)


def make_log(n_rows, n_users, n_items, seed):
    """Return the columns, labels and true probabilities of each day."""
    rng = np.random.default_rng(seed)
    kinds = {"user": Ids(n_users, rng), "item": Ids(n_items, rng)}
    days = []
    for _ in range(N_FIRST_DAYS + N_DAYS):
        columns = {}
        scores = np.zeros((n_rows, 2))
        for name, ids in kinds.items():
            places = ids.rows(n_rows)
            columns[name] = ids.ids[places].astype(str)
            scores += 0.8 * ids.effects[places]
            for index in range(N_NUMBERS):
                columns[f"{name}_{index}"] = ids.numbers[places, index]
            ids.next_day()
        click = expit(BASE_CLICK + scores[:, 0])
        conversion = click * expit(BASE_CONVERSION + scores[:, 1])
        truth = np.column_stack([click, conversion])
        chance = rng.random((n_rows, 1))
        Y = pd.DataFrame((chance < truth).astype(int), columns=["click", "conversion"])
        days.append((pd.DataFrame(columns), Y, truth))
    return days


def joined(days):
    """Return the columns and labels of several days."""
    X, Y, _ = zip(*days, strict=True)
    return pd.concat(X, ignore_index=True), pd.concat(Y, ignore_index=True)


def file_size(saved):
    """Return the size of the file of a model, or of a delta of two."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        saved.save(path)
        return os.path.getsize(path)


def n_ids(model):
    values = (c["values"] for c in model.column_encodings_.values())
    return sum(map(len, filter(None, values)))


def expected_aucs(truth, p):
    return [expected_auc(truth[:, task], p[:, task]) for task in range(2)]


class Run:
    """What one strategy comes to: AUC by day, sizes and ids, and seconds per day."""

    def __init__(self, first):
        self.first = file_size(first), n_ids(first)
        self.scores = []
        self.seconds = []
        self.delta_share = None

    def score(self, model, day):
        X, _, truth = day
        self.scores.append(expected_aucs(truth, model.predict_proba(X)))

    def end(self, model):
        self.last = file_size(model), n_ids(model)
        return self


def with_updates(first, days, encoding_params):
    """Predict each day, and then update with it."""
    run = Run(first)
    model = copy.deepcopy(first).set_params(encoding_params=encoding_params)
    for day in days:
        run.score(model, day)
        if day is days[-1]:
            yesterday = copy.deepcopy(model)
        seconds, _ = processor_time(model.partial_fit, *day[:2])
        run.seconds.append(seconds)
    run.delta_share = file_size(delta(yesterday, model)) / file_size(model)
    return run.end(model)


def with_refits(first, days, n_epochs):
    """Predict each of the scored days by a fit on the days before it."""
    run = Run(first)
    for last in range(len(days) - N_SCORED_DAYS, len(days)):
        model = new_model(n_epochs, first.random_state)
        rows = joined(days[last - N_FIRST_DAYS : last])
        seconds, _ = processor_time(model.fit, *rows)
        run.seconds.append(seconds)
        run.score(model, days[last])
    return run.end(model)


def new_model(n_epochs, seed):
    return MultiTaskCTRCVRClassifier(
        max_epochs=n_epochs, early_stopping=False, random_state=seed
    )


def main():
    parser = make_parser(__doc__, seeds=3)
    parser.add_argument("--rows", type=int, default=2_000, help="per day")
    parser.add_argument("--users", type=int, default=1_000, help="active per day")
    parser.add_argument("--items", type=int, default=200, help="active per day")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--forget-after", type=int, nargs="+", default=[5, 10])
    quick = {"seeds": 1, "rows": 300, "users": 60, "items": 20, "epochs": 1}
    arguments, report = begin("growing_vocabulary", parser, **quick)
    growth = {"grow_vocabulary": True}
    settings = {"no growth": {}, "growth": growth}
    for n_updates in arguments.forget_after:
        name = f"growth, forgets after {n_updates} updates"
        settings[name] = {**growth, "forget_after": n_updates}
    runs = {name: [] for name in [*settings, "daily refit"]}
    for seed in seeds_of(arguments):
        log = make_log(arguments.rows, arguments.users, arguments.items, seed)
        first = new_model(arguments.epochs, seed).fit(*joined(log[:N_FIRST_DAYS]))
        for name, params in settings.items():
            runs[name].append(with_updates(first, log[N_FIRST_DAYS:], params))
        runs["daily refit"].append(with_refits(first, log, arguments.epochs))
        for name, found in runs.items():
            scores = np.mean(found[-1].scores[-N_SCORED_DAYS:], axis=0)
            print(seed, name, scores.round(4), found[-1].first, found[-1].last)
    all_rows = N_FIRST_DAYS * arguments.rows
    report.text(
        "",
        f"{all_rows:,} rows of the first fit, and {N_DAYS} days of {arguments.rows:,} "
        f"rows; {NEW_SHARE:.0%} of {arguments.users:,} active users and "
        f"{arguments.items:,} items new per day; {arguments.seeds} seeds",
    )
    columns = ["click AUC", "to refit", "conversion AUC", "to refit"]
    report.table([*columns, "file", "ids", "delta", "s per day"])
    scores = {
        name: np.array([run.scores[-N_SCORED_DAYS:] for run in found]).mean(axis=1)
        for name, found in runs.items()
    }
    for name, found in runs.items():
        cells = []
        for task in range(2):
            values = scores[name][:, task]
            differences = values - scores["daily refit"][:, task]
            is_base = name == "daily refit"
            cells += [spread(values), "" if is_base else in_thousandths(differences)]
        shares = [[run.last[k] / run.first[k] for k in range(2)] for run in found]
        cells += [f"{share:.2f}" for share in np.mean(shares, axis=0)]
        shares = [run.delta_share for run in found if run.delta_share is not None]
        cells.append(f"{np.mean(shares):.2f}" if shares else "")
        seconds = np.mean([run.seconds for run in found])
        report.row(name, [*cells, f"{seconds:.2f}"])
    report.text(
        "File and ids after the last day are relative to those after the first fit, "
        "the delta of the last day to the file after it. "
        "Differences are in thousandths, with the standard error over seeds."
    )


if __name__ == "__main__":
    # The estimator warns of new users and items, which there are every day.
    warnings.filterwarnings("ignore", category=UserWarning)
    main()
