"""Time to LightGBM's test AUC on the second task of KuaiRand.

    SK_PWISER_DATA=/path/to/data python benchmarks/time_to_auc.py
    python benchmarks/time_to_auc.py --param lr=0.003

The clock of an estimator starts with the call of `fit` and includes encoding and
validation. It is stopped while the weights are copied, after every epoch and `SHOTS`
times within each. The copies are tested after training; the result is the time of the
first copy whose test AUC is at least LightGBM's in the same round. This measures time
only: the results are not used to choose anything.

LightGBM is fitted to the second task only, with its default parameters (100 trees) and
with early stopping as in `real_auc.py`. scikit-learn's MLPClassifier learns that task
from one-hot columns, with one call of `partial_fit` per epoch, three in all; its time
includes the one-hot encoding. Each round has its own seed; the seed changes LightGBM's
models only through the validation rows of early stopping.
"""

import time
from copy import deepcopy

import numpy as np
from _harness import at_most, begin, data_folder, literal_pairs, make_parser
from _peers import fit_lightgbm, one_hot_columns
from _tables import load_tables
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from skorch.callbacks import Callback

from sk_pwiser import MultiTaskCTRCVRClassifier

SHOTS = 4
N_EPOCHS = 3
OWN = {"defaults": {}, "bce": {"loss": "bce"}, "batch of 2,048": {"batch_size": 2048}}
GOALS = {"LightGBM": False, "LightGBM, early stopping": True}
PERCEPTRON = "MLPClassifier"


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
    columns = one_hot_columns(dtype=np.float32)
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


def time_boosting(data, seed, stop_early):
    """Return the seconds and the test AUC of LightGBM."""
    X, X_test, Y, y_test = data
    y = Y.iloc[:, 1].to_numpy()
    started = time.perf_counter()
    model = fit_lightgbm(X, y, stop_early=stop_early, seed=seed)
    seconds = time.perf_counter() - started
    return seconds, roc_auc_score(y_test, model.predict_proba(X_test)[:, 1])


def time_to(auc, seconds, aucs):
    """Return the seconds until an AUC was reached, or infinity if it was not."""
    reached = seconds[aucs >= auc]
    return reached[0] if len(reached) else np.inf


def report_time_to_auc(report, arguments):
    """Measure, round by round, and print the table."""
    tables = load_tables("engage", data_folder())
    rows = slice(0, 5_000 if arguments.quick else None)
    X, X_test, Y, Y_test = (part[rows] for part in tables[:4])
    data = X, X_test, Y, Y_test.iloc[:, 1].to_numpy()
    given = literal_pairs(arguments.param)
    given |= {"max_epochs": 2} if arguments.quick else {}
    boosted = {name: [] for name in GOALS}
    followed = {name: [] for name in [*OWN, PERCEPTRON]}
    for seed in range(arguments.rounds):
        for name, stop_early in GOALS.items():
            boosted[name].append(time_boosting(data, seed, stop_early))
        for name, params in OWN.items():
            found = follow_own(data, seed, arguments.device, params | given)
            followed[name].append(found)
        followed[PERCEPTRON].append(follow_perceptron(data, seed))
    for goal, fits in boosted.items():
        print_goal(report, goal, np.array(fits), followed)


def print_goal(report, goal, fits, followed):
    """Print the times to the test AUC of one LightGBM."""
    seconds, aucs = fits.T
    report.section(f"Time to the test AUC of {goal}", "over its time to fit")
    absolute = f"{np.median(seconds):.1f} s"
    report.line(f"{goal}, test AUC {np.median(aucs):.4f}", absolute=absolute)
    for name, follows in followed.items():
        pairs = zip(aucs, follows, strict=True)
        times = np.array([time_to(auc, *follow) for auc, follow in pairs])
        best = np.median([reached.max() for _, reached in follows])
        label = f"{name}, best test AUC {best:.4f}"
        if missed := np.isinf(times).sum():
            report.line(label, absolute=f"{missed} of {len(times)} never")
            continue
        report.line(
            label,
            times / seconds,
            absolute=f"{np.median(times):.1f} s",
            target=None if name == PERCEPTRON else at_most(3),
        )


def main():
    parser = make_parser(__doc__, rounds=3)
    help_text = "parameters of the estimator"
    parser.add_argument("--param", nargs="*", default=[], help=help_text)
    arguments, report = begin("time_to_auc", parser)
    report_time_to_auc(report, arguments)
    report.save()


if __name__ == "__main__":
    main()
