"""What `fit` does: validate, encode, build, optimise."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch

from sk_pwiser._training._checkpoint import Start, compared
from sk_pwiser._training._checkpoint_writer import Checkpoints
from sk_pwiser._training._coherence import find_rises
from sk_pwiser._training._components import build_net, build_network
from sk_pwiser._training._data import EncodedData, Schema, encode
from sk_pwiser._training._early_stopping import best_epoch
from sk_pwiser._training._eval_set import with_eval_rows
from sk_pwiser._training._fingerprint import fingerprint
from sk_pwiser._training._growth import Growth, grow_schema
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._plan import LARGEST_SEED, Plan, validate
from sk_pwiser._training._progress_bar import close_bars
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._resume import Snapshot, changed_parts, continue_from
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import (
    Generators,
    active,
    draws_globally,
    limited_threads,
    seeded_globally,
    uninterrupted,
    warn_user,
)


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
    checkpoints = make_checkpoints(plan, data)
    if plan.components is not None:
        for message in plan.components.loss.cautions(data.schema.base_rates.tolist()):
            warn_user(message)
    # New rows of the embedding tables are added to the weights of the earlier fit.
    built = data.schema if origins is None else plan.schema
    assert built is not None
    return optimise(plan, data, build(plan, built), origins, checkpoints)


def make_checkpoints(plan: Plan, data: EncodedData) -> Checkpoints | None:
    """Return what writes checkpoints and resumes, None without a folder.

    Raises
    ------
    ValueError
        If the data are not those of the checkpoint.
    TypeError
        If a file cannot hold the values of a category column.
    """
    if plan.folder is None:
        return None
    assert plan.first_random_state is not None
    digests = fingerprint(data.rows)
    if plan.saved is not None:
        plan.saved.check_data(digests)
    start = Start(
        compared(plan.settings),
        plan.first_random_state,
        plan.n_earlier,
        len(plan.rows.targets.values),
        digests,
        data.schema,
    )
    callbacks = plan.settings.callbacks or ()
    return Checkpoints(plan.folder, start, plan.saved, callbacks)


def build(
    plan: Plan, schema: Schema, net_class: type[MultiTaskNet] = MultiTaskNet
) -> MultiTaskNet:
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
            net_class=net_class,
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
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """Train the net, or raise with the earlier fit unchanged.

    With `origins` its embedding tables get further rows first; see `Growth`.
    """
    if plan.earlier is None:
        generators = Generators(plan.draw_seed())
    else:
        generators = deepcopy(plan.earlier.generators)
    growth = snapshot = None
    try:
        if origins is not None:
            growth = Growth(net, data.schema.encoder.cardinalities_, origins)
        snapshot = Snapshot(net) if plan.components is None else None
        with _random_numbers(plan, net, generators) as global_device:
            if checkpoints is not None:
                checkpoints.use(generators, global_device)
            # An update in place keeps the device of the net.
            rows = data.rows.to(torch.device(net.device))
            with limited_threads(net.n_products):
                net.partial_fit(rows, checkpoints=checkpoints)
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
        n_epochs = len(net.history) - plan.n_earlier
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
) -> Iterator[torch.device | None]:
    """Activate the fit's generators; seed torch's own if they may be used.

    Yields the device of the latter, None if they are not used.

    A network, loss, weighting or optimiser of the user's own may hold layers such as
    `torch.nn.Dropout`, which draw from the global generators, and compiled code cannot
    draw from others. Such fits in several threads run one after the other.
    """
    with active(generators), ExitStack() as stack:
        # Drawn in any case: the order of rows does not depend on the components.
        cpu = generators.on(torch.device("cpu"))
        if plan.earlier is not None:
            # From a copy: two fits draw the orders of rows of one longer fit.
            cpu = torch.Generator().set_state(cpu.get_state())
        seed = int(torch.randint(LARGEST_SEED, (), generator=cpu))
        parts = net.module_, net.criterion_, net.optimizer_
        if net.compile_mode is not None or draws_globally(*parts):
            stack.enter_context(seeded_globally(seed, plan.device))
            yield plan.device
        else:
            yield None
