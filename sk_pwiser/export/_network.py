"""The network of a fitted estimator as a module that returns probabilities."""

import copy

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sk_pwiser._estimator import MultiTaskCTRCVRClassifier


def fitted_result(estimator):
    """Return what the last fit of an estimator has learnt.

    Raises
    ------
    TypeError
        If the value is not a :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`.
    NotFittedError
        If it is not fitted.
    """
    if not isinstance(estimator, MultiTaskCTRCVRClassifier):
        raise TypeError(
            f"estimator must be a fitted MultiTaskCTRCVRClassifier; got {estimator!r}."
        )
    check_is_fitted(estimator, "_result")
    return estimator._result


class ProbabilityNetwork(nn.Module):
    """A copy of a trained network, on the CPU, that returns probabilities.

    Parameters
    ----------
    network : MultiTaskNetwork
        The trained network, which stays unchanged.
    both_classes : bool
        Whether the output has a column per class of a single task, as
        `predict_proba` has for 1-D `y`.
    """

    def __init__(self, network, both_classes):
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        self.both_classes = both_classes

    def forward(self, codes, numeric):
        """Map codes and numeric inputs to probabilities inside (0, 1)."""
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
