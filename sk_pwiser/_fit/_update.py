"""`partial_fit`: one pass over rows that are added to those of earlier fits."""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from sk_pwiser._columns._column_warnings import warn_about_few_values
from sk_pwiser._columns._encoder import learn_constant_columns
from sk_pwiser._columns._number import FEW_VALUES
from sk_pwiser._fit._encode import encode_rows
from sk_pwiser._fit._first_pass import learn
from sk_pwiser._fit._learn_columns import (
    EncodedTable,
    NewColumns,
    n_reserved,
    refuse_time_as_feature,
)
from sk_pwiser._fit._plan import Plan
from sk_pwiser._fit._time_column import take_time_column
from sk_pwiser._fit._train import draw_global_seed, kept_epoch, random_numbers
from sk_pwiser._rows._checked_rows import CheckedRows, GivenRows
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._hold_out import NothingHeldOut
from sk_pwiser._rows._table_rows import TableRows, read_table
from sk_pwiser._rows._table_store import TableStore
from sk_pwiser._rows._task_weights import check_task_weights
from sk_pwiser._settings import Settings, shared_param
from sk_pwiser._training._build_net import NetForm, build_net
from sk_pwiser._training._callbacks import FitTask
from sk_pwiser._training._checked_components import (
    Components,
    batch_sampler,
    check_components,
)
from sk_pwiser._training._continue import check_same_model, continue_from
from sk_pwiser._training._device import find_device
from sk_pwiser._training._early_stopping import check_unmonitored
from sk_pwiser._training._encoded_data import SINGLE_PASS, EncodedData
from sk_pwiser._training._grown_tables import check_own_tables, grow_tables
from sk_pwiser._training._growth import (
    Growth,
    add_vectors_to_schema,
    changed_vectors,
    grow_schema,
)
from sk_pwiser._training._lazy_tables import LazyAdam
from sk_pwiser._training._level import follow_update
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._pwiser_weight import WEIGHT, default_weight
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._schema import Schema, task_labels, unfitted_statistics
from sk_pwiser._training._undo import Undo, log_net
from sk_pwiser._training._value_level import follow_rows
from sk_pwiser._utils._equality import equal
from sk_pwiser._utils._random import LARGEST_SEED, Generators, seeded_globally
from sk_pwiser._utils._threads import limited_threads
from sk_pwiser._utils._warnings import warn_user

# Earlier rows with and without the event from which on their level is trusted.
TRUSTED_EVENTS = 100


def update(
    settings: Settings,
    given: GivenRows,
    *,
    earlier: TrainingResult | None,
    classes: Any,
    undo: Undo,
    task: FitTask | None = None,
    estimator_name: str,
) -> TrainingResult:
    """Train on the rows of a table once: for the first time, or after an earlier fit.

    It logs in `undo`, also if it fails, the changes that it makes in place to the net
    of `earlier`; `take_back` undoes them.
    """
    settings = take_time_column(settings, given.X, warns=False)
    if earlier is None:
        return first_update(
            settings, given, classes=classes, task=task, estimator_name=estimator_name
        )
    check_same_model(settings, earlier.settings)
    rows = read_table(
        settings,
        given,
        earlier.schema.targets,
        classes,
        may_lack_class=True,
        weight_scale=earlier.weight_scale,
        scales_counts=earlier.scales_counts,
    )
    if is_in_place(settings, rows, earlier):
        return update_in_place(settings, rows, earlier, undo=undo, task=task)
    return update_new_net(settings, rows, earlier, undo=undo, task=task)


def first_update(
    settings: Settings,
    given: GivenRows,
    *,
    classes: Any,
    task: FitTask | None,
    estimator_name: str,
) -> TrainingResult:
    """Learn the columns of the first rows of a stream, and train on them once."""
    rows = read_table(settings, given, None, classes, may_lack_class=True)
    plan = check_update(settings, rows)
    columns = ColumnsOfStream(settings, estimator_name)
    first_pass = learn(plan, rows, columns)
    warn_about_labels_of_update(settings, rows, plan.components)
    encoded = encode_rows(
        plan,
        rows,
        first_pass,
        earlier_statistics=None,
        held_out=NothingHeldOut(),
        # So few rows do not tell how many values later rows will have.
        measures_new_values=False,
    )
    data = EncodedData(
        train=encoded.train,
        schema=encoded.schema,
        epochs=SINGLE_PASS,
        weight_scale=float(rows.summary.weights.mean),
        rows_per_weight=rows.summary.rows_per_weight,
        rows_per_row=rows.summary.rows_per_row(),
        base_rates=rows.summary.base_rates().tolist(),
    )
    rows.release()
    net = build_for_updates(plan, data, data.schema)
    begin(task)
    generators = Generators(int(plan.random_state.randint(LARGEST_SEED)))
    global_seed = draw_global_seed(generators)
    try:
        train_once(
            net,
            data,
            generators=generators,
            global_seed=global_seed,
            device=plan.device,
        )
    finally:
        close_logs(net)
    result = result_of_update(settings, data, net, generators)
    return end(task, result)


class ColumnsOfStream(NewColumns):
    """All columns are learnt, from the first rows of a stream."""

    def encode_table(
        self, rows: CheckedRows, weights: np.ndarray | None, reserves_rates: bool
    ) -> EncodedTable:
        """Learn the columns of the first rows, and encode these at once."""
        learnt = self.encoder.fit(rows.X, weights)
        # A stream cannot choose the size of its first part.
        statistics = unfitted_statistics(
            self.settings, self.encoder, rows.targets.values.shape, in_stream=True
        )
        arrays = self.encoder.stack(learnt, n_reserved(statistics, reserves_rates))
        columns_with_rates = []
        if statistics is not None and len(rows) < FEW_VALUES:
            columns_with_rates = statistics.column_names(self.encoder)
        warn_about_few_values(self.encoder.columns_, columns_with_rates)
        return EncodedTable(self.encoder, statistics, arrays, rows)


def check_update(settings: Settings, rows: TableRows) -> Plan:
    """Check all parameters and rows of an update that builds a net."""
    device = find_device(settings.device)
    random_state = check_random_state(settings.random_state)
    first_random_state = random_state.get_state(legacy=False)
    components = check_components(
        settings,
        rows.tasks.task_names,
        device,
        has_groups=rows.has_groups,
        random_state=random_state,
    )
    if rows.has_task_weights:
        check_task_weights(components.loss)
    check_unmonitored(settings.callbacks)
    return Plan(
        settings=settings,
        device=device,
        components=components,
        random_state=random_state,
        first_random_state=first_random_state,
        split_state=first_random_state,
        by_time=settings.encoding_params["time_column"] is not None,
    )


def is_in_place(settings: Settings, rows: TableRows, earlier: TrainingResult) -> bool:
    """Return whether an update only changes the weights of the earlier net."""
    if not (earlier.single_pass and equal(vars(settings), vars(earlier.settings))):
        return False
    net = earlier.net
    sampler = batch_sampler(settings, net.criterion_.loss, rows.has_groups)
    return bool(net.iterator_train__sampler == sampler)


def update_in_place(
    settings: Settings,
    rows: TableRows,
    earlier: TrainingResult,
    *,
    undo: Undo,
    task: FitTask | None,
) -> TrainingResult:
    """Train the net of an earlier update further, with the same parameters."""
    net = earlier.net
    device = find_device(settings.device)
    if rows.has_task_weights:
        check_task_weights(net.criterion_.loss)
    check_unmonitored(settings.callbacks)
    encoded = encode_further(settings, rows, earlier.schema)
    warn_about_labels_of_update(settings, rows, None)
    data = encoded.data(rows)
    begin(task)
    generators = deepcopy(earlier.generators)
    global_seed = draw_global_seed(deepcopy(generators))
    try:
        n_codes = sum(net.module_.spec.cardinalities)
        if encoded.growth is not None:
            grow_tables(net, data.schema, encoded.growth, undo)
        log_net(net, undo)
        # Earlier updates may have learnt statistics that were constant.
        net.module_.input_layer.set_unseen_inputs(
            data.schema.unseen_inputs(), data.schema.unseen_sources()
        )
        train_once(
            net,
            data,
            generators=generators,
            global_seed=global_seed,
            device=device,
            n_codes_before=None if encoded.growth is None else n_codes,
        )
        encoded.add_to_statistics(undo)
    finally:
        close_logs(net)
    result = result_of_update(settings, data, net, generators)
    return end(task, continued(result, earlier))


def update_new_net(
    settings: Settings,
    rows: TableRows,
    earlier: TrainingResult,
    *,
    undo: Undo,
    task: FitTask | None,
) -> TrainingResult:
    """Train a new net with the weights of an earlier fit, or with other parameters."""
    plan = check_update(settings, rows)
    # The earlier net stays usable, and so do its statistics.
    schema = earlier.schema
    if tables := changed_vectors(settings, earlier.settings):
        schema = add_vectors_to_schema(schema, tables)
    encoded = encode_further(settings, rows, schema, copies_statistics=True)
    warn_about_labels_of_update(settings, rows, plan.components)
    data = encoded.data(rows)
    # New rows of the embedding tables are added to the weights of the earlier fit.
    schema = data.schema if encoded.growth is None else earlier.schema
    net = build_for_updates(plan, data, schema)
    continue_from(net, earlier.net)
    begin(task)
    generators = deepcopy(earlier.generators)
    global_seed = draw_global_seed(deepcopy(generators))
    try:
        n_codes = sum(net.module_.spec.cardinalities)
        if encoded.growth is not None:
            grow_tables(net, data.schema, encoded.growth, undo)
        train_once(
            net,
            data,
            generators=generators,
            global_seed=global_seed,
            device=plan.device,
            n_codes_before=None if encoded.growth is None else n_codes,
        )
        encoded.add_to_statistics(undo)
    finally:
        close_logs(net)
    result = result_of_update(settings, data, net, generators)
    return end(task, continued(result, earlier))


@dataclass(frozen=True, kw_only=True)
class LabelledCodes:
    """The codes of rows, of which rare values are not left out, with their labels."""

    codes: np.ndarray
    labels: np.ndarray
    weights: np.ndarray  # of the labels
    lists: list[Any]  # elements of lists with target statistics


@dataclass(frozen=True, kw_only=True)
class FurtherRows:
    """Rows that are encoded by the statistics of the rows before them."""

    schema: Schema
    train: Impressions
    growth: Growth | None  # of the tables of the earlier net
    # What the rows add to the statistics, in which they are not yet, if there are any.
    labelled_codes: LabelledCodes | None

    def data(self, rows: TableRows) -> EncodedData:
        """Return what training reads, and release the table."""
        data = EncodedData(
            train=self.train,
            schema=self.schema,
            epochs=SINGLE_PASS,
            weight_scale=float(rows.summary.weights.mean),
            rows_per_weight=rows.summary.rows_per_weight,
            rows_per_row=rows.summary.rows_per_row(),
            base_rates=self.schema.base_rates.tolist(),
        )
        rows.release()
        return data

    def add_to_statistics(self, undo: Undo) -> None:
        """Add the rows to the target statistics, if there are any."""
        added = self.labelled_codes
        if self.schema.statistics is not None and added is not None:
            self.schema.statistics.update(
                added.codes, added.labels, added.weights, undo, added.lists
            )


def encode_further(
    settings: Settings,
    rows: TableRows,
    schema: Schema,
    *,
    copies_statistics: bool = False,
) -> FurtherRows:
    """Encode rows by the columns and the statistics of the rows before them."""
    refuse_time_as_feature(settings, schema)
    grows = settings.encoding_params["grow_vocabulary"]
    growth = None
    (table,) = rows.parts("Learning the columns")
    if grows:
        schema, growth = grow_schema(schema, table.X)
    if copies_statistics:
        schema = replace(schema, statistics=deepcopy(schema.statistics))
    summary = rows.summary
    earlier_columns = schema.encoder.columns_
    table = replace(table, X=schema.encoder.align(table.X))
    encoder = learn_constant_columns(schema.encoder, table.X, summary.of_rows)
    n_rates = n_reserved(schema.statistics, True)
    arrays = encoder.transform(table.X, n_rates, names_new=not grows)
    known_columns = set(map(id, earlier_columns))
    new_columns = [c for c in encoder.columns_ if id(c) not in known_columns]
    warn_about_few_values(new_columns, [])
    schema = replace(schema, encoder=encoder)
    encoded = Impressions.of(*arrays).shown(encoder.exposure_codes(table.X))
    labelled_codes = None
    if schema.statistics is not None:
        labels, weights = task_labels(settings, table.targets, summary.scaled)
        if summary.rows_per_weight is not None:
            # How far rates deviate by chance depends on the number of rows.
            weights = weights * summary.rows_per_weight
        labelled_codes = LabelledCodes(
            codes=arrays[0].copy(),
            labels=labels,
            weights=weights,
            lists=schema.elements(encoded.bags),
        )
    store = TableStore()
    labelled = encoded.labelled(
        table.targets.values, summary.scaled, table.groups, table.targets.amounts
    )
    store.add(labelled, np.zeros(len(table), dtype=bool), None)
    train, _ = store.finish(schema, None, False)
    return FurtherRows(
        schema=schema,
        train=train,
        growth=growth,
        labelled_codes=labelled_codes,
    )


def warn_about_labels_of_update(
    settings: Settings, rows: TableRows, components: Components | None
) -> None:
    """Warn about labels; tasks may be constant in a few rows."""
    summary = rows.summary
    if summary.per_task and components is not None:
        check_task_weights(components.loss)
    targets, weights = summary.labels()
    for message in targets.problems(
        constant_tasks=False,
        task_space=shared_param(settings, "task_space"),
        weights=weights if summary.per_task else None,
    ):
        warn_user(message)


def build_for_updates(plan: Plan, data: EncodedData, schema: Schema) -> MultiTaskNet:
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


def begin(task: FitTask | None) -> None:
    """Tell scikit-learn's callbacks that an update begins, which has no epochs."""
    if task is not None:
        task.begin(0)


def end(task: FitTask | None, result: TrainingResult) -> TrainingResult:
    """Tell scikit-learn's callbacks that an update has ended."""
    if task is not None:
        task.end(lambda: result)
    return result


def train_once(
    net: MultiTaskNet,
    data: EncodedData,
    *,
    generators: Generators,
    global_seed: int,
    device: torch.device,
    n_codes_before: int | None = None,
) -> None:
    """Pass over the rows of an update once.

    `n_codes_before` is the number of codes before tables have grown, if they have.
    """
    net.use_decay_of_updates(data.n_counted)
    threads = limited_threads(net.n_products)
    with random_numbers(net, generators, global_seed, device), threads:
        # An update in place keeps the device of the net.
        rows = data.to(torch.device(net.device))
        if n_codes_before is not None:
            check_own_tables(net, rows.train, n_codes_before)
        if net.settings.lr_schedule is not None:
            learn_rates(net, rows)
        net.partial_fit(rows, None)
        if net.criterion_.value_terms is not None:
            follow_rows(net, rows.train)


def learn_rates(net: MultiTaskNet, data: EncodedData) -> None:
    """Count the events of an update; what a small first call told is learnt again."""
    criterion = net.criterion_
    rows = data.train
    n_earlier_events = torch.minimum(
        criterion.n_events, criterion.n_rows - criterion.n_events
    )
    is_first = criterion.n_rows == 0
    criterion.count_rows(
        rows.column("y"), rows.column("sample_weight"), data.rows_per_weight
    )
    is_untrusted = n_earlier_events < TRUSTED_EVENTS
    if not is_first:
        net.module_.set_base_rates(criterion.rates_so_far())
    if not is_first and bool(is_untrusted.any()):
        # The steps of updates are short: without a single event in the first call,
        # probabilities would stay a hundred times too low for thousands of rows.
        follow_update(net, rows, n_earlier_events.where(is_untrusted, torch.inf))
    loss = criterion.loss
    if net.settings.pwiser_weight is not None:
        return
    # A user's loss may keep its weight under another name: that of the first call.
    if WEIGHT in loss.estimator_parameters and hasattr(loss, WEIGHT):
        _, largest_rates = criterion.possible_rates().tolist()
        ranked_rates = [largest_rates[head] for head in loss.heads]
        loss.pwiser_weight = default_weight(ranked_rates)


def close_logs(net: MultiTaskNet) -> None:
    """Let the optimiser log no more rows."""
    if isinstance(net.optimizer_, LazyAdam):
        net.optimizer_.logs = None


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


def continued(result: TrainingResult, earlier: TrainingResult) -> TrainingResult:
    """Keep the split of earlier validation rows, and the scale of the first weights."""
    return replace(
        result,
        split_state=earlier.split_state,
        split_rows=earlier.split_rows,
        weight_scale=earlier.weight_scale,
        scales_counts=earlier.scales_counts,
    )
