"""Models and loops that the package is compared with.

- Bare torch loops on prepared tensors: `BareMMoE` is written in the usual way, with one
  module per expert, gate and tower. `BareStackedMMoE` has the same sizes, but computes
  all experts of a layer, and all towers, as one product. `train_bare` is a loop of
  indexing, forward pass, loss, backward pass and Adam, and nothing else.
- The training loops of skorch and of torch-rechub, in the form in which they are
  usually run.
- Models of other packages with `fit(X, Y)` and `predict_proba(X)` of shape
  (n_samples, n_tasks): those of `compare_models`, with early stopping on a tenth of the
  training rows, and those of torch-rechub. A missing package raises ImportError, with
  the command that installs it.
"""

import contextlib
import copy
import io
from dataclasses import replace
from functools import partial
from importlib import metadata, util
from itertools import pairwise

import numpy as np
import torch
from _harness import mean_log_loss, require
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder
from skorch import NeuralNet
from torch import nn
from torch.nn import functional as F

from sk_pwiser._columns._codes import UNSEEN
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._rows._batches import BatchIterator
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser.model_selection import funnel_holdout
from sk_pwiser.model_selection._package_models import (
    CATBOOST_STEPS,
    HIST_STEPS,
    IS_CATEGORY,
    CatBoost,
    PlainColumns,
    StopsEarly,
    early_stopped_lightgbm,
    logistic_regression,
    with_statistics,
)

# ---------------------------------------------------------------- bare torch loops

EXPERT_UNITS, TOWER_UNITS = (128, 64), (64,)
N_EXPERTS, N_TASKS, EMBEDDING_DIM = 4, 2, 16


def perceptron(n_in, units):
    layers = []
    for a, b in pairwise([n_in, *units]):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers)


class BareMMoE(nn.Module):
    """Embeddings, experts, one gate and one tower per task; returns logits."""

    def __init__(self, cardinalities, n_numeric):
        super().__init__()
        self.embedding = nn.Embedding(sum(cardinalities), EMBEDDING_DIM)
        nn.init.normal_(self.embedding.weight, std=0.01)
        self.width = len(cardinalities) * EMBEDDING_DIM + n_numeric
        self.build()

    def build(self):
        width, n_out = self.width, EXPERT_UNITS[-1]
        self.experts = nn.ModuleList(
            perceptron(width, EXPERT_UNITS) for _ in range(N_EXPERTS)
        )
        self.gates = nn.ModuleList(nn.Linear(width, N_EXPERTS) for _ in range(N_TASKS))
        self.towers = nn.ModuleList(perceptron(n_out, TOWER_UNITS) for _ in self.gates)
        self.outputs = nn.ModuleList(nn.Linear(TOWER_UNITS[-1], 1) for _ in self.gates)

    def inputs(self, codes, numeric):
        return torch.cat([self.embedding(codes).flatten(1), numeric], dim=1)

    def forward(self, codes, numeric):
        x = self.inputs(codes, numeric)
        experts = torch.stack([expert(x) for expert in self.experts], dim=1)
        logits = []
        for gate, tower, output in zip(
            self.gates, self.towers, self.outputs, strict=True
        ):
            mixed = torch.bmm(gate(x).softmax(dim=1).unsqueeze(1), experts)
            logits.append(output(tower(mixed.squeeze(1))))
        return torch.cat(logits, dim=1)


class BareStackedMMoE(BareMMoE):
    """The same network, with one product for all experts or towers of a layer."""

    def build(self):
        (first, second), n_gates = EXPERT_UNITS, N_TASKS * N_EXPERTS
        self.first = nn.Linear(self.width, N_EXPERTS * first + n_gates)
        self.second = stacked(N_EXPERTS, first, second)
        self.tower = stacked(N_TASKS, second, TOWER_UNITS[0])
        self.output = stacked(N_TASKS, TOWER_UNITS[0], 1)

    def forward(self, codes, numeric):
        first = self.first(self.inputs(codes, numeric))
        n_hidden, n = N_EXPERTS * EXPERT_UNITS[0], len(first)
        hidden = first[:, :n_hidden].relu().view(n, N_EXPERTS, -1).transpose(0, 1)
        experts = apply(self.second, hidden).relu()
        gates = first[:, n_hidden:].view(n, N_TASKS, N_EXPERTS).softmax(dim=2)
        mixed = torch.bmm(gates, experts.transpose(0, 1)).transpose(0, 1)
        logits = apply(self.output, apply(self.tower, mixed).relu())
        return logits.squeeze(2).t()


def stacked(n_stacked, n_in, n_out):
    bound = n_in**-0.5
    return nn.ParameterDict(
        {
            "weight": torch.empty(n_stacked, n_in, n_out).uniform_(-bound, bound),
            "bias": torch.zeros(n_stacked, 1, n_out),
        }
    )


def apply(layer, x):
    return torch.baddbmm(layer["bias"], x, layer["weight"])


def bare_loss(logits, y):
    """Sum the tasks' mean cross-entropy."""
    return F.binary_cross_entropy_with_logits(logits, y, reduction="none").mean(0).sum()


def train_bare(model, optimizer, data, batch_size, precision="float32"):
    """Train for one epoch, in random order, with all tensors on one device."""
    device = data.y.device
    model.train()
    order = torch.randperm(len(data.y), device=device)
    enabled = precision == "bfloat16"
    for rows in order.split(batch_size):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
            logits = model(data.codes[rows], data.numeric[rows])
        bare_loss(logits.float(), data.y[rows]).backward()
        optimizer.step()


def bare_run(kind, cardinalities, data, batch_size, *, precision="float32", **adam):
    """Return a function that trains a bare model for one more epoch."""
    model = kind(cardinalities, data.numeric.shape[1]).to(data.y.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **adam)
    return lambda: train_bare(model, optimizer, data, batch_size, precision)


def predict_bare(model, data, batch_size):
    """Return the probabilities of all rows."""
    model.eval()
    with torch.inference_mode():
        parts = zip(
            data.codes.split(batch_size), data.numeric.split(batch_size), strict=True
        )
        return torch.cat([model(*part).sigmoid() for part in parts])


# ---------------------------------------------------------------- loops of packages


class BareLoss(nn.Module):
    """The loss of the bare loop, as a module for skorch."""

    def forward(self, logits, y):
        return bare_loss(logits, y)


def skorch_run(cardinalities, data, batch_size, device):
    """Return a function that trains the bare model with skorch for one more epoch.

    skorch's own data set returns single rows, and torch's default loader collates them.
    """
    net = NeuralNet(
        BareMMoE,
        module__cardinalities=cardinalities,
        module__n_numeric=data.numeric.shape[1],
        criterion=BareLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=batch_size,
        max_epochs=1,
        iterator_train__shuffle=True,
        train_split=None,
        device=device,
        verbose=0,
    ).initialize()
    X = {"codes": data.codes.cpu(), "numeric": data.numeric.cpu()}
    y = data.y.cpu()
    return lambda: net.partial_fit(X, y) and None


def rechub(module):
    """Import a module of torch-rechub."""
    return require(f"torch_rechub.{module}", "torch-rechub")


def rechub_version():
    """Return the version of torch-rechub, or None if it is not installed."""
    found = util.find_spec("torch_rechub")
    return found and metadata.version("torch-rechub")


@contextlib.contextmanager
def silence():
    """Suppress prints, such as the trainer's progress bar and losses."""
    silent = io.StringIO()
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        yield


def rechub_layers(units):
    """Describe the layers of a perceptron for torch-rechub."""
    return {"dims": list(units), "activation": "relu", "dropout": 0.0}


def rechub_features(cardinalities, numeric, embedding_dim):
    """Describe the columns for torch-rechub, which stores a model's embeddings there.

    `numeric` has the number of inputs of each numeric feature.
    """
    features = rechub("basic.features")
    return [
        features.SparseFeature(f"category {j}", vocab_size=n, embed_dim=embedding_dim)
        for j, n in enumerate(cardinalities)
    ] + [features.DenseFeature(name, embed_dim=n) for name, n in numeric.items() if n]


def rechub_trainer(model, n_tasks, **params):
    """Return torch-rechub's trainer of several tasks."""
    tasks = ["classification"] * n_tasks
    return rechub("trainers").MTLTrainer(model, tasks, **params)


def rechub_run(cardinalities, data, batch_size, device, joined=False):
    """Return a function that trains torch-rechub's MMoE for one more epoch.

    It uses `MTLTrainer.train_one_epoch` and the loader of `DataGenerator` of
    torch-rechub, with one feature per column, as in its examples. `joined` passes the
    numeric columns as one feature, which is faster. The networks of torch-rechub have
    batch normalisation in every layer.
    """
    n_numeric = data.numeric.shape[1]
    each = {f"numeric {j}": 1 for j in range(n_numeric)}
    shape = {"numeric": n_numeric} if joined else each
    features = rechub_features(cardinalities, shape, EMBEDDING_DIM)
    model = rechub("models.multi_task").MMOE(
        features,
        ["classification"] * N_TASKS,
        N_EXPERTS,
        rechub_layers(EXPERT_UNITS),
        [rechub_layers(TOWER_UNITS)] * N_TASKS,
    )
    trainer = rechub_trainer(
        model,
        N_TASKS,
        optimizer_params={"lr": 1e-3, "weight_decay": 0.0},
        device=device,
    )
    offsets = torch.tensor([0, *cardinalities]).cumsum(0)[:-1]
    codes = (data.codes.cpu() - offsets).numpy()
    numeric = data.numeric.cpu().numpy()
    x = {f"category {j}": codes[:, j].copy() for j in range(len(cardinalities))}
    if joined:
        x["numeric"] = numeric
    else:
        x |= {name: numeric[:, j].copy() for j, name in enumerate(each)}
    generator = rechub("utils.data").DataGenerator(x, data.y.cpu().numpy())
    with silence():
        loader, _, _ = generator.generate_dataloader(
            split_ratio=[1.0, 0.0], batch_size=batch_size
        )

    def run():
        with silence():
            trainer.train_one_epoch(loader)

    return run


class RechubBatches:
    """Whole batches in the form of torch-rechub, faster than lists of rows."""

    def __init__(self, batches, label_columns):
        self.batches, self.label_columns = batches, label_columns

    def __iter__(self):
        for inputs, y in self.batches:
            columns = enumerate(inputs["codes"].unbind(1))
            x = {f"category {j}": codes for j, codes in columns}
            yield x | {"numeric": inputs["numeric"]}, y[:, self.label_columns]


def rechub_predict(model, rows):
    """Return the probabilities of a network, of shape (n, n_outputs)."""
    model.eval()
    with torch.no_grad():
        batches = RechubBatches(BatchIterator(rows, 8192), [0])
        p = torch.cat([model(x) for x, _ in batches])
    return p.double().numpy().reshape(len(rows), -1)


# ---------------------------------------------------------------- one model per task


class WithoutNewIds(TransformerMixin, BaseEstimator):
    """Leaves out category columns most of whose values are new in the last tenth.

    The rows are in the order of time. Trees learn such values, as of users, by heart.
    """

    def fit(self, X, y=None):
        cut = int(0.9 * len(X))
        known = {name: X[name][cut:].isin(X[name][:cut]) for name in IS_CATEGORY(X)}
        self.names_ = [n for n in X if n not in known or known[n].mean() >= 0.5]
        return self

    def transform(self, X):
        return X[self.names_]


class PerTask:
    """One classifier per task, as a multi-task model."""

    def __init__(self, model):
        self.model = model

    def fit(self, X, Y):
        self.models_ = [clone(self.model).fit(X, y) for y in np.asarray(Y).T]
        return self

    def predict_proba(self, X):
        return np.column_stack([m.predict_proba(X)[:, 1] for m in self.models_])


class RatesOfAllTasks(PerTask):
    """One classifier per task, which reads the rates of all tasks per value."""

    def __init__(self, model, seed):
        self.model, self.folds = model, STATISTICS["TargetEncoder"](seed)

    def fit(self, X, Y):
        self.rates_ = [
            with_statistics("passthrough", self.folds) for _ in np.asarray(Y).T
        ]
        columns = zip(self.rates_, np.asarray(Y).T, strict=True)
        X = self._joined(rates.fit_transform(X, y) for rates, y in columns)
        return super().fit(X, Y)

    def predict_proba(self, X):
        return super().predict_proba(
            self._joined(rates.transform(X) for rates in self.rates_)
        )

    @staticmethod
    def _joined(tables):
        first, *others = tables
        for k, table in enumerate(others):
            first = first.join(table.filter(like="rates__").add_suffix(f"_{k}"))
        return first


def lightgbm(seed, *, small):
    """Return LightGBM with early stopping."""
    require("lightgbm", "LightGBM")
    return early_stopped_lightgbm(torch.get_num_threads(), seed, small=small)


def hist_gradient_boosting(seed, *, small):
    """Return scikit-learn's boosted trees with early stopping on a tenth of the rows.

    Category columns have at most 255 values there: rare ones share a code.
    """
    params = {"max_leaf_nodes": 8, "min_samples_leaf": 100} if small else {}
    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
        max_categories=255,
    ).set_output(transform="pandas")
    columns = make_column_transformer(
        (make_pipeline(codes, FunctionTransformer(as_categories)), IS_CATEGORY),
        remainder="passthrough",
    ).set_output(transform="pandas")
    trees = HistGradientBoostingClassifier(random_state=seed, **HIST_STEPS, **params)
    return make_pipeline(columns, trees)


def as_categories(X):
    return X.astype("category")


def catboost(seed, *, small):
    """Return CatBoost with early stopping, and its own statistics of categories."""
    require("catboost", "CatBoost")
    params = {
        "random_state": seed,
        "thread_count": torch.get_num_threads(),
    } | CATBOOST_STEPS
    params |= {"depth": 4} if small else {}
    return StopsEarly(CatBoost(params), seed)


TREES = {
    "LightGBM": lightgbm,
    "HistGradientBoosting": hist_gradient_boosting,
    "CatBoost": catboost,
}
STATISTICS = {
    "TargetEncoder": lambda seed: StratifiedKFold(5, shuffle=True, random_state=seed),
    "TargetEncoder by time": lambda seed: KFold(10),
}
SMALL, WITHOUT_NEW, OF_ALL = "small leaves", "without new ids", "rates of all tasks"


def peer(name, seed=0):
    """Return the classifier of one task: a model, followed by options.

    With target statistics, rates replace columns of at least 100 values. The options
    are their folds, small trees, and to leave out ids most of whose values are new.
    """
    base, *options = name.split(", ")
    if base == "logistic regression":
        model = logistic_regression()
    else:
        trees = TREES[base](seed, small=SMALL in options)
        folds = [STATISTICS[option](seed) for option in options if option in STATISTICS]
        model = make_pipeline(PlainColumns(), trees)
        if folds:
            model = with_statistics(trees, folds[0])
    return make_pipeline(WithoutNewIds(), model) if WITHOUT_NEW in options else model


# ---------------------------------------------------------------- torch-rechub


class Rechub:
    """A network of torch-rechub, trained by its own trainer with its own settings.

    It is one MMoE for all tasks if `joint` is true, and one DCNv2 per task otherwise.
    Batches have 512 rows, embeddings a width of 16, hidden layers 128 and 64 units. The
    codes and standardised numbers come from the encoder of this package. The epoch with
    the lowest log loss on the held-out rows is kept. The seed is that of the initial
    weights, the held-out rows and the order of the rows.
    """

    max_epochs, patience = 10, 2

    def __init__(self, seed, joint):
        self.seed, self.joint = seed, joint

    def fit(self, X, Y):
        encoder = self.encoder_ = TableEncoder()
        self.n_tasks_ = Y.shape[1]
        rows = encoded_rows(encoder.fit_transform(X), Y, encoder)
        parts = funnel_holdout(Y, test_size=0.1, random_state=self.seed)
        train, valid = (replace(rows, rows=torch.as_tensor(part)) for part in parts)
        shape = encoder.cardinalities_, {"numeric": len(encoder.numeric_bins_)}
        with torch.random.fork_rng(), silence():
            torch.manual_seed(self.seed)
            self.models_, epochs = [], []
            tasks = list(range(self.n_tasks_))
            for labels in [tasks] if self.joint else tasks:
                trainer = self._trainer(rechub_features(*shape, EMBEDDING_DIM))
                epochs.append(self._train(trainer, train, valid, labels))
                self.models_.append(trainer.model)
        self.n_iter_ = np.mean(epochs)
        return self

    def _train(self, trainer, train, valid, labels):
        """Train until the log loss of some label columns no longer improves."""
        y = valid.column("y").numpy()[:, np.atleast_1d(labels)]
        batches = RechubBatches(BatchIterator(train, 512, "shuffled"), labels)
        best, best_epoch, state = np.inf, 0, None
        for epoch in range(1, self.max_epochs + 1):
            trainer.train_one_epoch(batches)
            loss = mean_log_loss(y, rechub_predict(trainer.model, valid))
            if loss < best:
                best, best_epoch = loss, epoch
                state = copy.deepcopy(trainer.model.state_dict())
            elif epoch - best_epoch >= self.patience:
                break
        trainer.model.load_state_dict(state)
        return best_epoch

    def predict_proba(self, X):
        y = np.zeros((len(X), self.n_tasks_), dtype=np.int64)
        rows = encoded_rows(self.encoder_.transform(X), y, self.encoder_)
        return np.hstack([rechub_predict(model, rows) for model in self.models_])

    def _trainer(self, features):
        if not self.joint:
            layers = rechub_layers([128, 64])
            model = rechub("models.ranking").DCNv2(features, 3, layers)
            return rechub("trainers").CTRTrainer(model)
        tasks, experts = ["classification"] * self.n_tasks_, {"dims": [128, 64]}
        towers = [{"dims": [32]}] * self.n_tasks_
        model = rechub("models.multi_task").MMOE(features, tasks, 4, experts, towers)
        return rechub_trainer(model, self.n_tasks_)


def encoded_rows(table, Y, encoder):
    """Return an encoded table as tensors; rare values have the code of unseen ones."""
    np.putmask(table[0], table[0] >= encoder.cardinalities_, UNSEEN)
    return Impressions(*map(torch.from_numpy, table), torch.tensor(np.asarray(Y)))


RECHUB = {
    "torch-rechub DCNv2": partial(Rechub, joint=False),
    "torch-rechub MMoE": partial(Rechub, joint=True),
}
PEERS = (
    "logistic regression",
    *TREES,
    *(f"{name}, {form}" for name in [*TREES][:2] for form in STATISTICS),
    *(f"{name}, {SMALL}, {WITHOUT_NEW}" for name in TREES),
    *(f"{name}, TargetEncoder, {SMALL}, {WITHOUT_NEW}" for name in [*TREES][:2]),
    f"LightGBM, {SMALL}, {OF_ALL}",
    *RECHUB,
)
# Their folds, or weights, are drawn by a seed.
SEEDED = (", TargetEncoder", OF_ALL, *RECHUB)


def peer_name(text):
    """Return a name that `peer_models` takes; the options may be combined freely."""
    base, *options = text.split(", ")
    is_model = base in TREES or base == "logistic regression"
    known = {*STATISTICS, SMALL, WITHOUT_NEW}
    of_all = base in TREES and {*options} <= {SMALL, OF_ALL}
    if text in RECHUB or of_all or (is_model and {*options} <= known):
        return text
    raise ValueError(text)


def peer_models(name, seeds):
    """Yield the models of a peer: one, or one per seed if it depends on a seed."""
    is_seeded = any(part in name for part in SEEDED)
    for seed in seeds if is_seeded else seeds[:1]:
        if name in RECHUB:
            yield RECHUB[name](seed)
        elif OF_ALL in name:
            base, *options = name.split(", ")
            yield RatesOfAllTasks(TREES[base](seed, small=SMALL in options), seed)
        else:
            yield PerTask(peer(name, seed))
