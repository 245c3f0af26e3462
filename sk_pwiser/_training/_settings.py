"""The estimator's parameters: their ranges, and copies that training reads."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, make_dataclass
from fractions import Fraction
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from sk_pwiser._utils import CHAIN, did_you_mean
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS, SHARED_PARAMS, NetworkSpec
from sk_pwiser.weighting import WEIGHTINGS

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


OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


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
    "pwiser_weight": [Limits(Real, 0, None, closed="left"), None],
    "weighting": [StrOptions(set(WEIGHTINGS)), type, torch.nn.Module],
    "weighting_params": [dict, None],
    "categorical_features": [StrOptions({"from_dtype"}), "array-like", None],
    "numeric_encoding": [str],  # the estimator adds the names, which `_table` has
    "target_encoding": [StrOptions({"auto"}), "boolean", "array-like"],
    "embedding_dim": [Limits(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "encoding_params": [dict, None],
    "missing_labels": [StrOptions({"error", "ignore"})],
    "task_parents": [StrOptions({CHAIN}), dict, None],
    "negative_sampling_rate": [Limits(Real, 0, 1, closed="right")],
    "optimizer": [StrOptions(set(OPTIMIZERS)), type],
    "optimizer_params": [dict, None],
    "lr": [Limits(Real, 0, None, closed="neither")],
    "lr_schedule": [StrOptions({"warmup_stable_decay"}), None],
    "weight_decay": [Limits(Real, 0, None, closed="left")],
    "batch_size": [Limits(Integral, 1, None, closed="left")],
    "stratified_batches": ["boolean"],
    "max_epochs": [Limits(Integral, 1, None, closed="left")],
    "early_stopping": ["boolean", str, callable],
    "validation_fraction": [Limits(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Limits(Integral, 1, None, closed="left")],
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

_Parameters = make_dataclass("_Parameters", PARAMETER_CONSTRAINTS, frozen=True)


class Settings(_Parameters):  # type: ignore[misc, valid-type]
    """Copies of the estimator's parameters, which no later change reaches."""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Settings":
        """Copy the parameters of an estimator; a subclass may have further ones."""
        copies = {name: _copy(params[name]) for name in PARAMETER_CONSTRAINTS}
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


# Largest usual values of parameters, and of learning rates by optimiser.
USUAL_LR, USUAL_LR_OF = 0.03, {"sgd": 1.0, "adagrad": 0.3}
USUAL = {
    "weight_decay": 0.1,
    "embedding_weight_decay": 0.1,
    "momentum": 0.999,
    "pwiser_weight": 10.0,
}
USUAL_WEIGHT = 100.0


def advice(settings: Settings) -> str:
    """Return advice after a divergence: parameters far above their usual values."""
    found = [f"Use a smaller {name}; it is {value}." for name, value in _far(settings)]
    return " ".join(found) or (
        "No parameter is far above its usual values; a smaller lr, which is "
        f"{settings.lr}, or clip_grad_norm in optimizer_params may help."
    )


def _far(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of parameters that are far above usual values."""
    usual_lr = USUAL_LR
    if isinstance(settings.optimizer, str):
        usual_lr = USUAL_LR_OF.get(settings.optimizer, USUAL_LR)
    usual = {**USUAL, "lr": usual_lr, "embedding_lr": usual_lr}
    own = ("lr", "weight_decay", "pwiser_weight")
    values: dict[str, Any] = {name: getattr(settings, name) for name in own}
    values |= {k: v for k, v in settings.optimizer_params.items() if k in usual}
    of_network = settings.network_params.items()
    values |= {k: v for k, v in of_network if k.endswith(("weight", "weights"))}
    values |= {**settings.loss_params, **settings.weighting_params}
    for name, value in values.items():
        limit = usual.get(name, USUAL_WEIGHT)
        if any(abs(number) > limit for number in _numbers(value)):
            yield name, value


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Real):
        yield float(value)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
