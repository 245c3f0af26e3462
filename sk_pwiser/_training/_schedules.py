"""Schedules of the learning rate: where a further training takes them up."""

from collections.abc import Iterable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import torch
from skorch.callbacks import LRScheduler

# A callback, and the state of its schedule at the end of a training.
Position = tuple[LRScheduler, dict[str, Any]]


def begin_schedule(
    callback: LRScheduler,
    optimizer: torch.optim.Optimizer,
    positions: Iterable[Position],
) -> None:
    """Create the schedule of a callback, at its position if it has one.

    skorch's own takes the position from the number of epochs, so that it would step
    once too often, and cannot count batches.
    """
    before = [_arguments(group) for group in optimizer.param_groups]
    callback.on_train_begin(SimpleNamespace(history=[], optimizer_=optimizer))
    for earlier, state in positions:
        if earlier is callback:
            callback.lr_scheduler_.load_state_dict(deepcopy(state))
            for group, arguments in zip(optimizer.param_groups, before, strict=True):
                group.update(arguments)


def positions_of(callbacks: Iterable[tuple[str, Any]]) -> list[Position]:
    """Return the positions of the schedules among the named callbacks of a net."""
    return [
        (callback, deepcopy(callback.lr_scheduler_.state_dict()))
        for _, callback in callbacks
        if isinstance(callback, LRScheduler)
    ]


def continues(
    callbacks: Iterable[tuple[str, Any]], positions: Iterable[Position]
) -> bool:
    """Return whether one of the callbacks has a position."""
    known = {id(callback) for callback, _ in positions}
    return any(id(callback) in known for _, callback in callbacks)


def _arguments(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}
