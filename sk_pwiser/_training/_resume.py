"""Continuing an earlier fit: in a new net, or in place with a way back."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._training._net import MultiTaskNet


def continue_from(net: MultiTaskNet, earlier: MultiTaskNet) -> None:
    """Copy weights, optimiser state and history of an earlier net into a new one.

    The arguments of the optimiser, such as its learning rate, are those of the new net.

    Raises
    ------
    ValueError
        If the networks, losses or weightings differ in their parameters.
    """
    for kind, part, source in (
        ("network", net.module_, earlier.module_),
        ("loss or weighting", net.criterion_, earlier.criterion_),
    ):
        try:
            part.load_state_dict(source.state_dict())
        except RuntimeError as error:
            raise ValueError(
                "Training cannot continue from the earlier fit, since the parameters "
                f"now describe a different {kind}: {error}"
            ) from error
    if type(net.optimizer_) is type(earlier.optimizer_):
        arguments = [
            {k: v for k, v in group.items() if k != "params"}
            for group in net.optimizer_.param_groups
        ]
        net.optimizer_.load_state_dict(deepcopy(earlier.optimizer_.state_dict()))
        for group, kept in zip(net.optimizer_.param_groups, arguments, strict=True):
            group.update(kept)
    net.history = deepcopy(earlier.history)
    net.best_ = dict(earlier.best_)


class Snapshot:
    """The state of a net before an update in place, to be restored if that fails.

    Parameters
    ----------
    net : MultiTaskNet
        The net. Its weights and the optimiser's state are copied.
    """

    def __init__(self, net: MultiTaskNet) -> None:
        self.net = net
        self.parts = [
            (tensor, tensor.detach().clone())
            for part in (net.module_, net.criterion_)
            for tensor in part.state_dict(keep_vars=True).values()
            if isinstance(tensor, Tensor)
        ]
        self.optimizer = {
            parameter: {key: _copy(value) for key, value in state.items()}
            for parameter, state in net.optimizer_.state.items()
        }
        self.n_epochs = len(net.history)
        self.best = dict(net.best_)

    def restore(self) -> None:
        """Bring the net back to the state of the snapshot."""
        net = self.net
        with torch.no_grad():
            for tensor, value in self.parts:
                tensor.copy_(value)
        net.optimizer_.state.clear()
        net.optimizer_.state.update(self.optimizer)
        net.criterion_.pop_epoch_record()
        del net.history[self.n_epochs :]
        net.best_ = self.best


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
