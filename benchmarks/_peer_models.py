"""Models of other packages with the interface of a multi-task classifier.

Each has `fit(X, Y)`, `predict_proba(X)` of shape (n_samples, n_tasks) and
`predict_cvr(X)`. Early stopping holds out a tenth of the training rows. A missing
package raises ImportError in `fit`, with the command that installs it.
"""

import contextlib
import copy
import io
import warnings

import numpy as np
import torch
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from sk_pwiser._table._encoder import TableEncoder
from sk_pwiser._training._batches import BatchIterator, Impressions
from sk_pwiser.model_selection import funnel_holdout

INSTALL = 'pip install "sk_pwiser[benchmark]"'
SELECT_CATEGORIES = make_column_selector(dtype_include="category")
# HistGradientBoosting has at most 255 bins per column.
MAX_CATEGORIES = 255
BATCH_SIZE, EMBEDDING_DIM = 512, 16
UNITS, TOWER_UNITS = (128, 64), (32,)
MAX_EPOCHS, PATIENCE = 10, 2


def _hold_out(X, y):
    return train_test_split(X, y, test_size=0.1, stratify=y, random_state=0)


def fit_logistic_regression(X, y):
    """Fit a linear model of one-hot categories; rare values share one column."""
    columns = make_column_transformer(
        (
            OneHotEncoder(handle_unknown="ignore", min_frequency=2),
            SELECT_CATEGORIES,
        ),
        remainder=make_pipeline(SimpleImputer(), StandardScaler()),
    )
    return make_pipeline(columns, LogisticRegression(C=0.1, max_iter=300)).fit(X, y)


def fit_lightgbm(X, y):
    """Fit LightGBM with its own treatment of categories."""
    try:
        import lightgbm
    except ImportError as error:
        raise ImportError(f"LightGBM is not installed: {INSTALL}") from error
    X, X_valid, y, y_valid = _hold_out(X, y)
    model = lightgbm.LGBMClassifier(
        n_estimators=500,
        learning_rate=0.05,
        n_jobs=torch.get_num_threads(),
        verbose=-1,
    )
    stop = lightgbm.early_stopping(20, verbose=False)
    with warnings.catch_warnings():
        # LightGBM 4.7 deprecates `eval_set`, which older versions need.
        warnings.simplefilter("ignore")
        return model.fit(X, y, eval_set=[(X_valid, y_valid)], callbacks=[stop])


def fit_hist_gradient_boosting(X, y):
    """Fit scikit-learn's boosted trees; the rarest values of a column share a code."""
    categories = SELECT_CATEGORIES(X)
    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
        max_categories=MAX_CATEGORIES,
    )
    columns = make_column_transformer((codes, categories), remainder="passthrough")
    model = HistGradientBoostingClassifier(
        max_iter=500,
        learning_rate=0.05,
        categorical_features=np.arange(len(categories)),
        early_stopping=True,
        n_iter_no_change=20,
        random_state=0,
    )
    return make_pipeline(columns, model).fit(X, y)


class CatBoost:
    """CatBoost with its own treatment of categories, which it reads as text."""

    def fit(self, X, y):
        try:
            from catboost import CatBoostClassifier
        except ImportError as error:
            raise ImportError(f"CatBoost is not installed: {INSTALL}") from error
        categories = SELECT_CATEGORIES(X)
        X, X_valid, y, y_valid = _hold_out(self._as_text(X), y)
        self.model_ = CatBoostClassifier(
            iterations=1_000,
            early_stopping_rounds=50,
            cat_features=categories,
            thread_count=torch.get_num_threads(),
            allow_writing_files=False,
            random_seed=0,
            verbose=False,
        ).fit(X, y, eval_set=(X_valid, y_valid))
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(self._as_text(X))

    def _as_text(self, X):
        X = X.copy()
        for name in SELECT_CATEGORIES(X):
            X[name] = X[name].astype("object").astype("str").fillna("missing")
        return X


def fit_catboost(X, y):
    return CatBoost().fit(X, y)


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


def _impressions(table, y):
    """Return encoded rows as a data set of tensors."""
    return Impressions(*map(torch.from_numpy, table), torch.tensor(y))


class Rechub:
    """A network of torch-rechub, trained by its own trainer with its own settings.

    The codes and standardised numbers come from the encoder of this package. The epoch
    with the lowest log loss on the held-out rows is kept.

    Parameters
    ----------
    seed : int
        Seed of the initial weights, the held-out rows and the order of the rows.
    """

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X, Y):
        # It imports torch-rechub, and the script that imports this module.
        try:
            import peers
        except ImportError as error:
            raise ImportError(f"torch-rechub is not installed: {INSTALL}") from error
        self.encoder_ = TableEncoder()
        self.n_tasks_ = Y.shape[1]
        rows = _impressions(self.encoder_.fit_transform(X), Y.to_numpy())
        train, valid = funnel_holdout(Y, test_size=0.1, random_state=self.seed)
        train, valid = (rows.at(torch.as_tensor(part)) for part in (train, valid))
        encoder = self.encoder_
        shape = peers.Encoded(None, None, encoder.cardinalities_, encoder.n_numeric_)
        silent = io.StringIO()
        with (
            torch.random.fork_rng(),
            # The trainer prints its losses and a progress bar.
            contextlib.redirect_stdout(silent),
            contextlib.redirect_stderr(silent),
        ):
            torch.manual_seed(self.seed)
            # One network for all tasks, or one network per task.
            self.models_, self.n_iter_ = [], 0
            for labels in self._label_columns():
                features = peers.peer_features(shape, EMBEDDING_DIM)
                trainer = self._trainer(features)
                self._train(trainer, train, valid, labels)
                self.models_.append(trainer.model)
        return self

    def _train(self, trainer, train, valid, labels):
        """Train until the log loss of some label columns no longer improves."""
        import peers

        y = valid.labels().numpy()[:, np.atleast_1d(labels)]
        batches = BatchIterator(train, BATCH_SIZE, "shuffled")
        best, best_epoch, state = np.inf, 0, None
        for epoch in range(1, MAX_EPOCHS + 1):
            trainer.train_one_epoch(peers.PeerBatches(batches, labels))
            p = self._predict(trainer.model, valid)
            loss = np.mean([log_loss(*pair) for pair in zip(y.T, p.T, strict=True)])
            if loss < best:
                best, best_epoch = loss, epoch
                state = copy.deepcopy(trainer.model.state_dict())
            elif epoch - best_epoch >= PATIENCE:
                break
        trainer.model.load_state_dict(state)
        self.n_iter_ += best_epoch / len(self._label_columns())

    def _predict(self, model, rows):
        import peers

        model.eval()
        with torch.no_grad():
            batches = peers.PeerBatches(BatchIterator(rows, 8192), 0)
            p = torch.cat([model(x) for x, _ in batches])
        return p.double().numpy().reshape(len(rows), -1)

    def predict_proba(self, X):
        y = np.zeros((len(X), self.n_tasks_), dtype=np.int64)
        rows = _impressions(self.encoder_.transform(X), y)
        return np.hstack([self._predict(model, rows) for model in self.models_])

    def predict_cvr(self, X):
        p = self.predict_proba(X)
        return p[:, -1] / np.maximum(p[:, 0], 1e-12)


class RechubMMoE(Rechub):
    """One MMoE for all tasks."""

    def _label_columns(self):
        return [list(range(self.n_tasks_))]

    def _trainer(self, features):
        from torch_rechub.models.multi_task import MMOE
        from torch_rechub.trainers import MTLTrainer

        tasks = ["classification"] * self.n_tasks_
        towers = [{"dims": list(TOWER_UNITS)}] * self.n_tasks_
        return MTLTrainer(
            MMOE(features, tasks, 4, {"dims": list(UNITS)}, towers), tasks
        )


class RechubDCNv2(Rechub):
    """One DCNv2 per task."""

    def _label_columns(self):
        return list(range(self.n_tasks_))

    def _trainer(self, features):
        from torch_rechub.models.ranking import DCNv2
        from torch_rechub.trainers import CTRTrainer

        layers = {"dims": list(UNITS), "dropout": 0.0, "activation": "relu"}
        return CTRTrainer(DCNv2(features, 3, layers))


PER_TASK = {
    "logistic regression": fit_logistic_regression,
    "HistGradientBoosting": fit_hist_gradient_boosting,
    "LightGBM": fit_lightgbm,
    "CatBoost": fit_catboost,
}
RECHUB = {"torch-rechub DCNv2": RechubDCNv2, "torch-rechub MMoE": RechubMMoE}
PEERS = (*PER_TASK, *RECHUB)


def peer_models(name, seeds):
    """Yield the models of a peer: one, or one per seed for networks."""
    if name in PER_TASK:
        yield PerTask(PER_TASK[name])
    else:
        yield from (RECHUB[name](seed) for seed in range(seeds))
