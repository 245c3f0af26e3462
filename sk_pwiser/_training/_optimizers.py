"""The optimiser of a fit: its check, and the arguments of each parameter."""

import inspect
import math
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from sk_pwiser._settings import LOOP_PARAMS, Settings, exposure_references
from sk_pwiser._training._embedding_tables import TABLES
from sk_pwiser._utils._checks import check_number
from sk_pwiser._utils._components import check_names, resolve
from sk_pwiser.networks import MultiTaskNetwork, NetworkSpec

if TYPE_CHECKING:
    from sk_pwiser._training._criterion import MultiTaskCriterion


OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}

# Layers whose parameters have no weight decay: scales, which start at 1, and slopes.
_SCALES = _NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU

# What decides the arguments of a parameter in the optimiser.
_NO_DECAY = "no decay"
_TABLE = "table"
_EXPOSURE = "exposure"
_OTHER = "other"
_TASK_KIND = "{} of task {}"

# Weight decay adds a penalty to the mean loss of the rows. A prior of the weights adds
# a fixed penalty to the sum of their losses, which is divided by their number in the
# mean: "auto" is this number over that of the rows.
WEIGHT_PRIOR = 4.0

# More than the decay of 8,000 rows would outweigh the small gradients of rare tasks.
LARGEST_DECAY = 5e-4

# Smaller batches take more steps, in which the decay shrinks weights before weak
# signals have raised them: below this size, the limit falls with its root.
LARGEST_DECAY_BATCH = 1024

# The decay of an update, which passes over its rows once, ...
UPDATE_DECAY = 1e-4

# ... and of a fit to so many rows or less, which takes a few steps only: both overfit
# less.
MOST_ROWS_OF_FEW_STEPS = 1_000

# Weight decay of embeddings, relative to that of the other parameters: few rows train
# each embedding. The ratio is largest for this number of rows per value. With more
# rows, it falls with their root, as the uncertainty of a mean does. With fewer, it
# falls with their number, since their gradients would not raise the embedding from 0.
ROWS_OF_LARGEST_RATIO = 25
LARGEST_DECAY_RATIO = 20.0
SMALLEST_DECAY_RATIO = 5.0

# Weight decay of the terms of how rows were shown, relative to that of weights.
EXPOSURE_DECAY_RATIO = 1.0

# Below this rate, the decay of the parameters of a single task is reduced.
RATE_OF_FULL_DECAY = 0.05

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
    optimizer = settings.optimizer
    params = settings.optimizer_params
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
    values = {
        "lr": settings.lr,
        "embedding_lr": params["embedding_lr"],
        "weight_decay": base_decay(settings),
        "embedding_weight_decay": params["embedding_weight_decay"],
    }
    arguments = {k: v for k, v in params.items() if k not in LOOP_PARAMS}
    accepted = inspect.signature(kind).parameters
    parameters = {k: values[k] for k in ("lr", "weight_decay") if k in accepted}
    check_names(registry, arguments, 1, shared=LOOP_PARAMS, **parameters)
    kwargs = arguments | {k: v for k, v in parameters.items() if k != "lr"}
    decays = {**values, "weight_decay": settings.weight_decay}
    for name in ("weight_decay", "embedding_weight_decay"):
        # Optimisers without weight decay ignore "auto".
        if "weight_decay" not in accepted and decays[name] not in (0.0, "auto", None):
            raise ValueError(
                f"{name}={decays[name]!r}, but optimizer={optimizer!r} has no weight "
                f"decay; set {name}=0."
            )
    try:
        _take_step(settings, (kind, kwargs))
    except Exception as error:
        described = [f"{key}={value!r}" for key, value in values.items()]
        raise ValueError(
            f"optimizer={optimizer!r} cannot train with {', '.join(described)} and "
            f"optimizer_params={arguments!r}: {error}"
        ) from error
    return kind, kwargs


def base_decay(settings: Settings, n_rows: float | None = None) -> float:
    """Return the weight decay of a fit to a number of rows, or of an update."""
    decay: float | str = settings.weight_decay
    if not isinstance(decay, str):
        return decay
    if n_rows is None or n_rows <= MOST_ROWS_OF_FEW_STEPS:
        return UPDATE_DECAY
    share = min(1.0, math.sqrt(settings.batch_size / LARGEST_DECAY_BATCH))
    return min(LARGEST_DECAY * share, WEIGHT_PRIOR / n_rows)


def parameter_groups(
    settings: Settings, spec: NetworkSpec, n_rows: float, decay: float
) -> list[tuple[str, dict[str, float]]]:
    """Return the arguments of each of the `parameter_kinds`, except for "other".

    `n_rows` is the number of training rows, or of those that their weights count, and
    `decay` the decay of "other".
    """
    sizes = [*spec.cardinalities, *(bag.n_vectors for bag in spec.bags)]
    rows_per_value = n_rows * len(sizes) / max(1, sum(sizes))
    relative_rows = rows_per_value / ROWS_OF_LARGEST_RATIO
    share = min(relative_rows, 1 / math.sqrt(max(relative_rows, 1.0)))
    ratio = max(SMALLEST_DECAY_RATIO, LARGEST_DECAY_RATIO * share)
    params = settings.optimizer_params
    decay_of_tables = params["embedding_weight_decay"]
    if decay_of_tables is None:
        decay_of_tables = ratio * decay
    table_arguments = {"weight_decay": float(decay_of_tables)}
    if params["embedding_lr"] is not None:
        table_arguments["lr"] = float(params["embedding_lr"])
    bias_arguments = {"weight_decay": 0.0}
    groups = [(_NO_DECAY, bias_arguments), (_TABLE, table_arguments)]
    arguments_of_kind = {_OTHER: {"weight_decay": decay}, _TABLE: table_arguments}
    for task, rate in enumerate(spec.base_rates):
        share = min(1.0, min(rate, 1 - rate) / RATE_OF_FULL_DECAY)
        for kind, arguments in arguments_of_kind.items():
            reduced_decay = share * arguments["weight_decay"]
            reduced = {**arguments, "weight_decay": reduced_decay}
            groups.append((_TASK_KIND.format(kind, task), reduced))
    if exposure_references(settings):
        exposure_arguments = {"weight_decay": EXPOSURE_DECAY_RATIO * decay}
        groups.append((_EXPOSURE, exposure_arguments))
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
        exposure_terms = getattr(part, "exposure_terms", None)
        terms = set(() if exposure_terms is None else exposure_terms.parameters())
        for path, module in modules:
            in_list = isinstance(module, nn.ParameterList | nn.ParameterDict)
            words = path.rpartition(".")[2].split("_") if in_list else []
            for name, parameter in module.named_parameters(recurse=False):
                is_bias = "bias" in (*words, *name.split("_"))
                if parameter in tables:
                    kinds[parameter] = _TABLE
                elif parameter in terms:
                    kinds[parameter] = _EXPOSURE
                elif is_bias or isinstance(module, _SCALES):
                    kinds[parameter] = _NO_DECAY
                else:
                    kinds[parameter] = _OTHER
    for name, parameter in network.named_parameters():
        for task in range(network.n_tasks):
            patterns = (form.format(task=task) for form in network.task_parameters)
            is_of_task = any(fnmatchcase(name, pattern) for pattern in patterns)
            if is_of_task and kinds[parameter] != _NO_DECAY:
                kinds[parameter] = _TASK_KIND.format(kinds[parameter], task)
    return kinds


def _take_step(
    settings: Settings, chosen: Chosen, device: torch.device | None = None
) -> None:
    """Take a step on a matrix, a bias and an embedding table, each in its group."""
    weight = nn.Parameter(torch.zeros((2, 2), device=device))
    bias = nn.Parameter(torch.zeros((2,), device=device))
    table = nn.Parameter(torch.zeros((2, 2), device=device))
    groups: list[dict[str, Any]] = [
        {"params": [parameter]} for parameter in (weight, bias, table)
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
    finite = [parameter.isfinite().all() for parameter in (weight, bias, table)]
    if not all(map(bool, finite)):
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
