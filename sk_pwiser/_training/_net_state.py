"""The state of a net, as checkpoints and files hold it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from torch import Tensor

from sk_pwiser._training._callbacks import PARTS, set_states
from sk_pwiser._training._epoch_history import EpochHistory


def net_state(net: NeuralNet) -> dict[str, Any]:
    """Return weights, the states of criterion and optimiser, and the history."""
    states = {part: getattr(net, name).state_dict() for part, name in PARTS.items()}
    return {**states, "history": list(net.history)}


def load_net_state(net: NeuralNet, state: Mapping[str, Any]) -> None:
    """Restore what `net_state` returned, unless the weights do not fit the net."""
    states = {part: state[part] for part in PARTS}
    pairs = zip(
        states["optimizer"]["param_groups"], net.optimizer_.param_groups, strict=True
    )
    groups = []
    for saved_group, net_group in pairs:
        machine = {k: v for k, v in net_group.items() if k in _MACHINE_ARGUMENTS}
        groups.append({**saved_group, **machine})
    states["optimizer"] = {**states["optimizer"], "param_groups": groups}
    try:
        set_states(net, states)
    except RuntimeError as error:
        raise ValueError(f"its weights do not fit its parameters: {error}") from error
    net.history = EpochHistory(state["history"])


# Arguments of torch's optimisers that say how a step is computed. Those of the machine
# that trains on are used: another one may not support them.
_MACHINE_ARGUMENTS = ("capturable", "foreach", "fused")


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
        return {key: _map(entry, kind, convert) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_map(entry, kind, convert) for entry in value)
    return value
