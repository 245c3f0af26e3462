"""The state of a trained net as plain values and arrays, and back."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sk_pwiser._training._history import EpochHistory
from sk_pwiser._training._net import MultiTaskNet


def net_state(net: MultiTaskNet) -> dict[str, Any]:
    """Return weights, the states of criterion and optimiser, and the history."""
    return {
        "network": dict(net.module_.state_dict()),
        "criterion": dict(net.criterion_.state_dict()),
        "optimizer": net.optimizer_.state_dict(),
        "history": list(net.history),
        "best": net.best_,
    }


def load_net_state(net: MultiTaskNet, state: Mapping[str, Any]) -> None:
    """Restore what `net_state` returned.

    Raises
    ------
    ValueError
        If the weights are those of another network, loss or weighting.
    """
    try:
        net.module_.load_state_dict(state["network"])
        net.criterion_.load_state_dict(state["criterion"])
    except RuntimeError as error:
        raise ValueError(f"its weights do not fit its parameters: {error}") from error
    net.optimizer_.load_state_dict(state["optimizer"])
    net.history = EpochHistory(state["history"])
    net.best_ = state["best"]


def to_arrays(value: Any) -> Any:
    """Convert the tensors within dictionaries, lists and tuples to arrays."""
    return _map(value, Tensor, lambda tensor: tensor.detach().cpu().numpy())


def to_tensors(value: Any) -> Any:
    """Convert the arrays within dictionaries, lists and tuples to tensors."""
    return _map(value, np.ndarray, torch.from_numpy)


def _map(value: Any, kind: type, convert: Callable[[Any], Any]) -> Any:
    if isinstance(value, kind):
        return convert(value)
    if isinstance(value, dict):
        return {key: _map(item, kind, convert) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_map(item, kind, convert) for item in value)
    return value
