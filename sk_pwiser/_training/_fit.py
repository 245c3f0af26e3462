"""Training on a table: validate, encode, build, optimise."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from sk_pwiser._training._batches import TrainingData
from sk_pwiser._training._callbacks import FitTask, find_callback
from sk_pwiser._training._checkpoints import (
    Checkpoint,
    Checkpoints,
    Start,
    check_folder,
    compared,
    find_checkpoint,
    fingerprint,
)
from sk_pwiser._training._components import (
    LARGEST_SEED,
    Components,
    batch_sampler,
    build_net,
    build_network,
    check_components,
    check_task_weights,
)
from sk_pwiser._training._devices import find_device
from sk_pwiser._training._diagnostics import find_rises
from sk_pwiser._training._early_stopping import (
    best_epoch,
    check_monitored,
    find_split,
    plan_epochs,
    stop_reason,
    usable_monitor,
    warn_about_absent,
    warn_about_share,
    warn_about_trained,
)
from sk_pwiser._training._encode import (
    EncodedData,
    GivenRows,
    Growth,
    Rows,
    Schema,
    check_rows,
    encode,
    grow_schema,
)
from sk_pwiser._training._net import MultiTaskNet, close_bar
from sk_pwiser._training._optimizers import LazyAdam
from sk_pwiser._training._schedule import WarmupStableDecay
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._state import (
    TrainingResult,
    Undo,
    changed_parts,
    check_own_tables,
    check_same_model,
    continue_from,
    grow_tables,
    log_net,
)
from sk_pwiser._utils import (
    Generators,
    active,
    draws_globally,
    equal,
    limited_threads,
    seeded_globally,
    warn_user,
)


@dataclass(frozen=True)
class Plan:
    """Rows, parts and settings of a training; all but the values of `X` are checked."""

    settings: Settings
    device: torch.device
    rows: Rows
    eval_rows: dict[str, Rows]
    components: Components | None  # None: the earlier net is updated in place
    monitor: str | None
    first_epoch: int  # that may be the best one
    max_epochs: int
    random_state: np.random.RandomState
    first_random_state: dict[str, Any]
    split: dict[str, Any]  # state that draws the validation rows
    earlier: TrainingResult | None
    single_pass: bool = False
    folder: Path | None = None  # of checkpoints
    saved: Checkpoint | None = None  # from which training resumes
    task: FitTask | None = None  # for scikit-learn's callbacks
    holds_out: bool = False  # whether early stopping holds out a part of the rows
    split_rows: dict[str, Any] | None = None  # of rows held out at random

    @property
    def schema(self) -> Schema | None:
        """The schema that encodes the rows, None if it is to be learnt."""
        origin = self.earlier if self.saved is None else self.saved.start
        return None if origin is None else origin.schema

    @property
    def by_time(self) -> bool:
        """Whether the rows have times, by which the last ones are held out."""
        return self.settings.encoding_params["time_column"] is not None

    @property
    def n_earlier(self) -> int:
        """The number of epochs before this training."""
        if self.saved is not None:
            return self.saved.start.n_earlier
        return 0 if self.earlier is None else len(self.earlier.net.history)

    def split_state(self) -> np.random.RandomState:
        """Return the random state that draws the validation rows."""
        if equal(self.split, self.first_random_state):
            return self.random_state
        return random_state_at(self.split)

    @property
    def block_seed(self) -> int:
        """The seed of random blocks, which takes nothing from the random state."""
        return int(random_state_at(self.split).randint(LARGEST_SEED))

    def draw_seed(self) -> int:
        """Draw a seed from the estimator's `random_state`."""
        return int(self.random_state.randint(LARGEST_SEED))


def random_state_at(state: dict[str, Any]) -> np.random.RandomState:
    """Return a new random state at the position of another one."""
    random_state = np.random.RandomState()
    random_state.set_state(state)
    return random_state


def validate(
    settings: Settings,
    given: GivenRows,
    eval_set: Any,
    earlier: TrainingResult | None,
    classes: Any = None,
    single_pass: bool = False,
) -> Plan:
    """Check all parameters and rows before any work is done, except the values of X."""
    if earlier is not None:
        check_same_model(settings, earlier.settings)
    saved = None if single_pass or earlier else _find_saved(settings)
    device = find_device(settings.device)
    random_state = check_random_state(settings.random_state)
    origin: TrainingResult | Start | None = earlier
    if saved is not None:
        random_state, origin = random_state_at(saved.start.random_state), saved.start
    first_random_state = random_state.get_state(legacy=False)
    rows = check_rows(
        settings,
        given,
        None if origin is None else origin.schema.targets,
        classes,
        single_pass,
        earlier.weight_scale if single_pass and earlier is not None else None,
    )
    if saved is not None:
        saved.check_n_rows(len(rows.targets.values))
    eval_rows = check_eval_sets(settings, name_eval_sets(eval_set), rows.targets)
    task_names = rows.targets.task_names
    components: Components | None = None
    has_groups = rows.groups is not None
    if (
        single_pass
        and earlier is not None
        and earlier.single_pass
        and settings.equals(earlier.settings)
        and earlier.net.iterator_train__sampler
        == batch_sampler(settings, earlier.net.criterion_.loss, has_groups)
    ):
        loss = earlier.net.criterion_.loss
    else:
        components = check_components(
            settings, task_names, device, has_groups, random_state
        )
        loss = components.loss
    if any(part.has_task_weights for part in (rows, *eval_rows.values())):
        check_task_weights(loss)
    monitor, first_epoch, max_epochs = None, 1, 1
    if not single_pass:
        monitor, first_epoch, max_epochs = plan_epochs(
            settings, len(rows.targets.values), task_names, bool(eval_rows)
        )
    judged = eval_rows.get("valid", rows)
    has_groups = judged.groups is not None
    check_monitored(monitor, settings.callbacks, bool(eval_rows), has_groups)
    rows.targets.warn_about_labels(
        constant_tasks=not single_pass,
        task_space=settings.shared_param("task_space"),
        weights=rows.weights if rows.has_task_weights else None,
    )
    writes = not single_pass and settings.checkpoint_dir is not None
    return Plan(
        settings,
        device,
        rows,
        eval_rows,
        components,
        monitor,
        first_epoch,
        max_epochs,
        random_state,
        first_random_state,
        split_of(origin, first_random_state),
        earlier,
        single_pass,
        check_folder(settings.checkpoint_dir) if writes else None,
        saved,
        holds_out=monitor is not None and not eval_rows,
    )


def split_of(
    origin: TrainingResult | Start | None, random_state: dict[str, Any]
) -> dict[str, Any]:
    """Return the state that draws the validation rows: the one of the first fit."""
    # With `find_split`, no row is held out that the earlier fit was trained on.
    return random_state if origin is None else origin.split or random_state


def _find_saved(settings: Settings) -> Checkpoint | None:
    """Read the checkpoint to resume from, if there is one with these settings."""
    if settings.checkpoint_dir is None or not settings.warm_start:
        return None
    saved = find_checkpoint(Path(settings.checkpoint_dir))
    if saved is not None:
        saved.check_settings(settings)
    return saved


def name_eval_sets(eval_set: Any) -> dict[str, Any]:
    """Return validation sets by the names of their figures; the last is "valid"."""
    if eval_set is None:
        return {}
    names: list[Any] = []
    sets = [eval_set]
    if isinstance(eval_set, Mapping):
        names, sets = list(eval_set)[:-1], list(eval_set.values())
    elif isinstance(eval_set, list) and (
        len(eval_set) == 1 or all(isinstance(pair, tuple) for pair in eval_set)
    ):
        names, sets = [f"valid_{k}" for k in range(len(eval_set) - 1)], eval_set
    if not sets:
        raise ValueError(f"eval_set must have at least one set; got {eval_set!r}.")
    for name in names:
        if not isinstance(name, str) or name in ("train", "valid"):
            raise ValueError(
                "The names of eval_set must be strings other than 'train' and 'valid', "
                f"which the history has; got {name!r}."
            )
    return dict(zip([*names, "valid"], sets, strict=True))


def check_eval_sets(
    settings: Settings, sets: Mapping[str, Any], targets: Any
) -> dict[str, Rows]:
    """Check validation rows, all but the tables, against the training labels."""
    checked = {}
    for name, eval_set in sets.items():
        has_names = isinstance(eval_set, GivenRows)  # X_val, Y_val and so on
        is_sequence = isinstance(eval_set, tuple | list)
        if not has_names and not (is_sequence and len(eval_set) == 2):
            found = type(eval_set).__name__
            if is_sequence:
                found = f"{len(eval_set)} entries"
            raise TypeError(f"eval_set must be a pair (X, Y); got {found}.")
        origin = "the validation rows"
        if not has_names:
            origin = "eval_set" if len(sets) == 1 else f"the set {name!r} of eval_set"
        try:
            # Validation rows may have only one of the classes, as those of an update.
            given = GivenRows(*eval_set)
            rows = check_rows(settings, given, targets, None, single_pass=True)
        except (ValueError, TypeError) as error:
            raise type(error)(f"In {origin}: {error}") from error
        checked[name] = replace(rows, origin=origin)
    return checked


def with_eval_rows(data: EncodedData, eval_rows: Mapping[str, Rows]) -> EncodedData:
    """Add validation rows to the data, encoded like the rows of a prediction."""
    if not eval_rows:
        return data
    encoded = {}
    for name, rows in eval_rows.items():
        try:
            table = data.schema.transform(rows.X)
        except (ValueError, TypeError) as error:
            raise type(error)(f"In {rows.origin}: {error}") from error
        targets = rows.targets.values
        encoded[name] = table.impressions(targets, rows.weights, rows.groups)
    valid = encoded.pop("valid")
    rows_of = TrainingData(data.rows.train, valid)
    return replace(data, rows=rows_of, further=encoded)


def fit(
    params: Mapping[str, Any],
    given: GivenRows,
    eval_set: Any = None,
    *,
    earlier: TrainingResult | None = None,
    classes: Any = None,
    single_pass: bool = False,
    undo: Undo | None = None,
    task: FitTask | None = None,
    estimator_name: str,
) -> TrainingResult:
    """Train on a table.

    An update logs in `undo`, also if it fails, the changes that it makes in place to
    the net of `earlier`; `take_back` undoes them.
    """
    settings = Settings.of(params)
    plan = validate(settings, given, eval_set, earlier, classes, single_pass)
    plan = replace(plan, task=task)
    schema, growth = plan.schema, None
    if single_pass and schema is not None and settings.grows:
        schema, growth = grow_schema(schema, plan.rows.X)
    if single_pass and schema is not None and plan.components is not None:
        # Whoever holds the earlier net, which stays as it is, keeps its statistics.
        schema = replace(schema, statistics=deepcopy(schema.statistics))
    plan, data = encode_plan(plan, schema, estimator_name)
    checkpoints = make_checkpoints(plan, data)
    if plan.components is not None:
        for message in plan.components.loss.cautions(data.schema.base_rates.tolist()):
            warn_user(message)
    # New rows of the embedding tables are added to the weights of the earlier fit.
    built = data.schema if growth is None else plan.schema
    assert built is not None
    return optimise(plan, data, build(plan, built), growth, checkpoints, undo)


def encode_plan(
    plan: Plan, schema: Schema | None, estimator_name: str, *, extends: bool = False
) -> tuple[Plan, EncodedData]:
    """Encode all rows of a plan, which then no longer holds their tables."""
    ends: Sequence[int] = ()
    if plan.holds_out and not plan.by_time:
        origin = plan.earlier if plan.saved is None else plan.saved.start
        known = None if origin is None else origin.split_rows
        split_rows = find_split(plan.settings, plan.rows, known)
        plan, ends = replace(plan, split_rows=split_rows), split_rows["ends"]
    data = encode(
        plan.settings,
        plan.rows,
        schema,
        plan.split_state(),
        holds_out=plan.holds_out,
        is_update=plan.single_pass,
        estimator_name=estimator_name,
        block_seed=plan.block_seed,
        extends=extends,
        ends=ends,
    )
    data = with_eval_rows(data, plan.eval_rows)
    return without_tables(plan, data), data


def without_tables(plan: Plan, data: EncodedData) -> Plan:
    """Release the tables, which are encoded, and check the validation rows."""
    names, valid = data.schema.targets.task_names, data.rows.valid
    monitor = usable_monitor(plan.monitor, valid, names)
    if plan.components is not None and plan.components.sampler == "grouped":
        _warn_about_groups(plan, data)
    if plan.holds_out and valid is not None:
        n_train, n_valid = len(data.rows.train), len(valid)
        if plan.by_time:
            warn_about_share(plan.settings, n_train, n_valid)
            if monitor == plan.monitor:
                warn_about_absent(valid, names)
        elif plan.split_rows is None:  # rows that are read in parts
            found = {"ends": [n_train + n_valid], "digest": ""}
            plan = replace(plan, split_rows=found)
    if plan.earlier is not None and plan.split_rows is not None:
        warn_about_trained(plan.earlier, plan.split_rows)
    return replace(
        plan,
        rows=replace(plan.rows, X=None),
        eval_rows={k: replace(rows, X=None) for k, rows in plan.eval_rows.items()},
        monitor=monitor,
    )


def _warn_about_groups(plan: Plan, data: EncodedData) -> None:
    """Warn about validation rows without the groups that the training rows have."""
    for name, rows in {**data.further, "valid": data.rows.valid}.items():
        if rows is None or rows.sample.groups is not None:
            continue
        given = plan.eval_rows.get(name)
        warn_user(
            f"In {'eval_set' if given is None else given.origin}: loss="
            f"{plan.settings.loss!r} compares rows within groups, and these rows have "
            "none, so that each batch of them is one group in the validation loss. "
            "Pass X_val, Y_val and groups_val, or groups to ParquetImpressions."
        )


def make_checkpoints(plan: Plan, data: EncodedData) -> Checkpoints | None:
    """Return the object that writes checkpoints and resumes; None without a folder."""
    if plan.folder is None:
        return None
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
        plan.split,
        plan.split_rows,
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
            max_epochs=plan.max_epochs,
            first_epoch=plan.first_epoch,
            average_decay=0.0 if plan.single_pass else plan.settings.average_decay,
            is_update=plan.single_pass,
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
    growth: Growth | None = None,
    checkpoints: Checkpoints | None = None,
    undo: Undo | None = None,
) -> TrainingResult:
    """Train the net, after its embedding tables have grown if there is a `growth`."""
    undo = [] if undo is None else undo
    task = plan.task
    if task is not None:
        task.begin(0 if plan.single_pass else plan.max_epochs)
    if plan.earlier is None:
        generators = Generators(plan.draw_seed())
    else:
        generators = deepcopy(plan.earlier.generators)
    try:
        n_codes = sum(net.module_.spec.cardinalities)
        if growth is not None:
            grow_tables(net, data.schema, growth, undo)
        if plan.components is None:
            log_net(net, undo)
        with _random_numbers(plan, net, generators) as global_device:
            if checkpoints is not None:
                checkpoints.use(generators, global_device)
            # An update in place keeps the device of the net.
            rows = data.rows.to(torch.device(net.device))
            if growth is not None:
                check_own_tables(net, rows.train.sample, n_codes)
            with limited_threads(net.n_products):
                further = {
                    k: one.to(rows.train.device) for k, one in data.further.items()
                }
                with _epochs_as_tasks(plan, data, net, generators):
                    net.partial_fit(rows, checkpoints=checkpoints, further=further)
        data.update_statistics(undo)
    finally:
        close_bar(net)
        if isinstance(net.optimizer_, LazyAdam):
            net.optimizer_.undo = None
    result = _result(plan, data, net, generators, best_epoch(net))
    if not plan.single_pass:
        n_epochs = len(net.history) - plan.n_earlier
        unrelated = plan.rows.targets.unrelated()
        rises = find_rises(net, data.rows.train, n_epochs, unrelated)
        schedule = find_callback(net, WarmupStableDecay)
        n_held = 0 if schedule is None else schedule.n_held
        reason = stop_reason(net, n_epochs, n_held)
        if plan.settings.verbose:
            print(reason)
        result = replace(result, rises=rises, stop_reason=reason)
    if task is not None:
        task.end(lambda: result)
    return result


def _epochs_as_tasks(
    plan: Plan, data: EncodedData, net: MultiTaskNet, generators: Generators
) -> AbstractContextManager[None]:
    """Let scikit-learn's callbacks see each epoch, with the network that it left."""

    def result() -> TrainingResult:
        copied = net.copy_network()
        return _result(plan, data, copied, generators, net.history[-1, "epoch"])

    if plan.task is None or plan.single_pass:
        return nullcontext()
    return plan.task.epochs(net, result)


def _result(
    plan: Plan,
    data: EncodedData,
    net: MultiTaskNet,
    generators: Generators,
    best_epoch: int,
) -> TrainingResult:
    valid, earlier = data.rows.valid, plan.earlier
    weight_scale = plan.rows.weight_scale
    split, split_rows = plan.split if plan.holds_out else None, plan.split_rows
    if earlier is not None:
        split, split_rows = split or earlier.split, split_rows or earlier.split_rows
        if plan.single_pass:  # of the first call
            weight_scale = earlier.weight_scale
    return TrainingResult(
        net,
        data.schema,
        generators,
        plan.settings,
        plan.single_pass,
        best_epoch,
        (len(data.rows.train), 0 if valid is None else len(valid)),
        split=split,
        weight_scale=weight_scale,
        split_rows=split_rows,
    )


@contextmanager
def _random_numbers(
    plan: Plan, net: MultiTaskNet, generators: Generators
) -> Iterator[torch.device | None]:
    """Activate the fit's generators; seed torch's own if they may be used.

    Yields the device of the latter, None if they are not used. The user's own layers,
    such as `torch.nn.Dropout`, and compiled code draw from the global generators. Such
    fits in several threads run one after the other.
    """
    with active(generators), ExitStack() as stack:
        # Drawn in any case: the order of rows does not depend on the components.
        cpu = generators.on(torch.device("cpu"))
        if plan.earlier is not None:
            # From a copy: two fits draw the orders of rows of one longer fit.
            cpu = torch.Generator().set_state(cpu.get_state())
        seed = int(torch.randint(LARGEST_SEED, (), generator=cpu))
        parts = net.module_, net.criterion_, net.optimizer_
        if net.compile_mode not in (None, "graph") or draws_globally(*parts):
            stack.enter_context(seeded_globally(seed, plan.device))
            yield plan.device
        else:
            yield None


def fit_from(
    params: Mapping[str, Any],
    given: GivenRows,
    eval_set: Any = None,
    *,
    source: TrainingResult,
    share: Callable[[Rows], Schema],
    prepare: Callable[[MultiTaskNet, TrainingData, int], AbstractContextManager[None]],
    task: FitTask | None = None,
    estimator_name: str,
) -> TrainingResult:
    """Train a new net on a table that is encoded by the schema of another fit.

    `share` maps the checked rows to the schema that encodes them. `prepare` receives
    the new net, the encoded rows and a seed; training runs inside the context that it
    returns.
    """
    # Its checkpoints may be those of the source.
    settings = Settings.of({**params, "checkpoint_dir": None})
    # The network is new, and may be of another class.
    alike = replace(source.settings, network=settings.network)
    plan = validate(settings, given, eval_set, replace(source, settings=alike))
    plan = replace(plan, earlier=None, split=plan.first_random_state, task=task)
    schema = share(plan.rows)
    plan, data = encode_plan(plan, schema, estimator_name, extends=True)
    net = build(plan, data.schema)
    # Drawn from a copy: training has the random numbers of an ordinary fit.
    seed = deepcopy(plan.random_state).randint(LARGEST_SEED)
    with prepare(net, data.rows, seed):
        return optimise(plan, data, net)
