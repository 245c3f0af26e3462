"""The log of the changes that an update makes in place, by which it is taken back."""

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._training._callbacks import group_arguments
from sk_pwiser._training._embedding_tables import sparse_tables
from sk_pwiser._training._lazy_tables import LazyAdam, RowLog
from sk_pwiser._training._net import MultiTaskNet

# Functions that undo the changes of an update in place, the latest last.
Undo = list[Callable[[], None]]


def take_back(undo: Undo) -> None:
    """Undo an update, its latest change first, and empty the log."""
    while undo:
        # An interrupted entry runs again, so that a second Ctrl-C does no harm.
        with suppress(KeyboardInterrupt):
            while undo:
                undo[-1]()
                undo.pop()


def log_net(net: MultiTaskNet, undo: Undo) -> None:
    """Log the state of a net before it is trained in place.

    The optimiser logs the rows of large embedding tables at their first change.
    """
    tables = set(sparse_tables(net.module_))
    logs: dict[Any, RowLog] = {}
    if isinstance(net.optimizer_, LazyAdam):
        net.optimizer_.logs = logs
    parameters = [*net.module_.parameters(), *net.criterion_.parameters()]
    tensors = [
        (tensor, tensor.detach().clone())
        for tensor in chain(parameters, net.module_.buffers())
        if tensor not in tables
    ]
    # A user's network may replace its buffers by others.
    buffers = [(m, dict(m._buffers)) for m in net.module_.modules() if m._buffers]
    # A weighting may replace its buffers by others of another shape. The copy has the
    # parameters themselves, to which the optimiser refers.
    criterion = deepcopy(net.criterion_, {id(p): p for p in parameters})
    arguments = group_arguments(net.optimizer_)
    states = {
        parameter: state
        if parameter in tables
        # Faster than deepcopy, in every update.
        else {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}
        for parameter, state in net.optimizer_.state.items()
    }
    n_epochs = len(net.history)

    def restore() -> None:
        for log in logs.values():
            log.restore()
        with torch.no_grad():
            for tensor, value in tensors:
                tensor.copy_(value)
        for module, module_buffers in buffers:
            module._buffers.update(module_buffers)
        net.criterion = criterion
        net.criterion_ = criterion
        pairs = zip(net.optimizer_.param_groups, arguments, strict=True)
        for group, group_values in pairs:
            group.update(group_values)
        net.optimizer_.state.clear()
        net.optimizer_.state.update(states)
        del net.history[n_epochs:]

    undo.append(restore)
