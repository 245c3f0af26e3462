"""Builds the network of the columns, and the net around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from skorch.callbacks import GradientNormClipping, LRScheduler

from sk_pwiser._columns._exposure_statistics import check_combinations
from sk_pwiser._rows._batches import BatchIterator
from sk_pwiser._settings import Settings
from sk_pwiser._tasks import _tree
from sk_pwiser._training import _embedding_tables, _lazy_tables, _optimizers
from sk_pwiser._training._callbacks import with_kinds
from sk_pwiser._training._checked_components import (
    Components,
    exposure_tasks,
    named_allocations,
)
from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser._training._early_stopping import BestEpochStopping
from sk_pwiser._training._encoded_data import Epochs
from sk_pwiser._training._lr_schedule import Schedule, UpdateRate, WarmupStableDecay
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._pwiser_weight import (
    UNSET_WEIGHTS,
    WeightTrial,
    loss_choice,
    takes_weight,
    unset_weight,
)
from sk_pwiser._training._value_terms import ValueTerms
from sk_pwiser._utils import _components
from sk_pwiser.losses import VALUE_LOSSES
from sk_pwiser.networks import NETWORKS, SHARED_PARAMS, MultiTaskNetwork
from sk_pwiser.networks._exposure_terms import ExposureTable, ExposureTerms


def build_network(settings: Settings, schema: Any, min_lazy_size: int | None) -> Any:
    """Build the network for the columns and tasks of a schema.

    Embedding tables of at least `min_lazy_size` have sparse gradients, no others do.
    """
    params = settings.network_params
    arguments = {k: value for k, value in params.items() if k not in SHARED_PARAMS}
    shared = {key: value for key, value in params.items() if key in SHARED_PARAMS}
    spec = schema.spec(settings, **shared)
    registry = NETWORKS, MultiTaskNetwork, "network", settings.network
    with named_allocations(settings):
        network = _components.build(registry, arguments, spec)
    for module in network.modules():
        if isinstance(module, _embedding_tables.TABLES):
            size = module.weight.numel()
            # Tables of a user's network may have options without sparse gradients.
            is_dense = module.scale_grad_by_freq or getattr(module, "mode", "") == "max"
            is_large = min_lazy_size is not None and size >= min_lazy_size
            module.sparse = is_large and not is_dense
    # Not before: the network neither reads nor counts them, but its copies, averages
    # and files have them.
    if terms := exposure_terms(settings, schema):
        network.exposure_terms = terms
    return network


def exposure_terms(settings: Settings, schema: Any) -> ExposureTerms | None:
    """Return the terms of how rows were shown, or None without such columns."""
    shapes = [column.exposure_shape for column in schema.encoder.exposure_columns_]
    if not shapes:
        return None
    check_combinations(schema.exposure_sizes())
    targets = schema.targets
    return ExposureTerms(
        [ExposureTable(*shape) for shape in shapes],
        tasks=exposure_tasks(settings, targets.task_names, targets.parents),
        base_rates=schema.base_rates.tolist(),
    )


def value_terms(settings: Settings, values: Any) -> ValueTerms | None:
    """Return the losses of values, or None without any."""
    if not len(values):
        return None
    return ValueTerms(
        names=values.names,
        parents=values.parents,
        loss=VALUE_LOSSES[settings.value_loss],
        sampling_rate=settings.negative_sampling_rate,
    )


@dataclass(frozen=True, kw_only=True)
class NetForm:
    """In what the net of a fit differs from one that is updated."""

    schedule: type[Schedule]  # of the learning rate
    weight_decay: float
    average_decay: float  # of the average of the weights, 0 for none
    # Whether a task with few events so far leans towards its parent.
    leans_on_parents: bool

    @classmethod
    def for_fit(cls, settings: Settings, n_rows: float) -> "NetForm":
        """Return the form of a net that is fitted to a number of rows."""
        return cls(
            schedule=WarmupStableDecay,
            weight_decay=_optimizers.base_decay(settings, n_rows),
            average_decay=settings.optimizer_params["average_decay"] or 0.0,
            leans_on_parents=False,
        )

    @classmethod
    def for_update(cls, settings: Settings) -> "NetForm":
        """Return the form of a net that passes over each row once."""
        return cls(
            schedule=UpdateRate,
            weight_decay=_optimizers.base_decay(settings),
            average_decay=0.0,
            leans_on_parents=settings.lr_schedule is not None,
        )


def build_criterion(
    settings: Settings,
    components: Components,
    network: Any,
    *,
    form: NetForm,
    base_rates: Sequence[float],
    values: ValueTerms | None,
    weight_trial: WeightTrial | None,
) -> MultiTaskCriterion:
    """Build the criterion; `base_rates` are those of the rows, if they are known."""
    loss = components.loss
    parents = network.spec.event_parents
    if takes_weight(loss) and settings.pwiser_weight in UNSET_WEIGHTS:
        # The weight follows the rates of the rows, those of files are known only now.
        task_rates = base_rates or network.spec.base_rates
        ranked_rates = [task_rates[head] for head in loss.heads]
        weight = unset_weight(settings, weight_trial, ranked_rates)
        choice, arguments = loss_choice(settings, weight)
        loss = _components.build(
            choice, settings.loss_params, loss.task_names, **arguments
        )
    criterion = MultiTaskCriterion(
        loss,
        components.weighting,
        network.monotonicity_weight,
        parents,
        value_terms=values,
    )
    criterion.leans_on_parents = (
        form.leans_on_parents and loss.averages_rows and max(parents) >= 0
    )
    return criterion


def build_stopping(settings: Settings, epochs: Epochs) -> BestEpochStopping | None:
    """Return the callback of early stopping, if a figure is monitored."""
    if epochs.monitor is None:
        return None
    return BestEpochStopping(
        epochs.monitor, settings.n_iter_no_change, epochs.first - 1
    )


def build_callbacks(
    settings: Settings, stopping: BestEpochStopping | None, schedule: type[Schedule]
) -> list[Any]:
    """Return the callbacks of a net: our own, and then those of the user."""
    callbacks: list[Any] = []
    if stopping is not None:
        callbacks.append(("early_stopping", stopping))
    # A schedule among the user's callbacks replaces that of the estimator.
    kinds = [kind for _, kind in with_kinds(settings.callbacks)]
    has_schedule = any(issubclass(kind, LRScheduler) for kind in kinds)
    if settings.lr_schedule is not None and not has_schedule:
        callbacks.append(("lr_schedule", schedule()))
    largest_norm = settings.optimizer_params["clip_grad_norm"]
    if largest_norm is not None:
        callbacks.append(("clip_grad_norm", GradientNormClipping(largest_norm)))
    return [*callbacks, *(settings.callbacks or [])]


def optimizer_arguments(
    settings: Settings,
    components: Components,
    network: Any,
    device: torch.device,
    *,
    decay: float,
    n_rows: float,
) -> dict[str, Any]:
    """Return the optimiser of a net and its arguments, with skorch's prefix."""
    kind, keywords = components.optimizer
    if "weight_decay" in keywords:
        keywords = {**keywords, "weight_decay": decay}
    if _embedding_tables.sparse_tables(network):
        kind = _lazy_tables.LAZY_KINDS[kind]
    arguments = {f"optimizer__{name}": value for name, value in keywords.items()}
    if _optimizers.can_fuse(settings, components.optimizer, network, device):
        arguments.setdefault("optimizer__fused", True)
    groups = _optimizers.parameter_groups(settings, network.spec, n_rows, decay)
    return {"optimizer": kind, "optimizer__param_groups": groups, **arguments}


def batch_arguments(
    settings: Settings, components: Components, network: Any, device: torch.device
) -> dict[str, Any]:
    """Return the iterators of a net over training and validation rows."""
    # On a CPU the activations of a batch should stay in the cache.
    n_predicted = 2_048 if device.type == "cpu" else 32_768
    # Text: a process that reads a pickle of the net may not know the device.
    return {
        "batch_size": settings.batch_size,
        "iterator_train": BatchIterator,
        "iterator_train__device": str(device),
        "iterator_train__sampler": components.sampler,
        "iterator_train__paths": _tree.task_paths(network.spec.event_parents),
        "iterator_valid": BatchIterator,
        "iterator_valid__device": str(device),
        "iterator_valid__keeps_groups": components.loss.asks_for_groups,
        "iterator_valid__batch_size": max(settings.batch_size, n_predicted),
    }


def build_net(
    settings: Settings,
    components: Components,
    schema: Any,
    device: torch.device,
    *,
    form: NetForm,
    epochs: Epochs,
    n_rows: float = 1,
    base_rates: Sequence[float] = (),
    net_class: type[MultiTaskNet] = MultiTaskNet,
) -> MultiTaskNet:
    """Build an initialised net for the columns of a schema, and `epochs` of a plan.

    `base_rates` are those of the rows, by default those of the network.
    """
    network = build_network(settings, schema, components.min_lazy_size)
    criterion = build_criterion(
        settings,
        components,
        network,
        form=form,
        base_rates=base_rates,
        values=value_terms(settings, schema.targets.learnt_values),
        weight_trial=schema.weight_trial,
    )
    stopping = build_stopping(settings, epochs)
    net = net_class(
        network,
        criterion,
        settings=settings,
        compile_mode=components.compile_mode,
        average_decay=form.average_decay,
        stopping=stopping,
        lr=settings.lr,
        max_epochs=epochs.last,
        train_split=None,
        predict_nonlinearity=torch.sigmoid,
        callbacks=build_callbacks(settings, stopping, form.schedule),
        device=str(device),
        verbose=int(settings.verbose),
        **batch_arguments(settings, components, network, device),
        **optimizer_arguments(
            settings,
            components,
            network,
            device,
            decay=form.weight_decay,
            n_rows=n_rows,
        ),
    )
    net.initialize()
    return net
