"""A fitted network as plain pieces for a file, and back."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sk_pwiser._training._coherence import Rises
from sk_pwiser._training._components import build_net, build_network, check_components
from sk_pwiser._training._data import STATE_CLASSES as TABLE_CLASSES
from sk_pwiser._training._data import Schema
from sk_pwiser._training._device import find_device
from sk_pwiser._training._fit import TrainingResult
from sk_pwiser._training._history import EpochHistory
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import Generators, seeded_globally, warn_user

# Classes of the pieces, beside plain values and arrays.
STATE_CLASSES = (*TABLE_CLASSES, Rises, Schema, Settings)

# Attributes of the net that are no settings of the estimator.
_OF_NET = ("max_epochs", "average_decay", "compile_mode")


def to_state(result: TrainingResult) -> dict[str, Any]:
    """Return the pieces of a result: plain values, arrays and `STATE_CLASSES`.

    Callbacks are left out.
    """
    net = result.net
    state = {
        "settings": replace(
            result.settings, callbacks=None, device=str(result.settings.device)
        ),
        "schema": result.schema,
        "generators": result.generators.__getstate__(),
        "single_pass": result.single_pass,
        "best_epoch": result.best_epoch,
        "n_rows": result.n_rows,
        "rises": result.rises,
        "net": {name: getattr(net, name) for name in _OF_NET},
        "sampler": net.iterator_train__sampler,
        "network": dict(net.module_.state_dict()),
        "criterion": dict(net.criterion_.state_dict()),
        "optimizer": net.optimizer_.state_dict(),
        "history": list(net.history),
        "best": net.best_,
    }
    arrays: dict[str, Any] = _map(state, Tensor, _to_array)
    return arrays


def from_state(state: Mapping[str, Any]) -> TrainingResult:
    """Build the result of which `to_state` returned the pieces.

    Raises
    ------
    ValueError
        If the pieces do not fit together.
    """
    settings = state["settings"]
    if not isinstance(settings, Settings) or {*vars(settings)} != {
        field.name for field in fields(Settings)
    }:
        raise ValueError("its settings are not those of this version")
    schema = state["schema"]
    device = _device(settings.device)
    # Compiling is left to the next training.
    eager = replace(settings, compile=False)
    with seeded_globally(0, device):
        components = check_components(eager, schema.targets.task_names, device, False)
        net = build_net(
            eager,
            replace(components, sampler=state["sampler"]),
            build_network(eager, schema),
            device,
            monitor=None,
            max_epochs=state["net"]["max_epochs"],
            average_decay=state["net"]["average_decay"],
        )
    net.compile_mode = state["net"]["compile_mode"]
    _load(net, state)
    generators = Generators.__new__(Generators)
    generators.__setstate__(_tensors(state["generators"]))
    return TrainingResult(
        net,
        schema,
        generators,
        settings,
        state["single_pass"],
        state["best_epoch"],
        state["n_rows"],
        state["rises"],
    )


def _load(net: MultiTaskNet, state: Mapping[str, Any]) -> None:
    """Restore weights, the states of criterion and optimiser, and the history."""
    try:
        net.module_.load_state_dict(_tensors(state["network"]))
        net.criterion_.load_state_dict(_tensors(state["criterion"]))
    except RuntimeError as error:
        raise ValueError(f"its weights do not fit its parameters: {error}") from error
    net.optimizer_.load_state_dict(_tensors(state["optimizer"]))
    net.history = EpochHistory(state["history"])
    net.best_ = state["best"]


def _device(name: str) -> torch.device:
    try:
        return find_device(name)
    except ValueError as error:
        warn_user(f"{error} Loading on the CPU instead.")
        return torch.device("cpu")


def _to_array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array


def _tensors(value: Any) -> Any:
    return _map(value, np.ndarray, torch.from_numpy)


def _map(value: Any, kind: type, convert: Any) -> Any:
    """Convert all values of a class within dictionaries, lists and tuples."""
    if isinstance(value, kind):
        return convert(value)
    if isinstance(value, dict):
        return {key: _map(item, kind, convert) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_map(item, kind, convert) for item in value)
    return value
