"""The moving average of the weights, swapped in for evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sk_pwiser._training._embedding_tables import sparse_tables

# The average is updated after each of so many first steps, ...
N_SINGLE_STEPS = 64

# ... and later every few steps, since an update takes as long as a step of the
# optimiser.
INTERVAL = 8

# Averages of large embedding tables have a long interval from the beginning: an update
# takes as long as many steps that change a few rows.
TABLE_INTERVAL = 64


@dataclass
class _Group:
    """Parameters whose averages are updated in the same steps."""

    parameters: list[Tensor]
    averages: list[Tensor]
    interval: int
    n_single: int  # first steps that are each followed by an update
    n_pending: int = 0  # steps since the last update


class WeightAverage:
    """An exponential moving average of parameters, swapped in for evaluation.

    The average of large embedding tables, with sparse gradients, is updated less often.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        large = set(sparse_tables(module))
        trained: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
        small_parameters = [p for p in trained if p not in large]
        large_tables = [p for p in trained if p in large]
        self.groups = [
            _Group(
                parameters=small_parameters,
                averages=[p.detach().clone() for p in small_parameters],
                interval=INTERVAL,
                n_single=N_SINGLE_STEPS,
            ),
            _Group(
                parameters=large_tables,
                averages=[p.detach().clone() for p in large_tables],
                interval=TABLE_INTERVAL,
                n_single=0,
            ),
        ]
        self.decay = decay
        self.n_steps = 0
        self.is_in_module = False

    def step(self) -> None:
        """Count a step of the optimiser, and update the averages that are due."""
        self.n_steps += 1
        for group in self.groups:
            group.n_pending += 1
            if self.n_steps <= group.n_single or group.n_pending == group.interval:
                self._update(group)

    @torch.no_grad()
    def _update(self, group: _Group) -> None:
        # Smaller at first, so that the initial weights are soon forgotten. An average
        # with the factor (1 + n) / (5 + n) spans about a quarter of the steps so far.
        decay = min(self.decay, (1 + self.n_steps) / (5 + self.n_steps))
        share = 1 - decay**group.n_pending
        if group.averages:
            torch._foreach_lerp_(group.averages, group.parameters, share)  # one kernel
        group.n_pending = 0

    @torch.no_grad()
    def swap(self) -> None:
        """Put the averages into the module, or the weights of the last step back."""
        for group in self.groups:
            if not self.is_in_module and group.n_pending:
                self._update(group)
            # The tensors are exchanged, not copied.
            for k, parameter in enumerate(group.parameters):
                average = group.averages[k]
                group.averages[k] = parameter.data
                parameter.data = average
        self.is_in_module = not self.is_in_module

    @torch.no_grad()
    def restart(self) -> None:
        """Continue the training with the average, which the module has."""
        assert self.is_in_module
        for group in self.groups:
            group.n_pending = 0
            for last, average in zip(group.averages, group.parameters, strict=True):
                last.copy_(average)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the weights of the last step."""
        assert self.is_in_module  # which has the averages themselves
        group_states = [
            {"weights": list(group.averages), "n_pending": group.n_pending}
            for group in self.groups
        ]
        return {"n_steps": self.n_steps, "parts": group_states}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; the module has the averages already."""
        self.n_steps = state["n_steps"]
        self.is_in_module = True
        for group, saved in zip(self.groups, state["parts"], strict=True):
            group.n_pending = saved["n_pending"]
            for tensor, value in zip(group.averages, saved["weights"], strict=True):
                tensor.copy_(value)
