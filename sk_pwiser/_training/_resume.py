"""Continuing an earlier fit: in a new net, or in place with a snapshot to restore."""

from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._training._lazy_adam import LazyAdam, sparse_tables
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._schedules import continues
from sk_pwiser._training._settings import Settings, equal

# Arguments of torch's optimisers that add entries to their state if they are not 0.
_OF_STATE = ("amsgrad", "centered", "momentum")


def check_same_model(settings: Settings, earlier: Settings) -> None:
    """Raise if continuing an earlier fit would change what its weights mean.

    Other changes of the network show in the shapes of its parameters.

    Raises
    ------
    ValueError
        If the numeric encoding, the sampling rate, the task space or the interaction
        differs.
    """
    for name, now, before in (
        *(
            (name, getattr(settings, name), getattr(earlier, name))
            for name in ("numeric_encoding", "negative_sampling_rate")
        ),
        *(
            (name, settings.shared_param(name), earlier.shared_param(name))
            for name in ("task_space", "interaction")
        ),
    ):
        if now != before:
            raise ValueError(
                f"Training cannot continue with {name}={now!r}: the earlier fit used "
                f"{before!r}."
            )


def check_same_statistics(settings: Settings, earlier: Any, statistics: Any) -> None:
    """Raise if a continued fit selects other columns for target statistics."""
    found, expected = (
        [] if one is None else one.columns for one in (statistics, earlier.statistics)
    )
    if found != expected:
        columns = [c.name for c in earlier.encoder.columns_ if hasattr(c, "n_codes")]
        raise ValueError(
            f"Training cannot continue with target_encoding="
            f"{settings.target_encoding!r}: it selects the columns "
            f"{[columns[i] for i in found]}, the earlier fit those of "
            f"{[columns[i] for i in expected]}."
        )


def changed_parts(settings: Settings, earlier: Settings) -> str:
    """Describe which parameters that shape a net have changed since the earlier fit."""
    names = [
        name
        for part in ("network", "loss", "weighting")
        for name in (part, f"{part}_params")
    ]
    return "; ".join(
        f"{name}={now!r}, before {before!r}"
        for name in [*names, "embedding_dim"]
        if not equal(now := getattr(settings, name), before := getattr(earlier, name))
    )


def continue_from(net: MultiTaskNet, earlier: MultiTaskNet, changed: str = "") -> None:
    """Copy weights, optimiser state and history of an earlier net into a new one.

    The arguments of the optimiser, such as its learning rate, are those of the new net.
    Its state starts anew if they ask for another state.
    The schedule of a callback that is in both nets continues, unless `lr` differs.

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
                f"now describe a different {kind}: {changed or error}."
            ) from error
    has_same_state = _have_same_state(net.optimizer_, earlier.optimizer_)
    keeps_schedules = has_same_state and net.lr == earlier.lr
    net.schedules_ = list(earlier.schedules_) if keeps_schedules else []
    is_scheduled = continues(net.callbacks_, net.schedules_)
    if has_same_state:
        arguments = [
            {k: v for k, v in group.items() if k != "params"}
            for group in net.optimizer_.param_groups
        ]
        net.optimizer_.load_state_dict(deepcopy(earlier.optimizer_.state_dict()))
        for group, kept in zip(net.optimizer_.param_groups, arguments, strict=True):
            if is_scheduled:
                del kept["lr"]
            else:
                group.pop("initial_lr", None)
            group.update(kept)
    net.history = deepcopy(earlier.history)
    net.best_ = dict(earlier.best_)


def _have_same_state(
    optimizer: torch.optim.Optimizer, earlier: torch.optim.Optimizer
) -> bool:
    """Return whether one optimiser can continue from the state of the other."""
    # Adam and LazyAdam have the same state.
    kinds = type(optimizer), type(earlier)
    if not (issubclass(*kinds) or issubclass(*reversed(kinds))):
        return False
    groups = zip(optimizer.param_groups, earlier.param_groups, strict=True)
    return all(
        bool(now.get(name)) == bool(before.get(name))
        for now, before in groups
        for name in _OF_STATE
    )


class Snapshot:
    """The state of a net before an update in place, to be restored if that fails.

    Parameters
    ----------
    net : MultiTaskNet
        The net. Its weights, its criterion and the optimiser's state are copied, but
        for large embedding tables, of which the optimiser records the replaced rows.
    """

    def __init__(self, net: MultiTaskNet) -> None:
        self.net = net
        # Rows of large tables are recorded by the optimiser as it replaces them.
        tables = set(sparse_tables(net.module_))
        if isinstance(net.optimizer_, LazyAdam):
            net.optimizer_.undo_log = []
        parameters = [*net.module_.parameters(), *net.criterion_.parameters()]
        self.tensors = [
            (tensor, tensor.detach().clone())
            for tensor in chain(parameters, net.module_.buffers())
            if tensor not in tables
        ]
        # A weighting may replace its buffers by others of another shape. The copy has
        # the parameters themselves, to which the optimiser refers.
        self.criterion = deepcopy(net.criterion_, {id(p): p for p in parameters})
        self.optimizer_arguments = [
            {key: value for key, value in group.items() if key != "params"}
            for group in net.optimizer_.param_groups
        ]
        self.optimizer_state = {
            parameter: state
            if parameter in tables
            else {key: _copy(value) for key, value in state.items()}
            for parameter, state in net.optimizer_.state.items()
        }
        self.n_epochs = len(net.history)
        self.best = dict(net.best_)

    def discard(self) -> None:
        """Keep the update."""
        if isinstance(self.net.optimizer_, LazyAdam):
            self.net.optimizer_.undo_log = None

    def restore(self) -> None:
        """Bring the net back to the state of the snapshot."""
        net = self.net
        if isinstance(net.optimizer_, LazyAdam):
            net.optimizer_.undo()
        self.discard()
        with torch.no_grad():
            for tensor, value in self.tensors:
                tensor.copy_(value)
        net.criterion = net.criterion_ = self.criterion
        groups = zip(net.optimizer_.param_groups, self.optimizer_arguments, strict=True)
        for group, arguments in groups:
            group.update(arguments)
        net.optimizer_.state.clear()
        net.optimizer_.state.update(self.optimizer_state)
        del net.history[self.n_epochs :]
        net.best_ = self.best


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
