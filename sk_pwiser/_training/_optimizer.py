"""The optimiser: its class, its arguments, and whether it can train a network."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sk_pwiser._training._settings import LOOP_PARAMS
from sk_pwiser._utils import check_number

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

    A step on two small tensors checks that the optimiser accepts them and works with
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
    try:
        for each in (lr, lr if embedding_lr is None else embedding_lr):
            _take_step(kind, each, kwargs)
    except Exception as error:
        raise ValueError(
            f"optimizer={optimizer!r} cannot train with lr={lr!r}, embedding_lr="
            f"{embedding_lr!r}, weight_decay={weight_decay!r} and "
            f"optimizer_params={dict(params)!r}: {error}"
        ) from error
    return kind, kwargs


def parameter_groups(
    weight_decay: float, params: Mapping[str, Any]
) -> list[tuple[str, dict[str, float]]]:
    """Return patterns of parameter names with their own arguments, for skorch."""
    groups = [(pattern, {"weight_decay": 0.0}) for pattern in _WITHOUT_DECAY]
    lr, decay = params["embedding_lr"], params["embedding_weight_decay"]
    if decay is None:
        decay = EMBEDDING_DECAY_RATIO * weight_decay
    of_embeddings = {"weight_decay": float(decay)}
    if lr is not None:
        of_embeddings["lr"] = float(lr)
    return [*groups, (_EMBEDDINGS, of_embeddings)]


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
    if not isinstance(lazy, bool) and lazy != "auto":
        raise ValueError(
            f"lazy_embeddings must be 'auto', True or False; got {lazy!r}."
        )


def _take_step(
    kind: type[torch.optim.Optimizer], lr: float, kwargs: Mapping[str, Any]
) -> None:
    weight, bias = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    groups = [{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}]
    make: Any = kind
    optimizer = make(groups, lr=lr, **kwargs)
    weight.grad, bias.grad = torch.ones_like(weight), torch.ones_like(bias)
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
