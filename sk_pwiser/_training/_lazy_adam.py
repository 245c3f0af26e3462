"""Adam that updates only the rows of large embedding tables that a batch has used."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# From this number of weights on, a table is updated by rows. Below it, the rows are
# found no faster than the whole table is updated.
LARGE_TABLE = 2**20

TABLES = nn.Embedding, nn.EmbeddingBag

# Weights whose gradients have died decay towards 0, and with them the moments of the
# optimiser. Below 1e-38 a CPU computes some hundred times as slowly, which made late
# epochs take ten times as long as the first ones. Values below these limits, which
# change no result in float32, become exact zeros, every `FLUSH_INTERVAL` steps: a
# moment shrinks by less than 1e-4 within them.
TINY_WEIGHT, TINY_MOMENT, FLUSH_INTERVAL = 1e-20, 1e-30, 64


def use_sparse_gradients(network: nn.Module, min_size: int = LARGE_TABLE) -> None:
    """Let the large embedding tables of a network have sparse gradients."""
    for module in network.modules():
        if isinstance(module, TABLES) and module.weight.numel() >= min_size:
            module.sparse = True


def sparse_tables(network: nn.Module) -> Iterator[Tensor]:
    """Yield the embedding tables of a network that have sparse gradients."""
    for module in network.modules():
        if isinstance(module, TABLES) and module.sparse:
            yield module.weight


@torch.no_grad()
def flush_tiny_values(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averages: Iterable[Tensor] = (),
) -> None:
    """Set tiny weights, averages of weights and moments of an optimiser to 0.

    Tables with sparse gradients are left out: `LazyAdam` does so for the rows of a
    step.

    Parameters
    ----------
    network : Module
        The network.
    optimizer : Optimizer
        Its optimiser.
    averages : iterable of Tensor, default=()
        Averages of weights.
    """
    tables = set(sparse_tables(network))
    for parameter in network.parameters():
        if parameter not in tables:
            _flush(parameter, TINY_WEIGHT)
            for value in optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.dim():  # not the count of steps
                    _flush(value, TINY_MOMENT)
    for average in averages:
        _flush(average, TINY_WEIGHT)


def _flush(tensor: Tensor, tiny: float) -> None:
    if tensor.is_floating_point():
        tensor.copy_(F.hardshrink(tensor, tiny))


class LazyAdam(torch.optim.Adam):
    r"""Adam whose steps cost what the batch uses.

    Parameters with dense gradients are updated as in :class:`torch.optim.Adam`. Of one
    with a sparse gradient, only the rows in the gradient are updated, and only their
    moments decay, as in :class:`torch.optim.SparseAdam`. Other rows are not changed,
    whereas Adam continues to move them by their decaying moments. Weight decay applies
    to the rows in the gradient.

    Attributes
    ----------
    undo_log : list or None
        If it is a list, a step appends the rows that it replaces, so that
        `undo` can restore them.
    """

    undo_log: list[tuple[nn.Parameter, Tensor, Tensor, Tensor, Tensor]] | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one step of the optimiser."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    self._step_rows(parameter, group)
                    parameter.grad = None
        super().step()
        return loss

    def _step_rows(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        gradient = parameter.grad.coalesce()  # type: ignore[union-attr]
        rows, g = gradient.indices()[0], gradient.values()
        weight, m, v = (
            tensor.index_select(0, rows)
            for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"])
        )
        if self.undo_log is not None:
            self.undo_log.append((parameter, rows, weight, m, v))
        if group["weight_decay"]:
            g = g.add(weight, alpha=group["weight_decay"])
        beta1, beta2 = group["betas"]
        m = m.lerp(g, 1 - beta1)
        v = v.mul(beta2).addcmul_(g, g, value=1 - beta2)
        step = float(state["step"])
        scale = (v / (1 - beta2**step)).sqrt_().add_(group["eps"])
        moved = weight - group["lr"] / (1 - beta1**step) * m / scale
        parameter.index_copy_(0, rows, F.hardshrink(moved, TINY_WEIGHT))
        state["exp_avg"].index_copy_(0, rows, F.hardshrink(m, TINY_MOMENT))
        state["exp_avg_sq"].index_copy_(0, rows, F.hardshrink(v, TINY_MOMENT))

    @torch.no_grad()
    def undo(self) -> None:
        """Restore the rows in `undo_log`, the latest first, and empty it."""
        while self.undo_log:
            parameter, rows, weight, m, v = self.undo_log.pop()
            state = self.state[parameter]
            parameter.index_copy_(0, rows, weight)
            state["exp_avg"].index_copy_(0, rows, m)
            state["exp_avg_sq"].index_copy_(0, rows, v)
            state["step"] -= 1
