"""The way of a fit: rows are read, checked and encoded, a net is built and trained."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sk_pwiser import _utils
from sk_pwiser._fit._encode import encode
from sk_pwiser._fit._read_and_check import Plan, check, find_origin, read
from sk_pwiser._training import _components, _end_of_training, _state
from sk_pwiser._training._batches import TrainingRows
from sk_pwiser._training._callbacks import FitTask
from sk_pwiser._training._checkpoints import Checkpoints, Start, compared, fingerprint
from sk_pwiser._training._components import LARGEST_SEED, WEIGHT
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._optimizers import LazyAdam
from sk_pwiser._training._schema import EncodedData, GivenRows
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._state import TrainingResult, Undo


def fit(
    params: Mapping[str, Any],
    given: GivenRows,
    eval_set: Any = None,
    *,
    earlier: TrainingResult | None = None,
    classes: Any = None,
    is_update: bool = False,
    undo: Undo | None = None,
    task: FitTask | None = None,
    estimator_name: str,
) -> TrainingResult:
    """Train on a table, or on a dataset that is read in parts.

    An update logs in `undo`, also if it fails, the changes that it makes in place to
    the net of `earlier`; `take_back` undoes them.
    """
    settings = Settings.of(params)
    origin = find_origin(settings, given.X, earlier, is_update)
    with ExitStack() as stack:
        # Labels come first: a wrong one is found before the table is looked at.
        rows = read(settings, given, origin, classes, stack)
        # Whatever can be refused is refused here, before work that takes long.
        plan = check(settings, rows, eval_set, origin)
        # The host's part: columns, validation rows, target statistics.
        data = encode(plan, rows, estimator_name)
        # The sizes of the network depend on the columns.
        net = build(plan, data)
        return train(plan, data, net, undo, task=task)


def build(
    plan: Plan,
    data: EncodedData,
    net_class: type[MultiTaskNet] = MultiTaskNet,
    n_earlier: int = 0,
) -> MultiTaskNet:
    """Build the net, with the weights of the earlier fit if training continues.

    `n_earlier` is the number of rows that have determined the weights so far.
    """
    earlier = plan.origin.earlier
    if plan.components is None:
        assert earlier is not None
        return earlier.net
    # New rows of the embedding tables are added to the weights of the earlier fit.
    schema = data.schema if data.growth is None else plan.origin.schema
    monitor, first_epoch, max_epochs = data.epochs
    seed = plan.random_state.randint(LARGEST_SEED)
    with _utils.seeded_globally(seed, plan.device):
        net = _components.build_net(
            plan.settings,
            plan.components,
            _components.build_network(plan.settings, schema),
            plan.device,
            monitor=monitor,
            max_epochs=max_epochs,
            first_epoch=first_epoch,
            n_rows=n_earlier + len(data.train),
            base_rates=data.base_rates,
            is_update=plan.origin.is_update,
            net_class=net_class,
        )
    if earlier is not None:
        _state.continue_from(net, earlier.net)
    return net


def train(
    plan: Plan,
    data: EncodedData,
    net: MultiTaskNet,
    undo: Undo | None = None,
    checkpoints: Checkpoints | None = None,
    task: FitTask | None = None,
) -> TrainingResult:
    """Train the net, after its embedding tables have grown with the vocabularies."""
    undo, settings = [] if undo is None else undo, plan.settings
    origin, growth = plan.origin, data.growth
    is_update = origin.is_update
    if checkpoints is None and settings.checkpoint_dir is not None and not is_update:
        checkpoints = _make_checkpoints(plan, data)
    if task is not None:
        task.begin(0 if is_update else data.epochs[-1])
    if origin.earlier is None:
        generators = _utils.Generators(int(plan.random_state.randint(LARGEST_SEED)))
    else:
        generators = deepcopy(origin.earlier.generators)
    result_of = partial(_result, plan, data, generators)
    try:
        n_codes = sum(net.module_.spec.cardinalities)
        if growth is not None:
            _state.grow_tables(net, data.schema, growth, undo)
        if plan.components is None:
            _state.log_net(net, undo)
            # Earlier updates may have learnt statistics that were constant.
            net.module_.input_layer.set_unseen_inputs(data.schema.unseen_inputs())
        if is_update:
            net.use_decay_of_updates(len(data.train))
        with _random_numbers(plan, net, generators) as global_device:
            if checkpoints is not None:
                checkpoints.generators = generators
                checkpoints.global_device = global_device
            # An update in place keeps the device of the net.
            rows = data.to(torch.device(net.device))
            if growth is not None:
                _state.check_own_tables(net, rows.train.sample, n_codes)
            epochs: Any = nullcontext()
            if task is not None and not is_update:
                # scikit-learn's callbacks see each epoch with the network it left.
                epochs = task.epochs(
                    net, lambda: result_of(net.copy_network(), net.history[-1, "epoch"])
                )
            if is_update and plan.settings.lr_schedule is not None:
                _learn_rates(plan.settings, rows.train, net)
            with _utils.limited_threads(net.n_products), epochs:
                net.partial_fit(rows, checkpoints)
                if data.holds_out and plan.by_time and rows.valid is not None:
                    # The level of a log drifts, and its last rows are not trained on.
                    _end_of_training.shift_to(net, rows.valid)
        if data.labelled is not None and data.schema.statistics is not None:
            # The rows of an update were encoded without themselves.
            codes, y, weights, lists = data.labelled
            data.schema.statistics.update(codes, y, weights, undo, lists)
    finally:
        if isinstance(net.optimizer_, LazyAdam):
            net.optimizer_.undo = None
    if not is_update:
        net.criterion_.count_fit(data.base_rates, len(data.train))
    result = result_of(net, _end_of_training.best_epoch(net))
    if not is_update:
        n_epochs = len(net.history) - origin.n_earlier
        rises = _end_of_training.find_rises(net, data.train, n_epochs, data.unrelated)
        reason = _end_of_training.stop_reason(net, n_epochs)
        if settings.verbose:
            print(reason)
        result = replace(result, rises=rises, stop_reason=reason)
    if task is not None:
        task.end(lambda: result)
    return result


def _learn_rates(settings: Settings, rows: TrainingRows, net: MultiTaskNet) -> None:
    """Count the events of an update; what a small first call told is learnt again."""
    criterion = net.criterion_
    criterion.count_rows(rows.labels(), rows.column("sample_weight"))
    loss = criterion.loss
    # A user's loss may keep its weight under another name: that of the first call.
    if _components.follows_rates(settings, loss) and hasattr(loss, WEIGHT):
        rates = criterion.largest_rates()
        of_heads = [rates[head] for head in loss.heads]
        loss.pwiser_weight = _components.default_weight(of_heads)


def _make_checkpoints(plan: Plan, data: EncodedData) -> Checkpoints:
    """Return the object that writes checkpoints and resumes."""
    digests, saved = fingerprint(data.train, data.valid), plan.origin.saved
    if saved is not None:
        saved.check_data(digests)
    start = Start(
        compared(plan.settings),
        plan.first_random_state,
        plan.origin.n_earlier,
        data.n_rows,
        digests,
        data.schema,
        plan.split_state,
        data.split_rows,
    )
    folder = Path(plan.settings.checkpoint_dir)
    return Checkpoints(folder, start, saved)


def _result(
    plan: Plan,
    data: EncodedData,
    generators: _utils.Generators,
    net: MultiTaskNet,
    best_epoch: int,
) -> TrainingResult:
    earlier = plan.origin.earlier
    weight_scale: float | None = data.weight_scale
    split_state = plan.split_state if data.holds_out else None
    split_rows = data.split_rows
    if earlier is not None:
        split_state = split_state or earlier.split_state
        split_rows = split_rows or earlier.split_rows
        if plan.origin.is_update:  # of the first call
            weight_scale = earlier.weight_scale
    return TrainingResult(
        net,
        data.schema,
        generators,
        plan.settings,
        plan.origin.is_update,
        best_epoch,
        (len(data.train), 0 if data.valid is None else len(data.valid)),
        split_state=split_state,
        weight_scale=weight_scale,
        split_rows=split_rows,
    )


@contextmanager
def _random_numbers(
    plan: Plan, net: MultiTaskNet, generators: _utils.Generators
) -> Iterator[torch.device | None]:
    """Activate the fit's generators; seed torch's own if they may be used.

    Yields the device of the latter, None if they are not used. The user's own layers,
    such as `torch.nn.Dropout`, and compiled code draw from the global generators. Such
    fits in several threads run one after the other.
    """
    with _utils.active(generators), ExitStack() as stack:
        # Drawn in any case: the order of rows does not depend on the components.
        cpu = generators.on(torch.device("cpu"))
        if plan.origin.earlier is not None:
            # From a copy: two fits draw the orders of rows of one longer fit.
            cpu = torch.Generator().set_state(cpu.get_state())
        seed = int(torch.randint(LARGEST_SEED, (), generator=cpu))
        parts = net.module_, net.criterion_, net.optimizer_
        if net.compile_mode not in (None, "graph") or _utils.draws_globally(*parts):
            stack.enter_context(_utils.seeded_globally(seed, plan.device))
            yield plan.device
        else:
            yield None
