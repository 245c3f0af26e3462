"""Scores of several models on generated logs."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import joblib
import numpy as np
from scipy import special
from sklearn.metrics import log_loss, roc_auc_score

from sk_pwiser import model_selection
from sk_pwiser._command._options import make_model
from sk_pwiser._responses import positive_probabilities
from sk_pwiser._utils._extras import import_extra
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.history import HistoryFeatures
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
