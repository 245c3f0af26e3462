"""The parts of a net that no table decides, checked before one is encoded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch

from sk_pwiser._rows._task_weights import check_task_weights
from sk_pwiser._settings import (
    Settings,
    exposure_references,
    values_are_per_impression,
)
from sk_pwiser._tasks import _tree
from sk_pwiser._training import _lazy_tables, _optimizers
from sk_pwiser._training._callbacks import check_callbacks
from sk_pwiser._training._early_stopping import check_early_stopping
from sk_pwiser._training._pwiser_weight import loss_choice
from sk_pwiser._utils import _checks, _components, _random
from sk_pwiser.losses import MultiTaskLoss
from sk_pwiser.networks import (
    NETWORKS,
    SHARED_PARAMS,
    Labels,
    MultiTaskNetwork,
    NetworkSpec,
    random_inputs,
)
from sk_pwiser.weighting import WEIGHTINGS, TaskWeighting, as_weighting


@dataclass(frozen=True, kw_only=True)
class Components:
    """The parts of a net that do not depend on the table."""

    loss: MultiTaskLoss
    weighting: TaskWeighting
    optimizer: _optimizers.Chosen
    sampler: str
    compile_mode: str | None  # of torch.compile, "graph", or None
    min_lazy_size: int | None  # weights of the smallest table updated by rows


def check_components(
    settings: Settings,
    task_names: tuple[str, ...],
    device: torch.device,
    *,
    has_groups: bool,
    random_state: np.random.RandomState,
) -> Components:
    """Build the parts independent of the table; check the network's parameters."""
    check_callbacks(settings.callbacks)
    check_early_stopping(settings.early_stopping, task_names)
    choice, loss_arguments = loss_choice(settings)
    # Seeded by a copy: how many numbers a loss or weighting draws leaves the network's
    # initial weights unchanged.
    with _random.seeded_globally(
        deepcopy(random_state).randint(_random.LARGEST_SEED), device
    ):
        loss = _components.build(
            choice, settings.loss_params, task_names, **loss_arguments
        )
        kind = settings.weighting
        params = settings.weighting_params
        if not isinstance(kind, str):
            kind, params = as_weighting(kind, params)
        choice = WEIGHTINGS, TaskWeighting, "weighting", kind
        n_losses = len(task_names) + len(settings.value_tasks or ())
        weighting = _components.build(choice, params, n_losses)
        parents = _tree.read_task_parents(settings.task_parents, task_names)
        sampler = batch_sampler(settings, loss, has_groups)
        check_exposure(settings, task_names, parents)
        _check_network(settings, loss, parents)
        optimizer = _optimizers.check_optimizer(settings)
    min_lazy_size = _lazy_tables.smallest_lazy_table(
        settings, optimizer, weighting, device
    )
    compile_mode = None
    if settings.compile:
        compile_mode = _compile_mode(settings, weighting, device)
    return Components(
        loss=loss,
        weighting=weighting,
        optimizer=optimizer,
        sampler=sampler,
        compile_mode=compile_mode,
        min_lazy_size=min_lazy_size,
    )


def exposure_tasks(
    settings: Settings, task_names: Sequence[str], parents: Sequence[int]
) -> list[int]:
    """Return the tasks to whose log-odds the exposure adds terms."""
    chosen = settings.encoding_params["exposure_tasks"]
    if chosen is None:
        return [task for task, parent in enumerate(parents) if parent < 0]
    if not isinstance(chosen, list | tuple) or not chosen:
        raise ValueError(
            "exposure_tasks must be None, for the tasks that presuppose no other, or a "
            f"list of names of tasks; got {chosen!r}."
        )
    for name in chosen:
        _checks.check_choice("Each of exposure_tasks", name, tuple(task_names))
    return [task for task, name in enumerate(task_names) if name in chosen]


def check_exposure(
    settings: Settings, task_names: Sequence[str], parents: Sequence[int]
) -> None:
    """Check what the parameters say of `exposure_features`, before the table."""
    exposure_tasks(settings, task_names, parents)
    params = settings.encoding_params
    references = exposure_references(settings)
    for name in ("exposure_monotone", "exposure_tasks"):
        if params[name] and not references:
            raise ValueError(
                f"{name} in encoding_params needs exposure_features, which is "
                f"{settings.exposure_features!r}."
            )
    arise_under_events = any(
        task is not None for task in (settings.value_tasks or {}).values()
    )
    if references and arise_under_events and values_are_per_impression(settings):
        raise ValueError(
            f"value_loss={settings.value_loss!r} learns means per impression, which "
            "depend on how a row was shown; with exposure_features, use 'gamma' or "
            "'lognormal', which learn the mean given the event."
        )


def _check_network(
    settings: Settings, loss: MultiTaskLoss, parents: tuple[int, ...]
) -> None:
    """Check names and values of `network_params`, by a network of a small table."""
    params = settings.network_params
    arguments = {k: value for k, value in params.items() if k not in SHARED_PARAMS}
    shared = {key: value for key, value in params.items() if key in SHARED_PARAMS}
    registry = NETWORKS, MultiTaskNetwork, "network", settings.network
    kind = _components.check_names(registry, arguments, 1, shared=SHARED_PARAMS)
    features = shared.get("domain_features")
    if features is not None and not isinstance(features, list | tuple):
        raise TypeError(
            f"domain_features must be a list of columns, or None; got {features!r}."
        )
    shared["domain_features"] = [0] if features else None
    is_automatic = settings.embedding_dim == "auto"
    dropout = settings.encoding_params["category_dropout"]
    if isinstance(dropout, str):
        _checks.check_choice("category_dropout", dropout, ("auto",))
    else:
        _checks.check_number("category_dropout", dropout, at_least=0, below=1)
    with named_allocations(settings):
        spec = NetworkSpec(
            [3],
            1,
            1 if is_automatic else settings.embedding_dim,
            [0.5] * len(parents),
            category_dropout=0.0 if dropout == "auto" else dropout,
            embedding_dims=[1] if is_automatic else (),
            negative_sampling_rate=settings.negative_sampling_rate,
            task_parents=parents,
            value_parents=[-1] * len(settings.value_tasks or ()),
            **shared,
        )
        if spec.task_space == "conditional":
            check_task_weights(loss, "Networks with task_space='conditional'")
        # The constructors of users' classes may rely on the columns of their own table.
        if kind not in NETWORKS.values():
            return
        network = kind(spec, **arguments)
    # Raises the error of a loss without `row_losses` if the network calls them.
    output = network.eval()(*random_inputs(network, 2))
    labels = Labels(torch.zeros_like(output.logits), None, loss.row_losses)
    for term in output.extra_losses.values():
        if callable(term):
            term(labels)


@contextmanager
def named_allocations(settings: Settings) -> Iterator[None]:
    """Name the parameters that set the size of a network in errors about its memory."""
    try:
        yield
    # RuntimeError of torch for too little memory, two others for uncountable sizes.
    except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        sized = ("memory", "overflow", "storage size", "invalid size", "too big")
        if not any(word in reason.lower() for word in sized):
            raise
        raise ValueError(
            f"The network is too large with embedding_dim={settings.embedding_dim} and "
            f"network_params={settings.network_params}: {reason}"
        ) from error


def batch_sampler(settings: Settings, loss: MultiTaskLoss, has_groups: bool) -> str:
    """Return the name of the batch sampler."""
    keeps_groups = loss.asks_for_groups and has_groups
    if not settings.stratified_batches:
        return "grouped" if keeps_groups else "shuffled"
    if keeps_groups:
        raise ValueError(
            f"stratified_batches=True splits the groups in which loss={settings.loss!r}"
            " compares rows; pass no groups, or set stratified_batches=False."
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
    if weighting.needs_task_gradients:
        raise ValueError(
            f"compile={settings.compile!r} requires a weighting of losses; weighting="
            f"{settings.weighting!r} needs one backward pass per task, which a "
            "compiled network does not support."
        )
    check_compiler(device, settings.compile)
    return "default" if settings.compile is True else str(settings.compile)
