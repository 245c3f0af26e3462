"""The way of a fit: rows are read, checked and encoded, a net is built and trained."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from sk_pwiser._columns._frames import reads_in_parts
from sk_pwiser._fit._encode import encode, random_state_at
from sk_pwiser._fit._file_rows import FileRows
from sk_pwiser._fit._time_column import take_time_column
from sk_pwiser._rows._checked_rows import GivenRows, named_place
from sk_pwiser._rows._table_rows import TableRows, read_table
from sk_pwiser._settings import Settings
from sk_pwiser._training import (
    _build_net,
    _checked_components,
    _checkpoints,
    _level,
    _memorized,
    _pwiser_weight,
    _rises,
    _state,
    _stop_reason,
)
from sk_pwiser._training._callbacks import FitTask
from sk_pwiser._training._device import find_device
from sk_pwiser._training._early_stopping import (
    FirstStage,
    check_early_stopping,
    check_unmonitored,
)
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._lazy_tables import LazyAdam
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._pwiser_weight import WEIGHT
from sk_pwiser._training._schema import Schema
from sk_pwiser._training._state import TrainingResult, Undo, check_same_model
from sk_pwiser._training._validation_figures import GROUPED
from sk_pwiser._utils import _equality, _random, _threads
from sk_pwiser._utils._random import LARGEST_SEED

Source = TableRows | FileRows


@dataclass(frozen=True)
class Origin:
    """What a training continues from, if from anything."""

    earlier: TrainingResult | None = None
    saved: _checkpoints.Checkpoint | None = None
    is_update: bool = False  # `partial_fit`: one pass over rows that are added
    schema: Schema | None = None  # that encodes the rows; None if it is to be learnt
    # The random state that drew the validation rows of the first fit, and the rows that
    # they were drawn from, as `find_split` returns them.
    split_state: dict[str, Any] | None = None
    split_rows: dict[str, Any] | None = None
    n_earlier: int = 0  # epochs before this training


# With at most `MIN_ROWS` rows, a tenth of them says less about the best epoch than a
# number of steps that grows with the rows; see the page of benchmarks. With more rows,
# the best epoch has at least the number of steps of a fit to `MIN_ROWS` rows.
MIN_ROWS = 1_000
FIRST_STEPS, ROWS_PER_STEP = 4, 200


@dataclass(frozen=True)
class Plan:
    """What a fit has decided before it reads the values of X."""

    settings: Settings
    origin: Origin
    device: torch.device
    eval_rows: dict[str, Source]
    components: (
        _checked_components.Components | None
    )  # None: the net is updated in place
    random_state: np.random.RandomState
    first_random_state: dict[str, Any]
    split_state: dict[str, Any]  # of the random state that draws the validation rows
    by_time: bool  # whether times order the rows, the last of which are held out
    first_stage: FirstStage | None = None  # of a fit of two, if this is the second one

    def epochs(self, source: Source, n_rows: int) -> tuple[str | None, int, int]:
        """Return the monitored column, the first epoch that may be best, and the last.

        Raises if early stopping or a callback monitors a figure that does not exist.
        """
        if self.first_stage is not None:
            return None, 1, self.first_stage.n_epochs
        settings, monitor, first = self.settings, None, 1
        most = 1 if self.origin.is_update else settings.max_epochs
        decides = bool(settings.early_stopping) and not self.origin.is_update
        if decides and settings.early_stopping == "auto" and not self.eval_rows:
            n_steps = FIRST_STEPS + min(n_rows, MIN_ROWS) // ROWS_PER_STEP
            first = min(most, -(-n_steps // -(-n_rows // settings.batch_size)))
            if n_rows <= MIN_ROWS:
                decides, most = False, first
        if decides:
            names = source.tasks.task_names
            monitor = check_early_stopping(settings.early_stopping, names)
            has_groups = self.eval_rows.get("valid", source).has_groups
            if monitor.startswith(GROUPED) and not has_groups:
                figure = monitor.removeprefix("valid_").removesuffix("_mean")
                raise ValueError(
                    f"early_stopping={figure!r} needs the group of each validation row:"
                    " groups of fit or ParquetImpressions, or groups_val with X_val."
                )
        elif not self.eval_rows:
            check_unmonitored(settings.callbacks)
        return monitor, first, most


def fit(
    settings: Settings,
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
    settings = take_time_column(settings, given.X, warns=not is_update)
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


def find_origin(
    settings: Settings, X: Any, earlier: TrainingResult | None, is_update: bool
) -> Origin:
    """Return what a training on `X` continues from; a fit may resume a checkpoint."""
    if earlier is not None:
        check_same_model(settings, earlier.settings)
        n_earlier = len(earlier.net.history)
        splits = earlier.split_state, earlier.split_rows
        return Origin(earlier, None, is_update, earlier.schema, *splits, n_earlier)
    folder, resumes = settings.checkpoint_dir, settings.warm_start
    saved = None
    if folder is not None and resumes and not (is_update or reads_in_parts(X)):
        saved = _checkpoints.find_checkpoint(Path(folder))
    if saved is None:
        return Origin(is_update=is_update)
    saved.check_settings(settings)
    start = saved.start
    splits = start.split_state, start.split_rows
    return Origin(None, saved, is_update, start.schema, *splits, start.n_earlier)


def read(
    settings: Settings, given: GivenRows, origin: Origin, classes: Any, stack: ExitStack
) -> Source:
    """Return the rows: a table, whose labels are checked, or files.

    Encoded rows of files are in a folder that is deleted when the stack is closed.
    """
    # No context manager itself: warnings of a generator would not name the user's line.
    # Updates take tables only, and refuse files.
    if not reads_in_parts(given.X) or origin.is_update:
        earlier = origin.earlier if origin.is_update else None
        return read_table(
            settings,
            given,
            None if origin.schema is None else origin.schema.targets,
            classes,
            is_update=origin.is_update,
            weight_scale=None if earlier is None else earlier.weight_scale,
            scales_counts=earlier is not None and earlier.scales_counts,
        )
    dataset, *arrays = given
    for name, value in zip(given._fields[1:], arrays, strict=True):
        if value is not None:
            role = "targets" if name == "Y" else name
            raise ValueError(
                f"{name} must be None for a dataset, whose {role} names its columns."
            )
    folder = tempfile.TemporaryDirectory(prefix="sk_pwiser_", dir=dataset.cache_dir)
    return FileRows(settings, dataset, Path(stack.enter_context(folder)))


def one_eval_set(eval_set: Any, rows: GivenRows) -> Any:
    """Return validation rows that are given as X_val and so on as `eval_set`."""
    given = [name for name, value in rows._asdict().items() if value is not None]
    if eval_set is not None:
        raise ValueError(
            f"Pass validation rows as eval_set or as {given[0]}_val, not as both."
        )
    if reads_in_parts(rows.X):
        if given != ["X"]:
            raise ValueError(
                f"{given[1]}_val must be None for X_val={rows.X!r}, which names its "
                "columns of labels and of groups, and has no weights."
            )
        return rows.X
    for name in ("X", "Y"):
        if name not in given:
            raise ValueError(f"{name}_val must be given with {given[0]}_val.")
    return rows


def name_eval_sets(eval_set: Any) -> dict[str, Any]:
    """Return validation sets by the names of their figures; the last is "valid"."""
    sets: dict[Any, Any] = {"valid": eval_set}
    if isinstance(eval_set, Mapping):
        sets = dict(eval_set)
    elif isinstance(eval_set, list):
        sets = {f"valid_{k}": pair for k, pair in enumerate(eval_set)}
    if not sets:
        raise ValueError(f"eval_set must have at least one set; got {eval_set!r}.")
    names = list(sets)[:-1]
    for name in names:
        if not isinstance(name, str) or name in ("train", "valid"):
            raise ValueError(
                "The names of eval_set must be strings other than 'train' and 'valid', "
                f"which the history has; got {name!r}."
            )
    return dict(zip([*names, "valid"], sets.values(), strict=True))


def read_eval_sets(eval_set: Any, source: Source) -> dict[str, Source]:
    """Check validation rows, all but the tables, against the training labels."""
    sets = name_eval_sets(eval_set)
    if isinstance(source, FileRows) and any(map(reads_in_parts, sets.values())):
        *further, dataset = sets.values()
        if further:
            raise ValueError(
                "Several sets in eval_set must be tables with labels; a dataset that "
                "is read in parts must be the only one."
            )
        found, targets = dataset.targets, source.dataset.targets
        if found != targets or dataset.sample_weight is not None:
            raise ValueError(
                f"In eval_set: targets and sample_weight must be {targets}, as in the "
                f"training rows, and None; got {found} and {dataset.sample_weight!r}."
            )
        of_rows = source.settings, dataset, source.folder
        return {"valid": FileRows(*of_rows, origin="eval_set")}
    checked: dict[str, Source] = {}
    for name, given in sets.items():
        origin = "eval_set" if len(sets) == 1 else f"the set {name!r} of eval_set"
        if isinstance(given, GivenRows):
            origin = "the validation rows"  # X_val, Y_val and so on
        elif not isinstance(given, tuple) or len(given) != 2:
            found = len(given) if isinstance(given, tuple) else type(given).__name__
            raise TypeError(f"eval_set must be a pair (X, Y); got {found}.")
        with named_place(origin):
            # Validation rows may have only one of the classes, as those of an update.
            checked[name] = read_table(
                source.settings,
                GivenRows(*given),
                source.tasks,
                is_update=True,
                origin=origin,
            )
    return checked


def check(
    settings: Settings,
    source: Source,
    eval_set: Any = None,
    origin: Origin | None = None,
) -> Plan:
    """Check all parameters and rows before any work is done, except the values of X."""
    origin = Origin() if origin is None else origin
    if origin.schema is not None:
        origin.schema.targets.check_same_tasks(source.tasks, "the dataset")
    device = find_device(settings.device)
    random_state = check_random_state(settings.random_state)
    if origin.saved is not None:
        random_state = random_state_at(origin.saved.start.random_state)
    first_random_state = random_state.get_state(legacy=False)
    eval_rows = {} if eval_set is None else read_eval_sets(eval_set, source)
    if isinstance(source, FileRows):
        source.check_features(eval_rows, origin.schema)
    names, has_groups = source.tasks.task_names, source.has_groups
    built = loss = None
    if origin.is_update and origin.earlier is not None:
        loss = _loss_of_update_in_place(settings, origin.earlier, has_groups)
    if loss is None:
        built = _checked_components.check_components(
            settings, names, device, has_groups, random_state
        )
        loss = built.loss
    if any(rows.has_task_weights for rows in (source, *eval_rows.values())):
        _checked_components.check_task_weights(loss)
    # Rows that are added to those of earlier fits need no order.
    adds = origin.is_update and origin.schema is not None
    plan = Plan(
        settings=settings,
        origin=origin,
        device=device,
        eval_rows=eval_rows,
        components=built,
        random_state=random_state,
        first_random_state=first_random_state,
        # With `find_split`, no row is held out that the first fit was trained on.
        split_state=origin.split_state or first_random_state,
        by_time=settings.encoding_params["time_column"] is not None and not adds,
    )
    plan.epochs(source, source.n_rows)
    if settings.checkpoint_dir is not None and not origin.is_update:
        _checkpoints.check_folder(settings.checkpoint_dir)
    return plan


def _loss_of_update_in_place(
    settings: Settings, earlier: TrainingResult, has_groups: bool
) -> Any:
    """Return the loss of the earlier net if only its weights change, otherwise None."""
    is_same = _equality.equal(vars(settings), vars(earlier.settings))
    if not (earlier.single_pass and is_same):
        return None
    net, loss = earlier.net, earlier.net.criterion_.loss
    sampler = _checked_components.batch_sampler(settings, loss, has_groups)
    return loss if net.iterator_train__sampler == sampler else None


def build(
    plan: Plan,
    data: EncodedData,
    net_class: type[MultiTaskNet] = MultiTaskNet,
    n_earlier: int = 0,
) -> MultiTaskNet:
    """Build the net, with the weights of the earlier fit if training continues.

    `n_earlier` is the number of rows that have determined the weights so far.
    """
    earlier: Any = plan.origin.earlier
    if plan.components is None:
        return earlier.net
    # New rows of the embedding tables are added to the weights of the earlier fit.
    schema = data.schema if data.growth is None else plan.origin.schema
    seed = plan.random_state.randint(LARGEST_SEED)
    with _random.seeded_globally(seed, plan.device):
        net = _build_net.build_net(
            plan.settings,
            plan.components,
            schema,
            plan.device,
            epochs=data.epochs,
            n_rows=n_earlier + data.n_counted,
            base_rates=data.base_rates,
            is_update=plan.origin.is_update,
            net_class=net_class,
        )
    net.first_stage = plan.first_stage
    if earlier is not None:
        _state.continue_from(net, earlier.net)
    return net


def train(
    plan: Plan,
    data: EncodedData,
    net: MultiTaskNet,
    undo: Undo | None = None,
    checkpoints: _checkpoints.Checkpoints | None = None,
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
        generators = _random.Generators(int(plan.random_state.randint(LARGEST_SEED)))
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
            net.use_decay_of_updates(data.n_counted)
        elif bool(net.criterion_.n_rows > 0):  # of earlier fits
            net.module_.set_base_rates(net.criterion_.rates_so_far())
        threads = _threads.limited_threads(net.n_products)
        with _random_numbers(plan, net, generators) as global_device, threads:
            if checkpoints is not None:
                checkpoints.generators = generators
                checkpoints.global_device = global_device
            # An update in place keeps the device of the net.
            rows = data.to(torch.device(net.device))
            if growth is not None:
                _state.check_own_tables(net, rows.train, n_codes)
            epochs: Any = nullcontext()
            if task is not None and not is_update:
                # scikit-learn's callbacks see each epoch with the network it left.
                epochs = task.epochs(
                    net, lambda: result_of(net.copy_network(), net.history[-1, "epoch"])
                )
            if is_update and plan.settings.lr_schedule is not None:
                _learn_rates(plan.settings, rows, net)
            with epochs:
                net.partial_fit(rows, checkpoints)
                if data.level is not None and rows.valid is not None:
                    # The level of a log drifts, and its last rows are not trained on.
                    _level.follow_last_rows(net, rows.valid, data.level)
        if data.labelled is not None and data.schema.statistics is not None:
            # The rows of an update were encoded without themselves.
            codes, y, weights, lists = data.labelled
            data.schema.statistics.update(codes, y, weights, undo, lists)
    finally:
        if isinstance(net.optimizer_, LazyAdam):
            net.optimizer_.logs = None
    best_epoch = int(net.kept_epoch_ or net.history[-1, "epoch"])
    rises = reason = None
    if not is_update:
        n_epochs = len(net.history) - origin.n_earlier
        knows_length = net.stopping is not None or plan.first_stage is not None
        if not knows_length and data.schema.statistics is not None:
            _memorized.warn_if_memorized(net, data.train, data.schema)
        rises = _rises.find_rises(net, data.train, n_epochs, data.unrelated)
        reason = _stop_reason.stop_reason(net, n_epochs, best_epoch)
        if settings.verbose:
            print(reason)
        net.criterion_.count_fit(data.event_shares, len(data.train), data.n_counted)
    result = replace(result_of(net, best_epoch), rises=rises, stop_reason=reason)
    if task is not None:
        task.end(lambda: result)
    return result


# Earlier rows with and without the event from which on their level is trusted.
FEW_EVENTS = 100


def _learn_rates(settings: Settings, data: EncodedData, net: MultiTaskNet) -> None:
    """Count the events of an update; what a small first call told is learnt again."""
    criterion, rows = net.criterion_, data.train
    n_known = torch.minimum(criterion.n_events, criterion.n_rows - criterion.n_events)
    is_first = criterion.n_rows == 0
    weights = rows.column("sample_weight")
    criterion.count_rows(rows.column("y"), weights, data.rows_per_weight)
    if not is_first:
        net.module_.set_base_rates(criterion.rates_so_far())
    if not is_first and bool((n_known < FEW_EVENTS).any()):
        # The steps of updates are short: without a single event in the first call,
        # probabilities would stay a hundred times too low for thousands of rows.
        n_trusted = n_known.where(n_known < FEW_EVENTS, torch.inf)
        _level.follow_update(net, rows, n_trusted)
    loss, follows_rates = criterion.loss, settings.pwiser_weight is None
    # A user's loss may keep its weight under another name: that of the first call.
    if follows_rates and WEIGHT in loss.estimator_parameters and hasattr(loss, WEIGHT):
        _, rates = criterion.possible_rates().tolist()
        of_heads = [rates[head] for head in loss.heads]
        loss.pwiser_weight = _pwiser_weight.default_weight(of_heads)


def _make_checkpoints(plan: Plan, data: EncodedData) -> _checkpoints.Checkpoints:
    """Return the object that writes checkpoints and resumes."""
    digests, saved = _checkpoints.fingerprint(data.train, data.valid), plan.origin.saved
    if saved is not None:
        saved.check_data(digests)
    start = _checkpoints.Start(
        _checkpoints.compared(plan.settings),
        plan.first_random_state,
        plan.origin.n_earlier,
        digests,
        data.schema,
        plan.split_state,
        data.split_rows,
        plan.first_stage,
    )
    return _checkpoints.Checkpoints(Path(plan.settings.checkpoint_dir), start, saved)


def _result(
    plan: Plan,
    data: EncodedData,
    generators: _random.Generators,
    net: MultiTaskNet,
    best_epoch: int,
) -> TrainingResult:
    earlier = plan.origin.earlier
    weight_scale: float | None = data.weight_scale
    scales_counts = data.rows_per_weight is not None
    split_state = plan.split_state if data.holds_out else None
    split_rows = data.split_rows
    if earlier is not None:
        split_state = split_state or earlier.split_state
        split_rows = split_rows or earlier.split_rows
        if plan.origin.is_update:  # of the first call
            weight_scale = earlier.weight_scale
            scales_counts = earlier.scales_counts
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
        scales_counts=scales_counts,
        split_rows=split_rows,
        used_all=not data.holds_out,
    )


@contextmanager
def _random_numbers(
    plan: Plan, net: MultiTaskNet, generators: _random.Generators
) -> Iterator[torch.device | None]:
    """Activate the fit's generators; seed torch's own if they may be used.

    Yields the device of the latter, None if they are not used. The user's own layers,
    such as `torch.nn.Dropout`, and compiled code draw from the global generators. Such
    fits in several threads run one after the other.
    """
    with _random.active(generators), ExitStack() as stack:
        # Drawn in any case: the order of rows does not depend on the components.
        cpu: Any = _random.generator_on(torch.device("cpu"))
        if plan.origin.earlier is not None:
            # From a copy: two fits draw the orders of rows of one longer fit.
            cpu = torch.Generator().set_state(cpu.get_state())
        seed = int(torch.randint(LARGEST_SEED, (), generator=cpu))
        parts = net.module_, net.criterion_, net.optimizer_
        if net.compile_mode not in (None, "graph") or _random.draws_globally(*parts):
            stack.enter_context(_random.seeded_globally(seed, plan.device))
            yield plan.device
        else:
            yield None
