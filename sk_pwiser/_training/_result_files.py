"""The content of a file with what a fit has learnt."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from sk_pwiser import _settings
from sk_pwiser._columns._id_vectors import IN_FILE
from sk_pwiser._training import _device
from sk_pwiser._training._build_net import NetForm, build_net
from sk_pwiser._training._checked_components import check_components
from sk_pwiser._training._encoded_data import SINGLE_PASS
from sk_pwiser._training._limited_memory import LimitedMemory
from sk_pwiser._training._net_state import (
    load_net_state,
    net_state,
    to_arrays,
    to_tensors,
)
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._rises import Rises
from sk_pwiser._training._schema import STATE_CLASSES as ENCODING_CLASSES
from sk_pwiser._utils._random import Generators, seeded_globally

# Classes of the values in a file, in addition to plain values and arrays.
STATE_CLASSES = (*ENCODING_CLASSES, Rises, _settings.Settings)

# Attributes of the net that are not among the settings of the estimator.
_NET_ATTRIBUTES = ("max_epochs", "average_decay", "compile_mode")


def to_state(result: TrainingResult) -> dict[str, Any]:
    """Return the content of a file: plain values, arrays and `STATE_CLASSES`."""
    net = result.net
    device = str(result.settings.device)
    state = {
        **vars(result),
        "settings": replace(
            result.settings,
            callbacks=None,
            device=device,
            checkpoint_dir=None,
            encoding_params=without_tables(result.settings.encoding_params),
        ),
        "generators": result.generators.__getstate__(),
        "net": {name: getattr(net, name) for name in _NET_ATTRIBUTES},
        "sampler": net.iterator_train__sampler,
        **net_state(net),
    }
    arrays: dict[str, Any] = to_arrays(state)
    return arrays


def without_tables(encoding_params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries with a text in the place of each table of vectors."""
    tables = encoding_params["vectors"]
    texts = None if tables is None else dict.fromkeys(tables, IN_FILE)
    return {**encoding_params, "vectors": texts}


def from_state(state: Mapping[str, Any], defaults: Mapping[str, Any]) -> TrainingResult:
    """Build a result from what `to_state` returned; newer parameters are `defaults`."""
    saved = state["settings"]
    if not isinstance(saved, _settings.Settings):
        raise ValueError("it has no settings")
    unknown = vars(saved).keys() - _settings.PARAMETER_CONSTRAINTS.keys()
    if unknown:
        raise ValueError(f"its settings have {sorted(unknown)}, which are unknown")
    settings = _settings.Settings.of({**defaults, **vars(saved)})
    schema = state["schema"]
    device = _device.device_or_cpu(settings.device)
    # The next training compiles the network.
    eager = replace(settings, compile=False)
    with seeded_globally(0, device), LimitedMemory(state["network"]):
        components = check_components(
            eager,
            schema.targets.task_names,
            device,
            has_groups=False,
            random_state=np.random.RandomState(0),
        )
        net = build_net(
            eager,
            replace(components, sampler=state["sampler"]),
            schema,
            device,
            form=NetForm.for_update(eager),  # other trainings build their own net
            epochs=SINGLE_PASS,
        )
    for name in _NET_ATTRIBUTES:
        setattr(net, name, state["net"][name])
    load_net_state(net, to_tensors(state))
    generators = Generators.__new__(Generators)
    generators.__setstate__(to_tensors(state["generators"]))
    field_names = {field.name for field in fields(TrainingResult)}
    stored = {name: value for name, value in state.items() if name in field_names}
    rebuilt = {"net": net, "schema": schema, "generators": generators}
    return TrainingResult(**{**stored, **rebuilt, "settings": settings})
