"""AUC on real impressions compared with torch-rechub, for networks of the same shape.

    pip install ".[benchmark]"
    python benchmarks/peers.py                          # everything, 3 seeds
    python benchmarks/peers.py --networks mmoe --data engage

The data are read from the folder that SK_PWISER_DATA names. The rows of a network
differ in the package only. Both have

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

Learning rates and numbers of epochs were chosen on a later part of the training days,
not on the test part: first the ones with the best mean AUC of torch-rechub's shared
bottom, then the best of this package if they differ.

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
from _harness import (
    aucs,
    begin,
    data_folder,
    make_parser,
    mean_log_loss,
    rates_of,
    spread,
)
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
from scipy.stats import sem

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._rows._batches import BatchIterator

EXPERT_UNITS, TOWER_UNITS = (128, 64), (32,)
BATCH_SIZE, EMBEDDING_DIM, N_BINS = 512, 16, 20
# Learning rates and numbers of epochs: the best for torch-rechub (of 0.0005 to 0.01
# and 1 to 5), then the best for this package (of 0.001 to 0.01 and 1 to 3).
SETTINGS = {"engage": [(0.01, 2), (0.003, 2)], "long": [(0.003, 1)]}
# The parameters of the networks of this package; `peer_network` returns the others.
EXPERTS = {"expert_units": EXPERT_UNITS, "tower_units": TOWER_UNITS}
OWN = {
    "shared_bottom": {"bottom_units": EXPERT_UNITS, "tower_units": TOWER_UNITS},
    "mmoe": {"n_experts": 4, **EXPERTS},
    "ple": {"n_experts": 1, "n_shared_experts": 2, "n_levels": 2, **EXPERTS},
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


def fit_peer(network, tables, lr, n_epochs, seed):
    """Train a network of torch-rechub; return the test probabilities."""
    X, X_test, Y, Y_test = tables
    encoder = TableEncoder()
    train = encoded_rows(encoder.fit_transform(X), Y, encoder)
    test = encoded_rows(encoder.transform(X_test), Y_test, encoder)
    numeric = {"numeric": len(encoder.numeric_bins_)}
    with torch.random.fork_rng(), silence():
        torch.manual_seed(seed)
        features = rechub_features(encoder.cardinalities_, numeric, EMBEDDING_DIM)
        model = peer_network(network, features)
        # ESMM returns CVR, CTR and CTCVR and is trained on the last two.
        outputs, labels = ([1, 2], [1, 0, 1]) if network == "esmm" else ([0, 1], [0, 1])
        params = {"lr": lr, "weight_decay": 0.0}
        trainer = rechub_trainer(model, len(labels), optimizer_params=params)
        batches = BatchIterator(train, BATCH_SIZE, "shuffled")
        for _ in range(n_epochs):
            trainer.train_one_epoch(RechubBatches(batches, labels))
    return rechub_predict(model, test)[:, outputs]


def fit_own(network, tables, lr, n_epochs, seed):
    """Train a network of this package; return the test probabilities."""
    X, X_test, Y, _ = tables
    model = MultiTaskCTRCVRClassifier(
        **PLAIN,
        network=network,
        network_params=OWN[network] | {"monotonicity_weight": 0.0},
        encoding_params={"category_dropout": 0.0},
        loss="bce",
        embedding_dim=EMBEDDING_DIM,
        batch_size=BATCH_SIZE,
        lr=lr,
        max_epochs=n_epochs,
        early_stopping=False,
        device="cpu",
        random_state=seed,
    )
    return model.fit(X, Y).predict_proba(X_test)


def print_row(report, label, results, peer=None):
    """Print means and deviations, and differences to torch-rechub if it was run."""
    cells = []
    for k, values in enumerate(np.transpose(results)[:2]):
        cells += [spread(values), ""]
        if peer is not None:
            other = np.transpose(peer)[k]
            error = np.hypot(sem(values), sem(other)) if len(other) > 1 else np.nan
            cells[-1] = f"{np.mean(values) - np.mean(other):+.4f} +- {error:.4f}"
    report.row(label, [*cells, f"{np.mean(results, axis=0)[2]:.4f}"])


def compare(report, network, tables, arguments, *setting):
    """Print the rows of one network."""
    X, X_test, Y, Y_test = tables
    if network == "esmm":
        X, X_test = cut_numbers(X, X_test)

    def results(fit):
        found = []
        for seed in range(arguments.seeds):
            p = fit(network, (X, X_test, Y, Y_test), *setting, seed)
            found.append((*aucs(Y_test, p), mean_log_loss(Y_test, p)))
        return found

    peer = None
    report.text("{}, lr {:g}, {} epoch(s)".format(network, *setting))
    if "peer" in arguments.rows:
        peer = results(fit_peer)
        print_row(report, f"torch-rechub {rechub_version()}", peer)
    if "same" in arguments.rows:
        print_row(report, "sk_pwiser, the same", results(fit_own), peer)


def main():
    parser = make_parser(
        __doc__, seeds=3, data=SETTINGS, networks=OWN, rows=["peer", "same"]
    )
    arguments, report = begin("peers", parser, seeds=1)
    report.text(f"batches of {BATCH_SIZE}, embeddings of {EMBEDDING_DIM}")
    path = data_folder()
    for name in arguments.data:
        tables = load_tables(name, path)[:4]
        if arguments.quick:
            tables = [table[:5_000] for table in tables]
        X, X_test, Y, _ = tables
        size = f"{len(X):,} rows, {len(X_test):,} held out, {X.shape[1]} columns"
        report.text("", f"{name}: {size};")
        report.text(f"{rates_of(Y)}; {arguments.seeds} seeds; part: test")
        columns = [cell for task in Y for cell in (f"{task} AUC", "")]
        report.table([*columns, "log loss"])
        for network, setting in product(arguments.networks, SETTINGS[name]):
            compare(report, network, tables, arguments, *setting)


if __name__ == "__main__":
    main()
