"""The estimator's parameters: names, ranges, and the copies that training reads."""

import re
from collections.abc import Mapping
from dataclasses import make_dataclass
from fractions import Fraction
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from sk_pwiser._columns._id_vectors import IdVectors
from sk_pwiser._tasks import _tree
from sk_pwiser._utils import _checks
from sk_pwiser._utils._components import RemovedNameError
from sk_pwiser.losses import LOSSES, VALUE_LOSSES
from sk_pwiser.networks import NETWORKS, NetworkSpec
from sk_pwiser.weighting import WEIGHTINGS, check_not_removed

# Keys of `encoding_params` and their defaults.
ENCODING_PARAMS: dict[str, Any] = {
    "category_dropout": "auto",
    "combinations": "auto",
    "exposure_monotone": False,
    "exposure_tasks": None,
    "forget_after": None,
    "grow_vocabulary": False,
    "list_ages": None,
    "list_pooling": "mean",
    "list_target_encoding": False,
    "list_weights": None,
    "max_bins": 64,
    "max_categories": None,
    "min_frequency": 2,
    "n_hash_buckets": None,
    "parents": None,
    "shared_embeddings": None,
    "target_encoding_blocks": 10,
    "target_encoding_min_values": 100,
    "time_column": None,
    "time_feature": False,
    "vectors": None,
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

# The value of `pwiser_weight` that lets `fit` choose it.
AUTO_WEIGHT = "auto"

# The keys of `OPTIMIZERS` in `_training/_optimizers.py`.
OPTIMIZER_NAMES = {"adagrad", "adam", "adamw", "rmsprop", "sgd"}


class Limits(Interval):  # type: ignore[misc]
    """An interval whose errors name the parameter also for fractions."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Return whether a value is in the interval."""
        return not isinstance(val, Fraction) and super().is_satisfied_by(val)


# The parameters of the estimator, and what scikit-learn checks of their values.
PARAMETER_CONSTRAINTS: dict[str, list[Any]] = {
    "network": [StrOptions(set(NETWORKS)), type],
    "network_params": [dict, None],
    "loss": [StrOptions(set(LOSSES)), type],
    "loss_params": [dict, None],
    "pwiser_weight": [
        Limits(Real, 0, None, closed="left"),
        StrOptions({AUTO_WEIGHT}),
        None,
    ],
    "weighting": [StrOptions(set(WEIGHTINGS)), type, torch.nn.Module],
    "weighting_params": [dict, None],
    "categorical_features": [StrOptions({"from_dtype"}), "array-like", None],
    "numeric_encoding": [str],  # the estimator knows the names, which `_columns` has
    "target_encoding": [StrOptions({"auto"}), "boolean", "array-like"],
    "embedding_dim": [Limits(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "encoding_params": [dict, None],
    "exposure_features": ["array-like", dict, None],
    "missing_labels": [StrOptions({"error", "ignore"})],
    "task_parents": [StrOptions({_tree.CHAIN}), dict, None],
    "value_tasks": [dict, None],
    "value_loss": [StrOptions(set(VALUE_LOSSES))],
    "negative_sampling_rate": [Limits(Real, 0, 1, closed="right")],
    "optimizer": [StrOptions(OPTIMIZER_NAMES), type],
    "optimizer_params": [dict, None],
    "lr": [Limits(Real, 0, None, closed="neither")],
    "lr_schedule": [StrOptions({"warmup_stable_decay"}), None],
    "weight_decay": [Limits(Real, 0, None, closed="left"), StrOptions({"auto"})],
    "batch_size": [Limits(Integral, 1, None, closed="left")],
    "stratified_batches": ["boolean"],
    "max_epochs": [Limits(Integral, 1, None, closed="left")],
    "early_stopping": ["boolean", str, callable],
    "validation_fraction": [Limits(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Limits(Integral, 1, None, closed="left")],
    "refit": ["boolean"],
    "device": [str, torch.device],
    "precision": [StrOptions({"float32", "bfloat16"})],
    "compile": [
        "boolean",
        StrOptions({"default", "reduce-overhead", "max-autotune", "graph"}),
    ],
    "callbacks": [list, tuple, None],
    "checkpoint_dir": [str, PathLike, None],
    "warm_start": ["boolean"],
    "verbose": ["verbose"],
    "random_state": ["random_state"],
    "task_names": ["array-like", None],
}


def check_optimizer_name(choice: Any) -> None:
    """Raise if a name is that of an optimiser that earlier versions had."""
    if isinstance(choice, str) and choice == "muon":
        raise RemovedNameError(
            "optimizer='muon' was removed. Use 'adam', or a subclass of "
            "torch.optim.Optimizer that takes parameters of any shape."
        )


_Parameters = make_dataclass("_Parameters", PARAMETER_CONSTRAINTS, frozen=True)


class Settings(_Parameters):  # type: ignore[misc, valid-type]
    """Copies of the estimator's parameters, which no later change reaches."""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Settings":
        """Copy the parameters of an estimator; a subclass may have further ones."""
        check_not_removed(params["weighting"])
        check_optimizer_name(params["optimizer"])
        params, vectors = without_vectors(params)
        copies = {name: _copy(params[name]) for name in PARAMETER_CONSTRAINTS}
        copies |= {k: v or {} for k, v in copies.items() if k.endswith("_params")}
        passed_params = copies["encoding_params"]
        for key in passed_params:
            _checks.check_choice("Each key of encoding_params", key, ENCODING_PARAMS)
        copies["encoding_params"] = {**ENCODING_PARAMS, **passed_params}
        if isinstance(vectors, dict):
            # The tables themselves, which may be large, are not copied.
            vectors = {name: _as_id_vectors(table) for name, table in vectors.items()}
        copies["encoding_params"]["vectors"] = vectors
        copies["optimizer_params"] = {**LOOP_PARAMS, **copies["optimizer_params"]}
        return cls(**copies)


def without_vectors(params: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the parameters without tables of vectors, which are large, and these."""
    encoding_params = params["encoding_params"]
    if not isinstance(encoding_params, dict) or "vectors" not in encoding_params:
        return dict(params), None
    other_params = {k: v for k, v in encoding_params.items() if k != "vectors"}
    return {**params, "encoding_params": other_params}, encoding_params["vectors"]


def _as_id_vectors(table: Any) -> IdVectors:
    return table if isinstance(table, IdVectors) else IdVectors(table)


def shared_param(settings: Settings, name: str) -> Any:
    """Return one of the entries of `network_params` that every network takes."""
    value = settings.network_params.get(name, getattr(NetworkSpec, name))
    return tuple(value) if isinstance(value, list) else value


def values_are_per_impression(settings: Settings) -> bool:
    """Return whether heads of values learn means per impression."""
    return VALUE_LOSSES[settings.value_loss].reads_all_rows


def exposure_references(settings: Settings) -> dict[Any, Any]:
    """Return the references of the columns of `exposure_features`, None for defaults.

    The columns are those that the user names, by their names or indices.
    """
    features = getattr(settings, "exposure_features", None)
    if features is None:
        return {}
    if isinstance(features, Mapping):
        return dict(features)
    # In an array of text, the index 1 of a list would be "1".
    columns = np.atleast_1d(np.array(features, dtype=object)).tolist()
    return dict.fromkeys(columns)


def left_out_column(settings: Settings) -> Any:
    """Return the column that orders the rows and is no feature, None without one."""
    params = settings.encoding_params
    return None if params["time_feature"] else params["time_column"]


def describe(value: Any) -> Any:
    """Return what a file can hold, equal for equal settings: text for objects."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str | np.ndarray):
        return value
    if isinstance(value, Mapping):
        return {key: describe(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [describe(entry) for entry in value]
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _copy(value: Any) -> Any:
    """Copy dictionaries, lists and arrays, also nested ones."""
    if isinstance(value, dict):
        return {key: _copy(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_copy(entry) for entry in value]
    return value.copy() if isinstance(value, np.ndarray) else value
