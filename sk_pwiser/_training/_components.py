"""Parts of a net: checked before a table is encoded, and built afterwards."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback, GradientNormClipping, LRScheduler
from torch import nn
from torch.nn.parameter import is_lazy

from sk_pwiser import _utils
from sk_pwiser._training import _optimizers
from sk_pwiser._training._batches import BatchIterator
from sk_pwiser._training._callbacks import callback_kinds, check_callbacks
from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._schedule_and_stopping import (
    BestEpochStopping,
    UpdateRate,
    WarmupStableDecay,
    check_early_stopping,
)
from sk_pwiser._training._settings import Settings
from sk_pwiser.losses import LOSSES, MultiTaskLoss, checked_loss
from sk_pwiser.networks import (
    NETWORKS,
    SHARED_PARAMS,
    Labels,
    MultiTaskNetwork,
    NetworkSpec,
    random_inputs,
)
from sk_pwiser.weighting import WEIGHTINGS, TaskWeighting, as_weighting

LARGEST_SEED = np.iinfo(np.int32).max
# The parameter of the estimator that losses with a pairwise term take.
WEIGHT = "pwiser_weight"


@dataclass(frozen=True)
class Components:
    """The parts of a net that do not depend on the table."""

    loss: MultiTaskLoss
    weighting: TaskWeighting
    # Class and keyword arguments, without `lr`
    optimizer: tuple[type[torch.optim.Optimizer], dict[str, Any]]
    sampler: str
    compile_mode: str | None  # of torch.compile, "graph", or None
    min_lazy_size: int | None  # weights of the smallest table updated by rows


def check_components(
    settings: Settings,
    task_names: tuple[str, ...],
    device: torch.device,
    has_groups: bool,
    random_state: np.random.RandomState,
) -> Components:
    """Build the parts independent of the table; check the network's parameters."""
    check_callbacks(settings.callbacks)
    check_early_stopping(settings.early_stopping, task_names)
    # Seeded by a copy: how many numbers a loss or weighting draws leaves the network's
    # initial weights unchanged.
    with _utils.seeded_globally(deepcopy(random_state).randint(LARGEST_SEED), device):
        loss = build_loss(settings, task_names)
        kind, params = settings.weighting, settings.weighting_params
        if not isinstance(kind, str):
            kind, params = as_weighting(kind, params)
        choice = WEIGHTINGS, TaskWeighting, "weighting", kind
        weighting = _utils.build(choice, params, len(task_names))
        _utils.check_base_init(weighting, "n_tasks", "n_tasks")
        _utils.check_signature(type(weighting), "forward", "losses")
        parents = _utils.read_task_parents(settings.task_parents, task_names)
        _check_network(settings, loss, parents)
        optimizer = _optimizers.check_optimizer(settings)
    return Components(
        loss,
        weighting,
        optimizer,
        batch_sampler(settings, loss, has_groups),
        _compile_mode(settings, weighting, device) if settings.compile else None,
        _optimizers.smallest_lazy_table(
            settings, weighting.uses_task_gradients, *optimizer, device
        ),
    )


# The weight of the pairwise term by default: SMALL_WEIGHT where FREQUENT or more of the
# impressions convert, and in inverse proportion to their share below, up to a limit.
# With few conversions the pairs add what the few labels lack; elsewhere a larger weight
# costs a little.
SMALL_WEIGHT, LARGE_WEIGHT, FREQUENT = 0.1, 0.3, 0.01


def default_weight(rates: Iterable[float]) -> float:
    """Return the default weight of the pairwise term at the rates of ranked tasks."""
    rarest = min((*rates, FREQUENT))
    return min(LARGE_WEIGHT, SMALL_WEIGHT * FREQUENT / max(rarest, 1e-9))


def follows_rates(settings: Settings, loss: MultiTaskLoss) -> bool:
    """Return whether the weight of the pairwise term follows the rates of the rows."""
    return settings.pwiser_weight is None and WEIGHT in loss.estimator_parameters


def build_loss(
    settings: Settings, task_names: tuple[str, ...], weight: float = SMALL_WEIGHT
) -> MultiTaskLoss:
    """Build the loss, whose pairwise term has `weight` if the user has set none."""
    registry: Any = LOSSES, MultiTaskLoss, "loss", settings.loss
    names = _utils.resolve(registry).estimator_parameters
    given = {name: getattr(settings, name) for name in names}
    if WEIGHT in given and given[WEIGHT] is None:
        given[WEIGHT] = weight
    loss = _utils.build(registry, settings.loss_params, task_names, **given)
    return checked_loss(loss)


def check_task_weights(
    loss: MultiTaskLoss,
    user: str = "Missing labels and sample_weight of shape (n_samples, n_tasks)",
) -> None:
    """Raise if a loss does not take weights per row and task, as missing labels are."""
    if not loss.takes_task_weights:
        raise ValueError(
            f"{user} require a loss with weights per row and task; loss "
            f"{type(loss).__name__} takes weights per row only. Support them in its "
            "forward, and set takes_task_weights = True."
        )


def _check_network(
    settings: Settings, loss: MultiTaskLoss, parents: tuple[int, ...]
) -> None:
    """Check names and values of `network_params`, by a network of a small table."""
    own, shared = _split_params(settings.network_params)
    registry = NETWORKS, MultiTaskNetwork, "network", settings.network
    kind = _utils.check_names(registry, own, 1, shared=SHARED_PARAMS)
    features = shared.get("domain_features")
    if features is not None and not isinstance(features, list | tuple):
        raise TypeError(
            "domain_features must be a list of names or indices of columns, or None; "
            f"got {features!r}."
        )
    shared["domain_features"] = [0] if features else None
    is_automatic = settings.embedding_dim == "auto"
    dropout = settings.encoding_params["category_dropout"]
    if isinstance(dropout, str):
        _utils.check_choice("category_dropout", dropout, ("auto",))
    else:
        _utils.check_number("category_dropout", dropout, at_least=0, below=1)
    spec = NetworkSpec(
        [3],
        1,
        1 if is_automatic else settings.embedding_dim,
        [0.5] * len(parents),
        category_dropout=0.0 if dropout == "auto" else dropout,
        embedding_dims=[1] if is_automatic else (),
        negative_sampling_rate=settings.negative_sampling_rate,
        task_parents=parents,
        **shared,
    )
    if spec.task_space == "conditional":
        check_task_weights(loss, "Networks with task_space='conditional'")
    _utils.check_signature(kind, "forward", "codes", "numeric")
    # The constructors of users' classes may rely on the columns of their own table.
    if kind in NETWORKS.values():
        with _named_allocations(settings):
            network = kind(spec, **own)
        # Raises the error of a loss without `row_losses` if the network calls them.
        output = network.eval()(*random_inputs(network, 2))
        labels = Labels(torch.zeros_like(output.logits), None, loss.row_losses)
        for term in output.extra_losses.values():
            if callable(term):
                term(labels)


@contextmanager
def _named_allocations(settings: Settings) -> Iterator[None]:
    """Name the parameters that set the size of a network in errors about its memory."""
    try:
        yield
    # RuntimeError of torch for too little memory, two others for uncountable sizes.
    except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        sized = ("memory", "overflow", "storage size", "invalid size")
        if not any(word in reason.lower() for word in sized):
            raise
        raise ValueError(
            "The network is too large: it cannot be built with embedding_dim="
            f"{settings.embedding_dim} and network_params={settings.network_params}: "
            f"{reason}"
        ) from error


def _split_params(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate a network's own parameters from those that every network takes."""
    own = {key: value for key, value in params.items() if key not in SHARED_PARAMS}
    return own, {key: value for key, value in params.items() if key not in own}


def batch_sampler(settings: Settings, loss: MultiTaskLoss, has_groups: bool) -> str:
    """Return the name of the batch sampler."""
    keeps_groups = loss.asks_for_groups and has_groups
    if not settings.stratified_batches:
        return "grouped" if keeps_groups else "shuffled"
    if keeps_groups:
        raise ValueError(
            f"stratified_batches=True splits the groups within which loss="
            f"{settings.loss!r} compares rows; pass no groups, or set "
            "stratified_batches=False."
        )
    if settings.batch_size < 2:
        raise ValueError(
            "stratified_batches=True requires batch_size >= 2, for a converted row and "
            f"another one; got {settings.batch_size}."
        )
    return "stratified"


def check_compiler(device: torch.device, compile: bool | str) -> None:
    """Raise ValueError if torch cannot compile for the device."""
    try:
        torch.compile(torch.square)(torch.zeros(2, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"compile={compile!r}, but torch cannot compile for {str(device)!r} on "
            f"this machine: {reason}"
        ) from error


def _compile_mode(
    settings: Settings, weighting: TaskWeighting, device: torch.device
) -> str:
    if settings.compile == "graph":
        return "graph"
    if weighting.uses_task_gradients:
        raise ValueError(
            f"compile={settings.compile!r} requires a weighting of losses; weighting="
            f"{settings.weighting!r} needs one backward pass per task, which a "
            "compiled network does not support."
        )
    check_compiler(device, settings.compile)
    return "default" if settings.compile is True else str(settings.compile)


def build_network(settings: Settings, schema: Any) -> nn.Module:
    """Build the network for the columns and tasks of a schema."""
    own, shared = _split_params(settings.network_params)
    spec = schema.spec(settings, **shared)
    registry = NETWORKS, MultiTaskNetwork, "network", settings.network
    with _named_allocations(settings):
        network: nn.Module = _utils.build(registry, own, spec)
    _utils.check_base_init(network, "spec", "spec")
    for name, parameter in network.named_parameters():
        if is_lazy(parameter):
            raise ValueError(
                f"network {type(network).__name__} has the lazy parameter {name}, "
                "whose shape is not known; the width of the inputs is self.width."
            )
    return network


def build_net(
    settings: Settings,
    components: Components,
    network: Any,
    device: torch.device,
    *,
    epochs: tuple[str | None, int, int],
    n_rows: int = 1,
    base_rates: Sequence[float] = (),
    is_update: bool = False,
    net_class: type[MultiTaskNet] = MultiTaskNet,
) -> MultiTaskNet:
    """Build an initialised net around a network, for `epochs` as `plan_epochs` returns.

    `base_rates` are those of the rows, by default those of the network.
    """
    loss, (monitor, first_epoch, max_epochs) = components.loss, epochs
    if follows_rates(settings, loss):
        # The rates of files are known only now.
        known = base_rates or network.spec.base_rates
        rates = [known[head] for head in loss.heads]
        loss = build_loss(settings, loss.task_names, default_weight(rates))
    criterion = MultiTaskCriterion(
        loss, components.weighting, network.monotonicity_weight, network.spec.parents
    )
    criterion.set_base_losses(network)
    criterion.leans_on_parents = (
        is_update
        and settings.lr_schedule is not None
        and loss.averages_rows
        and max(network.spec.parents) >= 0
    )
    own_callbacks: dict[str, Callback] = {}
    if monitor is not None:
        own_callbacks["early_stopping"] = BestEpochStopping(
            monitor, settings.n_iter_no_change, first_epoch
        )
    # A schedule among the user's callbacks replaces that of the estimator.
    has_schedule = any(
        issubclass(kind, LRScheduler) for kind in callback_kinds(settings.callbacks)
    )
    if settings.lr_schedule is not None and not has_schedule:
        own_callbacks["lr_schedule"] = (
            UpdateRate() if is_update else WarmupStableDecay()
        )
    params = settings.optimizer_params
    if params["clip_grad_norm"] is not None:
        clipping = GradientNormClipping(params["clip_grad_norm"])
        own_callbacks["clip_grad_norm"] = clipping
    optimizer, optimizer_kwargs = components.optimizer
    decay = _optimizers.base_decay(settings, None if is_update else n_rows)
    if "weight_decay" in optimizer_kwargs:
        optimizer_kwargs = {**optimizer_kwargs, "weight_decay": decay}
    _optimizers.use_sparse_gradients(network, components.min_lazy_size)
    if _optimizers.sparse_tables(network):
        optimizer = _optimizers.LazyAdam
    kwargs = {f"optimizer__{key}": value for key, value in optimizer_kwargs.items()}
    if _optimizers.can_fuse(settings, components.optimizer, network, device):
        kwargs.setdefault("optimizer__fused", True)
    net = net_class(
        network,
        criterion,
        settings=settings,
        compile_mode=components.compile_mode,
        average_decay=0.0 if is_update else params["average_decay"] or 0.0,
        monitor=monitor or "",
        optimizer=optimizer,
        optimizer__param_groups=_optimizers.parameter_groups(
            settings, network.spec, n_rows, decay
        ),
        lr=settings.lr,
        batch_size=settings.batch_size,
        max_epochs=max_epochs,
        iterator_train=BatchIterator,
        iterator_train__sampler=components.sampler,
        iterator_train__paths=_utils.task_paths(network.spec.parents),
        iterator_valid=BatchIterator,
        # On a CPU the activations of a batch should stay in the cache.
        iterator_valid__batch_size=max(
            settings.batch_size, 2_048 if device.type == "cpu" else 32_768
        ),
        train_split=None,
        predict_nonlinearity=torch.sigmoid,
        callbacks=[*own_callbacks.items(), *(settings.callbacks or [])],
        device=str(device),
        verbose=int(settings.verbose),
        **kwargs,
    )
    return net.initialize()
