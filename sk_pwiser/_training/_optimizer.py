"""The optimiser: its class, its arguments, and whether it can train a network."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sk_pwiser._training._settings import LOOP_PARAMS
from sk_pwiser._utils import check_number
from sk_pwiser.networks import MultiTaskNetwork

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}

# Parameters of the network and the weighting that have no weight decay.
_WITHOUT_DECAY = ("*bias", "*bias.*", "weighting.*")
_EMBEDDINGS = "*embeddings.*.weight"

# Weight decay of the embeddings over that of the other parameters: each sees few rows.
EMBEDDING_DECAY_RATIO = 5.0

# Below this rate, the decay of the parameters of a single task is reduced.
RARE = 0.05

# Why some optimisers of torch cannot train a network, where their own errors do not
# say it; by the names of their classes, since older versions of torch lack some.
_UNSUITABLE = {
    "LBFGS": "evaluates the loss of a batch several times per step",
    "Muon": "takes two-dimensional parameters only, and a network has biases",
    "SparseAdam": "takes sparse gradients only, not dense gradients such as those of "
    'layers; optimizer="adam" updates large embedding tables by their rows',
}

# Arguments that are parameters of the estimator.
DEFAULT_WEIGHT_DECAY = 1e-4  # which optimisers without weight decay ignore
_OWN_PARAMETERS = ("lr", "weight_decay")


def check_optimizer(
    optimizer: str | type[torch.optim.Optimizer],
    lr: float,
    weight_decay: float,
    params: Mapping[str, Any],
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Return the optimiser's class and its keyword arguments, but for `lr`.

    A step on three small tensors checks that the optimiser accepts them and works with
    dense gradients and without a closure, before a table is encoded.

    Raises
    ------
    TypeError
        If a class is not an optimiser.
    ValueError
        If `params` has a key that the optimiser does not take, or if the optimiser
        cannot train a network with these arguments.
    """
    kind = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer
    if not issubclass(kind, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be a name or a subclass of torch's Optimizer; got {kind}."
        )
    _check_suitable(kind)
    _check_loop_params(params)
    embedding_lr = params["embedding_lr"]
    embedding_decay = params["embedding_weight_decay"]
    params = {k: v for k, v in params.items() if k not in LOOP_PARAMS}
    known = list(inspect.signature(kind).parameters)[1:]
    for key in params:
        if key in _OWN_PARAMETERS:
            raise ValueError(
                f"optimizer_params holds {key!r}, which is a parameter of the "
                f"estimator: set {key}={params[key]!r} there."
            )
        if key not in known:
            taken = [name for name in known if name not in _OWN_PARAMETERS]
            raise ValueError(
                f"optimizer_params holds {key!r}, which optimizer={optimizer!r} does "
                f"not take; the keys are {[*LOOP_PARAMS, *taken]}."
            )
    kwargs = dict(params)
    if "weight_decay" in known:
        kwargs["weight_decay"] = weight_decay
    elif weight_decay not in (0.0, DEFAULT_WEIGHT_DECAY):
        raise ValueError(
            f"weight_decay={weight_decay!r}, but optimizer={optimizer!r} has no weight "
            "decay; set weight_decay=0."
        )
    if embedding_decay and "weight_decay" not in known:
        raise ValueError(
            f"embedding_weight_decay={embedding_decay!r}, but optimizer={optimizer!r} "
            "has no weight decay."
        )
    given = {
        "lr": lr,
        "embedding_lr": embedding_lr,
        "weight_decay": weight_decay,
        "embedding_weight_decay": embedding_decay,
    }
    _check_in_float32(given)
    try:
        _take_step(kind, given, kwargs)
    except Exception as error:
        found = [f"{key}={value!r}" for key, value in given.items()]
        raise ValueError(
            f"optimizer={optimizer!r} cannot train with {', '.join(found)} and "
            f"optimizer_params={dict(params)!r}: {error}"
        ) from error
    return kind, kwargs


def _check_suitable(kind: type[torch.optim.Optimizer]) -> None:
    """Raise for optimisers of torch, and subclasses of them, that cannot train."""
    for name, reason in _UNSUITABLE.items():
        unsuitable = getattr(torch.optim, name, None)
        if unsuitable is not None and issubclass(kind, unsuitable):
            raise ValueError(
                f"optimizer={kind!r} cannot train a network: {name} {reason}."
            )


def _check_in_float32(given: Mapping[str, float | None]) -> None:
    """Raise if a number is above those of the weights, so that no step is finite."""
    for name, value in given.items():
        if value is not None and value > torch.finfo(torch.float32).max:
            raise ValueError(
                f"Training would diverge in its first step: {name} is above the "
                f"largest number of float32. Use a smaller {name}; it is {value}."
            )


def parameter_groups(
    weight_decay: float, params: Mapping[str, Any], network: MultiTaskNetwork
) -> list[tuple[str, dict[str, float]]]:
    """Return patterns of parameter names with their own arguments, for skorch.

    The first pattern that matches a name applies.
    """
    groups = [(pattern, {"weight_decay": 0.0}) for pattern in _WITHOUT_DECAY]
    lr, decay = params["embedding_lr"], params["embedding_weight_decay"]
    of_embeddings = _of_embeddings(lr, weight_decay, decay)
    for task, rate in enumerate(network.spec.base_rates):
        share = min(1.0, rate / RARE, (1 - rate) / RARE)
        for pattern in network.task_parameters:
            is_table = "embeddings." in pattern
            own = of_embeddings if is_table else {"weight_decay": weight_decay}
            own = {**own, "weight_decay": share * own["weight_decay"]}
            groups.append((pattern.format(task=task), own))
    return [*groups, (_EMBEDDINGS, of_embeddings)]


def _of_embeddings(
    lr: float | None, weight_decay: float, decay: float | None
) -> dict[str, float]:
    """Return the arguments of the embeddings that differ from those of the others."""
    if decay is None:
        decay = EMBEDDING_DECAY_RATIO * weight_decay
    return {"weight_decay": float(decay)} | ({} if lr is None else {"lr": float(lr)})


def _check_loop_params(params: Mapping[str, Any]) -> None:
    if params["average_decay"] is not None:
        check_number("average_decay", params["average_decay"], at_least=0, below=1)
    if params["clip_grad_norm"] is not None:
        check_number("clip_grad_norm", params["clip_grad_norm"], above=0)
    if params["embedding_lr"] is not None:
        check_number("embedding_lr", params["embedding_lr"], above=0)
    decay = params["embedding_weight_decay"]
    if decay is not None:
        check_number("embedding_weight_decay", decay, at_least=0)
    lazy = params["lazy_embeddings"]
    # Missing values of pandas compare as neither equal nor unequal.
    if not isinstance(lazy, bool) and not (isinstance(lazy, str) and lazy == "auto"):
        raise ValueError(
            f"lazy_embeddings must be 'auto', True or False; got {lazy!r}."
        )


def _take_step(
    kind: type[torch.optim.Optimizer],
    given: Mapping[str, Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Take a step on a matrix, a bias and an embedding table, each in its group."""
    weight, bias = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    table = nn.Parameter(torch.zeros(2, 2))
    of_table = _of_embeddings(
        given["embedding_lr"], given["weight_decay"], given["embedding_weight_decay"]
    )
    groups = [
        {"params": [weight]},
        {"params": [bias], "weight_decay": 0.0},
        {"params": [table], **of_table},
    ]
    make: Any = kind
    optimizer = make(groups, lr=given["lr"], **kwargs)
    for parameter in (weight, bias, table):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(lambda: torch.zeros(()))


def can_fuse(
    kind: type[torch.optim.Optimizer], kwargs: Mapping[str, Any], device: torch.device
) -> bool:
    """Return whether torch has the step with these arguments as one kernel."""
    parameter = nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    make: Any = kind
    try:
        make([parameter], **{**kwargs, "fused": True}).step()
    except (TypeError, RuntimeError):
        return False
    return True
