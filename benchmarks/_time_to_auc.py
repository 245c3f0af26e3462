"""Time to LightGBM's test AUC on the second task of KuaiRand.

The clock of an estimator starts with the call of `fit` and includes encoding and
validation. It is stopped while the weights are copied, after every epoch and `SHOTS`
times within each. The copies are tested after training; the result is the time of the
first copy whose test AUC is at least that of LightGBM in the same round. This measures
time only: the results are not used to choose anything.

LightGBM is fitted to the second task only, with its default parameters (100 trees) and
with early stopping as in `real_auc.py`. scikit-learn's MLPClassifier learns that task
from one-hot columns, with one call of `partial_fit` per epoch; its time includes the
one-hot encoding. Each round has its own seed; the seed changes LightGBM's models only
through the validation rows of early stopping.
"""

import os
import time
import warnings
from copy import deepcopy

import numpy as np
from _timing import at_most, literal_pairs
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch.callbacks import Callback

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import load_kuairand

SHOTS = 4
N_EPOCHS = 3
OWN = {"defaults": {}, "bce": {"loss": "bce"}, "batch of 2,048": {"batch_size": 2048}}


class Snapshots(Callback):
    """Keep copies of the weights during training, with the seconds since `begin`."""

    def begin(self):
        self.paused, self.kept, self.batches = 0.0, [], 0
        self.started = time.perf_counter()
        return self

    def on_train_begin(self, net, X=None, **kwargs):
        n_batches = -(-len(X.train) // net.batch_size)
        self.every = max(1, n_batches // SHOTS)

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.batches += 1
            if self.batches % self.every == 0:
                self.keep(net)

    def on_epoch_end(self, net, **kwargs):
        self.keep(net)

    def keep(self, net):
        now = time.perf_counter()
        weights = deepcopy(net.module_.state_dict())
        self.kept.append((now - self.started - self.paused, weights))
        self.paused += time.perf_counter() - now


def follow_own(data, seed, device, params):
    """Return the seconds and the test AUC of every copy of a fit."""
    X, X_test, Y, y_test = data
    snapshots = Snapshots()
    model = MultiTaskCTRCVRClassifier(
        random_state=seed, device=device, callbacks=[snapshots], **params
    )
    snapshots.begin()
    model.fit(X, Y)
    seconds, aucs = [], []
    for elapsed, weights in snapshots.kept:
        model.net_.module_.load_state_dict(weights)
        seconds.append(elapsed)
        aucs.append(roc_auc_score(y_test, model.predict_proba(X_test)[:, 1]))
    return np.array(seconds), np.array(aucs)


def follow_perceptron(data, seed):
    """Return the seconds and the test AUC of every epoch of an MLPClassifier."""
    X, X_test, Y, y_test = data
    y = Y.iloc[:, 1].to_numpy()
    columns = make_column_transformer(
        (
            OneHotEncoder(handle_unknown="ignore", min_frequency=2, dtype=np.float32),
            make_column_selector(dtype_include="category"),
        ),
        remainder=make_pipeline(SimpleImputer(), StandardScaler()),
    )
    started = time.perf_counter()
    inputs = columns.fit_transform(X)
    elapsed = time.perf_counter() - started
    inputs_test = columns.transform(X_test)
    model = MLPClassifier((128, 64), batch_size=2048, random_state=seed)
    seconds, aucs = [], []
    for _ in range(N_EPOCHS):
        started = time.perf_counter()
        model.partial_fit(inputs, y, classes=[0, 1])
        elapsed += time.perf_counter() - started
        seconds.append(elapsed)
        aucs.append(roc_auc_score(y_test, model.predict_proba(inputs_test)[:, 1]))
    return np.array(seconds), np.array(aucs)


def fit_boosting(data, seed, threads, stop_early):
    """Return the seconds and the test AUC of LightGBM."""
    try:
        import lightgbm
    except ImportError as error:
        raise ImportError(
            'the comparison needs LightGBM: pip install "sk_pwiser[benchmark]"'
        ) from error
    X, X_test, Y, y_test = data
    y, params, options = Y.iloc[:, 1].to_numpy(), {}, {}
    started = time.perf_counter()
    if stop_early:
        X, X_valid, y, y_valid = train_test_split(
            X, y, test_size=0.1, stratify=y, random_state=seed
        )
        params = {"n_estimators": 500, "learning_rate": 0.05}
        options["eval_set"] = [(X_valid, y_valid)]
        options["callbacks"] = [lightgbm.early_stopping(20, verbose=False)]
    model = lightgbm.LGBMClassifier(n_jobs=threads, verbose=-1, **params)
    with warnings.catch_warnings():
        # LightGBM 4.7 deprecates `eval_set`, which older versions need.
        warnings.simplefilter("ignore")
        model.fit(X, y, **options)
    seconds = time.perf_counter() - started
    return seconds, roc_auc_score(y_test, model.predict_proba(X_test)[:, 1])


def time_to(auc, seconds, aucs):
    """Return the seconds until an AUC was reached, or infinity if it was not."""
    reached = seconds[aucs >= auc]
    return reached[0] if len(reached) else np.inf


def load_rows(quick):
    """Return `X, X_test, Y, y_test` of the data set."""
    path = os.environ.get("SK_PWISER_DATA")
    if not path:
        raise SystemExit("Set SK_PWISER_DATA to the folder of the data sets.")
    train = load_kuairand(path, subset="train")
    test = load_kuairand(path, subset="test")
    rows = slice(0, 5_000 if quick else None)
    y_test = test.target.iloc[rows, 1].to_numpy()
    return train.data[rows], test.data[rows], train.target[rows], y_test


def report_time_to_auc(report, arguments):
    """Measure, round by round, and print the table."""
    data = load_rows(arguments.quick)
    goals = {"LightGBM": False, "LightGBM, early stopping": True}
    given = literal_pairs(arguments.param)
    own = {name: {**params, **given} for name, params in OWN.items()}
    if arguments.quick:
        own = {name: {**params, "max_epochs": 2} for name, params in own.items()}
    boosted = {name: [] for name in goals}
    followed = {name: [] for name in [*own, "MLPClassifier"]}
    for seed in range(arguments.rounds):
        for name, stop_early in goals.items():
            found = fit_boosting(data, seed, arguments.threads, stop_early)
            boosted[name].append(found)
        for name, params in own.items():
            found = follow_own(data, seed, arguments.device, params)
            followed[name].append(found)
        followed["MLPClassifier"].append(follow_perceptron(data, seed))
    for goal, fits in boosted.items():
        print_goal(report, goal, np.array(fits), followed)


def print_goal(report, goal, fits, followed):
    """Print the times to the test AUC of one LightGBM."""
    seconds, aucs = fits.T
    report.section(f"Time to the test AUC of {goal}", "over its time to fit")
    absolute = f"{np.median(seconds):.1f} s"
    report.line(f"{goal}, test AUC {np.median(aucs):.4f}", absolute=absolute)
    for name, follows in followed.items():
        times = np.array(
            [time_to(auc, *f) for auc, f in zip(aucs, follows, strict=True)]
        )
        best = np.median([reached.max() for _, reached in follows])
        label = f"{name}, best test AUC {best:.4f}"
        if np.isinf(times).any():
            missed = int(np.isinf(times).sum())
            report.line(label, absolute=f"{missed} of {len(times)} never")
            continue
        target = None if name == "MLPClassifier" else at_most(3)
        report.line(
            label,
            times / seconds,
            absolute=f"{np.median(times):.1f} s",
            target=target,
        )
