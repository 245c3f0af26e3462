"""Pools of fitted estimators whose weights the tests choose or disturb.

Their network is one of a user's own, as is the loss.
"""

import copy
import io

import numpy as np
import torch
from scipy.special import expit
from sklearn.metrics import log_loss
from sklearn.utils import Bunch
from torch import nn

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.losses import MultiTaskLoss
from sk_pwiser.networks import MultiTaskNetwork, NetworkOutput


class Linear(MultiTaskNetwork):
    """A linear model of numeric columns: the log loss is convex in its weights."""

    def __init__(self, spec):
        super().__init__(spec)
        self.head = nn.Linear(self.width, self.n_tasks)

    def forward(self, codes, numeric):
        return NetworkOutput(self.head(self.input_layer(codes, numeric)))


class Brier(MultiTaskLoss):
    """A loss with weights per row only, and without losses of rows."""

    def forward(self, logits, y, sample_weight=None, groups=None):
        errors = (logits.sigmoid() - y) ** 2
        if sample_weight is not None:
            errors = errors * sample_weight.view(len(y), -1)
        return errors.mean(dim=0)


def linear_estimator(X, Y, **params):
    """Fit a linear estimator, whose inputs are the columns of `X`.

    The columns must have the mean 0 and the variance 1.
    """
    model = MultiTaskCTRCVRClassifier(
        network=Linear,
        loss="bce",
        numeric_encoding="standard",
        categorical_features=None,
        max_epochs=1,
        random_state=0,
        **params,
    )
    # The tasks of these markets are no funnel, of which `fit` would warn.
    return model.fit(X, np.minimum.accumulate(Y, axis=1) if Y.ndim == 2 else Y)


def with_weights(estimator, change):
    """Copy an estimator, and map each tensor by a function of its name and value."""
    changed = copy.deepcopy(estimator)
    with torch.no_grad():
        for name, parameter in changed.net_.module_.named_parameters():
            value = torch.as_tensor(change(name, parameter.cpu().numpy()))
            parameter.copy_(value)
    return changed


def with_noise(estimator, scale, seed):
    """Copy an estimator, and add normal noise to its weights."""
    rng = np.random.default_rng(seed)
    return with_weights(
        estimator,
        lambda _name, w: w + scale * rng.standard_normal(w.shape).astype(np.float32),
    )


def weights_of(estimator):
    """Return copies of the network's tensors by name."""
    state = estimator.net_.module_.state_dict()
    return {name: tensor.cpu().numpy().copy() for name, tensor in state.items()}


def assert_same_weights(first, second):
    """Assert that two estimators have the same tensors to the bit."""
    first, second = weights_of(first), weights_of(second)
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def frozen_bytes(estimator):
    """Return all of a fitted estimator that must not change, to compare to the bit."""
    buffer = io.BytesIO()
    result = estimator._result
    torch.save(result.net.optimizer_.state_dict(), buffer)
    statistics = result.schema.statistics
    return Bunch(
        weights={name: w.tobytes() for name, w in weights_of(estimator).items()},
        optimizer=buffer.getvalue(),
        history=repr(list(result.net.history)),
        params=repr(estimator.get_params()),
        rates=result.schema.base_rates.tobytes(),
        statistics=None if statistics is None else repr(vars(statistics)),
        requires_grad=[p.requires_grad for p in result.net.module_.parameters()],
        has_gradient=[p.grad is not None for p in result.net.module_.parameters()],
    )


def linear_market(n_samples, weights, intercepts, seed):
    """Draw standardised columns, and labels of linear models.

    `weights` are those of the tasks, `(n_tasks, n_features)`.
    """
    rng = np.random.default_rng(seed)
    weights = np.asarray(weights, dtype=float)
    X = rng.standard_normal((n_samples, weights.shape[1]))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    p = expit(X @ weights.T + np.asarray(intercepts))
    return X, (rng.random(p.shape) < p).astype(int)


def mean_log_loss(estimator, X, Y):
    """Return the mean log loss over the tasks."""
    p, y = estimator.predict_proba(X).astype(float), np.asarray(Y)
    tasks = range(y.shape[1])
    return np.mean([log_loss(y[:, k], p[:, k], labels=[0, 1]) for k in tasks])
