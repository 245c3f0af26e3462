"""`partial_fit`: one pass over rows that are added to those of earlier fits."""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch

from sk_pwiser._columns._frames import is_dataframe
from sk_pwiser._fit._encode import encode_rows, warn_about_labels
from sk_pwiser._fit._first_pass import learn
from sk_pwiser._fit._fit_plan import FitPlan, check_update
from sk_pwiser._fit._further_rows import FurtherRows, encode_further
from sk_pwiser._fit._learn_columns import ColumnsOfStream
from sk_pwiser._fit._time_column import take_time_column
from sk_pwiser._fit._train import draw_global_seed, kept_epoch
from sk_pwiser._fit._train_once import close_logs, train_once
from sk_pwiser._rows._checked_rows import GivenRows
from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._rows._hold_out import NothingHeldOut
from sk_pwiser._rows._table_rows import TableRows, read_table
from sk_pwiser._rows._task_weights import check_task_weights
from sk_pwiser._settings import Settings
from sk_pwiser._times import row_times
from sk_pwiser._training._build_net import NetForm, build_net
from sk_pwiser._training._callbacks import FitTask
from sk_pwiser._training._checked_components import batch_sampler
from sk_pwiser._training._continue import check_same_model, continue_from
from sk_pwiser._training._device import find_device
from sk_pwiser._training._early_stopping import check_unmonitored
from sk_pwiser._training._encoded_data import SINGLE_PASS, EncodedData
from sk_pwiser._training._growth import add_vectors_to_schema, changed_vectors
from sk_pwiser._training._levels._clock import TimeSpan
from sk_pwiser._training._levels._levels import Levels
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._schema import Schema
from sk_pwiser._training._undo import Undo, log_net
from sk_pwiser._utils._equality import equal
from sk_pwiser._utils._random import LARGEST_SEED, Generators, seeded_globally


def update(
    settings: Settings,
    given_rows: GivenRows,
    *,
    earlier_fit: TrainingResult | None,
    classes: Any,
    undo: Undo,
    task: FitTask | None = None,
    estimator_name: str,
) -> TrainingResult:
    """Train on the rows of a table once: for the first time, or after an earlier fit.

    It logs in `undo`, also if it fails, the changes that it makes in place to the net
    of `earlier_fit`; `take_back` undoes them.
    """
    earlier_settings = None if earlier_fit is None else earlier_fit.settings
    settings = take_time_column(
        settings, given_rows.X, earlier=earlier_settings, warns=False
    )
    if earlier_fit is None:
        start = start_first(settings, given_rows, classes, estimator_name)
    else:
        start = start_further(settings, given_rows, classes, earlier_fit)
    return train_update(settings, start, earlier_fit, undo=undo, task=task)


@dataclass(frozen=True, kw_only=True)
class UpdateStart:
    """The net that an update trains, the rows, and the random numbers."""

    net: MultiTaskNet
    data: EncodedData
    device: torch.device
    generators: Generators
    global_seed: int
    # The rows as the columns of earlier rows encode them; None in a first update.
    further_rows: FurtherRows | None = None
    is_in_place: bool = False  # whether the net is that of the earlier fit


def start_first(
    settings: Settings, given_rows: GivenRows, classes: Any, estimator_name: str
) -> UpdateStart:
    """Learn the columns of the first rows of a stream, and build a net."""
    rows = read_table(settings, given_rows, None, classes, may_lack_class=True)
    plan = check_update(settings, rows)
    columns = ColumnsOfStream(settings, estimator_name)
    first_pass = learn(plan, rows, columns)
    warn_about_labels(settings, rows.summary, constant_tasks=False)
    encoded = encode_rows(
        plan,
        rows,
        first_pass,
        earlier_statistics=None,
        held_out=NothingHeldOut(),
        # So few rows do not tell how many values later rows will have.
        measures_new_values=False,
    )
    data = data_of_update(settings, rows, encoded.schema, encoded.train)
    net = build_for_updates(plan, data, data.schema)
    generators = Generators(int(plan.random_state.randint(LARGEST_SEED)))
    return UpdateStart(
        net=net,
        data=data,
        device=plan.device,
        generators=generators,
        global_seed=draw_global_seed(generators),
    )


def start_further(
    settings: Settings,
    given_rows: GivenRows,
    classes: Any,
    earlier_fit: TrainingResult,
) -> UpdateStart:
    """Encode rows by the columns of an earlier fit, and continue with its net."""
    check_same_model(settings, earlier_fit.settings)
    rows = read_table(
        settings,
        given_rows,
        earlier_fit.schema.targets,
        classes,
        may_lack_class=True,
        weight_scale=earlier_fit.weight_scale,
        scales_counts=earlier_fit.scales_counts,
    )
    if is_in_place(settings, rows, earlier_fit):
        return start_in_place(settings, rows, earlier_fit)
    return start_new_net(settings, rows, earlier_fit)


def is_in_place(
    settings: Settings, rows: TableRows, earlier_fit: TrainingResult
) -> bool:
    """Return whether an update only changes the weights of the earlier net."""
    if not (
        earlier_fit.single_pass and equal(vars(settings), vars(earlier_fit.settings))
    ):
        return False
    net = earlier_fit.net
    sampler = batch_sampler(settings, net.criterion_.loss, rows.has_groups)
    return bool(net.iterator_train__sampler == sampler)


def start_in_place(
    settings: Settings, rows: TableRows, earlier_fit: TrainingResult
) -> UpdateStart:
    """Take the net of an earlier update, which has the same parameters."""
    net = earlier_fit.net
    device = find_device(settings.device)
    if rows.has_task_weights:
        check_task_weights(net.criterion_.loss)
    check_unmonitored(settings.callbacks)
    further_rows = encode_further(settings, rows, earlier_fit.schema)
    warn_about_labels(settings, rows.summary, constant_tasks=False)
    generators = deepcopy(earlier_fit.generators)
    return UpdateStart(
        net=net,
        data=data_of_update(settings, rows, further_rows.schema, further_rows.train),
        device=device,
        generators=generators,
        global_seed=draw_global_seed(deepcopy(generators)),
        further_rows=further_rows,
        is_in_place=True,
    )


def start_new_net(
    settings: Settings, rows: TableRows, earlier_fit: TrainingResult
) -> UpdateStart:
    """Build a net with the weights of an earlier fit, or with other parameters."""
    plan = check_update(settings, rows)
    # The earlier net stays usable, and so do its statistics.
    schema = earlier_fit.schema
    if tables := changed_vectors(settings, earlier_fit.settings):
        schema = add_vectors_to_schema(schema, tables)
    further_rows = encode_further(settings, rows, schema, copies_statistics=True)
    warn_about_labels(settings, rows.summary, constant_tasks=False)
    data = data_of_update(settings, rows, further_rows.schema, further_rows.train)
    # New rows of the embedding tables are added to the weights of the earlier fit.
    schema = data.schema if further_rows.growth is None else earlier_fit.schema
    net = build_for_updates(plan, data, schema)
    continue_from(net, earlier_fit.net)
    generators = deepcopy(earlier_fit.generators)
    return UpdateStart(
        net=net,
        data=data,
        device=plan.device,
        generators=generators,
        global_seed=draw_global_seed(deepcopy(generators)),
        further_rows=further_rows,
    )


def train_update(
    settings: Settings,
    start: UpdateStart,
    earlier_fit: TrainingResult | None,
    *,
    undo: Undo,
    task: FitTask | None,
) -> TrainingResult:
    """Pass over the rows of an update once, and add them to what is known."""
    # scikit-learn's callbacks see an update, which has no epochs.
    if task is not None:
        task.begin(0)
    net = start.net
    further_rows = start.further_rows
    earlier_sizes = None
    try:
        if further_rows is not None:
            earlier_sizes = further_rows.grow_tables(net, undo)
        if start.is_in_place:
            log_net(net, undo)
            # Earlier updates may have learnt statistics that were constant.
            schema = start.data.schema
            net.module_.input_layer.set_unseen_inputs(
                schema.unseen_inputs(), schema.unseen_sources()
            )
        levels_before = train_once(
            net,
            start.data,
            generators=start.generators,
            global_seed=start.global_seed,
            device=start.device,
            earlier_sizes=earlier_sizes,
        )
        if further_rows is not None:
            further_rows.add_to_statistics(undo)
            if levels_before.mean_amounts is not None:
                rows = further_rows.as_predicted(start.device)
                Levels(net).keep_amounts(rows, levels_before)
    finally:
        close_logs(net)
    result = result_of_update(settings, start.data, net, start.generators)
    if earlier_fit is not None:
        result = continued(result, earlier_fit)
    if task is not None:
        task.end(lambda: result)
    return result


def data_of_update(
    settings: Settings, rows: TableRows, schema: Schema, train: TrainingRows
) -> EncodedData:
    """Return what the training of an update reads, and release its table."""
    summary = rows.summary
    times = times_of_update(settings, rows, schema)
    data = EncodedData(
        train=train,
        schema=schema,
        epochs=SINGLE_PASS,
        weight_scale=float(summary.weights.mean),
        rows_per_weight=summary.rows_per_weight,
        rows_per_row=summary.rows_per_row(),
        base_rates=schema.base_rates.tolist(),
        times=times,
    )
    rows.release()
    return data


def times_of_update(
    settings: Settings, rows: TableRows, schema: Schema
) -> TimeSpan | None:
    """Return the first and the last time of the rows, if a column has their times.

    Updates need none: without them, time passes by rows.
    """
    time_column = settings.encoding_params["time_column"]
    if time_column is None:
        return None
    (table,) = rows.parts("Reading the times")
    X = schema.encoder.align(table.X)
    if is_dataframe(X) and time_column not in list(X.columns):
        return None
    times = row_times(X, time_column)
    return TimeSpan(float(times.min()), float(times.max()))


def build_for_updates(plan: FitPlan, data: EncodedData, schema: Schema) -> MultiTaskNet:
    """Build a net that updates train."""
    seed = plan.random_state.randint(LARGEST_SEED)
    with seeded_globally(seed, plan.device):
        return build_net(
            plan.settings,
            plan.components,
            schema,
            plan.device,
            form=NetForm.for_update(plan.settings),
            epochs=SINGLE_PASS,
            n_rows=data.n_counted,
            base_rates=data.base_rates,
        )


def result_of_update(
    settings: Settings, data: EncodedData, net: MultiTaskNet, generators: Generators
) -> TrainingResult:
    """Return what an update has learnt; it holds out no rows."""
    return TrainingResult(
        net=net,
        schema=data.schema,
        generators=generators,
        settings=settings,
        single_pass=True,
        best_epoch=kept_epoch(net),
        n_rows=(len(data.train), 0),
        weight_scale=data.weight_scale,
        scales_counts=data.rows_per_weight is not None,
        used_all=True,
    )


def continued(result: TrainingResult, earlier_fit: TrainingResult) -> TrainingResult:
    """Keep the split of earlier validation rows, and the scale of the first weights."""
    return replace(
        result,
        split_state=earlier_fit.split_state,
        split_rows=earlier_fit.split_rows,
        weight_scale=earlier_fit.weight_scale,
        scales_counts=earlier_fit.scales_counts,
    )
