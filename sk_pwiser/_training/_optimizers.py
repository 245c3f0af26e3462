"""The optimiser, weight decay, Adam by rows of large tables, the average of weights."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from skorch.callbacks import GradientNormClipping
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from sk_pwiser._training._callbacks import with_kinds
from sk_pwiser._training._muon import Muon
from sk_pwiser._training._settings import LOOP_PARAMS, OPTIMIZERS, Settings
from sk_pwiser._utils._checks import check_number
from sk_pwiser._utils._components import check_names, resolve
from sk_pwiser.networks import MultiTaskNetwork, NetworkSpec

if TYPE_CHECKING:
    from sk_pwiser._training._components import MultiTaskCriterion

# Layers whose parameters have no weight decay: scales, which start at 1, and slopes.
_SCALES = _NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU
TABLES = nn.Embedding, nn.EmbeddingBag
_NO_DECAY, _TABLE, _OTHER, _OF_TASK = "no decay", "table", "other", "{} of task {}"

# Weight decay adds a penalty to the mean loss of the rows. A prior of the weights adds
# a fixed penalty to the sum of their losses, which is divided by their number in the
# mean: "auto" is `PRIOR` over this number. More than that of 8,000 rows would outweigh
# the small gradients of rare tasks. Smaller batches take more steps, in which the decay
# shrinks weights before weak signals have raised them: the limit falls with the root of
# the batch size.
PRIOR, LARGEST_DECAY, LARGEST_DECAY_BATCH = 4.0, 5e-4, 1024
# An update passes over its rows once, and a fit to `FEWEST_ROWS` or less takes a few
# steps only: both overfit less.
UPDATE_DECAY, FEWEST_ROWS = 1e-4, 1_000

# Weight decay of embeddings, relative to that of the other parameters: few rows train
# each embedding. The largest ratio is that of `FEW_ROWS` per value. With more rows, it
# falls with their root, as the uncertainty of a mean does. With fewer, it falls with
# their number, since their gradients would not raise the embedding from 0.
LARGEST_DECAY_RATIO, SMALLEST_DECAY_RATIO, FEW_ROWS = 20.0, 5.0, 25

# Below this rate, the decay of the parameters of a single task is reduced.
RARE = 0.05

# The ranges of numbers in `LOOP_PARAMS`, which may be None.
_LIMITS: dict[str, dict[str, float]] = {
    "average_decay": {"at_least": 0, "below": 1},
    "clip_grad_norm": {"above": 0},
    "embedding_lr": {"above": 0},
    "embedding_weight_decay": {"at_least": 0},
}


# The class of an optimiser, and its keyword arguments, except for `lr`.
Chosen = tuple[Any, dict[str, Any]]


def check_optimizer(settings: Settings) -> Chosen:
    """Return the class and the keyword arguments of the optimiser.

    A step on three small tensors checks that it takes them and dense gradients, unlike
    LBFGS, Muon and SparseAdam, whose own errors say why.
    """
    optimizer, params = settings.optimizer, settings.optimizer_params
    registry = OPTIMIZERS, torch.optim.Optimizer, "optimizer", optimizer
    kind = resolve(registry)
    for name, limits in _LIMITS.items():
        if params[name] is not None:
            check_number(name, params[name], **limits)
    lazy = params["lazy_embeddings"]
    # A comparison with a missing value of pandas is neither true nor false.
    if not isinstance(lazy, bool) and not (isinstance(lazy, str) and lazy == "auto"):
        raise ValueError(
            f"lazy_embeddings must be 'auto', True or False; got {lazy!r}."
        )
    given = {
        "lr": settings.lr,
        "embedding_lr": params["embedding_lr"],
        "weight_decay": base_decay(settings),
        "embedding_weight_decay": params["embedding_weight_decay"],
    }
    own = {k: v for k, v in params.items() if k not in LOOP_PARAMS}
    known = inspect.signature(kind).parameters
    of_estimator = {k: given[k] for k in ("lr", "weight_decay") if k in known}
    check_names(registry, own, 1, shared=LOOP_PARAMS, **of_estimator)
    kwargs = own | {k: v for k, v in of_estimator.items() if k != "lr"}
    decays = {**given, "weight_decay": settings.weight_decay}
    for name in ("weight_decay", "embedding_weight_decay"):
        # Optimisers without weight decay ignore "auto".
        if "weight_decay" not in known and decays[name] not in (0.0, "auto", None):
            raise ValueError(
                f"{name}={decays[name]!r}, but optimizer={optimizer!r} has no weight "
                f"decay; set {name}=0."
            )
    try:
        _take_step(settings, (kind, kwargs))
    except Exception as error:
        found = [f"{key}={value!r}" for key, value in given.items()]
        raise ValueError(
            f"optimizer={optimizer!r} cannot train with {', '.join(found)} and "
            f"optimizer_params={own!r}: {error}"
        ) from error
    return kind, kwargs


def base_decay(settings: Settings, n_rows: int | None = None) -> float:
    """Return the weight decay of a fit to a number of rows, or of an update."""
    decay: float | str = settings.weight_decay
    if not isinstance(decay, str):
        return decay
    if n_rows is None or n_rows <= FEWEST_ROWS:
        return UPDATE_DECAY
    share = min(1.0, math.sqrt(settings.batch_size / LARGEST_DECAY_BATCH))
    return min(LARGEST_DECAY * share, PRIOR / n_rows)


def parameter_groups(
    settings: Settings, spec: NetworkSpec, n_rows: int, decay: float
) -> list[tuple[str, dict[str, float]]]:
    """Return the arguments of each of the `parameter_kinds`, except for "other".

    `n_rows` is the number of training rows, and `decay` the decay of "other".
    """
    sizes = [*spec.cardinalities, *(bag.n_vectors for bag in spec.bags)]
    rows = n_rows * len(sizes) / max(1, sum(sizes)) / FEW_ROWS  # per value, relative
    share = min(rows, 1 / math.sqrt(max(rows, 1.0)))
    ratio = max(SMALLEST_DECAY_RATIO, LARGEST_DECAY_RATIO * share)
    params = settings.optimizer_params
    decay_of_tables = params["embedding_weight_decay"]
    if decay_of_tables is None:
        decay_of_tables = ratio * decay
    of_tables = {"weight_decay": float(decay_of_tables)}
    if params["embedding_lr"] is not None:
        of_tables["lr"] = float(params["embedding_lr"])
    of_biases = {"weight_decay": 0.0}
    if settings.optimizer == "muon":
        # Tables, and vectors in a row, are no hidden matrices.
        of_biases["orthogonal"] = of_tables["orthogonal"] = False
    groups = [(_NO_DECAY, of_biases), (_TABLE, of_tables)]
    for task, rate in enumerate(spec.base_rates):
        share = min(1.0, rate / RARE, (1 - rate) / RARE)
        for kind, own in ((_OTHER, {"weight_decay": decay}), (_TABLE, of_tables)):
            reduced = {**own, "weight_decay": share * own["weight_decay"]}
            groups.append((_OF_TASK.format(kind, task), reduced))
    return groups


def parameter_kinds(
    network: MultiTaskNetwork, criterion: "MultiTaskCriterion"
) -> dict[nn.Parameter, str]:
    """Return what decides the arguments of each parameter.

    Parameters of the weighting, biases, scales and slopes have no decay. A bias has
    "bias" as a word of its own name or that of its list, such as `in_proj_bias`; the
    names of other modules do not matter.
    """
    kinds = dict.fromkeys(criterion.weighting.parameters(), _NO_DECAY)
    for part in (criterion.loss, network):
        modules = list(part.named_modules())
        tables = {module.weight for _, module in modules if isinstance(module, TABLES)}
        for path, module in modules:
            in_list = isinstance(module, nn.ParameterList | nn.ParameterDict)
            words = path.rpartition(".")[2].split("_") if in_list else []
            for name, parameter in module.named_parameters(recurse=False):
                is_bias = "bias" in (*words, *name.split("_"))
                if parameter in tables:
                    kinds[parameter] = _TABLE
                elif is_bias or isinstance(module, _SCALES):
                    kinds[parameter] = _NO_DECAY
                else:
                    kinds[parameter] = _OTHER
    for name, parameter in network.named_parameters():
        for task in range(network.n_tasks):
            patterns = (each.format(task=task) for each in network.task_parameters)
            is_own = any(fnmatchcase(name, pattern) for pattern in patterns)
            if is_own and kinds[parameter] != _NO_DECAY:
                kinds[parameter] = _OF_TASK.format(kinds[parameter], task)
    return kinds


def _take_step(
    settings: Settings, chosen: Chosen, device: torch.device | None = None
) -> None:
    """Take a step on a matrix, a bias and an embedding table, each in its group."""
    sizes = (2, 2), (2,), (2, 2)
    weight, bias, table = (nn.Parameter(torch.zeros(n, device=device)) for n in sizes)
    groups: list[dict[str, Any]] = [
        {"params": [each]} for each in (weight, bias, table)
    ]
    groups[1]["weight_decay"] = 0.0
    groups[2]["weight_decay"] = LARGEST_DECAY_RATIO * base_decay(settings)
    for name in ("lr", "weight_decay"):
        value = settings.optimizer_params[f"embedding_{name}"]
        if value is not None:
            groups[2][name] = float(value)
    kind, kwargs = chosen
    optimizer = kind(groups, lr=settings.lr, **kwargs)
    for parameter in (weight, bias, table):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(lambda: torch.zeros(()))
    if not all(bool(each.isfinite().all()) for each in (weight, bias, table)):
        raise ValueError("its first step is not finite.")


def can_fuse(
    settings: Settings, chosen: Chosen, network: nn.Module, device: torch.device
) -> bool:
    """Return whether torch has a fused kernel for a step of this network."""
    # A user's network may have others, which no fused kernel takes.
    are_floats = all(p.is_floating_point() for p in network.parameters())
    if not (isinstance(settings.optimizer, str) and are_floats):
        return False
    kind, kwargs = chosen
    try:
        _take_step(settings, (kind, {**kwargs, "fused": True}), device)
    except (TypeError, RuntimeError):
        return False
    return True


# Tables with at least this number of weights are updated by rows. In smaller tables,
# finding the rows takes as long as updating the whole table.
LARGE_TABLE = 2**20

# Weights without a gradient, and their moments in the optimiser, decay towards 0. With
# values below 1e-38 a CPU is much slower: late epochs took ten times as long as the
# first ones. Every `FLUSH_INTERVAL` steps, values below these limits, which change no
# result in float32, are therefore set to 0. In this interval, the first moment of Adam
# shrinks by a factor of 1e-3 at most.
TINY_WEIGHT, TINY_MOMENT, FLUSH_INTERVAL = 1e-20, 1e-30, 64


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
    (kind, kwargs), params = chosen, settings.optimizer_params
    unsupported = kwargs.keys() - {"betas", "eps", "weight_decay", "momentum"}
    kinds = [each for _, each in with_kinds(settings.callbacks)]
    obstacles = {
        f"optimizer={settings.optimizer!r}": kind not in LAZY_KINDS,
        f"optimizer_params={params!r}": unsupported or params["clip_grad_norm"],
        "GradientNormClipping in callbacks": any(
            issubclass(each, GradientNormClipping) for each in kinds
        ),
        f"weighting={settings.weighting!r}": weighting.needs_task_gradients,
        f"compile={settings.compile!r}": settings.compile not in (False, "graph"),
        f"device={str(device)!r}": not has_sparse_gradients(device),
    }
    found = [name for name, is_obstacle in obstacles.items() if is_obstacle]
    wanted = params["lazy_embeddings"]
    if wanted is True and found:
        raise ValueError(
            f"lazy_embeddings=True is not supported with {' and '.join(found)}."
        )
    if not wanted or found:
        return None
    grows = settings.encoding_params["grow_vocabulary"]  # and may become large
    return 0 if wanted is True or grows else LARGE_TABLE


def sparse_tables(network: nn.Module) -> list[Tensor]:
    """Return the embedding tables of a network that have sparse gradients."""
    modules = (module for module in network.modules() if isinstance(module, TABLES))
    return [module.weight for module in modules if module.sparse]


# The average is updated after each of the first steps, and later every few steps, since
# an update takes as long as a step of the optimiser. Averages of large embedding tables
# have a long interval from the beginning: an update takes as long as many steps that
# change a few rows.
EVERY_STEP, INTERVAL, TABLE_INTERVAL = 64, 8, 64


@dataclass
class _Part:
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
        self.parts = [
            _Part(parameters, [p.detach().clone() for p in parameters], *steps)
            for parameters, *steps in (
                ([p for p in trained if p not in large], INTERVAL, EVERY_STEP),
                ([p for p in trained if p in large], TABLE_INTERVAL, 0),
            )
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
    def _update(self, part: _Part) -> None:
        # Smaller at first, so that the initial weights are soon forgotten. An average
        # with the factor (1 + n) / (5 + n) spans about a quarter of the steps so far.
        decay = min(self.decay, (1 + self.n_steps) / (5 + self.n_steps))
        share = 1 - decay**part.n_pending
        if part.averages:
            torch._foreach_lerp_(part.averages, part.parameters, share)  # one kernel
        part.n_pending = 0

    @torch.no_grad()
    def swap(self) -> None:
        """Put the averages into the module, or the weights of the last step back."""
        for part in self.parts:
            if not self.is_in_module and part.n_pending:
                self._update(part)
            # The tensors are exchanged, not copied.
            for k, own in enumerate(part.parameters):
                part.averages[k], own.data = own.data, part.averages[k]
        self.is_in_module = not self.is_in_module

    @torch.no_grad()
    def restart(self) -> None:
        """Continue the training with the average, which the module has."""
        assert self.is_in_module
        for part in self.parts:
            part.n_pending = 0
            for last, average in zip(part.averages, part.parameters, strict=True):
                last.copy_(average)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the weights of the last step."""
        assert self.is_in_module  # which has the averages themselves
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


@torch.no_grad()
def flush_tiny_values(
    network: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None
) -> None:
    """Set tiny weights, averages of weights and moments of an optimiser to 0."""
    # `LazyAdam` does so for the rows of a step.
    tables = set(sparse_tables(network))
    weights: list[Tensor] = [p for p in network.parameters() if p not in tables]
    states = (optimizer.state.get(p, {}).values() for p in weights)
    moments = [
        value
        for value in chain.from_iterable(states)
        if isinstance(value, Tensor) and value.dim()  # not the count of steps
    ]
    if average is not None:
        weights += average.parts[0].averages
    for tensors, tiny in ((weights, TINY_WEIGHT), (moments, TINY_MOMENT)):
        for tensor in tensors:
            if tensor.is_floating_point():
                tensor.copy_(F.hardshrink(tensor, tiny))


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


class LazyMuon(Muon, LazyAdam):
    """Muon whose steps of Adam on large tables are those of :class:`LazyAdam`."""


# Optimisers that have a form that updates large tables by rows.
LAZY_KINDS: dict[Any, type[LazyAdam]] = {torch.optim.Adam: LazyAdam, Muon: LazyMuon}


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
        self.parts: list[tuple[Tensor, ...]] = []
        self.n_rows = 0

    def add(self, *part: Tensor) -> None:
        """Log the rows of a step, their weights and moments, unless they are there."""
        rows = part[0]
        # A device would wait for the number of new rows in each step. It logs all rows,
        # and only new ones once the log is as long as the table.
        if rows.device.type == "cpu" or self.n_rows >= len(self.table):
            is_new = ~self.is_logged.index_select(0, rows)
            places = is_new.nonzero().squeeze(1)
            if len(places) < len(rows):
                part = tuple(tensor.index_select(0, places) for tensor in part)
                rows = part[0]
        if len(rows):
            # In this order: after an interrupt, rows may be in the log twice, but none
            # has changed without being there.
            self.parts.append(part)
            self.is_logged.index_fill_(0, rows, True)
            self.n_rows += len(rows)

    def changed(self) -> Tensor:
        """Return the present weights of the rows in the log."""
        if not self.parts:  # no row of a step had a value of the table
            return self.table[:0]
        return self.table.index_select(0, torch.cat([part[0] for part in self.parts]))

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the rows, their moments and the number of steps."""
        moments = self.state["exp_avg"], self.state["exp_avg_sq"]
        # The first part last: a device may have logged rows again after their change.
        for rows, *values in reversed(self.parts):
            for tensor, value in zip((self.table, *moments), values, strict=True):
                tensor.index_copy_(0, rows, value)
        self.state["step"].fill_(self.n_steps)
