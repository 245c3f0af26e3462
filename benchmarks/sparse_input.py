"""Time and memory of training on a sparse matrix of a million columns.

    python benchmarks/sparse_input.py

The table is a CSR matrix of ones: 40 fields with 25,000 values each, one-hot encoded,
so that every row has 40 stored entries. The sizes are printed and checked. Half of the
values are drawn uniformly, the others with uneven frequencies. The log-odds of a click
and of a conversion after a click are sums over random weights of the columns. Each
model runs in a process of its own, which draws the same rows.

- `sk_pwiser`: one network for both tasks, one epoch with cross-entropy, a shared bottom
  of (128, 64) and towers of 32, in batches of 512 rows (the default) or of 4,096.
- `SGDClassifier` of scikit-learn: one logistic regression per task, one epoch each.
- `LightGBM`: one model per task, 20 trees each.
- `torch-rechub`: a shared bottom of the same widths, on sums of embeddings
  (`SequenceFeature` with `pooling="sum"`), in batches of 512 rows that are passed to
  its `MTLTrainer` as whole tensors. Its optimiser updates all columns in every step, so
  that the speed is measured on the first 51,200 rows, and there is no AUC.

"rows / s" is the number of rows over the processor's time of the whole fit, which other
load on the machine affects less than the time that passes; a model that needs several
passes over the rows therefore has a lower rate. "memory" is the peak of resident memory
in the fit, above the process with its rows, in relation to the memory of the CSR
matrix. "AUC" is measured for clicks and for conversions, on further rows. An epoch of a
network and of SGD, and a fixed number of trees, do not aim at the same AUC.
"""

import time
from functools import partial

import numpy as np
import torch
from _harness import (
    MIB,
    PeakMemory,
    aucs,
    begin,
    in_fresh_process,
    make_parser,
    require,
)
from _peers import PerTask, rechub, rechub_trainer, silence
from scipy.sparse import csr_matrix
from sklearn.linear_model import SGDClassifier

from sk_pwiser import MultiTaskCTRCVRClassifier

N_FIELDS = 40
N_TEST = 50_000
SGD = {"loss": "log_loss", "max_iter": 1, "tol": None, "random_state": 0}
RECHUB_ROWS = 51_200
UNITS, TOWER_UNITS, DIM = (128, 64), (32,), 16


def make_rows(n, n_columns, seed):
    """Return a CSR matrix of ones and the labels of both tasks."""
    generator = np.random.default_rng(seed)
    n_values = n_columns // N_FIELDS
    columns = np.empty((n, N_FIELDS), dtype=np.int32)
    for field in range(N_FIELDS):
        uniform = generator.random(n) < 0.5
        drawn = generator.random(n) ** np.where(uniform, 1, 4)
        columns[:, field] = field * n_values + (n_values * drawn).astype(np.int32)
    weights = np.random.default_rng(0).normal(0, 0.25, size=(n_columns, 2))
    labels = np.ones(n, dtype=np.int64)
    Y = np.empty((n, 2), dtype=np.int64)
    for task, intercept in enumerate((-2.0, -1.0)):
        logits = intercept + weights[columns, task].sum(axis=1)
        labels = labels * (generator.random(n) < 1 / (1 + np.exp(-logits)))
        Y[:, task] = labels
    offsets = np.arange(n + 1, dtype=np.int32) * N_FIELDS
    values = np.ones(n * N_FIELDS, dtype=np.float32)
    return csr_matrix((values, columns.ravel(), offsets), shape=(n, n_columns)), Y


def network(batch_size):
    return MultiTaskCTRCVRClassifier(
        loss="bce",
        network_params={"bottom_units": UNITS, "tower_units": TOWER_UNITS},
        embedding_dim=DIM,
        batch_size=batch_size,
        max_epochs=1,
        early_stopping=False,
        random_state=0,
    )


def trees():
    params = {"n_jobs": torch.get_num_threads(), "verbose": -1}
    kind = require("lightgbm", "LightGBM").LGBMClassifier
    return PerTask(kind(n_estimators=20, **params))


class RechubSums:
    """A shared bottom of torch-rechub on sums of embeddings."""

    def fit(self, X, Y):
        kind = rechub("basic.features").SequenceFeature
        feature = kind("columns", X.shape[1], DIM, pooling="sum")
        tasks, towers = ["classification"] * 2, [{"dims": list(TOWER_UNITS)}] * 2
        bottom = rechub("models.multi_task").SharedBottom
        model = bottom([feature], tasks, {"dims": list(UNITS)}, towers)
        columns = torch.from_numpy(X.indices.reshape(-1, N_FIELDS))
        order = torch.randperm(len(columns)).split(512)
        labels = torch.from_numpy(Y)
        batches = [({"columns": columns[rows]}, labels[rows]) for rows in order]
        with silence():
            rechub_trainer(model, 2).train_one_epoch(batches)
        return self


RECHUB = "torch-rechub"
MODELS = {
    "sk_pwiser, batches of 512": partial(network, 512),
    "sk_pwiser, batches of 4,096": partial(network, 4_096),
    "SGDClassifier": lambda: PerTask(SGDClassifier(**SGD)),
    "LightGBM": trees,
    RECHUB: RechubSums,
}


def measure(name, size):
    """Fit a model; return its number of rows, seconds, memory and AUC."""
    X, Y = make_rows(size, size, seed=1)
    # Imports and the first calls of libraries are no part of the fit.
    MODELS[name]().fit(*make_rows(2_000, 40 * 50, seed=2))
    model = MODELS[name]()
    if name == RECHUB:
        X, Y = X[:RECHUB_ROWS], Y[:RECHUB_ROWS]
    with PeakMemory() as memory:
        started, began = time.process_time(), time.perf_counter()
        model.fit(X, Y)
        seconds = time.process_time() - started, time.perf_counter() - began
    found = None
    if hasattr(model, "predict_proba"):
        X_test, Y_test = make_rows(N_TEST, size, seed=3)
        found = aucs(Y_test, model.predict_proba(X_test))
    return len(Y), seconds, memory.n_bytes, found


TASKS = "click AUC", "conversion AUC"


def size_text(size):
    """Check the sizes of the table; return them as a text, and the bytes of the CSR."""
    X, Y = make_rows(size, size, seed=1)
    assert X.shape == (size, size)
    assert X.nnz == size * N_FIELDS == np.count_nonzero(X.data)
    assert (np.diff(X.indptr) == N_FIELDS).all()
    assert X.has_canonical_format
    used = np.count_nonzero(np.bincount(X.indices, minlength=X.shape[1]))
    assert used > 0.95 * size, f"{used} columns occur"
    n_bytes = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    return (
        f"{X.shape[0]:,} rows, {X.shape[1]:,} columns of which {used:,} occur, "
        f"{X.nnz:,} stored entries, {N_FIELDS} in every row; {n_bytes / MIB:,.0f} MiB; "
        f"clicks {Y[:, 0].mean():.3f}, conversions {Y[:, 1].mean():.3f}"
    ), n_bytes


def main():
    arguments, report = begin("sparse_input", make_parser(__doc__))
    # Of rows, and of columns.
    size, threads = 20_000 if arguments.quick else 10**6, arguments.threads
    text, n_bytes = in_fresh_process(size_text, size, threads=threads)
    report.text(text, "")
    report.table(["rows", "rows / s", "CPU s", "wall s", "memory", *TASKS])
    for name in MODELS:
        n, (processor, passed), memory, found = in_fresh_process(
            measure, name, size, threads=threads
        )
        auc = [f"{value:.4f}" for value in found] if found else ["-", "-"]
        peak = f"{memory / MIB:,.0f} MiB, {memory / n_bytes:.1f}x"
        numbers = n, n / processor, processor, passed
        report.row(name, [*(f"{number:,.0f}" for number in numbers), peak, *auc])


if __name__ == "__main__":
    main()
