"""Compare models of clicks and conversions: `python -m sk_pwiser`.

Without options, fits logistic regression, gradient boosting and this package to
generated logs, with both losses and with columns of the past, and prints their scores
on further rows and what follows from them; and, if the environment variable
SK_PWISER_DATA names a folder with KuaiRand-Pure, compares the losses on real
impressions. With --data, describes the impressions in a file of yours, and compares the
losses on it: on the same folds and with the same seeds, with 95 % intervals and a
verdict for each metric.

`python -m sk_pwiser explain --help` is about explanations of the rows in a file.
"""

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from scipy import special
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_pwiser import MultiTaskCTRCVRClassifier, model_selection
from sk_pwiser._columns._text_cells import MISSING_WORDS
from sk_pwiser._columns._value_kinds import DATE
from sk_pwiser._command import _explain
from sk_pwiser._command._messages import messages_in_one_line
from sk_pwiser._command._table_files import (
    check_columns,
    is_parquet,
    read_parquet,
    read_texts,
)
from sk_pwiser._responses import positive_probabilities
from sk_pwiser._tasks._labels import read_labels, read_words, zero_one_labels
from sk_pwiser._utils._extras import import_extra
from sk_pwiser.datasets import load_kuairand, make_ctr_cvr
from sk_pwiser.history import HistoryFeatures
from sk_pwiser.inspection import describe_impressions
from sk_pwiser.metrics import predicted_over_observed

# Scores of a generated log: AUC, log loss and calibration of each task, by model.
Scores = dict[str, list[float]]
# The generated log of rare conversions.
RARE_LOG: dict[str, Any] = {
    "ctr": 0.4,
    "cvr": 0.02,
    "click_noise": 0.5,
    "n_numeric": 4,
    "n_categorical": 12,
    "n_categories": 1000,
}
# Number of logs of each kind, drawn with consecutive seeds.
N_LOGS = 3
# Rows of it to fit, with about 160 conversions.
N_TRAIN = 20_000
# Rows of it to score: more, so that scores vary by the fits and not by these rows.
N_TEST = 60_000
# Users of the generated log of visits.
N_USERS = 1500
# Items that they see there, each of one topic.
N_ITEMS = 300
N_TOPICS = 8
NEXT = """
Generated logs show what can happen, not what happens on yours. Compare models,
and then the losses, on a table of your own (text and category columns are
categories; name columns of ids with --categorical, and dates with --time):

  python -m sk_pwiser --data log.csv --targets click conversion --against-others
  python -m sk_pwiser --data log.csv --targets click conversion --weights 0.1 1
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison, or explain the rows of a file."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["explain"]:
        _explain.main(words[1:])
        return
    parser = make_parser()
    arguments = parser.parse_args(words)
    with messages_in_one_line(parser):
        check(arguments)
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Run the comparison that the arguments ask for."""
    if arguments.data is None:
        show_logs(arguments)
        folder = os.environ.get("SK_PWISER_DATA")  # with KuaiRand-Pure
        if folder:
            for second_task in ("engage", "long"):
                bunch = load_kuairand(folder, second_task, subset="train")
                title = f"KuaiRand, click and {second_task}"
                compare(title, bunch.data, bunch.target, arguments)
        print(NEXT)
        return
    X, Y, times, groups = read(arguments)
    dates = date_columns(X) if times is None else []
    model = make_model(arguments, value_tasks=read_value_tasks(arguments) or None)
    description = describe_impressions(X, Y, time=times, estimator=model)
    print(description)
    numbers = [*description.flagged("id"), *description.flagged("category")]
    if numbers:
        print("To read numbers as categories: --categorical", *numbers)
    for name in dates:
        print(
            f"If {name!r} orders the rows, judge and compare on later rows: --time",
            name,
        )
    compare(arguments.data.name, X, Y, arguments, times=times, groups=groups)
    if numbers:
        print("\nThese columns were read as numbers, which may mislead:", *numbers)
        print("Repeat the comparison with --categorical and their names.")
    if dates:
        print("\nThe folds are random, although these columns hold dates:", *dates)
        print("Repeat the comparison with --time and the one that orders the rows.")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sk_pwiser",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    columns: dict[str, Any] = {"nargs": "+", "default": [], "metavar": "COLUMN"}
    epochs = MultiTaskCTRCVRClassifier().max_epochs
    add("--data", type=Path, metavar="FILE", help="CSV or Parquet file of impressions")
    add(
        "--targets",
        **columns,
        help="columns of the file that hold the labels (0 and 1, no and yes, or false "
        "and true), in funnel order, for example: click conversion",
    )
    add(
        "--values",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN[:TASK]",
        help="columns of amounts to learn, and the target under which each arises, for "
        "example: spend:conversion; without a target, an amount per impression",
    )
    add("--categorical", **columns, help="columns to read as categories, as text is")
    add(
        "--time",
        metavar="COLUMN",
        help="column with ISO dates or numbers that order the rows, no feature: later "
        "rows judge columns and test the folds, and early stopping decides on the last "
        "ones (default: the column of dates in a Parquet file, if there is one)",
    )
    add(
        "--groups",
        metavar="COLUMN",
        help="column with the subject of each row, such as a person, no feature: new "
        "subjects test the folds and, without --against-others, decide on early "
        "stopping",
    )
    add(
        "--against-others",
        action="store_true",
        help="compare with models of other packages instead of the losses: logistic "
        "regression, gradient boosting and, where installed, LightGBM and CatBoost",
    )
    add("--ignore", **columns, help="columns of the file to leave out")
    add(
        "--weights",
        nargs="+",
        type=float,
        metavar="WEIGHT",
        help="values of pwiser_weight to compare",
    )
    add("--folds", type=int, default=5, help="number of folds (default: 5)")
    add("--seed", type=int, default=0, help="seed of folds and fits (default: 0)")
    add("--jobs", type=int, default=-1, help="parallel fits (default: one per CPU)")
    text = "largest number of epochs per fit (default: %(default)s)"
    add("--max-epochs", type=int, default=epochs, help=text)
    add(
        "--refit",
        action="store_true",
        help="train each network again on all rows of its fold, with the length that "
        "early stopping has found: up to twice the time",
    )
    return parser


# Options about a file of the user.
DATA_OPTIONS = (
    "values",
    "categorical",
    "time",
    "groups",
    "ignore",
    "against_others",
    "weights",
    "refit",
)


def check(arguments: argparse.Namespace) -> None:
    """Raise if options do not fit together."""
    if (arguments.data is None) != (not arguments.targets):
        raise ValueError("--data and --targets must be given together")
    if arguments.data is None:
        for option in DATA_OPTIONS:
            if getattr(arguments, option):
                name = option.replace("_", "-")
                raise ValueError(f"--{name} must be given with --data")
    value_tasks = read_value_tasks(arguments)
    for option in ("categorical", "ignore", "time", "groups"):
        value = getattr(arguments, option)
        names = [value] if isinstance(value, str) else value or []
        for name in names:
            if name in arguments.targets:
                raise ValueError(
                    f"--{option} contains {name!r}, which is one of the --targets."
                )
            if name in value_tasks:
                raise ValueError(
                    f"--{option} contains {name!r}, which is one of the --values."
                )
    if arguments.time in arguments.ignore:
        raise ValueError(f"--time and --ignore both name {arguments.time!r}.")
    if arguments.groups is not None:
        for option in ("categorical", "ignore"):
            if arguments.groups in getattr(arguments, option):
                raise ValueError(
                    f"--groups and --{option} both name {arguments.groups!r}."
                )
        if arguments.time is not None:
            raise ValueError(
                "--groups must be given without --time, which tests later rows of all "
                "subjects"
            )
    if arguments.against_others and arguments.weights:
        raise ValueError("--weights must be given without --against-others")


def read_value_tasks(arguments: argparse.Namespace) -> dict[str, str | None]:
    """Return the columns of amounts and the tasks under which they arise.

    The last colon ends the name of the column, since names may contain colons.
    """
    value_tasks: dict[str, str | None] = {}
    entries = ",".join(arguments.values).split(",") if arguments.values else []
    for entry in entries:
        column, colon, task = entry.strip().rpartition(":")
        if not colon:  # an amount per impression
            column = task
            task = ""
        if not column or column in value_tasks:
            raise ValueError(
                "--values must name different columns, such as spend:conversion; got "
                f"{' '.join(arguments.values)!r}"
            )
        if column in arguments.targets:
            raise ValueError(
                f"--values contains {column!r}, which is one of the --targets."
            )
        if task and task not in arguments.targets:
            raise ValueError(
                f"--values has the task {task!r} for {column!r}; it must be one of the "
                f"--targets, {arguments.targets}"
            )
        value_tasks[column] = task or None
    return value_tasks


def make_model(
    arguments: argparse.Namespace, **params: Any
) -> MultiTaskCTRCVRClassifier:
    """Return the estimator of all comparisons."""
    return MultiTaskCTRCVRClassifier(
        max_epochs=arguments.max_epochs, refit=arguments.refit, **params
    )


# Generated logs.


def show_logs(arguments: argparse.Namespace) -> None:
    """Print the scores of several models on each generated log, and what follows."""
    print(
        f"Mean scores over {N_LOGS} generated logs. Lower log loss is better. pred/obs "
        "is the\npredicted over the observed number of events; 1 is calibrated. This "
        "takes about\na minute.",
        flush=True,
    )
    print_scores(
        f"Rare conversions, 0.8 % of {N_TRAIN:,} rows to fit; half of the clicks are "
        "accidents;\nmany ids that say little",
        score_logs(score_rare, arguments),
        advice="  With few conversions and ids that say little, a simple model comes "
        "close:\n  compare with one first.",
        pairs=[
            ("sk_pwiser, pwiser", "sk_pwiser, bce"),
            ("sk_pwiser, pwiser", "logistic_regression"),
        ],
    )
    print_scores(
        "Users who come back, and are mostly new in the later half of the rows, which\n"
        "is scored; + past: with columns of sk_pwiser.history.HistoryFeatures",
        score_logs(score_visits, arguments),
        advice="  Give a model the past of its users and items before you choose the "
        "model.",
        pairs=[
            ("logistic_regression + past", "logistic_regression"),
            ("sk_pwiser + past", "sk_pwiser"),
            ("sk_pwiser + past", "logistic_regression + past"),
        ],
    )


def score_logs(
    score_log: Callable[..., Scores], arguments: argparse.Namespace
) -> list[Scores]:
    """Return the scores by model of each generated log; say when each is done."""
    seeds = range(arguments.seed, arguments.seed + N_LOGS)
    jobs = (joblib.delayed(score_log)(arguments, seed) for seed in seeds)
    parallel = joblib.Parallel(n_jobs=arguments.jobs, return_as="generator")
    scores = []
    for scores_of_log in parallel(jobs):
        scores.append(scores_of_log)
        print(f"log {len(scores)} of {N_LOGS} is done", file=sys.stderr, flush=True)
    return scores


def baselines() -> dict[str, Any]:
    """Return the models of scikit-learn."""
    names = ["logistic_regression", "hist_gradient_boosting"]
    return model_selection.named_models(names, n_tasks=2)


def score_rare(arguments: argparse.Namespace, seed: int) -> Scores:
    """Return the scores by model."""
    log = make_ctr_cvr(N_TRAIN + N_TEST, random_state=seed, **RARE_LOG)
    X = log.data.iloc[:N_TRAIN]
    Y = log.target.iloc[:N_TRAIN]
    X_test = log.data.iloc[N_TRAIN:]
    Y_test = log.target.iloc[N_TRAIN:]
    bce = make_model(arguments, loss="bce", random_state=seed)
    pwiser = make_model(arguments, random_state=seed)
    models = baselines() | {"sk_pwiser, bce": bce, "sk_pwiser, pwiser": pwiser}
    return {
        name: score(model.fit(X, Y), X_test, Y_test) for name, model in models.items()
    }


def score_visits(arguments: argparse.Namespace, seed: int) -> Scores:
    """Return the scores by model, without and with columns of the past."""
    X, Y = make_visits(N_USERS, seed)
    cut = len(X) // 2
    history = HistoryFeatures(["user", "item", ("user", "topic")], time="time")
    # Most users of later rows are new, so their past says more than their id.
    X_with_past = history.fit_transform(X[:cut], Y[:cut]).drop(columns="user")
    X_test_with_past = history.replay(X[cut:], Y[cut:]).drop(columns="user")
    X_plain = X.drop(columns="time")
    tables = {
        "": (X_plain[:cut], X_plain[cut:]),
        " + past": (X_with_past, X_test_with_past),
    }
    scores = {}
    for suffix, (train, test) in tables.items():
        for name, model in baselines().items():
            scores[name + suffix] = score(model.fit(train, Y[:cut]), test, Y[cut:])
        # Early stopping decides on the newest tenth.
        start = int(0.9 * cut)
        model = make_model(arguments, random_state=seed)
        model.fit(train[:start], Y[:start], eval_set=(train[start:], Y[start:cut]))
        scores["sk_pwiser" + suffix] = score(model, test, Y[cut:])
    return scores


def make_visits(n_users: int, seed: int) -> tuple[Any, Any]:
    """Return impressions in the order of time, and their labels.

    Users come and go within days, differ in how much they click and buy, and each
    prefers one topic.
    """
    pd = import_extra("pandas", "python -m sk_pwiser")
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), rng.poisson(16, n_users))
    n = len(user)
    start = rng.uniform(0, 30, n_users)
    taste, buys = rng.normal(size=(2, n_users))
    favourite = rng.integers(N_TOPICS, size=n_users)
    time = start[user] + rng.exponential(2, n)  # in days
    item = (N_ITEMS * rng.random(n) ** 2).astype(int)
    quality = rng.normal(0, 0.7, N_ITEMS)
    topic = item % N_TOPICS
    likes = 1.5 * (favourite[user] == topic)
    click_logit = -2 + taste[user] + likes + quality[item]
    conversion_logit = -2 + buys[user] + quality[item]
    click = rng.random(n) < special.expit(click_logit)
    conversion = click & (rng.random(n) < special.expit(conversion_logit))
    X = pd.DataFrame(
        {
            "user": pd.Categorical(user),
            "item": pd.Categorical(item),
            "topic": pd.Categorical(topic),
            "hour": time % 1 * 24,
            "time": pd.Timestamp("2026-03-01") + pd.to_timedelta(time, unit="D"),
        }
    )
    Y = pd.DataFrame({"click": click, "conversion": conversion}).astype("int8")
    order = np.argsort(time)
    X = X.iloc[order].reset_index(drop=True)
    Y = Y.iloc[order].reset_index(drop=True)
    return X, Y


def score(model: Any, X: Any, Y: Any) -> list[float]:
    """Return the AUC, log loss and calibration of each task, in one list."""
    probabilities = positive_probabilities(model, X, Y.shape[1])
    scores = []
    for y, p in zip(Y.to_numpy().T, probabilities.T, strict=True):
        scores += [roc_auc_score(y, p), log_loss(y, p), predicted_over_observed(y, p)]
    return scores


def print_scores(
    title: str,
    tables: Sequence[Scores],
    *,
    advice: str,
    pairs: Sequence[tuple[str, str]],
) -> None:
    """Print mean scores by model, differences of pairs in conversion AUC, advice."""
    names = f"{'AUC':>7}{'log loss':>9}{'pred/obs':>9}"
    print(f"\n{title}\n{'':40}click{'':19}conversion\n{'':29}{names}{names}")
    for model in tables[0]:
        means = np.mean([table[model] for table in tables], axis=0)
        cells = zip(means, 2 * ("7.4f", "9.4f", "9.2f"), strict=True)
        print(f"{model:29}" + "".join(f"{value:{form}}" for value, form in cells))
    conversion_auc = 3  # its place in the scores
    aucs = {
        model: np.array([table[model][conversion_auc] for table in tables])
        for model in tables[0]
    }
    best = max(aucs, key=lambda name: aucs[name].mean())
    print(f"In conversion AUC, {best} is best here.")
    for first, second in pairs:
        values = aucs[first] - aucs[second]
        place = "ahead of" if values.mean() > 0 else "behind"
        print(
            f"- {first} is {abs(values.mean()):.3f} {place} {second}\n"
            f"  ({values.min():+.3f} to {values.max():+.3f} log by log)."
        )
    print(advice, flush=True)


# Real impressions.


def read(arguments: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """Return the features, labels, times and groups in a CSV or Parquet file."""
    path = arguments.data
    targets = arguments.targets
    pd = import_extra("pandas", "--data")
    if is_parquet(path):
        frame = read_parquet(path, arguments.categorical, "--data")
    else:
        frame = read_csv(arguments)
    value_names = list(read_value_tasks(arguments))
    named_columns = [*targets, *value_names, *arguments.categorical, *arguments.ignore]
    if arguments.time is not None:
        named_columns.append(arguments.time)
    if arguments.groups is not None:
        named_columns.append(arguments.groups)
    check_columns(path, frame, named_columns)
    labels, missing, _ = read_labels(frame[targets], "ignore")
    if missing is not None:
        raise ValueError(
            f"{int(missing.sum())} labels of --targets are missing. Leave these rows "
            "out, or use compare_models, with missing_labels='ignore', in Python."
        )
    words = read_words(labels.reshape(len(frame), -1))
    labels = zero_one_labels(words, targets).astype("int8")
    Y = pd.DataFrame(labels, frame.index, targets).join(frame[value_names])
    no_features = [*targets, *value_names, *arguments.ignore]
    X = frame[frame.columns.difference(no_features, sort=False)]
    groups = None
    if arguments.groups is not None:
        groups = X[arguments.groups]
        X = X.drop(columns=arguments.groups)
    elif arguments.time is None:
        arguments.time = time_of_dates(X, path)
    times = None
    if arguments.time is not None:
        times = read_dates(X[arguments.time], arguments.time)
        X = X.drop(columns=arguments.time)
    categorical = X.columns.intersection(arguments.categorical)
    X = X.astype(dict.fromkeys(categorical, "category"))
    return X, Y, times, groups


def time_of_dates(X: Any, path: Path) -> str | None:
    """Return the only column of dates in a Parquet file, None without one."""
    dates = list(X.select_dtypes(["datetime", "datetimetz"]))
    if len(dates) > 1:
        raise ValueError(
            f"{path.name} has several columns of dates, {dates}: name the one that "
            "orders the rows with --time, and the others with --ignore."
        )
    if not dates:
        return None
    (name,) = dates
    print(
        f"The dates in {name!r} order the rows, as with --time {name}; to leave them "
        f"out: --ignore {name}",
        flush=True,
    )
    return name


def read_csv(arguments: argparse.Namespace) -> Any:
    """Return the table in a CSV file: categories as text, other columns as numbers.

    A value of a category is the same text everywhere in the file, unlike with types
    that pandas guesses by parts of the file: "007", "7" and "NA" are three values.
    """
    pd = import_extra("pandas", "--data")
    targets = arguments.targets
    # The separator tells the labels apart.
    frame = read_texts(arguments.data, targets, "--data")
    no_codes = {*targets, *read_value_tasks(arguments), arguments.time}
    columns = {}
    codes = []
    for name, column in frame.items():
        is_plain = name in no_codes
        if name in arguments.categorical and not is_plain:
            columns[name] = column
            continue
        numbers = read_numbers(column)
        if numbers is not None and not is_plain and begins_with_zero(column):
            # As postcodes and account numbers do.
            codes.append(name)
            numbers = None
        if numbers is None and is_plain:
            column = column.mask(column.str.strip().isin(MISSING_WORDS))
        columns[name] = column if numbers is None else numbers
    shown_codes = [name for name in codes if name not in arguments.ignore]
    if shown_codes:
        print("Read as categories, since their numbers begin with 0:", *shown_codes)
    return pd.DataFrame(columns)


def read_numbers(column: Any) -> Any:
    """Return a column of text as numbers, or None if it holds other text."""
    pd = import_extra("pandas", "--data")
    for hides_words in (False, True):
        try:
            if hides_words:
                is_word = column.str.strip().isin(MISSING_WORDS)
                if not is_word.any() or is_word[column.notna()].all():
                    return None
                column = column.mask(is_word)
            return pd.to_numeric(column)
        except ValueError:
            continue
    return None


def begins_with_zero(column: Any) -> bool:
    """Return whether whole numbers as text have zeros in front."""
    texts = column.dropna().str.strip()
    return texts.str.fullmatch(r"\d+").all() and texts.str.match(r"0\d").any()


# The offset from UTC at the end of a date, which databases write after a space; a time
# precedes it, since the day of a date looks like one.
OFFSET = r"(:\d\d\S*?)\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$"


def read_dates(column: Any, name: str) -> Any:
    """Return the times of `--time`: numbers as such, and ISO dates as dates."""
    pd = import_extra("pandas", "--data")
    is_date = pd.api.types.is_datetime64_any_dtype(column)
    if is_date or pd.api.types.is_numeric_dtype(column):
        return column
    texts = column.dropna().astype(str)
    try:
        with warnings.catch_warnings():
            # Older pandas warns of several offsets, and returns objects.
            warnings.simplefilter("error", FutureWarning)
            times = pd.to_datetime(texts, format="ISO8601")
    except (ValueError, FutureWarning):
        times = read_offsets(texts, name)
    if times.dt.tz is not None:
        times = times.dt.tz_convert("UTC")
    return times.reindex(column.index)


def read_offsets(texts: Any, name: str) -> Any:
    """Return ISO dates of text in UTC, whose offsets differ or stand after a space."""
    pd = import_extra("pandas", "--data")
    texts = texts.str.strip()
    has_offset = texts.str.fullmatch(f".*{OFFSET}")
    # Offsets differ between winter and summer.
    texts = texts.str.replace(OFFSET, r"\1\2", regex=True)
    texts = texts.str.replace(r"(?:UTC|GMT)$", "Z", regex=True)
    try:
        # The day and the month of 04/05/2026 could be confused.
        return pd.to_datetime(texts, format="ISO8601", utc=bool(has_offset.all()))
    except ValueError as error:
        raise ValueError(
            "--time must name a column of numbers, or of dates such as 2026-04-30 "
            f"or 2026-04-30T12:00; {name!r}: {str(error).split('. ')[0]}"
        ) from error


def date_columns(X: Any) -> list[str]:
    """Return the columns of text that hold dates which `--time` can read."""
    names = []
    for name, column in X.select_dtypes(["object", "string"]).items():
        values = column.dropna()
        if not values[:1].astype(str).str.fullmatch(DATE.pattern).any():
            continue  # most columns of text
        values = values.drop_duplicates().astype(str)
        if values.str.fullmatch(DATE.pattern).all():
            with contextlib.suppress(ValueError):
                read_dates(values, name)
                names.append(name)
    return names


def compare(
    title: str,
    X: Any,
    Y: Any,
    arguments: argparse.Namespace,
    *,
    times: Any = None,
    groups: Any = None,
) -> None:
    """Compare losses, or models of other packages, on a data set; print the result."""
    value_tasks = read_value_tasks(arguments)
    events = Y.drop(columns=list(value_tasks))
    rates = ", ".join(f"{task} {rate:.2%}" for task, rate in events.mean().items())
    folds = arguments.folds
    order = "stratified by funnel depth"
    if times is not None:
        folds = model_selection.FunnelTimeSplit(folds, time=times)
        order = f"in the order of {times.name!r}"
    elif groups is not None:
        splitter = model_selection.FunnelGroupKFold(folds, random_state=arguments.seed)
        folds = list(splitter.split(X, events, groups))
        order = f"of whole {groups.name!r}"
    print(
        f"\n{title}: {len(X):,} rows, {X.shape[1]} features; {rates}\n"
        f"{arguments.folds} folds {order}, seed {arguments.seed}",
        flush=True,
    )
    # The list silences warnings about columns that the description has named.
    params: dict[str, Any] = {"categorical_features": []}
    if times is not None:
        X = X.assign(**{times.name: times})
        params["encoding_params"] = {"time_column": times.name}
    model = make_model(arguments, **params)
    common = {
        "cv": folds,
        "n_jobs": arguments.jobs,
        "verbose": 1,
        "random_state": arguments.seed,
    }
    comparisons = []
    if arguments.against_others:
        models = model_selection.named_models("default", n_tasks=events.shape[1])
        if times is not None:
            drop = FunctionTransformer(type(X).drop, kw_args={"columns": times.name})
            models = {
                name: make_pipeline(drop, baseline) for name, baseline in models.items()
            }
        models["sk_pwiser"] = model
        comparisons.append(
            model_selection.compare_models(X, events, models=models, **common)
        )
        if value_tasks:
            models = model_selection.named_value_models(
                "default",
                value_tasks,
                classifier=model,
                left_out=() if times is None else [times.name],
            )
            comparisons.append(
                model_selection.compare_models(
                    X, Y, models=models, value_tasks=value_tasks, **common
                )
            )
    else:
        model.set_params(value_tasks=value_tasks or None)
        models = compared_losses(arguments.weights)
        comparisons.append(
            model_selection.compare_models(
                X,
                Y,
                models=models,
                estimator=model,
                params=None if groups is None else {"groups": groups},
                **common,
            )
        )
    for comparison in comparisons:
        seeds = f"Seeds of the folds: {comparison.seeds.tolist()}."
        print(comparison, comparison.seconds, seeds, sep="\n", flush=True)


def compared_losses(weights: Sequence[float] | None) -> dict[str, Any]:
    """Return both losses as models, PWiseR with each of the weights."""
    if weights is None:
        return {"bce": "bce", "pwiser": "pwiser"}
    models: dict[str, Any] = {"bce": "bce"}
    for weight in weights:
        params = {"loss": "pwiser", "pwiser_weight": weight}
        models[f"pwiser (weight {weight:g})"] = params
    return models


if __name__ == "__main__":
    main()
