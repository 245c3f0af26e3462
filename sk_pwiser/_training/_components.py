"""Parts of a net: the criterion, all checked before a table is encoded, and the net."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from skorch.callbacks import GradientNormClipping, LRScheduler
from torch import Tensor, nn

from sk_pwiser._rows._batches import BatchIterator
from sk_pwiser._tasks import _conditional_labels, _tree
from sk_pwiser._training import _optimizers
from sk_pwiser._training._callbacks import check_callbacks, with_kinds
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._schedule_and_stopping import (
    BestEpochStopping,
    UpdateRate,
    WarmupStableDecay,
    check_early_stopping,
)
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import _checks, _components, _precision, _random
from sk_pwiser.losses import LOSSES, MultiTaskLoss, funnel_monotonicity_penalty
from sk_pwiser.networks import (
    NETWORKS,
    SHARED_PARAMS,
    Labels,
    MultiTaskNetwork,
    NetworkOutput,
    NetworkSpec,
    random_inputs,
)
from sk_pwiser.weighting import WEIGHTINGS, TaskWeighting, as_weighting

LARGEST_SEED = np.iinfo(np.int32).max
# The parameter of the estimator that losses with a pairwise term take.
WEIGHT = "pwiser_weight"

# In updates, the prior of a task counts like this number of its events: that all rows
# with the event of its parent have the same probability.
PRIOR_EVENTS = 30.0


class MultiTaskCriterion(nn.Module):
    """The weighted losses of all tasks and auxiliary heads, plus the penalties."""

    # Whether a task with few events so far leans towards its parent. The first steps of
    # Adam are as long for three conversions as for three hundred clicks; an epoch of a
    # fit corrects them, and an update has only one pass.
    leans_on_parents = False

    def __init__(
        self,
        loss: MultiTaskLoss,
        weighting: TaskWeighting,
        monotonicity_weight: float = 0.0,
        parents: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.parents = parents or _tree.chain_parents(len(loss.task_names))
        self.loss = loss
        self.weighting = weighting
        self.monotonicity_weight = monotonicity_weight
        self.weight_names = [f"weight_{task}" for task in loss.task_names]
        # All rows so far: their number, the number of events per task, and the sums of
        # the weights of its events and of those of its parent. On the device, as graphs
        # require.
        n_tasks = len(loss.task_names)
        self.n_rows = nn.Buffer(torch.zeros(()))
        self.n_events = nn.Buffer(torch.zeros(n_tasks))
        self.sums = nn.Buffer(torch.zeros(2, n_tasks))
        self._has_parent = nn.Buffer(torch.tensor(self.parents) >= 0, persistent=False)

    def forward(
        self,
        output: NetworkOutput,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
    ) -> Tensor:
        """Return the reported loss of a batch; set the gradients of `parameters`."""
        losses, penalty = self._terms(output, y, sample_weight, groups)
        if parameters is not None:
            has_gradient = penalty is not None and penalty.requires_grad
            if not losses.requires_grad and (
                self.weighting.needs_task_gradients or not has_gradient
            ):
                raise ValueError(
                    f"The losses of network and loss {type(self.loss).__name__} must "
                    "depend on parameters that are trained; they depend on none, since "
                    "all are frozen, or the logits or losses are detached."
                )
            self.weighting.backward(losses, penalty, parameters)
            losses = losses.detach()
        reported = self.weighting.report(losses)
        return reported if penalty is None else reported + penalty.detach()

    def _terms(
        self,
        output: NetworkOutput,
        y: Tensor,
        sample_weight: Tensor | None,
        groups: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the losses of the tasks, of shape `(n_tasks,)`, and any penalty."""
        _check_output(output, y.shape)
        heads, weights, targets = output.logits, sample_weight, y
        if output.sampled_logits is not None:
            heads = output.sampled_logits
        if output.conditional_logits is not None:
            heads = output.conditional_logits
            # Divided by the size of the batch, the losses of the rows in which the
            # previous task happened add up to the log-likelihood.
            happened = _conditional_labels.labels_of_parents(y, self.parents)
            known = 1.0 if weights is None else weights.view(len(y), -1)
            weights = happened * known
            targets = _conditional_labels.conditional_labels(y, self.parents)
        all_heads = [*map(_precision.at_least_float32, (heads, *output.aux_logits))]
        of_heads = []
        for logits in all_heads:
            # Copies: a loss may change them, and other terms read them as well.
            weight = None if weights is None else weights.clone()
            losses: Tensor = self.loss(logits, targets.clone(), weight, groups)
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else repr(losses)
            if shape != tuple(y.shape[1:]):
                raise ValueError(
                    f"loss {type(self.loss).__name__} must return one loss per task, a "
                    f"Tensor of shape {tuple(y.shape[1:])}; got {shape}."
                )
            of_heads.append(losses)
        losses = of_heads[0]
        for aux in of_heads[1:]:
            losses = losses + output.aux_weight * aux
        if self.training and self.leans_on_parents:
            losses = losses + self._prior_losses(all_heads[0], y, targets, weights)
        self.loss.observe(y, weights)
        labels = Labels(y, sample_weight, self.loss.row_losses)
        extras: list[Tensor] = []
        penalties: list[Tensor] = []
        for name, term in output.extra_losses.items():
            value = term(labels) if callable(term) else term
            found = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
            if found not in ((), tuple(losses.shape)):
                raise ValueError(
                    f"extra_losses[{name!r}] must be a Tensor: of shape () as penalty"
                    f" or {tuple(losses.shape)} as losses of the tasks; got {found}."
                )
            kind = extras if found else penalties
            kind.append(_precision.at_least_float32(value))
        if self.monotonicity_weight:
            logits = _precision.at_least_float32(output.logits)
            rises = funnel_monotonicity_penalty(logits, sample_weight, self.parents)
            penalties.append(self.monotonicity_weight * rises)
        if extras:
            losses = losses + torch.stack(extras).sum(dim=0)
        penalty = torch.stack(penalties).sum() if penalties else None
        return losses, penalty

    @torch.no_grad()
    def count_rows(self, y: Tensor, weights: Tensor | None) -> None:
        """Count the events of rows that an update learns from."""
        known = torch.ones_like(y) if weights is None else weights.view(len(y), -1)
        events = y * known
        of_parents = _conditional_labels.labels_of_parents(y, self.parents) * known
        self.n_rows.add_(len(y))
        self.n_events.add_((events > 0).sum(dim=0).to(self.sums.device))
        sums = torch.stack([events.sum(dim=0), of_parents.sum(dim=0)])
        self.sums.add_(sums.to(self.sums.device))  # rows may not fit on the device

    @torch.no_grad()
    def count_fit(self, event_shares: Sequence[Any], n_rows: int) -> None:
        """Count the rows of a fit by the shares of `EncodedData`."""
        counts = n_rows * self.sums.new_tensor(event_shares)
        self.n_rows.add_(n_rows)
        self.n_events.add_(counts[0])
        self.sums.add_(counts[1:])

    def possible_rates(self, given_parents: bool = False) -> Tensor:
        """Return the smallest and the largest rates that the rows so far allow.

        No event in n rows is compatible with a rate of 3 / n. With `given_parents`,
        they are those among the rows in which the parent happened.
        """
        events, of_parents = self.sums
        margin = self._weight_of_three_rows()
        rates: Tensor = torch.stack([events, events + margin]) / (of_parents + margin)
        return rates if given_parents else self._over_impressions(rates)

    def rates_so_far(self) -> list[float]:
        """Return the rates of all rows so far, with half a row more of each label."""
        events, of_parents = self.sums
        row = self._weight_of_three_rows() / 3.0
        rates = (events + row / 2) / (of_parents + row)
        # Rows that lack the label of the parent may have that of the task.
        rates = rates.clamp(max=1 - 1e-6)
        rates_so_far: list[float] = self._over_impressions(rates.unsqueeze(0))[
            0
        ].tolist()
        return rates_so_far

    def _weight_of_three_rows(self) -> Tensor:
        """Return the weight of three rows in which the parent of a task happened."""
        _, of_parents = self.sums
        n = [self.n_events[p] if p >= 0 else self.n_rows for p in self.parents]
        weight: Tensor = 3.0 * of_parents / torch.stack(n).clamp(min=1.0)
        return weight.clamp(min=1e-9)

    def _over_impressions(self, rates: Tensor) -> Tensor:
        """Multiply conditional rates `(n, n_tasks)` by those of the parents."""
        for k, parent in enumerate(self.parents):
            rates[:, k] *= rates[:, parent] if parent >= 0 else 1.0
        return rates

    def _prior_losses(
        self, heads: Tensor, y: Tensor, targets: Tensor, weights: Tensor | None
    ) -> Tensor:
        """Return what the losses gain if the labels are shrunk towards the prior.

        The shrunk labels have the mean of the labels, so that the mean prediction does
        not change. A task without a parent keeps its labels.
        """
        events, of_parents = self.sums
        # Without an event of the parent, no label is shrunk.
        rates = (events / of_parents.clamp(min=1e-9)).clamp(max=1.0)
        shares = self._has_parent * PRIOR_EVENTS / (PRIOR_EVENTS + self.n_events)
        expected = rates * _conditional_labels.labels_of_parents(y, self.parents)
        of_rows = self.loss.row_losses(heads, targets + shares * (expected - targets))
        of_rows = of_rows - self.loss.row_losses(heads, targets)
        if weights is not None:
            of_rows = of_rows * weights.view(len(y), -1)
        return of_rows.mean(dim=0)

    def pop_epoch_record(self) -> dict[str, float]:
        """Return the epoch's figures of loss and weighting, and reset them."""
        weights = self.weighting.end_epoch() if self.training else []
        of_tasks = dict(zip(self.weight_names, weights, strict=False))
        return {**self.loss.pop_epoch_record(), **of_tasks}


def _check_output(output: NetworkOutput, shape: torch.Size) -> None:
    """Raise if a network has returned another type or shape than it must."""
    for name, kinds, form in (
        ("aux_logits", list | tuple, "a list or tuple of Tensors"),
        ("extra_losses", Mapping, "a dict of names to Tensors or callables"),
    ):
        value = getattr(output, name)
        if not isinstance(value, kinds):
            raise TypeError(
                f"network must return {name} as {form}; got {type(value).__name__}."
            )
    for name, logits in (
        ("logits", output.logits),
        *(("aux_logits", aux) for aux in output.aux_logits),
        ("conditional_logits", output.conditional_logits),
        ("sampled_logits", output.sampled_logits),
    ):
        if logits is not None and logits.shape != shape:
            raise ValueError(
                f"network must return {name} of shape (batch, n_tasks), here "
                f"{tuple(shape)}; got {tuple(logits.shape)}."
            )


@dataclass(frozen=True)
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
    has_groups: bool,
    random_state: np.random.RandomState,
) -> Components:
    """Build the parts independent of the table; check the network's parameters."""
    check_callbacks(settings.callbacks)
    check_early_stopping(settings.early_stopping, task_names)
    choice, given = loss_choice(settings)
    # Seeded by a copy: how many numbers a loss or weighting draws leaves the network's
    # initial weights unchanged.
    with _random.seeded_globally(deepcopy(random_state).randint(LARGEST_SEED), device):
        loss = _components.build(choice, settings.loss_params, task_names, **given)
        kind, params = settings.weighting, settings.weighting_params
        if not isinstance(kind, str):
            kind, params = as_weighting(kind, params)
        choice = WEIGHTINGS, TaskWeighting, "weighting", kind
        weighting = _components.build(choice, params, len(task_names))
        parents = _tree.read_task_parents(settings.task_parents, task_names)
        sampler = batch_sampler(settings, loss, has_groups)
        _check_network(settings, loss, parents)
        optimizer = _optimizers.check_optimizer(settings)
    min_lazy_size = _optimizers.smallest_lazy_table(
        settings, optimizer, weighting, device
    )
    return Components(
        loss,
        weighting,
        optimizer,
        sampler,
        _compile_mode(settings, weighting, device) if settings.compile else None,
        min_lazy_size,
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


def loss_choice(
    settings: Settings, weight: float = SMALL_WEIGHT
) -> tuple[_components.Choice, dict[str, Any]]:
    """Return the loss and its arguments, with `weight` if the user has set none."""
    registry: Any = LOSSES, MultiTaskLoss, "loss", settings.loss
    names = _components.resolve(registry).estimator_parameters
    given = {name: getattr(settings, name) for name in names}
    if WEIGHT in given and given[WEIGHT] is None:
        given[WEIGHT] = weight
    return registry, given


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
    params = settings.network_params
    own = {key: value for key, value in params.items() if key not in SHARED_PARAMS}
    shared = {key: value for key, value in params.items() if key in SHARED_PARAMS}
    registry = NETWORKS, MultiTaskNetwork, "network", settings.network
    kind = _components.check_names(registry, own, 1, shared=SHARED_PARAMS)
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
    with _named_allocations(settings):
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
        # The constructors of users' classes may rely on the columns of their own table.
        if kind not in NETWORKS.values():
            return
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


def build_network(settings: Settings, schema: Any, min_lazy_size: int | None) -> Any:
    """Build the network for the columns and tasks of a schema.

    Embedding tables of at least `min_lazy_size` have sparse gradients, no others do.
    """
    params = settings.network_params
    own = {key: value for key, value in params.items() if key not in SHARED_PARAMS}
    shared = {key: value for key, value in params.items() if key in SHARED_PARAMS}
    spec = schema.spec(settings, **shared)
    registry = NETWORKS, MultiTaskNetwork, "network", settings.network
    with _named_allocations(settings):
        network = _components.build(registry, own, spec)
    for module in network.modules():
        if isinstance(module, _optimizers.TABLES):
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
    n_rows: int = 1,
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
    if _optimizers.sparse_tables(network):
        optimizer = _optimizers.LAZY_KINDS[optimizer]
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
