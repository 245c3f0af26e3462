"""Training on files, in one process or in several."""

import tempfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch.nn.modules.batchnorm import _BatchNorm

from sk_pwiser._streaming._chunks import Source
from sk_pwiser._streaming._learn import learn_schema
from sk_pwiser._streaming._store import (
    FILE_ROWS,
    RowStore,
    StreamedImpressions,
    encode_eval_rows,
    encode_rows,
    load_rows,
)
from sk_pwiser._table import check_encoding_params, reads_in_parts
from sk_pwiser._training._batches import BatchIterator, Impressions, TrainingData
from sk_pwiser._training._callbacks import FitTask
from sk_pwiser._training._checkpoints import Checkpoints, Start, compared
from sk_pwiser._training._components import (
    LARGEST_SEED,
    check_components,
    check_task_weights,
)
from sk_pwiser._training._devices import find_device
from sk_pwiser._training._early_stopping import check_monitored, plan_epochs
from sk_pwiser._training._encode import EncodedData, GivenRows, Rows, Schema
from sk_pwiser._training._fit import (
    Plan,
    build,
    check_eval_sets,
    name_eval_sets,
    optimise,
    split_of,
    with_eval_rows,
    without_tables,
)
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._state import TrainingResult, check_same_model
from sk_pwiser._utils import equal, seeded_globally, warn_user

FEWEST_ROWS = 128  # per stored file


def fit_dataset(
    params: Mapping[str, Any],
    given: GivenRows,
    eval_set: Any = None,
    *,
    earlier: TrainingResult | None = None,
    task: FitTask | None = None,
    estimator_name: str,
) -> TrainingResult:
    """Train on a dataset, which names its columns of `Y`, weights and groups."""
    dataset, *arrays = given
    for name, value in zip(given._fields[1:], arrays, strict=True):
        if value is not None:
            role = "targets" if name == "Y" else name
            raise ValueError(
                f"{name} must be None for a dataset, whose parameter {role} names its "
                "columns."
            )
    where = {"prefix": "sk_pwiser_", "dir": dataset.cache_dir}
    with tempfile.TemporaryDirectory(**where) as name:
        source = Source(Settings.of(params), dataset, Path(name))
        plan, data = prepare_dataset(source, eval_set, estimator_name, earlier)
        plan = replace(plan, task=task)
        net = build(plan, data.schema)
        return optimise(plan, data, net)


def prepare_dataset(
    source: Source,
    eval_set: Any,
    estimator_name: str,
    earlier: TrainingResult | None = None,
    n_files: int | None = None,
) -> tuple[Plan, EncodedData]:
    settings, dataset = source.settings, source.dataset
    if not dataset.targets:
        raise ValueError("targets of the dataset is empty; fit needs labels.")
    check_encoding_params(settings.encoding_params)
    if settings.checkpoint_dir is not None:
        raise ValueError(
            "checkpoint_dir must be None for a dataset that is read in parts; got "
            f"{str(settings.checkpoint_dir)!r}."
        )
    sets = name_eval_sets(eval_set)
    eval_dataset = _take_eval_dataset(sets, dataset)
    plan = _plan(source, sets, eval_dataset, earlier)
    assert plan.components is not None
    loss = plan.components.loss
    seeds = _draw_seeds(plan.random_state)
    schema = None if earlier is None else earlier.schema
    learnt = learn_schema(source, schema, seeds[0], estimator_name)
    summary = learnt.summary
    targets, mean = summary.targets(), summary.weights.mean
    if summary.weights.per_task:
        check_task_weights(loss)
    plan = replace(plan, rows=Rows(None, targets, None, None, mean))
    # Filters may select fewer rows than the files have.
    plan = _with_epochs(plan, dataset, eval_dataset, summary.n_rows)
    sums = np.array(list(summary.sums.values()))
    targets.warn_about_labels(
        task_space=settings.shared_param("task_space"),
        weights=sums if summary.weights.per_task else None,
    )
    if not equal(plan.split, plan.first_random_state):
        # Validation rows are those of the first fit.
        seeds = _draw_seeds(plan.split_state())
    if n_files is not None:
        by_file = max(FEWEST_ROWS, summary.n_rows // n_files)
        source = replace(source, file_rows=min(FILE_ROWS, by_file))
    seed = seeds[1] if plan.holds_out else None
    data = encode_rows(source, learnt, seed, plan.block_seed)
    data = with_eval_rows(data, plan.eval_rows)
    if eval_dataset is not None:
        eval_source = replace(source, dataset=eval_dataset)
        valid = encode_eval_rows(eval_source, data.schema, loss)
        data = replace(data, rows=TrainingData(data.rows.train, valid))
    for message in loss.cautions(data.schema.base_rates.tolist()):
        warn_user(message)
    return without_tables(plan, data), data


def _draw_seeds(random_state: Any) -> list[int]:
    """Draw the seeds of the sample for distributions and of the validation rows."""
    return [int(seed) for seed in random_state.randint(LARGEST_SEED, size=2)]


def _take_eval_dataset(sets: dict[str, Any], dataset: Any) -> Any:
    """Remove the only validation set if it is read in parts, and return it, or None."""
    if not any(map(reads_in_parts, sets.values())):
        return None
    eval_set = sets.pop("valid")
    if sets or not reads_in_parts(eval_set):
        raise ValueError(
            "Several sets in eval_set must be tables with labels; a dataset that is "
            "read in parts must be the only one."
        )
    if eval_set.targets != dataset.targets:
        raise ValueError(
            f"In eval_set: targets are {eval_set.targets}; the targets of the training "
            f"rows are {dataset.targets}."
        )
    if eval_set.sample_weight is not None:
        raise ValueError(
            f"In eval_set: sample_weight={eval_set.sample_weight!r}; validation rows "
            "of a dataset have no weights."
        )
    return eval_set


def _plan(
    source: Source,
    sets: Mapping[str, Any],
    eval_dataset: Any,
    earlier: TrainingResult | None,
) -> Plan:
    """Check all that is known before any row is read; the plan has no labels yet."""
    settings, dataset, tasks = source.settings, source.dataset, source.tasks()
    if earlier is not None:
        check_same_model(settings, earlier.settings)
        earlier.schema.targets.check_same_tasks(tasks, "the dataset")
    device = find_device(settings.device)
    random_state = check_random_state(settings.random_state)
    first_random_state = random_state.get_state(legacy=False)
    eval_rows = check_eval_sets(settings, sets, tasks)
    time = settings.left_out_column
    _check_features(dataset, eval_dataset, eval_rows, earlier, time)
    has_groups = dataset.groups is not None
    components = check_components(
        settings, tasks.task_names, device, has_groups, random_state
    )
    has_task_weights = any(rows.has_task_weights for rows in eval_rows.values())
    if isinstance(dataset.sample_weight, list) or has_task_weights:
        check_task_weights(components.loss)
    plan = Plan(
        settings,
        device,
        Rows(None, tasks, None, None),
        eval_rows,
        components,
        None,
        1,
        settings.max_epochs,
        random_state,
        first_random_state,
        split_of(earlier, first_random_state),
        earlier,
    )
    return _with_epochs(plan, dataset, eval_dataset, dataset.n_rows_)


def _with_epochs(plan: Plan, dataset: Any, eval_dataset: Any, n_rows: int) -> Plan:
    """Add the epochs for a number of rows, and check what is monitored in them."""
    settings, names = plan.settings, plan.rows.targets.task_names
    has_eval_set = bool(plan.eval_rows) or eval_dataset is not None
    valid: Any = dataset if eval_dataset is None else eval_dataset
    has_groups = plan.eval_rows.get("valid", valid).groups is not None
    monitor, first, last = plan_epochs(settings, n_rows, names, has_eval_set)
    check_monitored(monitor, settings.callbacks, has_eval_set, has_groups)
    return replace(
        plan,
        monitor=monitor,
        first_epoch=first,
        max_epochs=last,
        holds_out=monitor is not None and not has_eval_set,
    )


def _check_features(
    dataset: Any,
    eval_dataset: Any,
    eval_rows: Mapping[str, Rows],
    earlier: TrainingResult | None,
    time: Any,
) -> None:
    """Raise if rows lack features of the earlier fit or of the training rows.

    The column of `time`, if it is none, is that of training rows alone.
    """
    names, n_features = dataset.features, len(dataset.features)
    found = [("", "the dataset", names)]
    if eval_dataset is not None:
        found.append(("In eval_set: ", "the dataset", eval_dataset.features))
    for rows in eval_rows.values():
        columns = list(getattr(rows.X, "columns", ()))
        if columns and all(isinstance(column, str) for column in columns):
            found.append((f"In {rows.origin}: ", "X", columns))
    if earlier is not None:
        encoder = earlier.schema.encoder
        names = list(getattr(encoder, "feature_names_in_", ()))
        n_features = encoder.n_features_in_
    for where, what, columns in found:
        absent = [name for name in names if name not in columns]
        if where and time in absent:
            absent.remove(time)
        if absent:
            raise ValueError(
                f"{where}Training uses features that {what} lacks: {absent}."
            )
        if not names and len(columns) != n_features:
            raise ValueError(
                f"{where}Training uses {n_features} features; {what} has "
                f"{len(columns)}."
            )


# Enough for about equal shares.
FILES_PER_PROCESS = 8


@dataclass(frozen=True)
class Job:
    """A training that several processes run together; it can be pickled."""

    plan: Plan  # without components and validation rows
    schema: Schema
    seed: int  # of the order of rows, and of each process
    train: StreamedImpressions
    valid: StreamedImpressions | None
    has_groups: bool

    @property
    def n_rows(self) -> tuple[int, int]:
        return len(self.train), 0 if self.valid is None else len(self.valid)

    def start(self) -> Start:
        state = self.plan.random_state.get_state(legacy=False)
        settings = compared(self.plan.settings)
        return Start(settings, state, 0, self.n_rows[0], {}, self.schema)


def prepare_job(
    settings: Settings,
    dataset: Any,
    eval_set: Any,
    folder: Path,
    *,
    n_processes: int,
    estimator_name: str,
) -> Job:
    """Prepare a fit by several processes, which read the rows in a folder."""
    n_sets = len(name_eval_sets(eval_set))
    if n_sets > 1:
        raise ValueError(
            f"eval_set must be one set for a fit by several workers; got {n_sets}."
        )
    plan, data = prepare_dataset(
        Source(settings, dataset, folder),
        eval_set,
        estimator_name,
        n_files=FILES_PER_PROCESS * n_processes,
    )
    train, valid = data.rows.train, data.rows.valid
    assert isinstance(train, StreamedImpressions)
    if isinstance(valid, Impressions):
        store = RowStore(folder / "eval", max(train.store.sizes))
        store.add(valid, np.arange(len(valid)))
        store.flush()
        load = partial(load_rows, data.schema, None)
        valid = StreamedImpressions(store, load, train.part_rows)
    assert valid is None or isinstance(valid, StreamedImpressions)
    _check_divisible(plan, data.schema, train)
    return Job(
        replace(plan, components=None, eval_rows={}),
        data.schema,
        deepcopy(plan.random_state).randint(LARGEST_SEED),
        replace(train, on_read=None),
        valid,
        dataset.groups is not None,
    )


def _check_divisible(plan: Plan, schema: Schema, rows: StreamedImpressions) -> None:
    net = build(plan, schema)
    network, weighting = net.module_, net.criterion_.weighting
    if weighting.needs_task_gradients and not hasattr(weighting, "join_gradients"):
        raise ValueError(
            f"weighting={plan.settings.weighting!r} reads gradients, but is not a "
            "GradientWeighting, whose gradients are summed over processes."
        )
    norms = [type(m).__name__ for m in network.modules() if isinstance(m, _BatchNorm)]
    if norms:
        raise ValueError(
            f"network={plan.settings.network!r} has a {norms[0]}, which normalises by "
            "the rows of one process. Use another normalisation, or fit in one process."
        )
    with torch.no_grad(), seeded_globally(0, plan.device):
        inputs, _ = next(iter(BatchIterator(rows.sample, 2, device=plan.device)))
        output = net.infer(inputs)
    if output.extra_losses and not network.extra_losses_are_means:
        raise ValueError(
            f"network={plan.settings.network!r} has the extra losses "
            f"{list(output.extra_losses)}, which compare the rows of a batch with each "
            "other (its extra_losses_are_means is False): they would differ between "
            "one process and several. Use another network, or fit in one process."
        )


def run_job(
    job: Job,
    rows: Any,
    device: torch.device,
    *,
    net_class: type[MultiTaskNet],
    connect: Callable[[Any], None],
    checkpoints: Checkpoints,
    verbose: int,
) -> TrainingResult:
    """Train, as one of several connected processes, on the rows of this process."""
    settings = replace(job.plan.settings, device=str(device), verbose=verbose)
    random_state = deepcopy(job.plan.random_state)
    components = check_components(
        settings, job.schema.targets.task_names, device, job.has_groups, random_state
    )
    plan = replace(
        job.plan,
        settings=settings,
        device=device,
        components=components,
        random_state=random_state,
    )
    net = build(plan, job.schema, net_class)
    connect(net)
    data = EncodedData(rows, job.schema)
    result = optimise(plan, data, net, None, checkpoints)
    return replace(result, settings=job.plan.settings, n_rows=job.n_rows)
