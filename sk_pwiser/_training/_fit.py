"""What `fit` does: validate, encode, build, optimise."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from sk_pwiser._training._callbacks import check_monitors
from sk_pwiser._training._coherence import Rises, find_rises
from sk_pwiser._training._components import (
    Components,
    build_net,
    build_network,
    check_components,
    check_task_weights,
)
from sk_pwiser._training._data import (
    EncodedData,
    Schema,
    check_rows,
    encode,
)
from sk_pwiser._training._device import find_device
from sk_pwiser._training._early_stopping import best_epoch, monitored_column
from sk_pwiser._training._eval_set import check_eval_set, with_eval_rows
from sk_pwiser._training._growth import Growth, grow_schema
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._progress_bar import close_bars
from sk_pwiser._training._resume import (
    Snapshot,
    changed_parts,
    check_same_model,
    continue_from,
)
from sk_pwiser._training._rows import Rows
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import (
    Generators,
    active,
    controlled_threads,
    draws_globally,
    seeded_globally,
    uninterrupted,
    warn_user,
)
from sk_pwiser.losses import MultiTaskLoss

LARGEST_SEED = np.iinfo(np.int32).max


@dataclass(frozen=True)
class TrainingResult:
    """A fitted network, with everything that predictions and later fits use.

    Parameters
    ----------
    net : MultiTaskNet
        The trained net.
    schema : Schema
        The encoding of the table, and the tasks.
    generators : Generators
        The random generators of training, which a continued fit continues to use.
    settings : Settings
        The estimator's parameters at this fit.
    single_pass : bool
        Whether this was `partial_fit`.
    best_epoch : int
        The epoch whose weights the network has.
    n_rows : tuple of int
        Numbers of training and of validation rows.
    rises : Rises or None
        Neighbouring tasks of which the later one is likelier in many rows.
    """

    net: MultiTaskNet
    schema: Schema
    generators: Generators
    settings: Settings
    single_pass: bool
    best_epoch: int
    n_rows: tuple[int, int]
    rises: Rises | None = None


@dataclass(frozen=True)
class Plan:
    """What to train, on which rows and how, after all checks but those of `X`."""

    settings: Settings
    device: torch.device
    rows: Rows
    eval_rows: Rows | None
    components: Components | None  # None: the earlier net is updated in place
    monitor: str | None
    random_state: np.random.RandomState
    earlier: TrainingResult | None
    single_pass: bool

    @property
    def schema(self) -> Schema | None:
        """The schema of the earlier fit, if training continues."""
        return None if self.earlier is None else self.earlier.schema

    def draw_seed(self) -> int:
        """Draw a seed from the estimator's `random_state`."""
        return int(self.random_state.randint(LARGEST_SEED))


def fit(
    params: Mapping[str, Any],
    X: Any,
    Y: Any,
    sample_weight: Any = None,
    groups: Any = None,
    eval_set: Any = None,
    *,
    earlier: TrainingResult | None = None,
    classes: Any = None,
    single_pass: bool = False,
    estimator_name: str,
) -> TrainingResult:
    """Train on a table.

    Parameters
    ----------
    params : mapping
        The estimator's parameters.
    X, Y, sample_weight, groups, eval_set : array-like
        As passed to `fit`.
    earlier : TrainingResult, default=None
        The fit to continue from.
    classes : array-like of shape (2,), default=None
        The two labels of a single task.
    single_pass : bool, default=False
        Whether to iterate over all rows once, as `partial_fit` does.
    estimator_name : str
        Name of the estimator, for messages.

    Returns
    -------
    TrainingResult
        A new result. With `single_pass` the net of `earlier` may have been updated in
        place; after an error it is as it was before.
    """
    settings = Settings.of(params)
    plan = validate(
        settings, X, Y, sample_weight, groups, eval_set, earlier, classes, single_pass
    )
    schema, origins = plan.schema, None
    if single_pass and schema is not None and settings.grows:
        schema, origins = grow_schema(schema, plan.rows.X)
    data = encode(
        settings,
        plan.rows,
        schema,
        plan.random_state,
        holds_out=plan.monitor is not None and plan.eval_rows is None,
        is_update=single_pass,
        estimator_name=estimator_name,
    )
    if plan.eval_rows is not None:
        data = with_eval_rows(data, plan.eval_rows)
    if plan.components is not None:
        for message in plan.components.loss.cautions(data.schema.base_rates.tolist()):
            warn_user(message)
    # New rows of the embedding tables are added to the weights of the earlier fit.
    built = data.schema if origins is None else plan.schema
    assert built is not None
    with controlled_threads(plan.device.type == "cpu"):
        return optimise(plan, data, build(plan, built), origins)


def validate(
    settings: Settings,
    X: Any,
    Y: Any,
    sample_weight: Any,
    groups: Any,
    eval_set: Any,
    earlier: TrainingResult | None,
    classes: Any,
    single_pass: bool,
) -> Plan:
    """Check all parameters and rows before any work is done, except the values of X."""
    if earlier is not None:
        check_same_model(settings, earlier.settings)
    is_update = (
        single_pass
        and earlier is not None
        and earlier.single_pass
        and settings.equals(earlier.settings)
    )
    device = find_device(settings.device)
    random_state = check_random_state(settings.random_state)
    tasks = None if earlier is None else earlier.schema.targets
    rows = check_rows(
        settings, X, Y, sample_weight, groups, tasks, classes, single_pass
    )
    eval_rows = check_eval_set(settings, eval_set, rows.targets)
    task_names = rows.targets.task_names
    components = None
    if not is_update:
        # Seeded by a copy: how many numbers a loss or weighting draws leaves the
        # network's initial weights unchanged.
        with seeded_globally(deepcopy(random_state).randint(LARGEST_SEED), device):
            components = check_components(
                settings, task_names, device, rows.groups is not None
            )
    if any(part and part.has_task_weights for part in (rows, eval_rows)):
        check_task_weights(components.loss if components else _loss_of(earlier))
    monitor = None
    if not single_pass:
        monitor = monitored_column(
            settings.early_stopping,
            len(rows.targets.values),
            task_names,
            has_eval_set=eval_rows is not None,
        )
    if monitor is None and eval_rows is None:
        check_monitors(settings.callbacks)
    rows.targets.warn_about_labels(
        constant_tasks=not single_pass,
        selection=settings.shared_param("task_space") == "entire",
    )
    return Plan(
        settings,
        device,
        rows,
        eval_rows,
        components,
        monitor,
        random_state,
        earlier,
        single_pass,
    )


def _loss_of(earlier: TrainingResult | None) -> MultiTaskLoss:
    """Return the loss of a net that is updated in place."""
    assert earlier is not None
    loss: MultiTaskLoss = earlier.net.criterion_.loss
    return loss


def build(plan: Plan, schema: Schema) -> MultiTaskNet:
    """Build the net, with the weights of the earlier fit if training continues."""
    if plan.components is None:
        assert plan.earlier is not None
        return plan.earlier.net
    with seeded_globally(plan.draw_seed(), plan.device):
        net = build_net(
            plan.settings,
            plan.components,
            build_network(plan.settings, schema),
            plan.device,
            monitor=plan.monitor,
            max_epochs=1 if plan.single_pass else plan.settings.max_epochs,
            average_decay=0.0 if plan.single_pass else plan.settings.average_decay,
        )
    if plan.earlier is not None:
        changed = changed_parts(plan.settings, plan.earlier.settings)
        continue_from(net, plan.earlier.net, changed)
    return net


def optimise(
    plan: Plan,
    data: EncodedData,
    net: MultiTaskNet,
    origins: np.ndarray | None = None,
) -> TrainingResult:
    """Train the net, or raise with the earlier fit unchanged.

    With `origins` its embedding tables get further rows first; see `Growth`.
    """
    if plan.earlier is None:
        generators = Generators(plan.draw_seed())
    else:
        generators = deepcopy(plan.earlier.generators)
    n_earlier = len(net.history)
    growth = snapshot = None
    try:
        if origins is not None:
            growth = Growth(net, data.schema.encoder.cardinalities_, origins)
        snapshot = Snapshot(net) if plan.components is None else None
        with _random_numbers(plan, net, generators):
            # An update in place keeps the device of the net.
            net.partial_fit(data.rows.to(torch.device(net.device)))
        with uninterrupted():
            data.update_statistics()
            if snapshot is not None:
                snapshot.discard()
            snapshot = growth = None
    except BaseException:
        close_bars(net)
        with uninterrupted():
            if snapshot is not None:
                snapshot.restore()
            if growth is not None:
                growth.undo()
        raise
    rises = None
    if not plan.single_pass:
        n_epochs = len(net.history) - n_earlier
        rises = find_rises(net, data.rows.train, n_epochs)
    valid = data.rows.valid
    return TrainingResult(
        net,
        data.schema,
        generators,
        plan.settings,
        plan.single_pass,
        best_epoch(net),
        (len(data.rows.train), 0 if valid is None else len(valid)),
        rises,
    )


@contextmanager
def _random_numbers(
    plan: Plan, net: MultiTaskNet, generators: Generators
) -> Iterator[None]:
    """Activate the fit's generators; seed torch's own if they may be used.

    A network, loss, weighting or optimiser of the user's own may hold layers such as
    `torch.nn.Dropout`, which draw from the global generators, and compiled code cannot
    draw from others. Such fits in several threads run one after the other.
    """
    with active(generators), ExitStack() as stack:
        # Drawn in any case: the order of rows does not depend on the components.
        cpu = generators.on(torch.device("cpu"))
        seed = int(torch.randint(LARGEST_SEED, (), generator=cpu))
        parts = net.module_, net.criterion_, net.optimizer_
        if net.compile_mode is not None or draws_globally(*parts):
            stack.enter_context(seeded_globally(seed, plan.device))
        yield
