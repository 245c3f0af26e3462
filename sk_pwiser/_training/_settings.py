"""The estimator's parameters as training reads them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

import numpy as np

from sk_pwiser._utils import did_you_mean, equal
from sk_pwiser.networks import SHARED_PARAMS, NetworkSpec

# Keys of `encoding_params` and their defaults.
ENCODING_PARAMS: dict[str, Any] = {
    "category_dropout": "auto",
    "grow_vocabulary": False,
    "list_ages": None,
    "list_pooling": "mean",
    "list_target_encoding": False,
    "list_weights": None,
    "max_bins": 64,
    "max_categories": None,
    "min_frequency": 2,
    "n_hash_buckets": None,
    "shared_embeddings": None,
    "target_encoding_blocks": 10,
    "target_encoding_min_values": 100,
    "time_column": None,
    "time_feature": False,
}

# Keys of `optimizer_params` that are not arguments of the optimiser, and their
# defaults.
LOOP_PARAMS: dict[str, Any] = {
    "average_decay": 0.99,
    "clip_grad_norm": None,
    "embedding_lr": None,
    "embedding_weight_decay": None,
    "lazy_embeddings": "auto",
}

# Defaults of the entries of `network_params` that every network takes.
SHARED_DEFAULTS: dict[str, Any] = {
    field.name: field.default
    for field in fields(NetworkSpec)
    if field.name in SHARED_PARAMS
}


@dataclass(frozen=True)
class Settings:
    """Copies of the estimator's parameters, which no later change reaches."""

    network: Any
    network_params: dict[str, Any]
    loss: Any
    loss_params: dict[str, Any]
    pwiser_weight: float
    weighting: Any
    weighting_params: dict[str, Any]
    categorical_features: Any
    numeric_encoding: str
    target_encoding: Any
    embedding_dim: Any
    encoding_params: dict[str, Any]
    missing_labels: str
    task_parents: Any
    negative_sampling_rate: float
    optimizer: Any
    optimizer_params: dict[str, Any]
    lr: float
    lr_schedule: str | None
    weight_decay: float
    batch_size: int
    stratified_batches: bool
    max_epochs: int
    early_stopping: Any
    validation_fraction: float
    n_iter_no_change: int
    device: Any
    precision: str
    compile: Any
    callbacks: Any
    checkpoint_dir: Any
    warm_start: bool
    verbose: int
    random_state: Any
    task_names: Any

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Settings":
        """Copy the parameters of an estimator; a subclass may have further ones."""
        copies: dict[str, Any] = {
            field.name: _copy(params[field.name]) for field in fields(cls)
        }
        for name in copies:
            if name.endswith("_params") and copies[name] is None:
                copies[name] = {}
        given = copies["encoding_params"]
        for key in given:
            if key not in ENCODING_PARAMS:
                raise ValueError(
                    f"encoding_params holds {key!r}; its keys are "
                    f"{list(ENCODING_PARAMS)}.{did_you_mean(key, ENCODING_PARAMS)}"
                )
        copies["encoding_params"] = {**ENCODING_PARAMS, **given}
        copies["optimizer_params"] = {**LOOP_PARAMS, **copies["optimizer_params"]}
        return cls(**copies)

    def shared_param(self, name: str) -> Any:
        """Return one of the entries of `network_params` that every network takes."""
        value = self.network_params.get(name, SHARED_DEFAULTS[name])
        return tuple(value) if isinstance(value, list) else value

    @property
    def left_out_column(self) -> Any:
        """The column that orders the rows and is no feature, None without one."""
        params = self.encoding_params
        return None if params["time_feature"] else params["time_column"]

    @property
    def grows(self) -> bool:
        """Whether updates add new category values to the vocabulary."""
        return bool(self.encoding_params["grow_vocabulary"])

    @property
    def average_decay(self) -> float:
        """Decay of the average of the weights, 0 for no average."""
        return float(self.optimizer_params["average_decay"] or 0.0)

    def equals(self, other: "Settings") -> bool:
        """Return whether all parameters have equal values."""
        names = [field.name for field in fields(self)]
        return all(equal(getattr(self, n), getattr(other, n)) for n in names)


def describe(value: Any) -> Any:
    """Return what a file can hold, equal for equal settings: text for objects."""
    if value is None or isinstance(value, bool | str | np.ndarray):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Mapping):
        return {key: describe(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [describe(each) for each in value]
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _copy(value: Any) -> Any:
    """Copy dictionaries, lists and arrays, also nested ones."""
    if isinstance(value, dict):
        return {key: _copy(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_copy(each) for each in value]
    return value.copy() if isinstance(value, np.ndarray) else value
