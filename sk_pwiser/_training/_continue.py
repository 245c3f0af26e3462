"""A new net that continues the training of an earlier one."""

from copy import deepcopy
from typing import Any

import torch

from sk_pwiser import _settings
from sk_pwiser._settings import shared_param
from sk_pwiser._training._callbacks import group_arguments
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._utils._equality import equal
from sk_pwiser.networks import NETWORKS

# Arguments of torch's optimisers that add entries to their state if they are not 0.
_STATE_ARGUMENTS = ("amsgrad", "centered", "momentum")


def check_same_model(
    settings: _settings.Settings, earlier_settings: _settings.Settings
) -> None:
    """Raise if continuing an earlier fit would change the meaning of its weights."""
    earlier_meanings = _meanings(earlier_settings)
    for name, value in _meanings(settings).items():
        if value != earlier_meanings[name]:
            raise ValueError(
                f"Training cannot continue with {name}={value!r}: the earlier fit used "
                f"{earlier_meanings[name]!r}."
            )


def _meanings(settings: _settings.Settings) -> dict[str, Any]:
    """Return what changes the meaning, but not the shapes, of a network's weights."""
    # The tensors of two networks may have the same names, shapes and other meanings.
    names: dict[Any, str] = {kind: name for name, kind in NETWORKS.items()}
    network = names.get(settings.network, settings.network)
    parameters = ("numeric_encoding", "negative_sampling_rate", "task_parents")
    shared_parameters = ("task_space", "interaction", "domain_features")
    # Without a value, its loss means nothing.
    value_loss = settings.value_loss if settings.value_tasks else None
    exposure = {"exposure_features": _settings.exposure_references(settings)}
    for name in ("exposure_monotone", "exposure_tasks"):
        exposure[name] = settings.encoding_params.get(name)
    return {
        "network": _settings.describe(network),
        "value_loss": value_loss,
        **{name: getattr(settings, name) for name in parameters},
        **exposure,
        "list_pooling": settings.encoding_params["list_pooling"],
        "parents": settings.encoding_params["parents"],
        **{name: shared_param(settings, name) for name in shared_parameters},
    }


def continue_from(net: MultiTaskNet, earlier_net: MultiTaskNet) -> None:
    """Copy weights, optimiser state and history of an earlier net into a new one.

    The arguments of the optimiser are those of the new net. The schedule of a callback
    that is in both nets continues, unless `lr` differs.
    """
    try:
        net.module_.load_state_dict(earlier_net.module_.state_dict())
        net.criterion_.load_state_dict(earlier_net.criterion_.state_dict())
    except RuntimeError as error:
        changed = []
        for name in _SHAPE_PARAMETERS:
            value = getattr(net.settings, name)
            earlier_value = getattr(earlier_net.settings, name)
            if not equal(value, earlier_value):
                changed.append(f"{name}={value!r}, before {earlier_value!r}")
        raise ValueError(
            "Training cannot continue from the earlier fit, since the parameters now "
            "describe a different network, loss or weighting: "
            f"{'; '.join(changed) or error}."
        ) from error
    net.optimize_new_parameters()
    has_same_state = _have_same_state(net.optimizer_, earlier_net.optimizer_)
    keeps_schedules = has_same_state and net.lr == earlier_net.lr
    net.schedules_ = list(earlier_net.schedules_) if keeps_schedules else []
    scheduled = {id(callback) for callback, _ in net.schedules_}
    is_scheduled = any(id(callback) in scheduled for _, callback in net.callbacks_)
    if has_same_state:
        arguments = group_arguments(net.optimizer_)
        net.optimizer_.load_state_dict(deepcopy(earlier_net.optimizer_.state_dict()))
        pairs = zip(net.optimizer_.param_groups, arguments, strict=True)
        for group, new_arguments in pairs:
            if is_scheduled:
                del new_arguments["lr"]
            else:
                group.pop("initial_lr", None)
            group.update(new_arguments)
    net.history = deepcopy(earlier_net.history)
    net.start_rates_ = earlier_net.start_rates_


# Parameters that shape a net.
_SHAPE_PARAMETERS = (
    "network",
    "network_params",
    "loss",
    "loss_params",
    "weighting",
    "weighting_params",
    "embedding_dim",
)


def _have_same_state(
    optimizer: torch.optim.Optimizer, earlier_optimizer: torch.optim.Optimizer
) -> bool:
    """Return whether one optimiser can continue from the state of the other."""
    # Adam and LazyAdam have the same state.
    kind = type(optimizer)
    earlier_kind = type(earlier_optimizer)
    if not (issubclass(kind, earlier_kind) or issubclass(earlier_kind, kind)):
        return False
    groups = zip(optimizer.param_groups, earlier_optimizer.param_groups, strict=True)
    return all(
        bool(group.get(name)) == bool(earlier_group.get(name))
        for group, earlier_group in groups
        for name in _STATE_ARGUMENTS
    )
