"""Large embedding tables, of which a step updates the rows of its batch only."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from skorch.callbacks import GradientNormClipping
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._settings import Settings
from sk_pwiser._training._callbacks import with_kinds
from sk_pwiser._training._optimizers import Chosen
from sk_pwiser._training._tiny_values import TINY_MOMENT, TINY_WEIGHT

# Tables with at least this number of weights are updated by rows. In smaller tables,
# finding the rows takes as long as updating the whole table.
LARGE_TABLE = 2**20


@cache
def has_sparse_gradients(device: torch.device) -> bool:
    """Return whether a device has the operators on sparse gradients of tables."""
    try:
        # No module: its first weights would be drawn from torch's global generator.
        table = torch.zeros(2, 1, device=device, requires_grad=True)
        rows = torch.zeros(1, dtype=torch.int64, device=device)
        total = F.embedding(rows, table, sparse=True).sum()
        torch.autograd.grad(total, table)[0].coalesce()
    except RuntimeError:
        return False
    return True


def smallest_lazy_table(
    settings: Settings, chosen: Chosen, weighting: Any, device: torch.device
) -> int | None:
    """Return the smallest size of tables that are updated by rows, or None."""
    kind, kwargs = chosen
    params = settings.optimizer_params
    unsupported = kwargs.keys() - {"betas", "eps", "weight_decay", "momentum"}
    callback_kinds = [kind for _, kind in with_kinds(settings.callbacks)]
    obstacles = {
        f"optimizer={settings.optimizer!r}": kind not in LAZY_KINDS,
        f"optimizer_params={params!r}": unsupported or params["clip_grad_norm"],
        "GradientNormClipping in callbacks": any(
            issubclass(callback_kind, GradientNormClipping)
            for callback_kind in callback_kinds
        ),
        f"weighting={settings.weighting!r}": weighting.needs_task_gradients,
        f"compile={settings.compile!r}": settings.compile not in (False, "graph"),
        f"device={str(device)!r}": not has_sparse_gradients(device),
    }
    present = [name for name, is_obstacle in obstacles.items() if is_obstacle]
    wanted = params["lazy_embeddings"]
    if wanted is True and present:
        raise ValueError(
            f"lazy_embeddings=True is not supported with {' and '.join(present)}."
        )
    if not wanted or present:
        return None
    grows = settings.encoding_params["grow_vocabulary"]  # and may become large
    return 0 if wanted is True or grows else LARGE_TABLE


class LazyAdam(torch.optim.Adam):
    """Adam whose steps update only the embeddings of values in the batch.

    If a gradient is sparse, only the rows in the gradient are updated, and only their
    moments decay, as in :class:`torch.optim.SparseAdam`, whereas Adam continues to move
    the other rows by their decaying moments.
    """

    # Of the rows of tables before their first change, if an update is logged.
    logs: "dict[nn.Parameter, RowLog] | None" = None

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
            device = parameter.device if group["capturable"] else None
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        if not group["capturable"]:
            state["step"] = state["step"].cpu()  # a loaded one may be on the device
        assert parameter.grad is not None
        rows, g = _summed_rows(parameter.grad)
        weight, m, v = (
            tensor.index_select(0, rows)
            for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"])
        )
        if self.logs is not None:
            if parameter not in self.logs:
                self.logs[parameter] = RowLog(parameter, state)
            self.logs[parameter].add(rows, weight, m, v)
        state["step"] += 1
        if group["weight_decay"]:
            g = g.add(weight, alpha=group["weight_decay"])
        beta1, beta2 = group["betas"]
        m = m.lerp(g, 1 - beta1)
        v = v.mul(beta2).addcmul_(g, g, value=1 - beta2)
        step = state["step"] if group["capturable"] else float(state["step"])
        scale = (v / (1 - beta2**step)).sqrt_().add_(group["eps"])
        moved = weight - group["lr"] / (1 - beta1**step) * m / scale
        parameter.index_copy_(0, rows, F.hardshrink(moved, TINY_WEIGHT))
        state["exp_avg"].index_copy_(0, rows, F.hardshrink(m, TINY_MOMENT))
        state["exp_avg_sq"].index_copy_(0, rows, F.hardshrink(v, TINY_MOMENT))


# Optimisers that have a form that updates large tables by rows.
LAZY_KINDS: dict[Any, type[LazyAdam]] = {torch.optim.Adam: LazyAdam}


def _summed_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of a sparse gradient, and the sum of the entries of each row."""
    if gradient.device.type == "cpu":
        gradient = gradient.coalesce()
        return gradient.indices()[0], gradient.values()
    # Here a row may occur several times, each time with the sum of its entries: for the
    # number of different rows, the host would wait for the device.
    rows, order = gradient._indices()[0].sort()
    place = rows.diff(prepend=rows[:1]).ne(0).cumsum(0)
    values = gradient._values().index_select(0, order)
    sums = torch.zeros_like(values).index_add_(0, place, values)
    return rows, sums.index_select(0, place)


class RowLog:
    """The rows of a table before their first change.

    Its memory is bounded by copies of the table and of its moments, however many steps
    change the rows.
    """

    def __init__(self, table: nn.Parameter, state: dict[str, Any]) -> None:
        self.table = table
        self.state = state
        self.n_steps = float(state["step"])
        self.is_logged = torch.zeros(len(table), dtype=torch.bool, device=table.device)
        # Rows, their weights and both moments, as one step found them.
        self.entries: list[tuple[Tensor, ...]] = []
        self.n_rows = 0

    def add(self, rows: Tensor, *values: Tensor) -> None:
        """Log the rows of a step, their weights and moments, unless they are there."""
        # A device would wait for the number of new rows in each step. It logs all rows,
        # and only new ones once the log is as long as the table.
        if rows.device.type == "cpu" or self.n_rows >= len(self.table):
            is_new = ~self.is_logged.index_select(0, rows)
            places = is_new.nonzero().squeeze(1)
            if len(places) < len(rows):
                rows = rows.index_select(0, places)
                values = tuple(value.index_select(0, places) for value in values)
        if len(rows):
            # In this order: after an interrupt, rows may be in the log twice, but none
            # has changed without being there.
            self.entries.append((rows, *values))
            self.is_logged.index_fill_(0, rows, True)
            self.n_rows += len(rows)

    def changed(self) -> Tensor:
        """Return the present weights of the rows in the log."""
        if not self.entries:  # no row of a step had a value of the table
            return self.table[:0]
        logged_rows = torch.cat([rows for rows, *_ in self.entries])
        return self.table.index_select(0, logged_rows)

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the rows, their moments and the number of steps."""
        moments = self.state["exp_avg"], self.state["exp_avg_sq"]
        # The first entry last: a device may have logged rows again after their change.
        for rows, *values in reversed(self.entries):
            for tensor, value in zip((self.table, *moments), values, strict=True):
                tensor.index_copy_(0, rows, value)
        self.state["step"].fill_(self.n_steps)
