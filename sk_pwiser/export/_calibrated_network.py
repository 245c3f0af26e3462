"""The network of a fitted estimator, and checks of estimators to export."""

import copy

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
from sk_pwiser._tasks._tree import read_task_parents
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.networks import Bags


def fitted_result(estimator):
    """Return the result of the last fit of an estimator, calibrated or not."""
    if isinstance(estimator, FunnelCalibrator):
        check_is_fitted(estimator)
        estimator._check_training()
        estimator = estimator.estimator_
    if isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    if not isinstance(estimator, MultiTaskCTRCVRClassifier):
        raise TypeError(
            "estimator must be a fitted MultiTaskCTRCVRClassifier, or a "
            "FunnelCalibrator of one, such as pipeline[-1], which reads rows that "
            f"pipeline[:-1] has transformed; got {estimator!r}."
        )
    check_is_fitted(estimator, "_result")
    return estimator._result


def market_of(estimator, encoder):
    """Return the index of the column `by` of a calibrator and its shifts, or None."""
    by = getattr(estimator, "by_", None)
    if by is None:
        return None
    names = [column.name for column in encoder.read_columns_]
    if by not in names:
        raise ValueError(
            f"A calibrator with by={by!r} cannot be exported: its estimator has no "
            f"such column; these are {names}."
        )
    return names.index(by), estimator.shifts_


def check_exportable(encoder):
    """Raise if a table is sparse, or if a column has arrays of numbers."""
    others = [part for part in encoder.parts_ if not part.is_exportable]
    if others:
        raise ValueError(
            f"{others[0].description} cannot be exported: only category columns, "
            "numeric columns and lists of categories can be."
        )


class ProbabilityNetwork(nn.Module):
    """A copy of a trained network on the CPU with the output of `predict_proba`."""

    def __init__(self, estimator):
        super().__init__()
        network = fitted_result(estimator).net.module_
        self.network = copy.deepcopy(network).cpu().requires_grad_(False)
        self.both_classes = estimator.classes_.ndim == 1
        self.curves = nn.ModuleList()
        self.parents = []
        self.takes_shifts = False
        if isinstance(estimator, FunnelCalibrator):
            self.curves.extend(map(CurveLayer, estimator.calibrators_))
            # The tasks than which others are not more likely, -1 for none.
            self.parents = [-1] * estimator.n_tasks_
            if estimator.ordered:
                self.parents = read_task_parents(
                    estimator.task_parents_, estimator.task_names_
                )
            self.takes_shifts = estimator.by_ is not None
        self.eval()  # as a whole, since the exporter restores the mode of the whole

    def forward(self, codes, numeric, *others):
        """Return probabilities in the open interval (0, 1), and the network's logits.

        `others` are shifts if the network takes them, float64 of shape (batch, n_tasks)
        and added to the log-odds, and the tensors of `Bags` if there are lists.
        """
        shifts, *bags = others if self.takes_shifts else (None, *others)
        bags = [Bags(*bags)] if bags else []
        logits = self.network(codes, numeric, *bags).logits.float()
        return self.probabilities(logits, shifts), logits

    def predict(self, inputs):
        """Return the probabilities of arrays by name, in the order of `forward`."""
        return self.predict_with_logits(inputs)[0]

    def predict_with_logits(self, inputs):
        """Return the probabilities, and the logits before calibration."""
        with torch.inference_mode():
            outputs = self(*map(torch.from_numpy, inputs.values()))
        return [output.numpy() for output in outputs]

    def probabilities(self, logits, shifts=None):
        """Return the probabilities of float32 logits, calibrated if there are curves.

        In float64: sigmoids of ONNX Runtime in float32 have an absolute error of 6e-8,
        which is a large share of the probability of a rare event.
        """
        limits = np.finfo(np.float32)
        logits = logits.double()
        if len(self.curves):
            logits = self._calibrate(logits, shifts)
        if self.both_classes:  # 1 - p would have a few digits only if p is near 1
            logits = torch.cat([-logits, logits], dim=1)
        probabilities = torch.sigmoid(logits).float()
        return probabilities.clamp(float(limits.tiny), float(1 - limits.epsneg))

    def _calibrate(self, logits, shifts):
        """Return the log-odds of `FunnelCalibrator`, in float64 as there."""
        columns = [curve(logits[:, k]) for k, curve in enumerate(self.curves)]
        for k, parent in enumerate(self.parents):
            if shifts is not None:
                columns[k] = columns[k] + shifts[:, k]
            if parent >= 0:
                columns[k] = torch.minimum(columns[k], columns[parent])
        return torch.stack(columns, dim=1)


class CurveLayer(nn.Module):
    """A calibration curve: a straight line, or straight lines between nodes."""

    def __init__(self, curve):
        super().__init__()
        nodes = getattr(curve, "centres_", np.array([0.0, 1.0]))
        values = nodes if curve is None else curve.transform(nodes)
        self.is_line = not hasattr(curve, "centres_")
        if len(nodes) == 1:  # a constant
            nodes = np.append(nodes, nodes + 1)
            values = np.repeat(values, 2)
        # Tensors, since the exporter of PyTorch rounds floats to float32.
        self.starts, self.widths = map(torch.from_numpy, (nodes[:-1], np.diff(nodes)))
        self.first, self.rises = map(torch.from_numpy, (values[:1], np.diff(values)))

    def forward(self, logits):
        """Map float64 logits of shape (batch,) to calibrated log-odds."""
        shares = (logits.unsqueeze(1) - self.starts) / self.widths
        if not self.is_line:
            shares = shares.clamp(0, 1)
        return self.first + (shares * self.rises).sum(dim=1)
