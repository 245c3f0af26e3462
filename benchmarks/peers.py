"""AUC on real impressions compared with torch-rechub, for networks of the same shape.

    pip install "sk_pwiser[benchmark]"
    python benchmarks/peers.py                          # everything, 3 seeds
    python benchmarks/peers.py --networks mmoe --data engage
    python benchmarks/peers.py --part validation --lr 0.003 0.01 --epochs 1 2

The data are read from the folder that SK_PWISER_DATA names. The first two rows of a
network differ in the package only. Both have

- the same codes and standardised numbers, from the encoder of this package, and the
  same batch sampler;
- the same widths, numbers of experts and levels, and embeddings; no dropout;
- cross-entropy, equal weights of the tasks, and Adam at one learning rate without
  weight decay;
- a fixed number of epochs, without early stopping;
- neither category dropout nor a monotonicity penalty, which torch-rechub does not have.

The numbers of parameters are then equal, except for batch normalisation and 192 biases
in AITM. The remaining differences are: torch-rechub has batch normalisation in every
layer, gates included, and initialises embeddings with a scale of 0.0001; this package
has no normalisation, gates with uniform initial weights, embeddings with a scale of
0.01 and output biases at the base rates. ESMM of torch-rechub takes no numeric columns,
so that for ESMM they are cut at their quantiles for both packages.

Two more rows follow: `unseen values` adds this package's category dropout, and
`defaults` is its estimator with default parameters except for the widths: PWiseR, its
own learning rate, early stopping. Learning rates and numbers of epochs were chosen on a
later part of the training days (`--part validation`), not on the test part: first those
with the best mean AUC of torch-rechub's shared bottom, then those of this package if
they differ.

torch-rechub is trained with its `MTLTrainer.train_one_epoch`. Its `fit` is not used,
since it requires validation data, stops early on them and writes weights to disk. The
default weight decay of 0.00001 of the trainer and the data loader of torch-rechub are
not used either.

A cell is the mean over the seeds, followed by the standard deviation. `+-` is the
difference to torch-rechub with its standard error. The error covers the noise of the
seeds, not that of the rows, and is imprecise for few seeds: only differences far above
twice the error are meaningful. The seconds are those of the training loops; they are
not a benchmark, because torch-rechub receives whole batches here, unlike in its own
loader.
"""

import argparse
import contextlib
import importlib.metadata
import io
import os
import platform
import time
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from _tables import PLAIN
from real_auc import load
from sklearn.metrics import log_loss, roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._table._encoder import TableEncoder
from sk_pwiser._training._batches import BatchIterator, Impressions
from sk_pwiser.networks import NETWORKS

try:
    from torch_rechub.basic.features import DenseFeature, SparseFeature
    from torch_rechub.models.multi_task import AITM, ESMM, MMOE, PLE, SharedBottom
    from torch_rechub.trainers import MTLTrainer
except ImportError as error:
    raise ImportError(
        'the comparison needs torch-rechub: pip install "sk_pwiser[benchmark]"'
    ) from error

NO_CATEGORY_DROPOUT = {"encoding_params": {"category_dropout": 0.0}}
PEER = f"torch-rechub {importlib.metadata.version('torch-rechub')}"
EXPERT_UNITS, TOWER_UNITS = (128, 64), (32,)
N_BINS = 20
# Learning rates and numbers of epochs: the best for torch-rechub (of 0.0005 to 0.01
# and 1 to 5), then those for this package (of 0.001 to 0.01 and 1 to 3).
SETTINGS = {"engage": [(0.01, 2), (0.003, 2)], "long": [(0.003, 1)]}


def layers(units):
    return {"dims": list(units), "activation": "relu", "dropout": 0.0}


TASKS = ["classification"] * 2
TOWERS = [layers(TOWER_UNITS)] * 2


class Pairing(NamedTuple):
    """Parameters of a network of this package, and a builder of the peer's network."""

    own: dict
    build: Callable
    categories_only: bool = False


PAIRINGS = {
    "shared_bottom": Pairing(
        {"bottom_units": EXPERT_UNITS, "tower_units": TOWER_UNITS},
        lambda features: SharedBottom(features, TASKS, layers(EXPERT_UNITS), TOWERS),
    ),
    "mmoe": Pairing(
        {"n_experts": 4, "expert_units": EXPERT_UNITS, "tower_units": TOWER_UNITS},
        lambda features: MMOE(features, TASKS, 4, layers(EXPERT_UNITS), TOWERS),
    ),
    "ple": Pairing(
        {
            "n_experts": 1,
            "n_shared_experts": 2,
            "n_levels": 2,
            "expert_units": EXPERT_UNITS,
            "tower_units": TOWER_UNITS,
        },
        lambda features: PLE(features, TASKS, 2, 1, 2, layers(EXPERT_UNITS), TOWERS),
    ),
    "esmm": Pairing(
        {"tower_units": (*EXPERT_UNITS, *TOWER_UNITS)},
        # It concatenates the features of users and items; the division is arbitrary.
        lambda features: ESMM(
            features[:1],
            features[1:],
            layers((*EXPERT_UNITS, *TOWER_UNITS)),
            layers((*EXPERT_UNITS, *TOWER_UNITS)),
        ),
        categories_only=True,
    ),
    "aitm": Pairing(
        {"tower_units": EXPERT_UNITS},
        # Its bottoms are the towers of this package, its towers are linear maps.
        lambda features: AITM(features, 2, layers(EXPERT_UNITS), [layers(())] * 2),
    ),
}


class Encoded(NamedTuple):
    """An encoded data set."""

    train: Impressions
    test: Impressions
    cardinalities: list
    n_numeric: int


def encode(X, X_test, Y, Y_test):
    encoder = TableEncoder()
    tables = [encoder.fit_transform(X), encoder.transform(X_test)]
    parts = [
        Impressions(*map(torch.from_numpy, table), torch.tensor(labels.to_numpy()))
        for table, labels in zip(tables, (Y, Y_test), strict=True)
    ]
    return Encoded(*parts, encoder.cardinalities_, encoder.n_numeric_)


def cut_numbers(X, X_test):
    """Return the tables with numeric columns cut at the quantiles of the first."""
    X, X_test = X.copy(), X_test.copy()
    for name in X.select_dtypes("number"):
        edges = X[name].quantile(np.arange(1, N_BINS) / N_BINS).unique()
        edges = [-np.inf, *edges, np.inf]
        for table in (X, X_test):
            table[name] = pd.cut(table[name], edges, labels=False).astype("category")
    return X, X_test


def peer_features(data, embedding_dim):
    """Describe the columns, once per model: the peer stores embeddings on them."""
    features = [
        SparseFeature(f"column {j}", vocab_size=size, embed_dim=embedding_dim)
        for j, size in enumerate(data.cardinalities)
    ]
    if data.n_numeric:
        features.append(DenseFeature("numeric", embed_dim=data.n_numeric))
    return features


class PeerBatches:
    """Whole batches in the peer's form, which are faster than lists of rows."""

    def __init__(self, batches, label_columns):
        self.batches, self.label_columns = batches, label_columns

    def __iter__(self):
        for inputs, y in self.batches:
            columns = enumerate(inputs["codes"].unbind(1))
            x = {f"column {j}": codes for j, codes in columns}
            yield x | {"numeric": inputs["numeric"]}, y[:, self.label_columns]


def fit_peer(pairing, data, arguments, lr, n_epochs, seed):
    """Train a network of the peer; return test probabilities and seconds."""
    with torch.random.fork_rng(), contextlib.redirect_stdout(io.StringIO()):
        torch.manual_seed(seed)
        model = pairing.build(peer_features(data, arguments.embedding_dim))
        # ESMM returns CVR, CTR and CTCVR and is trained on the last two.
        is_chain = isinstance(model, ESMM)
        outputs = [1, 2] if is_chain else [0, 1]
        trainer = MTLTrainer(
            model,
            ["classification"] * (1 + outputs[-1]),
            optimizer_params={"lr": lr, "weight_decay": 0.0},
        )
        labels = [1, 0, 1] if is_chain else [0, 1]
        batches = BatchIterator(data.train, arguments.batch_size, "shuffled")
        started = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            for _ in range(n_epochs):
                trainer.train_one_epoch(PeerBatches(batches, labels))
        seconds = time.perf_counter() - started
        model.eval()
        with torch.no_grad():
            rows = PeerBatches(BatchIterator(data.test, 8192), labels)
            p = torch.cat([model(x)[:, outputs] for x, _ in rows])
    return p.double().numpy(), seconds


def fit_own(network, params, X, X_test, Y, seed):
    """Train a network of this package; return test probabilities and seconds."""
    params = {**PLAIN, **params}
    model = MultiTaskCTRCVRClassifier(network=network, random_state=seed, **params)
    model.fit(X, Y)
    seconds = sum(row["dur"] for row in model.history_)
    return model.predict_proba(X_test), seconds


def figures(p, seconds, Y_test):
    y = Y_test.to_numpy()
    return (
        *(roc_auc_score(y[:, k], p[:, k]) for k in range(2)),
        np.mean([log_loss(y[:, k], p[:, k]) for k in range(2)]),
        seconds,
    )


def print_row(label, results, peer=None):
    """Print means and deviations, and differences to the peer if it was run."""
    results, line = np.array(results), f"  {label:<28}"
    for k in range(2):
        line += f"{results[:, k].mean():>10.4f} ({deviation(results[:, k]):.4f})"
        if peer is None:
            line += f"{'':>20}"
            continue
        other = np.array(peer)[:, k]
        difference = results[:, k].mean() - other.mean()
        error = np.hypot(deviation(results[:, k]), deviation(other))
        error /= np.sqrt(len(other))
        line += f"{difference:>+10.4f} +- {error:.4f}"
    mean_log_loss, seconds = results[:, 2:].mean(axis=0)
    print(f"{line}{mean_log_loss:>10.4f}{seconds:>8.0f}", flush=True)


def deviation(values):
    return values.std(ddof=1) if len(values) > 1 else np.nan


def compare(network, tables, arguments, lr, n_epochs):
    """Print the rows of one network."""
    pairing = PAIRINGS[network]
    X, X_test, Y, Y_test = tables
    if pairing.categories_only:
        X, X_test = cut_numbers(X, X_test)
    data = encode(X, X_test, Y, Y_test)
    same = {
        "network_params": pairing.own | {"monotonicity_weight": 0.0},
        "loss": "bce",
        "embedding_dim": arguments.embedding_dim,
        "batch_size": arguments.batch_size,
        "lr": lr,
        "max_epochs": n_epochs,
        "early_stopping": False,
        "device": "cpu",
    }
    own = {
        "same": ("sk_pwiser, the same", same | NO_CATEGORY_DROPOUT),
        "unseen": ("sk_pwiser, unseen values", same),
        "defaults": ("sk_pwiser, defaults", {"network_params": pairing.own}),
    }
    seeds, peer = range(arguments.seeds), None
    print(f"{network}, lr {lr:g}, {n_epochs} epoch(s)", flush=True)
    if "peer" in arguments.rows:
        runs = (fit_peer(pairing, data, arguments, lr, n_epochs, s) for s in seeds)
        peer = [figures(*run, Y_test) for run in runs]
        print_row(PEER, peer)
    for row, (label, params) in own.items():
        if row in arguments.rows:
            runs = (fit_own(network, params, X, X_test, Y, s) for s in seeds)
            print_row(label, [figures(*run, Y_test) for run in runs], peer)


def run(name, arguments, path):
    """Print the table of one data set."""
    tables = load(name, path, arguments.part)
    X, X_test, Y, _ = tables
    rates = ", ".join(f"{n} {r:.1%}" for n, r in zip(Y.columns, Y.mean(), strict=True))
    print(f"\n{name}: {len(X):,} rows, {len(X_test):,} held out, {X.shape[1]} columns;")
    print(f"{rates}; {arguments.seeds} seeds; part: {arguments.part}")
    columns = "".join(f"{f'{task} AUC':>19}{'':>20}" for task in Y.columns)
    print(f"{'':<30}{columns}{'log loss':>10}{'seconds':>8}")
    for network in arguments.networks:
        if network not in NETWORKS:
            print(f"{network}: not in this version of sk_pwiser")
            continue
        settings = SETTINGS[name]
        if arguments.lr:
            settings = product(arguments.lr, arguments.epochs)
        for lr, n_epochs in settings:
            compare(network, tables, arguments, lr, n_epochs)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = ["peer", "same", "unseen", "defaults"]
    parser.add_argument("--data", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--networks", nargs="+", choices=PAIRINGS, default=PAIRINGS)
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, nargs="+", help="replaces the settings")
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=[2], help="used with --lr"
    )
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--embedding-dim", type=int, default=16)
    parser.add_argument("--part", choices=["test", "validation"], default="test")
    return parser.parse_args()


def main():
    arguments = parse()
    path = os.environ.get("SK_PWISER_DATA")
    if not path:
        raise SystemExit("Set SK_PWISER_DATA to the folder of the data sets.")
    threads = f"{torch.get_num_threads()} thread(s)"
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {threads}")
    print(f"batches of {arguments.batch_size}, embeddings of {arguments.embedding_dim}")
    for name in arguments.data:
        run(name, arguments, path)


if __name__ == "__main__":
    main()
