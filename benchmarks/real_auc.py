"""AUC on real impressions: every network and loss, and two common baselines.

    python benchmarks/real_auc.py                    # everything, 3 seeds
    python benchmarks/real_auc.py --networks shared_bottom --data engage long
    python benchmarks/real_auc.py --part validation --param lr=0.001
    python benchmarks/real_auc.py --part validation \\
        --compare network_params__interaction=None,cross,fm

The data are read from the folder that SK_PWISER_DATA names. With `--part test` (the
default) the models are trained on the training part and tested on the test part. With
`--part validation` the test part is not used: the training part is split once more, by
time for KuaiRand, at random for Hillstrom. The defaults of the estimator were chosen
there.

A cell is the mean over the seeds, followed by the standard deviation. The baselines are
one model per task, on the same rows; their CVR is the ratio of their probabilities.
They are deterministic and run once.
"""

import argparse
import ast
import os
import platform
import time
import warnings
from itertools import product

import numpy as np
import torch
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import load_hillstrom, load_kuairand
from sk_pwiser.losses import LOSSES
from sk_pwiser.model_selection import funnel_depth
from sk_pwiser.networks import NETWORKS

COLUMNS = ("first AUC", "second AUC", "CVR AUC", "log loss", "epochs", "seconds")


def load(name, path, part):
    """Return `X, X_test, Y, Y_test` of a data set."""
    if name == "hillstrom":
        bunch = load_hillstrom(path, subset="train")
        held_out = None
        if part == "test":
            held_out = load_hillstrom(path, subset="test")
    else:
        bunch = load_kuairand(path, name, subset="train")
        held_out = None
        if part == "test":
            held_out = load_kuairand(path, name, subset="test")
    if held_out is not None:
        return bunch.data, held_out.data, bunch.target, held_out.target
    if name == "hillstrom":
        depth = funnel_depth(bunch.target)
        return train_test_split(
            bunch.data, bunch.target, test_size=0.3, stratify=depth, random_state=1
        )
    # The last third of the time: the test part follows the training part, too.
    late = bunch.time_ms >= np.quantile(bunch.time_ms, 0.61)
    return bunch.data[~late], bunch.data[late], bunch.target[~late], bunch.target[late]


class PerTask:
    """One scikit-learn classifier per task, used like a multi-task model."""

    def __init__(self, fit_one):
        self.fit_one = fit_one

    def fit(self, X, Y):
        self.models_ = [self.fit_one(X, Y[task].to_numpy()) for task in Y]
        return self

    def predict_proba(self, X):
        return np.column_stack([m.predict_proba(X)[:, 1] for m in self.models_])

    def predict_cvr(self, X):
        p = self.predict_proba(X)
        return p[:, -1] / p[:, 0]


def fit_logistic_regression(X, y):
    columns = make_column_transformer(
        (
            OneHotEncoder(handle_unknown="ignore", min_frequency=2),
            make_column_selector(dtype_include="category"),
        ),
        remainder=make_pipeline(SimpleImputer(), StandardScaler()),
    )
    return make_pipeline(columns, LogisticRegression(C=0.1, max_iter=300)).fit(X, y)


def fit_lightgbm(X, y):
    try:
        import lightgbm
    except ImportError as error:
        raise ImportError(
            'the baseline needs LightGBM: pip install "sk_pwiser[benchmark]"'
        ) from error
    X, X_valid, y, y_valid = train_test_split(
        X, y, test_size=0.1, stratify=y, random_state=0
    )
    model = lightgbm.LGBMClassifier(n_estimators=500, learning_rate=0.05, verbose=-1)
    stop = lightgbm.early_stopping(20, verbose=False)
    with warnings.catch_warnings():
        # LightGBM 4.7 deprecates `eval_set`, which older versions need.
        warnings.simplefilter("ignore")
        return model.fit(X, y, eval_set=[(X_valid, y_valid)], callbacks=[stop])


BASELINES = {"logistic regression": fit_logistic_regression, "LightGBM": fit_lightgbm}


def evaluate(model, X, X_test, Y, Y_test):
    """Fit a model and return the figures of `COLUMNS`."""
    started = time.perf_counter()
    model.fit(X, Y)
    seconds = time.perf_counter() - started
    p, Y_test = model.predict_proba(X_test), Y_test.to_numpy()
    clicked = Y_test[:, 0] == 1
    return (
        roc_auc_score(Y_test[:, 0], p[:, 0]),
        roc_auc_score(Y_test[:, 1], p[:, 1]),
        roc_auc_score(Y_test[clicked, 1], model.predict_cvr(X_test)[clicked]),
        np.mean([log_loss(Y_test[:, k], p[:, k]) for k in range(2)]),
        getattr(model, "n_iter_", np.nan),
        seconds,
    )


def print_row(label, results):
    results = np.array(results)
    cells = []
    for column, values in zip(COLUMNS, results.T, strict=True):
        digits = 1 if column in ("epochs", "seconds") else 4
        cell = "-" if np.isnan(values).any() else f"{values.mean():.{digits}f}"
        if len(values) > 1 and cell != "-":
            cell += f" ({values.std(ddof=1):.{digits}f})"
        cells.append(f"{cell:>16}")
    print(f"{label:<40}" + "".join(cells), flush=True)


def run(name, arguments, path):
    """Print the table of one data set."""
    data = load(name, path, arguments.part)
    X, X_test, Y, _ = data
    rates = ", ".join(f"{n} {r:.1%}" for n, r in zip(Y.columns, Y.mean(), strict=True))
    print(f"\n{name}: {len(X):,} rows, {len(X_test):,} held out, {X.shape[1]} columns;")
    print(f"{rates}; {arguments.seeds} seeds; part: {arguments.part}")
    print(f"{'':<40}" + "".join(f"{column:>16}" for column in COLUMNS))
    for label in arguments.baselines:
        print_row(label, [evaluate(PerTask(BASELINES[label]), *data)])
    compared, values = arguments.compare
    for network, loss, value in product(arguments.networks, arguments.losses, values):
        params = arguments.param if compared is None else {compared: value}
        models = (
            MultiTaskCTRCVRClassifier(
                network=network, loss=loss, random_state=seed
            ).set_params(**{**arguments.param, **params})
            for seed in range(arguments.seeds)
        )
        label = f"{network}, {loss}" + ("" if compared is None else f", {value}")
        print_row(label, [evaluate(m, *data) for m in models])


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = ["engage", "long", "hillstrom"]
    parser.add_argument("--data", nargs="+", choices=sets, default=sets)
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--baselines", nargs="*", choices=BASELINES, default=BASELINES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", choices=["test", "validation"], default="test")
    parser.add_argument(
        "--param",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="parameters of the estimator, Python literals or words",
    )
    parser.add_argument(
        "--compare",
        metavar="NAME=VALUE,VALUE...",
        help="a parameter of the estimator and its values, one row per value",
    )
    arguments = parser.parse_args()
    pairs = (pair.partition("=") for pair in arguments.param)
    arguments.param = {name: literal(value) for name, _, value in pairs}
    name, _, values = (arguments.compare or "").partition("=")
    arguments.compare = (name or None), [literal(v) for v in values.split(",")]
    return arguments


def literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main():
    arguments = parse()
    path = os.environ.get("SK_PWISER_DATA")
    if not path:
        raise SystemExit("Set SK_PWISER_DATA to the folder of the data sets.")
    device = "CUDA" if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {device}")
    print(f"parameters: {arguments.param or 'the defaults'}")
    for name in arguments.data:
        run(name, arguments, path)


if __name__ == "__main__":
    main()
