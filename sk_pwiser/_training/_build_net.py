"""Builds the network of the columns, and the net around it."""

from collections.abc import Sequence
from typing import Any

import torch
from skorch.callbacks import GradientNormClipping, LRScheduler

from sk_pwiser._rows._batches import BatchIterator
from sk_pwiser._settings import Settings
from sk_pwiser._tasks import _tree
from sk_pwiser._training import _embedding_tables, _lazy_tables, _optimizers
from sk_pwiser._training._callbacks import with_kinds
from sk_pwiser._training._checked_components import Components, named_allocations
from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser._training._early_stopping import BestEpochStopping
from sk_pwiser._training._lr_schedule import UpdateRate, WarmupStableDecay
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._pwiser_weight import WEIGHT, default_weight, loss_choice
from sk_pwiser._utils import _components
from sk_pwiser.networks import NETWORKS, SHARED_PARAMS, MultiTaskNetwork


def build_network(settings: Settings, schema: Any, min_lazy_size: int | None) -> Any:
    """Build the network for the columns and tasks of a schema.

    Embedding tables of at least `min_lazy_size` have sparse gradients, no others do.
    """
    params = settings.network_params
    own = {key: value for key, value in params.items() if key not in SHARED_PARAMS}
    shared = {key: value for key, value in params.items() if key in SHARED_PARAMS}
    spec = schema.spec(settings, **shared)
    registry = NETWORKS, MultiTaskNetwork, "network", settings.network
    with named_allocations(settings):
        network = _components.build(registry, own, spec)
    for module in network.modules():
        if isinstance(module, _embedding_tables.TABLES):
            size = module.weight.numel()
            # Tables of a user's network may have options without sparse gradients.
            is_dense = module.scale_grad_by_freq or getattr(module, "mode", "") == "max"
            is_large = min_lazy_size is not None and size >= min_lazy_size
            module.sparse = is_large and not is_dense
    return network


def build_net(
    settings: Settings,
    components: Components,
    schema: Any,
    device: torch.device,
    *,
    epochs: tuple[str | None, int, int],
    n_rows: float = 1,
    base_rates: Sequence[float] = (),
    is_update: bool = False,
    net_class: type[MultiTaskNet] = MultiTaskNet,
) -> MultiTaskNet:
    """Build an initialised net for the columns of a schema, and `epochs` of a plan.

    `base_rates` are those of the rows, by default those of the network.
    """
    network = build_network(settings, schema, components.min_lazy_size)
    loss, (monitor, first_epoch, max_epochs) = components.loss, epochs
    if settings.pwiser_weight is None and WEIGHT in loss.estimator_parameters:
        # The weight follows the rates of the rows, those of files are known only now.
        known = base_rates or network.spec.base_rates
        rates = [known[head] for head in loss.heads]
        choice, given = loss_choice(settings, default_weight(rates))
        loss = _components.build(choice, settings.loss_params, loss.task_names, **given)
    criterion = MultiTaskCriterion(
        loss, components.weighting, network.monotonicity_weight, network.spec.parents
    )
    criterion.leans_on_parents = (
        is_update
        and settings.lr_schedule is not None
        and loss.averages_rows
        and max(network.spec.parents) >= 0
    )
    callbacks: list[Any] = []
    stopping = None
    if monitor is not None:
        patience = settings.n_iter_no_change
        stopping = BestEpochStopping(monitor, patience, first_epoch - 1)
        callbacks.append(("early_stopping", stopping))
    # A schedule among the user's callbacks replaces that of the estimator.
    kinds = [kind for _, kind in with_kinds(settings.callbacks)]
    has_schedule = any(issubclass(kind, LRScheduler) for kind in kinds)
    if settings.lr_schedule is not None and not has_schedule:
        schedule = UpdateRate() if is_update else WarmupStableDecay()
        callbacks.append(("lr_schedule", schedule))
    params = settings.optimizer_params
    if params["clip_grad_norm"] is not None:
        clipping = GradientNormClipping(params["clip_grad_norm"])
        callbacks.append(("clip_grad_norm", clipping))
    optimizer, optimizer_kwargs = components.optimizer
    decay = _optimizers.base_decay(settings, None if is_update else n_rows)
    if "weight_decay" in optimizer_kwargs:
        optimizer_kwargs = {**optimizer_kwargs, "weight_decay": decay}
    if _embedding_tables.sparse_tables(network):
        optimizer = _lazy_tables.LAZY_KINDS[optimizer]
    kwargs = {f"optimizer__{key}": value for key, value in optimizer_kwargs.items()}
    if _optimizers.can_fuse(settings, components.optimizer, network, device):
        kwargs.setdefault("optimizer__fused", True)
    net = net_class(
        network,
        criterion,
        settings=settings,
        compile_mode=components.compile_mode,
        average_decay=0.0 if is_update else params["average_decay"] or 0.0,
        stopping=stopping,
        optimizer=optimizer,
        optimizer__param_groups=_optimizers.parameter_groups(
            settings, network.spec, n_rows, decay
        ),
        lr=settings.lr,
        batch_size=settings.batch_size,
        max_epochs=max_epochs,
        iterator_train=BatchIterator,
        # Text: a process that reads a pickle of the net may not know the device.
        iterator_train__device=str(device),
        iterator_train__sampler=components.sampler,
        iterator_train__paths=_tree.task_paths(network.spec.parents),
        iterator_valid=BatchIterator,
        iterator_valid__device=str(device),
        iterator_valid__keeps_groups=loss.asks_for_groups,
        # On a CPU the activations of a batch should stay in the cache.
        iterator_valid__batch_size=max(
            settings.batch_size, 2_048 if device.type == "cpu" else 32_768
        ),
        train_split=None,
        predict_nonlinearity=torch.sigmoid,
        callbacks=[*callbacks, *(settings.callbacks or [])],
        device=str(device),
        verbose=int(settings.verbose),
        **kwargs,
    )
    net.initialize()
    return net
