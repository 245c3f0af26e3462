"""The ROC AUC of each task on validation rows."""

from collections.abc import Iterator

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor


def task_aucs(y: Tensor, logits: Tensor, weights: Tensor | None) -> Iterator[float]:
    """Yield the AUC of each task, NaN if there is only one class.

    Parameters
    ----------
    y : Tensor of shape (n_rows, n_tasks)
        Labels, 0 or 1, or probabilities in their place: each row then has both labels,
        with its probabilities as weights.
    logits : Tensor of shape (n_rows, n_tasks)
        Scores.
    weights : Tensor of shape (n_rows,) or (n_rows, n_tasks), or None
        Weights. Rows with a weight of 0 for a task are left out of its AUC.

    Yields
    ------
    float
    """
    if bool(((y > 0) & (y < 1)).any()):
        y, logits, weights = _with_both_labels(y, logits, weights)
    for k in range(y.shape[1]):
        parts = [y[:, k], logits[:, k]]
        if weights is not None and weights.dim() == 1:
            parts.append(weights)
        elif weights is not None:
            is_known = weights[:, k] > 0
            parts = [part[is_known] for part in (*parts, weights[:, k])]
        labels, *scores_and_weights = (part.cpu().numpy() for part in parts)
        if len(labels) == 0 or labels.min() == labels.max():
            yield float("nan")
        else:
            scores, *weight_of_rows = scores_and_weights
            sample_weight = weight_of_rows[0] if weight_of_rows else None
            yield float(roc_auc_score(labels, scores, sample_weight=sample_weight))


def _with_both_labels(
    y: Tensor, logits: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row twice, with the label 1 and with 0, and their weights."""
    own = torch.ones_like(y) if weights is None else weights.view(len(y), -1)
    labels = torch.cat([torch.ones_like(y), torch.zeros_like(y)])
    return labels, logits.repeat(2, 1), torch.cat([own * y, own * (1 - y)])
