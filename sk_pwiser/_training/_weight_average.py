"""Exponential moving average of the network's weights."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Number of first steps that update the average each. Afterwards it is updated every few
# steps, that of large embedding tables less often and from the beginning: an update
# costs as much as the optimiser's own step, and that of a table as much as many steps
# that change a few of its rows.
EVERY_STEP, INTERVAL, TABLE_INTERVAL = 64, 8, 64


class WeightAverage:
    r"""An exponential moving average of parameters, swapped in for evaluation.

    After step n the average keeps the share :math:`\min(d, (1 + n) / (10 + n))`, with d
    the decay, so that the initial weights are soon forgotten.

    Parameters
    ----------
    module : Module
        The network.
    decay : float
        Largest share of the average that a step of the optimiser keeps, in (0, 1).
    tables : iterable of Parameter, default=()
        Large embedding tables, whose average is updated less often.
    """

    def __init__(
        self, module: nn.Module, decay: float, tables: Iterable[Tensor] = ()
    ) -> None:
        large = set(tables)
        trained = [p for p in module.parameters() if p.requires_grad]
        self.parts = [
            _Part([p for p in trained if p not in large], INTERVAL, EVERY_STEP),
            _Part([p for p in trained if p in large], TABLE_INTERVAL, 0),
        ]
        self.decay = decay
        self.n_steps = 0
        self.is_in_module = False

    def step(self) -> None:
        """Count a step of the optimiser, and update the averages that are due."""
        self.n_steps += 1
        for part in self.parts:
            part.n_pending += 1
            if self.n_steps <= part.n_single or part.n_pending == part.interval:
                self._update(part)

    @torch.no_grad()
    def _update(self, part: "_Part") -> None:
        decay = min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
        share = 1 - decay**part.n_pending
        for average, parameter in zip(part.averages, part.parameters, strict=True):
            average.lerp_(parameter, share)
        part.n_pending = 0

    def averages(self) -> list[Tensor]:
        """Return the averages, but for those of large embedding tables."""
        return self.parts[0].averages

    def swap_in(self) -> None:
        """Put the average into the module."""
        if not self.is_in_module:
            for part in self.parts:
                if part.n_pending:
                    self._update(part)
            self._swap()

    def swap_out(self) -> None:
        """Put the weights of the last step back into the module."""
        if self.is_in_module:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """Return the state while the average is in the module.

        The averages themselves are then weights of the module; the state has those of
        the last step.
        """
        assert self.is_in_module
        parts = [
            {"weights": list(part.averages), "n_pending": part.n_pending}
            for part in self.parts
        ]
        return {"n_steps": self.n_steps, "parts": parts}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; the module has the averages already."""
        self.n_steps, self.is_in_module = state["n_steps"], True
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.n_pending = saved["n_pending"]
            for tensor, value in zip(part.averages, saved["weights"], strict=True):
                tensor.copy_(value)

    def _swap(self) -> None:
        # Exchanges the tensors and copies nothing.
        for part in self.parts:
            for index, parameter in enumerate(part.parameters):
                average = part.averages[index]
                part.averages[index] = parameter.data
                parameter.data = average
        self.is_in_module = not self.is_in_module


class _Part:
    """Parameters whose averages are updated in the same steps."""

    def __init__(
        self, parameters: list[nn.Parameter], interval: int, n_single: int
    ) -> None:
        self.parameters = parameters
        self.averages = [p.detach().clone() for p in parameters]
        self.interval = interval
        self.n_single = n_single
        self.n_pending = 0
