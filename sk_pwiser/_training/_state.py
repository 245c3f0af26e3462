"""The state of a fit: continued by later fits, restored after a failure, saved."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sk_pwiser import _settings
from sk_pwiser._rows._batches import TrainingRows
from sk_pwiser._settings import shared_param
from sk_pwiser._training import _device
from sk_pwiser._training._build_net import build_net
from sk_pwiser._training._callbacks import PARTS, group_arguments, set_states
from sk_pwiser._training._checked_components import check_components
from sk_pwiser._training._embedding_tables import TABLES, sparse_tables
from sk_pwiser._training._epoch_history import EpochHistory
from sk_pwiser._training._growth import Growth
from sk_pwiser._training._lazy_tables import LazyAdam
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._rises import Rises
from sk_pwiser._training._schema import STATE_CLASSES as ENCODING_CLASSES
from sk_pwiser._training._schema import Schema
from sk_pwiser._utils._equality import equal
from sk_pwiser._utils._random import Generators, seeded_globally
from sk_pwiser.networks import NETWORKS


@dataclass(frozen=True)
class TrainingResult:
    """All that a fit has learnt, for predictions, later fits and files.

    `fit`, `partial_fit`, checkpoints, files and distributed fits return one such
    object, and the estimator assigns it once, at the end.

    ===================  ==========  ==============  ================
    kept                 warm start  `partial_fit`   resumed training
    ===================  ==========  ==============  ================
    columns, vocabulary  yes         yes, may grow   yes
    columns that had no  learnt      learnt          yes
    information so far
    target statistics    scales and  all, and adds   yes
                         old values  its rows
    network, criterion   yes         yes, in place   yes
    optimiser, schedule  yes         yes, in place   yes
    average of weights   starts at   none            yes
                         the weights
    validation rows      same split  none            same split
    scale of weights,    no          of first call   yes
    whether counts
    history              continues   continues       continues
    random numbers       continue    continue        continue
    ===================  ==========  ==============  ================
    """

    net: MultiTaskNet
    schema: Schema
    generators: Generators
    settings: _settings.Settings
    single_pass: bool  # whether this was `partial_fit`
    best_epoch: int  # whose weights the network has
    n_rows: tuple[int, int]  # training and validation rows
    rises: Rises | None = None
    split_state: dict[str, Any] | None = None  # that drew the validation rows
    weight_scale: float | None = None  # mean of the weights above 0
    scales_counts: bool = False  # whether these weights are counts of rows
    stop_reason: str | None = None  # where and why training ended; None after an update
    split_rows: dict[str, Any] | None = None  # as `find_split` returns them
    used_all: bool = False  # whether this training held out no rows


def net_state(net: MultiTaskNet) -> dict[str, Any]:
    """Return weights, the states of criterion and optimiser, and the history."""
    states = {part: getattr(net, name).state_dict() for part, name in PARTS.items()}
    return {**states, "history": list(net.history)}


def load_net_state(net: MultiTaskNet, state: Mapping[str, Any]) -> None:
    """Restore what `net_state` returned, unless the weights do not fit the net."""
    own, states = net.optimizer_.param_groups, {part: state[part] for part in PARTS}
    groups = [
        {**group, **{k: v for k, v in now.items() if k in _OF_MACHINE}}
        for group, now in zip(states["optimizer"]["param_groups"], own, strict=True)
    ]
    states["optimizer"] = {**states["optimizer"], "param_groups": groups}
    try:
        set_states(net, states)
    except RuntimeError as error:
        raise ValueError(f"its weights do not fit its parameters: {error}") from error
    net.history = EpochHistory(state["history"])


# Arguments of torch's optimisers that say how a step is computed. Those of the machine
# that trains on are used: another one may not support them.
_OF_MACHINE = ("capturable", "foreach", "fused")


def to_arrays(value: Any) -> Any:
    """Convert the tensors within dictionaries, lists and tuples to arrays."""
    return _map(value, Tensor, lambda tensor: tensor.detach().cpu().numpy())


def to_tensors(value: Any) -> Any:
    """Convert the arrays within dictionaries, lists and tuples to tensors."""
    return _map(value, np.ndarray, torch.from_numpy)


def _map(value: Any, kind: type, convert: Callable[[Any], Any]) -> Any:
    if isinstance(value, kind):
        return convert(value)
    if isinstance(value, dict):
        return {key: _map(item, kind, convert) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_map(item, kind, convert) for item in value)
    return value


# Arguments of torch's optimisers that add entries to their state if they are not 0.
_OF_STATE = ("amsgrad", "centered", "momentum")


def check_same_model(settings: _settings.Settings, earlier: _settings.Settings) -> None:
    """Raise if continuing an earlier fit would change the meaning of its weights."""
    now, before = _meanings(settings), _meanings(earlier)
    for name, value in now.items():
        if value != before[name]:
            raise ValueError(
                f"Training cannot continue with {name}={value!r}: the earlier fit used "
                f"{before[name]!r}."
            )


def _meanings(settings: _settings.Settings) -> dict[str, Any]:
    """Return what changes the meaning, but not the shapes, of a network's weights."""
    # The tensors of two networks may have the same names, shapes and other meanings.
    names: dict[Any, str] = {kind: name for name, kind in NETWORKS.items()}
    kept = ("numeric_encoding", "negative_sampling_rate", "task_parents")
    shared = ("task_space", "interaction", "domain_features")
    return {
        "network": _settings.describe(names.get(settings.network, settings.network)),
        **{name: getattr(settings, name) for name in kept},
        "list_pooling": settings.encoding_params["list_pooling"],
        **{name: shared_param(settings, name) for name in shared},
    }


def continue_from(net: MultiTaskNet, earlier: MultiTaskNet) -> None:
    """Copy weights, optimiser state and history of an earlier net into a new one.

    The arguments of the optimiser are those of the new net. The schedule of a callback
    that is in both nets continues, unless `lr` differs.
    """
    try:
        net.module_.load_state_dict(earlier.module_.state_dict())
        net.criterion_.load_state_dict(earlier.criterion_.state_dict())
    except RuntimeError as error:
        changed = []
        for name in _OF_SHAPE:
            now, before = (getattr(each.settings, name) for each in (net, earlier))
            if not equal(now, before):
                changed.append(f"{name}={now!r}, before {before!r}")
        raise ValueError(
            "Training cannot continue from the earlier fit, since the parameters now "
            "describe a different network, loss or weighting: "
            f"{'; '.join(changed) or error}."
        ) from error
    has_same_state = _have_same_state(net.optimizer_, earlier.optimizer_)
    keeps_schedules = has_same_state and net.lr == earlier.lr
    net.schedules_ = list(earlier.schedules_) if keeps_schedules else []
    known = [callback for callback, _ in net.schedules_]
    is_scheduled = any(each is one for _, each in net.callbacks_ for one in known)
    if has_same_state:
        arguments = group_arguments(net.optimizer_)
        net.optimizer_.load_state_dict(deepcopy(earlier.optimizer_.state_dict()))
        for group, kept in zip(net.optimizer_.param_groups, arguments, strict=True):
            if is_scheduled:
                del kept["lr"]
            else:
                group.pop("initial_lr", None)
            group.update(kept)
    net.history = deepcopy(earlier.history)
    net.start_rates_ = earlier.start_rates_


# Parameters that shape a net.
_OF_SHAPE = (
    *("network", "network_params", "loss", "loss_params"),
    *("weighting", "weighting_params", "embedding_dim"),
)


def _have_same_state(
    optimizer: torch.optim.Optimizer, earlier: torch.optim.Optimizer
) -> bool:
    """Return whether one optimiser can continue from the state of the other."""
    # Adam and LazyAdam have the same state.
    kinds = type(optimizer), type(earlier)
    if not (issubclass(*kinds) or issubclass(*reversed(kinds))):
        return False
    groups = zip(optimizer.param_groups, earlier.param_groups, strict=True)
    return all(
        bool(now.get(name)) == bool(before.get(name))
        for now, before in groups
        for name in _OF_STATE
    )


# Functions that undo the changes of an update in place, the latest last.
Undo = list[Callable[[], None]]


def take_back(undo: Undo) -> None:
    """Undo an update, its latest change first, and empty the log."""
    while undo:
        # An interrupted entry runs again, so that a second Ctrl-C does no harm.
        with suppress(KeyboardInterrupt):
            while undo:
                undo[-1]()
                undo.pop()


def log_net(net: MultiTaskNet, undo: Undo) -> None:
    """Log the state of a net before it is trained in place.

    The optimiser logs the rows of large embedding tables at their first change.
    """
    tables, logs = set(sparse_tables(net.module_)), {}
    if isinstance(net.optimizer_, LazyAdam):
        logs = net.optimizer_.logs = {}
    parameters = [*net.module_.parameters(), *net.criterion_.parameters()]
    tensors = [
        (tensor, tensor.detach().clone())
        for tensor in chain(parameters, net.module_.buffers())
        if tensor not in tables
    ]
    # A user's network may replace its buffers by others.
    buffers = [(m, dict(m._buffers)) for m in net.module_.modules() if m._buffers]
    # A weighting may replace its buffers by others of another shape. The copy has the
    # parameters themselves, to which the optimiser refers.
    criterion = deepcopy(net.criterion_, {id(p): p for p in parameters})
    arguments = group_arguments(net.optimizer_)
    states = {
        parameter: state
        if parameter in tables
        # Faster than deepcopy, in every update.
        else {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}
        for parameter, state in net.optimizer_.state.items()
    }
    n_epochs = len(net.history)

    def restore() -> None:
        for log in logs.values():
            log.restore()
        with torch.no_grad():
            for tensor, value in tensors:
                tensor.copy_(value)
        for module, of_module in buffers:
            module._buffers.update(of_module)
        net.criterion = net.criterion_ = criterion
        for group, own in zip(net.optimizer_.param_groups, arguments, strict=True):
            group.update(own)
        net.optimizer_.state.clear()
        net.optimizer_.state.update(states)
        del net.history[n_epochs:]

    undo.append(restore)


def grow_tables(net: MultiTaskNet, schema: Schema, growth: Growth, undo: Undo) -> None:
    """Add rows to a net's embedding tables in place, for new category values.

    New rows have no state in the optimiser.
    """
    layer, spec, encoder = net.module_.input_layer, net.module_.spec, schema.encoder
    of_bags = () if layer.bags is None else layer.bags.tables
    before, grown = [], []
    for origin, tables in zip(growth, (layer.tables, of_bags), strict=True):
        rows, is_new = (torch.from_numpy(each).to(net.device) for each in origin)
        for table in tables:
            weight, state = table.detach(), net.optimizer_.state.get(table, {})
            before.append((weight, dict(state)))
            new_state = {
                key: _grow_state(value, len(weight), rows, is_new)
                for key, value in state.items()
            }
            grown.append((weight[rows], new_state))
    sizes = list(spec.cardinalities), [bag.n_vectors for bag in spec.bags]
    undo.append(partial(_set_tables, net, *sizes, before))
    _set_tables(net, encoder.cardinalities_, [n for n, *_ in encoder.bags_], grown)


@torch.no_grad()
def check_own_tables(net: MultiTaskNet, rows: TrainingRows, n_before: int) -> None:
    """Raise if a network reads codes through tables of its own, which do not grow.

    It runs on one of the rows, with the largest code of every column. A table with the
    earlier number of codes, `n_before`, would mix up the columns even within its rows.
    """
    network: Any = net.module_
    known = set(network.input_layer.modules())

    def check(path: str, module: Any, args: Any, kwargs: Any) -> None:
        indices: Any = [*args, *kwargs.values()][0]
        n_rows = module.num_embeddings
        if n_rows == n_before or int(indices.max()) >= n_rows:
            raise IndexError(f"{path} has {n_rows} rows")

    inputs, _ = next(iter(net.get_iterator(rows.spaced(1))))
    largest = torch.tensor(network.spec.cardinalities, device=net.device) - 1
    inputs["codes"] = largest.expand(inputs["codes"].shape)
    net._set_training(False)
    with ExitStack() as hooks:
        for path, module in network.named_modules():
            if isinstance(module, TABLES) and module not in known:
                hook: Any = partial(check, path)
                hooks.enter_context(
                    module.register_forward_pre_hook(hook, with_kwargs=True)
                )
        try:
            net.infer(inputs)
        except IndexError as error:
            raise ValueError(
                "grow_vocabulary must be False in encoding_params: a part of the "
                f"network does not grow with the vocabularies ({error}). Let "
                f"{type(network).__name__} read codes by input_layer: its tables grow."
            ) from error


def _set_tables(
    net: MultiTaskNet,
    cardinalities: list[int],
    n_vectors: list[int],
    tables: list[tuple[Tensor, dict[str, Any]]],
) -> None:
    """Set the weights of embedding tables, and their states in the optimiser."""
    layer, weights = net.module_.input_layer, [weight for weight, _ in tables]
    net.module_.set_tables(cardinalities, weights, n_vectors)
    own = [*layer.tables, *(() if layer.bags is None else layer.bags.tables)]
    for table, (_, state) in zip(own, tables, strict=True):
        if state:
            net.optimizer_.state[table] = state


def _grow_state(value: Any, n_rows: int, rows: Tensor, is_new: Tensor) -> Any:
    """Add rows to the optimiser's state of a table; copy values without rows."""
    if not isinstance(value, Tensor) or value.shape[:1] != (n_rows,):
        return deepcopy(value)  # the number of steps changes in place
    grown = value[rows]
    grown[is_new] = 0
    return grown


# Classes of the values in a file, in addition to plain values and arrays.
STATE_CLASSES = (*ENCODING_CLASSES, Rises, _settings.Settings)

# Attributes of the net that are not among the settings of the estimator.
_OF_NET = ("max_epochs", "average_decay", "compile_mode")


def to_state(result: TrainingResult) -> dict[str, Any]:
    """Return the content of a file: plain values, arrays and `STATE_CLASSES`."""
    net = result.net
    device = str(result.settings.device)
    state = {
        **vars(result),
        "settings": replace(
            result.settings, callbacks=None, device=device, checkpoint_dir=None
        ),
        "generators": result.generators.__getstate__(),
        "net": {name: getattr(net, name) for name in _OF_NET},
        "sampler": net.iterator_train__sampler,
        **net_state(net),
    }
    arrays: dict[str, Any] = to_arrays(state)
    return arrays


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
    with seeded_globally(0, device):
        names, random_state = schema.targets.task_names, np.random.RandomState(0)
        components = check_components(eager, names, device, False, random_state)
        net = build_net(
            eager,
            replace(components, sampler=state["sampler"]),
            schema,
            device,
            epochs=(None, 1, 1),
            is_update=True,  # other trainings build their own net
        )
    for name in _OF_NET:
        setattr(net, name, state["net"][name])
    load_net_state(net, to_tensors(state))
    generators = Generators.__new__(Generators)
    generators.__setstate__(to_tensors(state["generators"]))
    known = {field.name for field in fields(TrainingResult)}
    kept = {name: value for name, value in state.items() if name in known}
    rebuilt = {"net": net, "schema": schema, "generators": generators}
    return TrainingResult(**{**kept, **rebuilt, "settings": settings})
