"""The log of an update in place, by which a failed one is undone."""

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor

from sk_pwiser._training._callbacks import group_arguments
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._optimizers import LazyAdam, sparse_tables

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
    if isinstance(net.optimizer_, LazyAdam):
        net.optimizer_.undo = undo
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
    state = {
        parameter: of_parameter
        if parameter in tables
        else {
            key: value.clone() if isinstance(value, Tensor) else value
            for key, value in of_parameter.items()
        }
        for parameter, of_parameter in net.optimizer_.state.items()
    }
    n_epochs, best = len(net.history), dict(net.best_)

    def restore() -> None:
        with torch.no_grad():
            for tensor, value in tensors:
                tensor.copy_(value)
        for module, of_module in buffers:
            module._buffers.update(of_module)
        net.criterion = net.criterion_ = criterion
        for group, kept in zip(net.optimizer_.param_groups, arguments, strict=True):
            group.update(kept)
        net.optimizer_.state.clear()
        net.optimizer_.state.update(state)
        del net.history[n_epochs:]
        net.best_ = best

    undo.append(restore)
