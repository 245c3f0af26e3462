"""Which inputs of an advertising log the models of other packages take.

    pip install ".[benchmark]"
    python benchmarks/what_peers_take.py

Each model is fitted on a small generated table as its documentation says, and predicts
the labels of other rows. An answer is "yes" if the call works and the model has learnt
from the input (an AUC above 0.6), "ignored" if it works without an effect, and
otherwise the beginning of the error. Nothing prepares the table, except for
torch-rechub, which takes codes and padded lists only.
"""

import csv
import platform
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import torch
from _peers import rechub, silence
from catboost import CatBoostClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier

N_ROWS = 4_000
CATEGORIES = ["user", "slot"]


def table(seed=0, n_users=50):
    """Return impressions whose clicks depend on the slot, conversions on the price."""
    rng = np.random.default_rng(seed)
    user = pd.Categorical.from_codes(
        rng.integers(0, n_users, N_ROWS), [f"u{i}" for i in range(n_users)]
    )
    slot, price = rng.integers(0, 6, N_ROWS), rng.normal(size=N_ROWS)
    X = pd.DataFrame({"user": user, "slot": pd.Categorical(slot), "price": price})
    click = rng.random(N_ROWS) < 0.1 + 0.12 * slot
    conversion = click & (rng.random(N_ROWS) < 1 / (1 + np.exp(-2 * price)))
    return X, pd.DataFrame({"click": click, "conversion": conversion}).astype(float)


# ---------------------------------------------------------------- the models


class SkPwiser:
    """This package."""

    def __init__(self):
        self.model = MultiTaskCTRCVRClassifier(random_state=0)

    def fit(self, X, Y, **kwargs):
        missing = "ignore" if np.isnan(np.asarray(Y, float)).any() else "error"
        self.model.set_params(missing_labels=missing).fit(X, Y, **kwargs)
        return self

    def predict(self, X, task=0):
        p = self.model.predict_proba(X)
        return p[:, task if self.model.n_tasks_ > 1 else 1]

    def file(self, path):
        self.model.save(path)
        return MultiTaskCTRCVRClassifier.load(path)


class LightGBM:
    """LightGBM, with categories by dtype."""

    def __init__(self):
        self.model = lightgbm.LGBMClassifier(verbose=-1, n_jobs=1)

    def fit(self, X, y, **kwargs):
        self.model.fit(X, y, **kwargs)
        return self

    def predict(self, X, task=0):
        return self.model.predict_proba(X)[:, 1]

    def file(self, path):
        self.model.booster_.save_model(path)
        return lightgbm.Booster(model_file=path)


class CatBoost(LightGBM):
    """CatBoost, whose loss MultiLogloss takes several targets."""

    def fit(self, X, y, **kwargs):
        self.several = np.ndim(y) == 2
        self.model = CatBoostClassifier(
            iterations=100,
            loss_function="MultiLogloss" if self.several else "Logloss",
            cat_features=[c for c in X if X[c].dtype == "category"],
            thread_count=1,
            verbose=False,
            allow_writing_files=False,
        )
        return super().fit(X, y, **kwargs)

    def predict(self, X, task=0):
        return self.model.predict_proba(X)[:, task if self.several else 1]

    def file(self, path):
        self.model.save_model(path)
        return CatBoostClassifier().load_model(path)


class HistGradientBoosting(LightGBM):
    """scikit-learn's boosted trees, with categories by dtype."""

    def __init__(self):
        self.model = HistGradientBoostingClassifier()

    def file(self, path):
        raise NotImplementedError("pickle, or the package skops")


class Rechub:
    """The MMoE of torch-rechub; codes and padded lists are made beforehand."""

    def fit(self, X, Y, **kwargs):
        if np.ndim(Y) != 2:
            Y = np.column_stack([Y, Y])
        features, kinds = rechub("basic.features"), ["classification"] * 2
        self.categories = {name: X[name].cat.categories for name in CATEGORIES}
        inputs = [
            features.SparseFeature(name, vocab_size=len(values), embed_dim=8)
            for name, values in self.categories.items()
        ] + [features.DenseFeature("price")]
        if "clicked" in X:
            sequence = features.SequenceFeature("clicked", vocab_size=6, embed_dim=8)
            sequence.padding_idx = 0
            inputs.append(sequence)
        self.model = rechub("models.multi_task").MMOE(
            inputs, kinds, 4, {"dims": [32]}, [{"dims": [16]}] * 2
        )
        data = rechub("utils.data").DataGenerator(self.arrays(X), np.asarray(Y))
        batches = data.generate_dataloader(split_ratio=[0.8, 0.1], batch_size=256)
        with tempfile.TemporaryDirectory() as folder:
            trainer = rechub("trainers").MTLTrainer(
                self.model, kinds, n_epoch=5, model_path=folder
            )
            trainer.fit(batches[0], batches[1], **kwargs)
        return self

    def arrays(self, X):
        inputs = {"price": X["price"].to_numpy("float32")}
        for name, values in self.categories.items():
            codes = values.get_indexer(X[name])
            # The next code stands for an unseen value.
            inputs[name] = np.where(codes < 0, len(values), codes)
        if "clicked" in X:
            cells = [[value + 1 for value in cell] for cell in X["clicked"]]
            inputs["clicked"] = np.array([(cell + [0] * 4)[:4] for cell in cells])
        return inputs

    def predict(self, X, task=0):
        inputs = {name: torch.as_tensor(a) for name, a in self.arrays(X).items()}
        self.model.eval()
        with torch.no_grad():
            return self.model(inputs).numpy()[:, task]

    def file(self, path):
        torch.save(self.model.state_dict(), path)
        return torch.load(path, weights_only=True)


MODELS = {
    "sk_pwiser": SkPwiser,
    "LightGBM": LightGBM,
    "CatBoost": CatBoost,
    "HistGradientBoosting": HistGradientBoosting,
    "torch-rechub": Rechub,
}

# ---------------------------------------------------------------- the questions


def learns(p, y):
    """Return whether probabilities rank the labels clearly better than chance."""
    if not np.isfinite(p).all():
        return "NaN"
    return "yes" if roc_auc_score(y, p) > 0.6 else "ignored"


def unseen_values(make, X, Y, X_new, Y_new):
    """Predict rows with users that training did not see."""
    X_new["user"] = pd.Categorical([f"new {i}" for i in range(N_ROWS)])
    return learns(make().fit(X, Y["click"]).predict(X_new), Y_new["click"])


def two_targets(make, X, Y, X_new, Y_new):
    """Fit clicks and conversions in one model."""
    return learns(make().fit(X, Y).predict(X_new, 1), Y_new["conversion"])


def missing_labels(make, X, Y, X_new, Y_new):
    """Fit with half of the conversions not yet known."""
    Y.iloc[::2, 1] = np.nan
    return two_targets(make, X, Y, X_new, Y_new)


def weights_per_task(make, X, Y, X_new, Y_new):
    """Fit with weights of shape `(n_samples, n_tasks)`: false labels have none."""
    is_false = np.arange(N_ROWS) % 3 > 0
    Y.loc[is_false, "conversion"] = Y.loc[is_false, "click"] * (
        X.loc[is_false, "price"] < 0
    )
    weights = np.column_stack([np.ones(N_ROWS), ~is_false])
    model = make().fit(X, Y, sample_weight=weights)
    return learns(model.predict(X_new, 1), Y_new["conversion"])


def many_values(make, *_):
    """Fit a column with 1,000 values."""
    (X, Y), (X_new, Y_new) = table(n_users=1_000), table(1, n_users=1_000)
    return learns(make().fit(X, Y["click"]).predict(X_new), Y_new["click"])


def list_column(make, X, *_):
    """Fit a column whose cells are lists, from which alone the clicks depend."""
    rng = np.random.default_rng(0)
    X["clicked"] = [list(rng.integers(0, 5, rng.integers(0, 4))) for _ in range(N_ROWS)]
    y = np.array([1.0 * (3 in cell) for cell in X["clicked"]])
    return learns(make().fit(X, y).predict(X), y)


def plain_file(make, X, Y, *_):
    """Write a model to a file and read it without executing code of the file."""
    model = make().fit(X, Y["click"])
    with tempfile.TemporaryDirectory() as folder:
        model.file(str(Path(folder) / "model"))
    return "yes"


QUESTIONS = {
    "values unseen in training": unseen_values,
    "two targets in one model": two_targets,
    "missing labels of one task": missing_labels,
    "weights per row and task": weights_per_task,
    "1,000 values in a column": many_values,
    "cells that are lists": list_column,
    "a file without code": plain_file,
}


def answer(question, make):
    """Return the answer of a model, or the beginning of its error."""
    try:
        with warnings.catch_warnings(), silence():
            warnings.simplefilter("ignore")
            return question(make, *table(0), *table(1))
    except Exception as error:  # an error is an answer
        text = " ".join(str(error).split())
        return f"{type(error).__name__}: {text[:70]}"


def main():
    """Print the answers as csv, one line per question."""
    names = ["lightgbm", "catboost", "scikit-learn", "torch-rechub"]
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"# Python {platform.python_version()}, {versions}")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["", *MODELS])
    for title, question in QUESTIONS.items():
        writer.writerow([title, *(answer(question, make) for make in MODELS.values())])


if __name__ == "__main__":
    main()
