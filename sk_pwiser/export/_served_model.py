"""A fitted estimator as servers need it: without the state of its training."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
from sk_pwiser._model_files import PlainForm
from sk_pwiser._settings import Settings
from sk_pwiser._tasks._tree import read_task_parents
from sk_pwiser._training._build_net import build_network
from sk_pwiser._training._limited_memory import LimitedMemory
from sk_pwiser._training._net_state import to_arrays, to_tensors
from sk_pwiser._training._result_files import STATE_CLASSES, without_tables
from sk_pwiser._training._schema import Schema, encode_plain
from sk_pwiser._utils._random import seeded_globally
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.calibration._curves import IsotonicCurve, SigmoidCurve


def fitted_result(estimator: Any) -> Any:
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


@dataclass(frozen=True, kw_only=True)
class ServedCalibration:
    """What a calibrator has learnt."""

    curves: tuple[Any, ...]  # of the tasks
    # Of each task, the task than which it is not likelier, -1 for none.
    parents: tuple[int, ...]
    by: Any  # the column whose values have shifts, or None
    shifts: Mapping[Any, np.ndarray]  # of the tasks, by its values
    value_shifts: Mapping[Any, np.ndarray]
    value_factors: np.ndarray

    @classmethod
    def of(cls, calibrator: FunnelCalibrator) -> "ServedCalibration":
        """Return the calibration of a fitted calibrator."""
        parents = (-1,) * calibrator.n_tasks_
        if calibrator.ordered:
            parents = tuple(
                read_task_parents(calibrator.task_parents_, calibrator.task_names_)
            )
        is_shifted = calibrator.by_ is not None
        return cls(
            curves=tuple(calibrator.calibrators_),
            parents=parents,
            by=calibrator.by_,
            shifts=dict(calibrator.shifts_) if is_shifted else {},
            value_shifts=dict(calibrator.value_shifts_) if is_shifted else {},
            value_factors=np.asarray(calibrator.value_factors_, dtype=np.float64),
        )


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """Columns, tasks and calibration of a fitted estimator, beside its network."""

    schema: Schema
    settings: Settings
    n_columns: int  # of `predict_proba`
    both_classes: bool  # whether these are the classes of a single task
    calibration: ServedCalibration | None

    @classmethod
    def of(cls, estimator: Any) -> "ServedModel":
        """Return what serves a fitted estimator; its columns are shared, not copied."""
        result = fitted_result(estimator)
        calibration = None
        if isinstance(estimator, FunnelCalibrator):
            calibration = ServedCalibration.of(estimator)
        return cls(
            schema=result.schema,
            settings=result.settings,
            n_columns=len(estimator.classes_),
            both_classes=estimator.classes_.ndim == 1,
            calibration=calibration,
        )

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, in the order of the probabilities."""
        return tuple(map(str, self.schema.targets.task_names))

    @property
    def value_names(self) -> tuple[str, ...]:
        """The values that are learnt."""
        return tuple(self.schema.targets.learnt_values.names)

    @property
    def task_parents(self) -> dict[str, str | None]:
        """The task that each task presupposes, None for none."""
        return self._named_parents(self.task_names, self.schema.targets.parents)

    @property
    def value_parents(self) -> dict[str, str | None]:
        """The task under which each value arises, None for none."""
        values = self.schema.targets.learnt_values
        return self._named_parents(values.names, values.parents)

    def _named_parents(
        self, names: Sequence[str], parents: Sequence[int]
    ) -> dict[str, str | None]:
        return {
            name: self.task_names[parent] if parent >= 0 else None
            for name, parent in zip(names, parents, strict=True)
        }

    def without_training(self) -> "ServedModel":
        """Return the model without counts of rows and choices of the machine."""
        settings = replace(
            self.settings,
            callbacks=None,
            checkpoint_dir=None,
            compile=False,
            device="cpu",
            encoding_params=without_tables(self.settings.encoding_params),
        )
        statistics = self.schema.statistics
        if statistics is not None:
            # The tables of rates follow from the counts, which only updates need.
            statistics = copy.copy(statistics)
            statistics.counts_ = []
        encoder = self.schema.encoder
        encoder = encoder.with_columns(
            {c: c.for_serving() for c in encoder.all_columns_}
        )
        schema = replace(self.schema, encoder=encoder, statistics=statistics)
        return replace(self, schema=schema, settings=settings)


# Classes of the values in a file of a served model.
SERVED_CLASSES = (
    *STATE_CLASSES,
    IsotonicCurve,
    SigmoidCurve,
    ServedCalibration,
    ServedModel,
)


def to_plain(
    served: ServedModel, network: nn.Module
) -> tuple[Any, dict[str, np.ndarray]]:
    """Return a served model and the weights of its network as JSON and arrays."""
    content = {
        "model": served.without_training(),
        "weights": to_arrays(dict(network.state_dict())),
    }
    form = PlainForm(SERVED_CLASSES)
    return encode_plain(form, content, "served", served.schema)


def from_plain(
    values: Any, arrays: Mapping[str, np.ndarray]
) -> tuple[ServedModel, nn.Module]:
    """Return the model and the network that `to_plain` was called with."""
    content = PlainForm(SERVED_CLASSES).decode(values, arrays)
    served: ServedModel = content["model"]
    weights = content["weights"]
    with seeded_globally(0, torch.device("cpu")), LimitedMemory(weights):
        network = build_network(served.settings, served.schema, None)
    network.load_state_dict(to_tensors(weights))
    return served, network.requires_grad_(False)
