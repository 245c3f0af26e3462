"""Figures of the validation rows after each epoch."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import auc, roc_curve
from skorch import NeuralNet
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._tasks._tree import parents_by_name
from sk_pwiser._training._epoch_history import record_best
from sk_pwiser._utils._precision import widest_float
from sk_pwiser.metrics import auc_within


def task_aucs(y: Tensor, logits: Tensor, weights: Tensor | None) -> Iterator[float]:
    """Yield the AUC of each task, NaN if there is only one class."""
    if bool(((y > 0) & (y < 1)).any()):  # probabilities in place of labels
        # Each row counts twice, with the label 1 and with 0.
        row_weights = torch.ones_like(y)
        if weights is not None:
            row_weights = weights.view(len(y), -1)
        weights = torch.cat([row_weights * y, row_weights * (1 - y)])
        y = torch.cat([torch.ones_like(y), torch.zeros_like(y)])
        logits = logits.repeat(2, 1)
    for k in range(y.shape[1]):
        labels = y[:, k].cpu().numpy()
        scores = logits[:, k].cpu().numpy()
        task_weights = None
        if weights is not None:
            column = weights if weights.dim() == 1 else weights[:, k]
            task_weights = column.cpu().numpy()
            has_weight = task_weights > 0
            labels = labels[has_weight]
            scores = scores[has_weight]
            task_weights = task_weights[has_weight]
        if len(labels) == 0 or labels.min() == labels.max():
            yield float("nan")
            continue
        # What `roc_auc_score` computes, without half of its checks and of its time.
        false, true, _ = roc_curve(labels, scores, sample_weight=task_weights)
        yield float(auc(false, true))


# Rows whose log losses are computed at a time, in several tensors of float64.
LOSS_ROWS = 2**20


def task_log_losses(
    y: Tensor, logits: Tensor, weights: Tensor | None, negative_rate: float = 1.0
) -> list[float]:
    """Return the log loss of each task, which may have probabilities as labels."""
    dtype = widest_float(y.device)
    ones = torch.ones(1, 1, device=y.device).expand(len(y), 1)
    weights = ones if weights is None else weights.view(len(y), -1)
    sums = torch.zeros(2, y.shape[1], dtype=dtype, device=y.device)
    tensors = (torch.split(t, LOSS_ROWS) for t in (y, logits, weights))
    for y, logits, row_weights in zip(*tensors, strict=True):
        # A sum depends on the order in memory, which depends on the table of labels.
        y = y.to(dtype).contiguous()
        losses = F.binary_cross_entropy_with_logits(
            logits.to(dtype), y, reduction="none"
        )
        # Each row without a click counts for those that the log has left out.
        n_stands_for = torch.where(y[:, :1] == 0, 1 / negative_rate, 1.0)
        row_weights = row_weights.to(dtype) * n_stands_for
        weighted_losses = (losses * row_weights).sum(0)
        sums += torch.stack([weighted_losses, row_weights.expand_as(y).sum(0)])
    return list((sums[0] / sums[1]).tolist())


# Figures of the validation rows per task. Larger values are better, except for the log
# loss. The history contains "grouped_auc" only if it is monitored.
FIGURES = "log_loss", "auc", "grouped_auc"
GROUPED = "valid_grouped_auc_"


def grouped_aucs(rows: TrainingRows, logits: Tensor) -> Iterator[float]:
    """Yield the mean AUC within groups per task, NaN if no group has both labels."""
    y = rows.column("y").round()
    groups = rows.column("groups")
    weights = rows.column("sample_weight")
    for k in range(y.shape[1]):
        labels = y[:, k]
        scores = logits[:, k]
        codes = groups
        if weights is not None and weights.dim() == 2:
            has_label = weights[:, k] > 0  # other weights are not read
            labels = labels[has_label]
            scores = scores[has_label]
            codes = codes[has_label]
        if not len(labels):
            yield float("nan")
            continue
        _, codes = torch.unique(codes, return_inverse=True)
        arrays = (tensor.cpu().numpy() for tensor in (labels, scores, codes))
        yield auc_within(*arrays)[0]


class KnownProbabilities(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Stands for an estimator in a scorer of rows whose probabilities are known."""

    missing_labels = "ignore"

    def __init__(
        self, probabilities: np.ndarray, task_parents: Mapping[str, str | None]
    ) -> None:
        self.probabilities = probabilities
        self.task_parents = dict(task_parents)
        self.task_parents_ = self.task_parents
        self.task_names_ = list(task_parents)
        self.classes_ = np.array([0, 1])
        if len(task_parents) > 1:
            self.classes_ = np.tile(self.classes_, (len(task_parents), 1))

    def predict_proba(self, _X: Any) -> np.ndarray:
        """Return the probabilities, in the form of the estimator's."""
        p = self.probabilities
        return np.hstack([1 - p, p]) if self.classes_.ndim == 1 else p

    def predict(self, _X: Any) -> np.ndarray:
        """Return 1 where the probability is at least 0.5."""
        labels = (self.probabilities >= 0.5).astype(int)
        return labels[:, 0] if self.classes_.ndim == 1 else labels


def score_validation(
    scorer: Any,
    rows: TrainingRows,
    logits: Tensor,
    task_parents: Mapping[str, str | None],
    negative_rate: float = 1.0,
) -> float:
    """Return the score of the validation rows, without weights and without a table.

    The probabilities are those of the log that holds a share of the rows without click:
    the inverse of `full_log_logits`.
    """
    y = rows.column("y").round()
    weights = rows.column("sample_weight")
    if weights is not None and weights.dim() == 2:
        y = y.where(weights > 0, torch.nan)
    # In double: those near 1 would be equal, and 1 minus them would have few digits.
    probabilities = logits.cpu().double().sigmoid()
    if negative_rate < 1:
        click = probabilities[:, :1]
        probabilities = probabilities / (click + negative_rate * (1 - click))
        probabilities = probabilities.clamp(max=1.0)
    estimator = KnownProbabilities(probabilities.numpy(), task_parents)
    labels = y.cpu().numpy()
    labels = labels[:, 0].astype(int) if len(task_parents) == 1 else labels
    return float(scorer(estimator, np.empty((len(y), 0)), labels))


def record_validation(
    net: NeuralNet, prefix: str, rows: TrainingRows, logits: Tensor
) -> None:
    """Record the log loss and AUC of each task, their means, and the score."""
    y = rows.column("y")
    weights = rows.column("sample_weight")
    logits = logits.to(y.device)  # rows that did not fit on the device
    spec = net.module_.spec
    rate = spec.negative_sampling_rate
    by_figure = {
        "log_loss": task_log_losses(y, logits, weights, rate),
        "auc": list(task_aucs(y, logits, weights)),
    }
    if net.monitor.startswith(GROUPED) and rows.column("groups") is not None:
        by_figure["grouped_auc"] = list(grouped_aucs(rows, logits))
    for name, values in by_figure.items():
        figures = dict(zip(net.task_names, values, strict=True))
        if len(values) > 1:
            defined = [value for value in values if not np.isnan(value)]
            figures["mean"] = float(np.mean(defined)) if defined else np.nan
        is_loss = name == "log_loss"
        for task, value in figures.items():
            key = f"{prefix}_{name}_{task}"
            record_best(net.history, key, value, lower_is_better=is_loss)
    if net.monitor == "valid_score":
        tree = parents_by_name(spec.event_parents, net.task_names)
        scorer = net.settings.early_stopping
        score = score_validation(scorer, rows, logits, tree, rate)
        record_best(net.history, f"{prefix}_score", score, lower_is_better=False)
