"""The estimator's parameters: names, ranges, copies that training reads, the device."""

import re
from collections.abc import Callable, Mapping
from dataclasses import make_dataclass
from fractions import Fraction
from functools import wraps
from inspect import signature
from itertools import chain
from numbers import Integral, Real
from os import PathLike
from typing import Any, Self, TypeVar, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from skorch.exceptions import DeviceWarning
from torch.nn import functional as F

from sk_pwiser._tasks import _tree
from sk_pwiser._training._muon import Muon
from sk_pwiser._utils import _checks, _warnings
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS
from sk_pwiser.weighting import WEIGHTINGS, check_not_removed

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

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "muon": Muon,
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
    "numeric_encoding": [str],  # the estimator knows the names, which `_table` has
    "target_encoding": [StrOptions({"auto"}), "boolean", "array-like"],
    "embedding_dim": [Limits(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "encoding_params": [dict, None],
    "missing_labels": [StrOptions({"error", "ignore"})],
    "task_parents": [StrOptions({_tree.CHAIN}), dict, None],
    "negative_sampling_rate": [Limits(Real, 0, 1, closed="right")],
    "optimizer": [StrOptions(set(OPTIMIZERS)), type],
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

# What other packages call the parameters, and arguments of `fit`.
OTHER_NAMES = {
    "lr": ("learning_rate", "eta"),
    "max_epochs": ("n_estimators", "num_boost_round", "iterations", "epochs"),
    "n_iter_no_change": ("early_stopping_rounds", "patience"),
    "early_stopping": ("eval_metric", "monitor"),
    "validation_fraction": ("validation_split",),
    "categorical_features": ("categorical_feature", "cat_features"),
    "weight_decay": ("reg_lambda",),
    "verbose": ("verbose_eval",),
    "random_state": ("seed",),
    "eval_set": ("validation_data",),
    "sample_weight": ("weight", "class_weight", "scale_pos_weight"),
    "groups": ("group",),
}
OWN_NAMES = {other: own for own, names in OTHER_NAMES.items() for other in names}
THREADS = ("n_jobs", "num_threads", "nthread", "thread_count")


Method = TypeVar("Method", bound=Callable[..., Any])


def explain_names(function: Method) -> Method:
    """Let errors about unknown keywords of a method name the parameter meant.

    Labels may be passed as `y`, as in scikit-learn, or as `Y`.
    """
    known = signature(function).parameters

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs.keys() - known.keys():
            other = name[:1].swapcase() + name[1:]
            if name[:1] in ("Y", "y") and other in known and other not in kwargs:
                kwargs[other] = kwargs.pop(name)
                continue
            names = [*known, *PARAMETER_CONSTRAINTS, *OWN_NAMES, *THREADS]
            meant = name if name in names else _checks.nearest(name, names)
            meant = OWN_NAMES.get(meant, meant)
            if name in THREADS:
                hint = "set the number of threads by `with sk_pwiser.num_threads(n):`"
            elif meant in known:
                hint = f"the argument is {meant}"
            elif meant in PARAMETER_CONSTRAINTS:
                hint = f"set the parameter {meant} of the estimator"
            elif meant in ("sample_weight", "groups", "eval_set"):
                hint = f"pass {meant} to fit"
            else:
                continue
            raise TypeError(
                f"{function.__name__}() got an unexpected keyword argument {name!r}; "
                f"{hint}."
            )
        return function(*args, **kwargs)

    return cast(Method, call)


class ParametersMixin(BaseEstimator):  # type: ignore[misc]
    """Mixin class of an estimator with entries of dictionaries as parameters."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of the estimator.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include entries of dictionaries, as `<dictionary>__<entry>`.

        Returns
        -------
        dict
            Parameter names mapped to their values.
        """
        params: dict[str, Any] = super().get_params(deep=deep)
        if deep:
            for name, value in list(params.items()):
                if name.endswith("_params") and isinstance(value, dict):
                    params.update({f"{name}__{key}": v for key, v in value.items()})
        return params

    def set_params(self, **params: Any) -> Self:
        """Set the parameters of the estimator.

        Parameters
        ----------
        **params : dict
            Parameters, or entries of dictionaries as `<dictionary>__<entry>`, for
            example `network_params__n_experts=8`. An entry is set in a copy of the
            dictionary, and its name is checked in `fit`.

        Returns
        -------
        MultiTaskCTRCVRClassifier
            The estimator.

        Raises
        ------
        ValueError
            If the estimator has no such parameter, or if an entry is to be set in a
            value that is not a dictionary.
        """
        known, entries = self._get_param_names(), {}
        for key in list(params):
            name, separator, entry = key.partition("__")
            if separator and name.endswith("_params"):
                entries[name, entry] = params.pop(key)
            if name not in known:
                # The message of scikit-learn, with the name that was meant.
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self}. Valid "
                    f"parameters are: {known!r}.{_checks.did_you_mean(name, known)}"
                )
        # Values first: an entry may belong to a dictionary set in the same call.
        super().set_params(**params)
        for (name, entry), value in entries.items():
            dictionary = getattr(self, name)
            if not isinstance(dictionary, dict | None):
                raise ValueError(
                    f"{name}__{entry} sets an entry of {name}, which is not a "
                    f"dictionary but {dictionary!r}."
                )
            setattr(self, name, {**(dictionary or {}), entry: value})
        return self

    def _validate_params(self) -> None:
        """Validate the parameters; errors also name the one that was meant."""
        check_not_removed(getattr(self, "weighting", None))
        try:
            super()._validate_params()
        except InvalidParameterError as error:
            name = str(error).split("'")[1]
            rules = self._parameter_constraints.get(name, ())
            names = chain.from_iterable(getattr(rule, "options", ()) for rule in rules)
            hint = _checks.did_you_mean(getattr(self, name, None), names)
            raise InvalidParameterError(f"{error}{hint}") from error


_Parameters = make_dataclass("_Parameters", PARAMETER_CONSTRAINTS, frozen=True)


class Settings(_Parameters):  # type: ignore[misc, valid-type]
    """Copies of the estimator's parameters, which no later change reaches."""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Settings":
        """Copy the parameters of an estimator; a subclass may have further ones."""
        check_not_removed(params["weighting"])
        copies = {name: _copy(params[name]) for name in PARAMETER_CONSTRAINTS}
        copies |= {k: v or {} for k, v in copies.items() if k.endswith("_params")}
        given = copies["encoding_params"]
        for key in given:
            _checks.check_choice("Each key of encoding_params", key, ENCODING_PARAMS)
        copies["encoding_params"] = {**ENCODING_PARAMS, **given}
        copies["optimizer_params"] = {**LOOP_PARAMS, **copies["optimizer_params"]}
        return cls(**copies)


def describe(value: Any) -> Any:
    """Return what a file can hold, equal for equal settings: text for objects."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str | np.ndarray):
        return value
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


def find_device(name: str | torch.device) -> torch.device:
    """Return the torch device, after a check; "auto" is an accelerator if present."""
    if name != "auto":
        try:
            device = torch.device(name)
            torch.zeros(1, device=device).item()
        except (RuntimeError, AssertionError, ImportError) as error:
            raise ValueError(
                f"device={str(name)!r} cannot be used on this machine; device='auto' "
                f"uses an accelerator if one is present. {error}"
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    # Before 2.6 torch has no common name for the others, and "auto" leaves them out.
    module: Any = getattr(torch, "accelerator", None)
    if module is None or not module.is_available():
        return torch.device("cpu")
    found: torch.device = module.current_accelerator()
    try:
        _check_operators(found)
    except (RuntimeError, TypeError) as error:
        _warnings.warn_user(
            f"device='auto' uses the CPU: {str(found)!r} lacks an operator that "
            f"training needs: {str(error).strip().partition(chr(10))[0]}"
        )
        return torch.device("cpu")
    return found


def device_or_cpu(name: str | torch.device) -> torch.device:
    """Return the torch device; if it is not present, warn and return the CPU."""
    try:
        return find_device(name)
    except ValueError as error:
        _warnings.warn_user(f"{error} Loading on the CPU instead.", DeviceWarning)
        return torch.device("cpu")


def _check_operators(device: torch.device) -> None:
    """Raise if a device lacks an operator of every fit; some devices lack these."""
    x, rows = torch.linspace(0, 1, 4, device=device), torch.arange(4, device=device)
    x = torch.zeros_like(x).index_add_(0, rows, x).lerp_(x, 0.5).cumprod(0)
    matrix = x.view(1, 4, 1)
    torch.baddbmm(matrix, matrix, F.hardshrink(F.logsigmoid(matrix[:, :1])))
    x.uniform_(generator=torch.Generator(device))
