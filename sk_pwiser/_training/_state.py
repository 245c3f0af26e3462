"""A fitted network as plain pieces for a file, and back."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch

from sk_pwiser._training._coherence import Rises
from sk_pwiser._training._components import build_net, build_network, check_components
from sk_pwiser._training._data import STATE_CLASSES as TABLE_CLASSES
from sk_pwiser._training._data import Schema
from sk_pwiser._training._device import find_device
from sk_pwiser._training._net_state import (
    load_net_state,
    net_state,
    to_arrays,
    to_tensors,
)
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import Generators, seeded_globally, warn_user

# Classes of the pieces, beside plain values and arrays.
STATE_CLASSES = (*TABLE_CLASSES, Rises, Schema, Settings)

# Attributes of the net that are no settings of the estimator.
_OF_NET = ("max_epochs", "average_decay", "compile_mode")


def to_state(result: TrainingResult) -> dict[str, Any]:
    """Return the pieces of a result: plain values, arrays and `STATE_CLASSES`.

    Callbacks and the folder of checkpoints are left out.
    """
    net = result.net
    state = {
        "settings": replace(
            result.settings,
            callbacks=None,
            device=str(result.settings.device),
            checkpoint_dir=None,
        ),
        "schema": result.schema,
        "generators": result.generators.__getstate__(),
        "single_pass": result.single_pass,
        "best_epoch": result.best_epoch,
        "n_rows": result.n_rows,
        "rises": result.rises,
        "net": {name: getattr(net, name) for name in _OF_NET},
        "sampler": net.iterator_train__sampler,
        **net_state(net),
    }
    arrays: dict[str, Any] = to_arrays(state)
    return arrays


def from_state(state: Mapping[str, Any], defaults: Mapping[str, Any]) -> TrainingResult:
    """Build the result of which `to_state` returned the pieces.

    Parameters
    ----------
    state : mapping
        The pieces, maybe of an earlier version of the package.
    defaults : mapping
        Default values of the estimator's parameters, for those that did not exist yet.

    Raises
    ------
    ValueError
        If the pieces do not fit together, or are of a later version of the package.
    """
    saved = state["settings"]
    if not isinstance(saved, Settings):
        raise ValueError("it has no settings")
    unknown = vars(saved).keys() - {field.name for field in fields(Settings)}
    if unknown:
        raise ValueError(f"its settings have {sorted(unknown)}, which are unknown")
    settings = Settings.of({**defaults, **vars(saved)})
    schema = state["schema"]
    device = _device(settings.device)
    # Compiling is left to the next training.
    eager = replace(settings, compile=False)
    with seeded_globally(0, device):
        components = check_components(eager, schema.targets.task_names, device, False)
        net = build_net(
            eager,
            replace(components, sampler=state["sampler"]),
            build_network(eager, schema),
            device,
            monitor=None,
            max_epochs=state["net"]["max_epochs"],
            average_decay=state["net"]["average_decay"],
        )
    net.compile_mode = state["net"]["compile_mode"]
    load_net_state(net, to_tensors(state))
    generators = Generators.__new__(Generators)
    generators.__setstate__(to_tensors(state["generators"]))
    return TrainingResult(
        net,
        schema,
        generators,
        settings,
        state["single_pass"],
        state["best_epoch"],
        state["n_rows"],
        state["rises"],
    )


def _device(name: str) -> torch.device:
    try:
        return find_device(name)
    except ValueError as error:
        warn_user(f"{error} Loading on the CPU instead.")
        return torch.device("cpu")
