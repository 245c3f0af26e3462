"""The network of a fitted estimator, and checks of estimators to export."""

import copy

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sk_pwiser._estimator import MultiTaskCTRCVRClassifier
from sk_pwiser._table import NUMERIC_ENCODINGS, CategoryColumn


def fitted_result(estimator):
    """Return the result of the last fit of an estimator."""
    if not isinstance(estimator, MultiTaskCTRCVRClassifier):
        raise TypeError(
            f"estimator must be a fitted MultiTaskCTRCVRClassifier; got {estimator!r}."
        )
    check_is_fitted(estimator, "_result")
    return estimator._result


def check_exportable(encoder):
    """Raise if a column is neither a category column nor a numeric column."""
    if encoder.sparse_ is not None:
        raise ValueError(
            "An estimator that was fitted on a sparse table cannot be exported; only "
            "category columns and numeric columns can be."
        )
    for column in encoder.columns_:
        if type(column) not in (CategoryColumn, *NUMERIC_ENCODINGS.values()):
            raise ValueError(
                f"Column {column.name!r} cannot be exported: its cells contain more "
                "than one value, such as lists; only category columns and numeric "
                "columns can be."
            )


class ProbabilityNetwork(nn.Module):
    """A copy of a trained network on the CPU that returns probabilities.

    With `both_classes`, the output has one column per class of a single task, like
    `predict_proba` for 1-D `y`.
    """

    def __init__(self, network, both_classes):
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        self.both_classes = both_classes

    def forward(self, codes, numeric):
        """Return probabilities in the open interval (0, 1)."""
        limits = np.finfo(np.float32)
        positive = torch.sigmoid(self.network(codes, numeric).logits.float())
        positive = positive.clamp(float(limits.tiny), float(1 - limits.epsneg))
        if self.both_classes:
            return torch.cat([1 - positive, positive], dim=1)
        return positive


def probability_network(estimator):
    """Return the network of a fitted estimator, with the output of `predict_proba`."""
    network = fitted_result(estimator).net.module_
    return ProbabilityNetwork(network, both_classes=estimator.classes_.ndim == 1)
