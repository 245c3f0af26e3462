"""`warm_start`: training that continues an earlier fit, or resumes a checkpoint."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from sk_pwiser._columns._frames import reads_in_parts
from sk_pwiser._fit._encode import encode
from sk_pwiser._fit._fit import build, fit, read
from sk_pwiser._fit._fit_plan import FitPlan, check
from sk_pwiser._fit._learn_columns import EarlierColumns
from sk_pwiser._fit._time_column import take_time_column
from sk_pwiser._fit._train import start_of, train, train_further
from sk_pwiser._fit._validation_rows import warn_about_trained
from sk_pwiser._rows._checked_rows import GivenRows
from sk_pwiser._rows._hold_out import random_state_at
from sk_pwiser._rows._protocol import Rows
from sk_pwiser._settings import Settings
from sk_pwiser._training._callbacks import FitTask
from sk_pwiser._training._checkpoints import Checkpoint, Checkpoints, find_checkpoint
from sk_pwiser._training._continue import check_same_model, continue_from
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._growth import add_vectors_to_schema, changed_vectors
from sk_pwiser._training._result import TrainingResult


def fit_further(
    settings: Settings,
    given_rows: GivenRows,
    eval_set: Any = None,
    *,
    earlier_fit: TrainingResult | None = None,
    task: FitTask | None = None,
    estimator_name: str,
) -> TrainingResult:
    """Continue an earlier fit or, without one, a checkpoint; without either, fit."""
    earlier_settings = None if earlier_fit is None else earlier_fit.settings
    settings = take_time_column(settings, given_rows.X, earlier=earlier_settings)
    if earlier_fit is not None:
        return continue_fit(
            settings, given_rows, eval_set, earlier_fit=earlier_fit, task=task
        )
    saved = saved_training(settings, given_rows.X)
    if saved is not None:
        return resume_fit(settings, given_rows, eval_set, saved=saved, task=task)
    return fit(settings, given_rows, eval_set, task=task, estimator_name=estimator_name)


def continue_fit(
    settings: Settings,
    given_rows: GivenRows,
    eval_set: Any,
    *,
    earlier_fit: TrainingResult,
    task: FitTask | None,
) -> TrainingResult:
    """Train the network of an earlier fit further, with the columns of that fit."""
    check_same_model(settings, earlier_fit.settings)
    schema = earlier_fit.schema
    if tables := changed_vectors(settings, earlier_fit.settings):
        schema = add_vectors_to_schema(schema, tables)
    with ExitStack() as stack:
        rows = read(settings, given_rows, stack, schema.targets)
        plan = check(settings, rows, eval_set, schema=schema)
        plan = replace(
            plan,
            split_state=earlier_fit.split_state or plan.split_state,
            earlier_split=earlier_fit.split_rows,
            n_earlier=len(earlier_fit.net.history),
        )
        data = encode(plan, rows, EarlierColumns(settings, schema))
        if data.holds_out:
            warn_about_trained(earlier_fit, plan, data)
        net = build(plan, data)
        continue_from(net, earlier_fit.net)
        result = train_further(plan, data, net, earlier_fit, task=task)
        return replace(
            result,
            split_state=result.split_state or earlier_fit.split_state,
            split_rows=result.split_rows or earlier_fit.split_rows,
        )


def saved_training(settings: Settings, X: Any) -> Checkpoint | None:
    """Return the checkpoint from which a fit resumes, if there is one.

    Raises if it is one of a fit with other parameters.
    """
    folder = settings.checkpoint_dir
    if folder is None or not settings.warm_start or reads_in_parts(X):
        return None
    saved = find_checkpoint(Path(folder))
    if saved is not None:
        saved.check_settings(settings)
    return saved


def resume_fit(
    settings: Settings,
    given_rows: GivenRows,
    eval_set: Any,
    *,
    saved: Checkpoint,
    task: FitTask | None,
) -> TrainingResult:
    """Train from a checkpoint on, as if the training had not been interrupted."""
    with ExitStack() as stack:
        rows = read(settings, given_rows, stack, saved.start.schema.targets)
        plan = check_resumed(settings, rows, eval_set, saved)
        return train_resumed(plan, rows, saved, task)


def train_resumed(
    plan: FitPlan, rows: Rows, saved: Checkpoint, task: FitTask | None
) -> TrainingResult:
    """Encode rows by the schema of a checkpoint, and train from it on."""
    data = encode(plan, rows, EarlierColumns(plan.settings, saved.start.schema))
    net = build(plan, data)
    checkpoints = resumed_checkpoints(plan, data, saved)
    return train(plan, data, net, checkpoints=checkpoints, task=task)


def check_resumed(
    settings: Settings, rows: Rows, eval_set: Any, saved: Checkpoint
) -> FitPlan:
    """Check parameters and rows; the plan draws what the first one drew."""
    start = saved.start
    plan = check(
        settings,
        rows,
        eval_set,
        schema=start.schema,
        random_state=random_state_at(start.random_state),
    )
    return replace(
        plan,
        split_state=start.split_state or plan.split_state,
        earlier_split=start.split_rows,
        n_earlier=start.n_earlier,
    )


def resumed_checkpoints(
    plan: FitPlan, data: EncodedData, saved: Checkpoint
) -> Checkpoints:
    """Return the object that restores the training, and writes its checkpoints.

    Raises if the encoded rows are not those of the checkpoint.
    """
    start = start_of(plan, data)
    saved.check_data(start.digests)
    return Checkpoints(Path(plan.settings.checkpoint_dir), start, saved)
