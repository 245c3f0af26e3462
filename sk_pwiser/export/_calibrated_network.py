"""The network of a fitted estimator, and checks of estimators to export."""

import copy
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from sk_pwiser._settings import values_are_per_impression
from sk_pwiser.export._served_model import ServedModel
from sk_pwiser.networks import Bags

# Outputs of a graph.
PROBABILITIES = "probabilities"
VALUES = "values"
VALUES_GIVEN_EVENT = "values_given_event"
# What these are computed from, which is compared with PyTorch and no part of a file.
LOGITS = "logits"
VALUE_SCORES = "value_scores"


def market_of(served: ServedModel) -> Any:
    """Return the index of the column `by` of a calibrator and its shifts, or None.

    The shifts of each value are those of the tasks, then those of the values.
    """
    calibration = served.calibration
    if calibration is None or calibration.by is None:
        return None
    names = [column.name for column in served.schema.encoder.read_columns_]
    if calibration.by not in names:
        raise ValueError(
            f"A calibrator with by={calibration.by!r} cannot be exported: its "
            f"estimator has no such column; these are {names}."
        )
    no_amounts = np.zeros(len(served.value_names))
    shifts_of_values = calibration.value_shifts
    shifts = {
        market: np.append(shifts_of_tasks, shifts_of_values.get(market, no_amounts))
        for market, shifts_of_tasks in calibration.shifts.items()
    }
    return names.index(calibration.by), shifts


def check_exportable(encoder):
    """Raise if a table is sparse, or if a column has arrays of numbers."""
    refused = [column for column in encoder.parts_ if not column.is_exportable]
    if refused:
        raise ValueError(
            f"{refused[0].description} cannot be exported: only category columns, "
            "numeric columns and lists of categories can be."
        )


class ProbabilityNetwork(nn.Module):
    """A copy of a trained network on the CPU with the output of `predict_proba`.

    It has those of `predict_value`, too, if there are values.
    """

    # Those of networks that were pickled before there were values.
    value_parents: ClassVar[list[int]] = []
    are_per_impression = False

    def __init__(self, served: ServedModel, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().requires_grad_(False)
        self.both_classes = served.both_classes
        self.curves = nn.ModuleList()
        self.parents: list[int] = []
        self.takes_shifts = False
        calibration = served.calibration
        if calibration is not None:
            self.curves.extend(map(CurveLayer, calibration.curves))
            self.parents = list(calibration.parents)
            self.takes_shifts = calibration.by is not None
        self._add_values(served)
        self.eval()  # as a whole, since the exporter restores the mode of the whole

    def _add_values(self, served):
        """Read which values there are, and the logarithms of their factors."""
        values = served.schema.targets.learnt_values
        if not len(values):
            return
        self.value_parents = list(values.parents)
        self.are_per_impression = values_are_per_impression(served.settings)
        log_factors = np.log(served.schema.value_scales)
        if served.calibration is not None:
            log_factors = log_factors + np.log(served.calibration.value_factors)
        self.log_factors = torch.from_numpy(log_factors)

    @property
    def output_names(self):
        """The outputs of a graph."""
        if not self.value_parents:
            return [PROBABILITIES]
        return [PROBABILITIES, VALUES, VALUES_GIVEN_EVENT]

    @property
    def head_names(self):
        """What the outputs are computed from, the further results of `forward`."""
        return [LOGITS, VALUE_SCORES] if self.value_parents else [LOGITS]

    def forward(self, codes, numeric, *further_inputs):
        """Return the outputs, and what they are computed from.

        The outputs are probabilities in the open interval (0, 1) and, if there are
        values, mean amounts. They are computed from the network's logits, and the
        scores of the values.

        `further_inputs` are shifts if the network takes them, float64 of shape
        (batch, n_tasks + n_values) and added to the log-odds and to the logarithms of
        amounts, and the tensors of `Bags` if there are lists.
        """
        shifts = None
        bag_tensors = further_inputs
        if self.takes_shifts:
            shifts, *bag_tensors = further_inputs
        bags = [Bags(*bag_tensors)] if bag_tensors else []
        output = self.network(codes, numeric, *bags)
        heads = [output.logits.float()]
        if self.value_parents:
            heads.append(output.value_scores.float())
        return (*self.outputs_of_heads(*heads, shifts=shifts), *heads)

    def predict(self, inputs, output=PROBABILITIES):
        """Return one output of arrays by name."""
        return self.predict_all(inputs)[output]

    def predict_all(self, inputs):
        """Return all results of `forward` by name."""
        # The inputs of lists come last, in the order of `Bags`.
        first = [name for name in ("codes", "numeric", "shifts") if name in inputs]
        ordered = {name: inputs[name] for name in first} | inputs
        with torch.inference_mode():
            results = self(*map(torch.from_numpy, ordered.values()))
        names = [*self.output_names, *self.head_names]
        return {
            name: result.numpy() for name, result in zip(names, results, strict=True)
        }

    def outputs_of_heads(self, logits, scores=None, *, shifts=None):
        """Return the outputs of float32 logits and scores, in float64 inside.

        Sigmoids of ONNX Runtime in float32 have an absolute error of 6e-8, which is a
        large share of the probability of a rare event.
        """
        n_tasks = len(logits.unbind(dim=1))
        logits = logits.double()
        calibrated = logits
        if len(self.curves):
            task_shifts = None if shifts is None else shifts[:, :n_tasks]
            calibrated = self._calibrate(logits, task_shifts)
        outputs = [self._probabilities(calibrated)]
        if scores is not None:
            value_shifts = None if shifts is None else shifts[:, n_tasks:]
            outputs += self._values(logits, calibrated, scores, value_shifts)
        return outputs

    def _values(self, logits, calibrated, scores, shifts):
        """Return mean amounts per impression and given the event, in float64."""
        given_event = self._log_means(logits, scores, shifts)
        log_p = nn.functional.logsigmoid(calibrated)
        per_impression = [
            log_mean if parent < 0 else log_mean + log_p[:, parent]
            for log_mean, parent in zip(given_event, self.value_parents, strict=True)
        ]
        return [
            torch.stack(per_impression, dim=1).exp(),
            torch.stack(given_event, dim=1).exp(),
        ]

    def _log_means(self, logits, scores, shifts):
        """Return the logarithm of the mean amount given the event, of each value."""
        log_means = scores.double() + self.log_factors
        if shifts is not None:
            log_means = log_means + shifts
        columns = list(log_means.unbind(dim=1))
        if self.are_per_impression:
            log_p = nn.functional.logsigmoid(logits)
            columns = [
                column if parent < 0 else column - log_p[:, parent]
                for column, parent in zip(columns, self.value_parents, strict=True)
            ]
        return columns

    def explained_outputs(self, heads, shifts=None):
        """Return calibrated log-odds, and logarithms of mean amounts given the event.

        `heads` are arrays of `head_names`, `shifts` those of `forward`, the result is
        float64 of shape (batch, n_tasks + n_values).
        """
        logits, *scores = map(torch.from_numpy, heads)
        if shifts is not None:
            shifts = torch.from_numpy(shifts)
        n_tasks = logits.shape[1]
        logits = logits.double()
        columns = [logits]
        if len(self.curves):
            task_shifts = None if shifts is None else shifts[:, :n_tasks]
            columns = [self._calibrate(logits, task_shifts)]
        for value_scores in scores:
            value_shifts = None if shifts is None else shifts[:, n_tasks:]
            log_means = self._log_means(logits, value_scores, value_shifts)
            columns.append(torch.stack(log_means, dim=1))
        return torch.cat(columns, dim=1).numpy()

    def predict_heads(self, inputs, names):
        """Return some results of `forward`, in the order of their names."""
        results = self.predict_all(inputs)
        return [results[name] for name in names]

    def _probabilities(self, logits):
        """Return the probabilities of float64 log-odds."""
        limits = np.finfo(np.float32)
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
