"""AUC on real impressions compared with torch-rechub, for networks of the same shape.

    pip install ".[benchmark]"
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
0.01 and output biases at the base rates. ESMM of torch-rechub takes no numeric columns;
for ESMM, numbers are therefore cut at their quantiles in both packages.

The row `unseen values` adds this package's category dropout. Learning rates and numbers
of epochs were chosen on a later part of the training days (`--part validation`), not on
the test part: first the ones with the best mean AUC of torch-rechub's shared bottom,
then the best of this package if they differ.

torch-rechub is trained with its `MTLTrainer.train_one_epoch`. Its `fit` is not used,
since it requires validation data, stops early on them and writes weights to disk. The
default weight decay of 0.00001 of the trainer and the data loader of torch-rechub are
not used either.

A cell is the mean over the seeds, followed by the standard deviation. `+-` is the
difference to torch-rechub with its standard error. The error covers the noise of the
seeds, not the noise of the rows, and is imprecise for few seeds: only differences far
above twice the error are meaningful. Seconds are not compared, because torch-rechub
receives whole batches here, unlike in its own loader.
"""

from itertools import product

import numpy as np
import pandas as pd
import torch
from _harness import aucs, begin, data_folder, make_parser, mean_log_loss, spread
from _peers import (
    RechubBatches,
    encoded_rows,
    rechub,
    rechub_features,
    rechub_layers,
    rechub_predict,
    rechub_trainer,
    rechub_version,
    silence,
)
from _tables import PLAIN, load_tables

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._table._encoder import TableEncoder
from sk_pwiser._training._batches import BatchIterator

NO_CATEGORY_DROPOUT = {"encoding_params": {"category_dropout": 0.0}}
EXPERT_UNITS, TOWER_UNITS = (128, 64), (32,)
N_BINS = 20
# Learning rates and numbers of epochs: the best for torch-rechub (of 0.0005 to 0.01
# and 1 to 5), then the best for this package (of 0.001 to 0.01 and 1 to 3).
SETTINGS = {"engage": [(0.01, 2), (0.003, 2)], "long": [(0.003, 1)]}
# The parameters of the networks of this package; `peer_network` returns the others.
OWN = {
    "shared_bottom": {"bottom_units": EXPERT_UNITS, "tower_units": TOWER_UNITS},
    "mmoe": {
        "n_experts": 4,
        "expert_units": EXPERT_UNITS,
        "tower_units": TOWER_UNITS,
    },
    "ple": {
        "n_experts": 1,
        "n_shared_experts": 2,
        "n_levels": 2,
        "expert_units": EXPERT_UNITS,
        "tower_units": TOWER_UNITS,
    },
    "esmm": {"tower_units": (*EXPERT_UNITS, *TOWER_UNITS)},
    "aitm": {"tower_units": EXPERT_UNITS},
}


def peer_network(name, features):
    """Return the network of torch-rechub that has the same shape."""
    models, tasks = rechub("models.multi_task"), ["classification"] * 2
    units, towers = rechub_layers(EXPERT_UNITS), [rechub_layers(TOWER_UNITS)] * 2
    if name == "shared_bottom":
        return models.SharedBottom(features, tasks, units, towers)
    if name == "mmoe":
        return models.MMOE(features, tasks, 4, units, towers)
    if name == "ple":
        return models.PLE(features, tasks, 2, 1, 2, units, towers)
    if name == "aitm":
        # Its bottoms are the towers of this package, its towers are linear maps.
        return models.AITM(features, 2, units, [rechub_layers(())] * 2)
    # It concatenates the features of users and items; the division is arbitrary.
    tower = rechub_layers((*EXPERT_UNITS, *TOWER_UNITS))
    return models.ESMM(features[:1], features[1:], tower, tower)


def cut_numbers(X, X_test):
    """Return the tables with numeric columns cut at the quantiles of the first."""
    X, X_test = X.copy(), X_test.copy()
    for name in X.select_dtypes("number"):
        edges = X[name].quantile(np.arange(1, N_BINS) / N_BINS).unique()
        edges = [-np.inf, *edges, np.inf]
        for table in (X, X_test):
            table[name] = pd.cut(table[name], edges, labels=False).astype("category")
    return X, X_test


def fit_peer(network, tables, arguments, lr, n_epochs, seed):
    """Train a network of torch-rechub; return the test probabilities."""
    X, X_test, Y, Y_test = tables
    encoder = TableEncoder()
    train = encoded_rows(encoder.fit_transform(X), Y)
    test = encoded_rows(encoder.transform(X_test), Y_test)
    numeric = {"numeric": encoder.n_numeric_}
    with torch.random.fork_rng(), silence():
        torch.manual_seed(seed)
        features = rechub_features(
            encoder.cardinalities_, numeric, arguments.embedding_dim
        )
        model = peer_network(network, features)
        # ESMM returns CVR, CTR and CTCVR and is trained on the last two.
        outputs, labels = ([1, 2], [1, 0, 1]) if network == "esmm" else ([0, 1], [0, 1])
        params = {"lr": lr, "weight_decay": 0.0}
        trainer = rechub_trainer(model, len(labels), optimizer_params=params)
        batches = BatchIterator(train, arguments.batch_size, "shuffled")
        for _ in range(n_epochs):
            trainer.train_one_epoch(RechubBatches(batches, labels))
    return rechub_predict(model, test)[:, outputs]


def fit_own(network, params, tables, seed):
    """Train a network of this package; return the test probabilities."""
    X, X_test, Y, _ = tables
    params = {**PLAIN, **params}
    model = MultiTaskCTRCVRClassifier(network=network, random_state=seed, **params)
    return model.fit(X, Y).predict_proba(X_test)


def print_row(report, label, results, peer=None):
    """Print means and deviations, and differences to torch-rechub if it was run."""
    results, cells = np.array(results), []
    for k in range(2):
        values = results[:, k]
        cells.append(spread(values))
        if peer is None:
            cells.append("")
            continue
        other = np.array(peer)[:, k]
        both = [v.std(ddof=1) if len(v) > 1 else np.nan for v in (values, other)]
        error = np.hypot(*both) / np.sqrt(len(other))
        cells.append(f"{values.mean() - other.mean():+.4f} +- {error:.4f}")
    report.row(label, [*cells, f"{results[:, 2].mean():.4f}"])


def compare(report, network, tables, arguments, lr, n_epochs):
    """Print the rows of one network."""
    X, X_test, Y, Y_test = tables
    if network == "esmm":
        X, X_test = cut_numbers(X, X_test)
    tables = X, X_test, Y, Y_test
    same = {
        "network_params": OWN[network] | {"monotonicity_weight": 0.0},
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
    }

    def results(fit):
        runs = [fit(seed) for seed in range(arguments.seeds)]
        return [(*aucs(Y_test, p), mean_log_loss(Y_test, p)) for p in runs]

    peer = None
    report.text(f"{network}, lr {lr:g}, {n_epochs} epoch(s)")
    if "peer" in arguments.rows:
        peer = results(
            lambda seed: fit_peer(network, tables, arguments, lr, n_epochs, seed)
        )
        print_row(report, f"torch-rechub {rechub_version()}", peer)
    for row, (label, params) in own.items():
        if row in arguments.rows:
            found = results(
                lambda seed, params=params: fit_own(network, params, tables, seed)
            )
            print_row(report, label, found, peer)


def main():
    parser = make_parser(__doc__, seeds=3)
    rows = ["peer", "same", "unseen"]
    parser.add_argument("--data", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--networks", nargs="+", choices=OWN, default=OWN)
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows)
    parser.add_argument("--lr", type=float, nargs="+", help="replaces the settings")
    epochs = {"default": [2], "help": "used with --lr"}
    parser.add_argument("--epochs", type=int, nargs="+", **epochs)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--embedding-dim", type=int, default=16)
    parser.add_argument("--part", choices=["test", "validation"], default="test")
    arguments, report = begin("peers", parser, seeds=1)
    sizes = arguments.batch_size, arguments.embedding_dim
    report.text("batches of {}, embeddings of {}".format(*sizes))
    path = data_folder()
    for name in arguments.data:
        tables = load_tables(name, path, arguments.part)[:4]
        if arguments.quick:
            tables = [table[:5_000] for table in tables]
        X, X_test, Y, _ = tables
        size = f"{len(X):,} rows, {len(X_test):,} held out, {X.shape[1]} columns"
        rates = ", ".join(f"{task} {rate:.1%}" for task, rate in Y.mean().items())
        report.text("", f"{name}: {size};")
        report.text(f"{rates}; {arguments.seeds} seeds; part: {arguments.part}")
        columns = [cell for task in Y for cell in (f"{task} AUC", "")]
        report.table([*columns, "log loss"])
        settings = SETTINGS[name]
        if arguments.lr:
            settings = product(arguments.lr, arguments.epochs)
        for network, (lr, n_epochs) in product(arguments.networks, settings):
            compare(report, network, tables, arguments, lr, n_epochs)
    report.save()


if __name__ == "__main__":
    main()
