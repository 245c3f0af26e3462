"""A fit of two stages: the second one trains on all rows, for the length found."""

import warnings
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch

from sk_pwiser._fit._encode import encode, random_state_at
from sk_pwiser._fit._fit import (
    Origin,
    Plan,
    Source,
    build,
    check,
    find_origin,
    read,
    train,
)
from sk_pwiser._fit._time_column import take_time_column
from sk_pwiser._rows._checked_rows import GivenRows
from sk_pwiser._settings import Settings
from sk_pwiser._training import _rises
from sk_pwiser._training._callbacks import (
    FitTask,
    KeepOnInterrupt,
    StageTask,
    with_kinds,
)
from sk_pwiser._training._checked_components import check_components
from sk_pwiser._training._early_stopping import (
    BestEpochStopping,
    FirstStage,
    check_unmonitored,
)
from sk_pwiser._training._epoch_history import EpochHistory
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._state import TrainingResult
from sk_pwiser._utils._warnings import warn_user


def refuse_refit(settings: Settings, call: str) -> None:
    """Raise for a training that has no second stage."""
    if settings.refit:
        raise ValueError(
            f"refit must be False for {call}, which has no second stage on all rows. "
            "Early stopping finds best_epoch_; with early_stopping=False and as many "
            "max_epochs, a further call trains on all rows."
        )


def fit_twice(
    settings: Settings,
    given: GivenRows,
    eval_set: Any = None,
    *,
    earlier: TrainingResult | None = None,
    task: FitTask | None = None,
    estimator_name: str,
) -> TrainingResult:
    """Train with early stopping, and then on all rows for the length that it found.

    The second stage is a fit of its own, with a new network. It is left out if the
    first one has held out no rows, or was ended by an interrupt or a callback.
    """
    check_refit(settings, eval_set, earlier)
    settings = take_time_column(settings, given.X)
    origin = find_origin(settings, given.X, None, is_update=False)
    with ExitStack() as stack:
        rows = read(settings, given, origin, None, stack)
        plan = check(settings, rows, origin=origin)
        if task is not None:
            task.begin(None)
        result: TrainingResult | None = None
        history = None  # that of the checkpoint, if there is one of the second stage
        first_stage = None if origin.saved is None else origin.saved.start.first_stage
        if first_stage is None:
            result = train_first(plan, rows.again(), task, estimator_name)
            first_stage = find_length(result)
            history = result.net.history
        if first_stage is not None:
            kept = result if keeps_on_interrupt(settings) else None
            result = None  # frees the memory of its network
            n_earlier = origin.n_earlier if history is None else len(history)
            plan = second_plan(plan, rows, first_stage, n_earlier)
            if kept is None:
                result = train_second(plan, rows, history, task, estimator_name)
            else:
                result = train_second_or_keep(plan, rows, kept, task, estimator_name)
        if task is not None:
            task.end(lambda: result)
        assert result is not None
        return result


def check_refit(
    settings: Settings, eval_set: Any, earlier: TrainingResult | None
) -> None:
    """Raise if there are no rows that a second stage would add."""
    if not settings.early_stopping:
        raise ValueError(
            "refit=True trains again for the length that early stopping has found; "
            f"early_stopping must not be {settings.early_stopping!r}."
        )
    if eval_set is not None:
        raise ValueError(
            "refit=True trains again on rows that fit has held out itself; with an "
            "eval_set, or X_val, it holds out none. Pass these rows as a part of X, "
            "with a time_column if they are later ones, or set refit=False."
        )
    if earlier is not None:
        raise ValueError(
            "refit=True trains a new network on all rows, and continues no earlier "
            "fit. Set warm_start=False, or refit=False."
        )
    reason = "the second stage of refit=True has no validation rows. Set refit=False."
    check_unmonitored(settings.callbacks, reason)


def train_first(
    plan: Plan, rows: Source, task: FitTask | None, estimator_name: str
) -> TrainingResult:
    """Train with early stopping."""
    data = encode(plan, rows, estimator_name)
    net = build(plan, data)
    result = train(plan, data, net, task=None if task is None else StageTask(task))
    for epoch in net.history:
        epoch["stage"] = 1
    return result


def find_length(result: TrainingResult) -> FirstStage | None:
    """Return what the first stage has found, or None if no second one follows."""
    net, stopping = result.net, result.net.stopping
    if stopping is None or result.used_all or net.is_interrupted_:
        return None
    if not has_ended(net, stopping):
        return None
    offset = net.module_.level_offset
    return FirstStage.of(
        stopping,
        result.best_epoch,
        stop_reason=str(result.stop_reason),
        level=None if offset is None else offset.tolist(),
    )


def has_ended(net: MultiTaskNet, stopping: BestEpochStopping) -> bool:
    """Return whether a training with early stopping was ended by no callback."""
    n_epochs = net.n_complete_
    has_decayed = stopping.n_decay and n_epochs >= stopping.n_held + stopping.n_decay
    has_stopped = stopping.misses_ == stopping.patience
    return bool(has_stopped or has_decayed or n_epochs == net.max_epochs)


def second_plan(
    plan: Plan, rows: Source, first_stage: FirstStage, n_earlier: int
) -> Plan:
    """Return the plan of the second stage, with new components.

    It draws the same random numbers as a fit without early stopping.
    """
    random_state = random_state_at(plan.first_random_state)
    origin = plan.origin
    if origin.saved is None or origin.saved.start.first_stage is None:
        origin = Origin(n_earlier=n_earlier)
    components = check_components(
        plan.settings,
        rows.tasks.task_names,
        plan.device,
        rows.has_groups,
        random_state,
    )
    return replace(
        plan,
        origin=origin,
        components=components,
        random_state=random_state,
        split_state=plan.first_random_state,
        first_stage=first_stage,
    )


def keeps_on_interrupt(settings: Settings) -> bool:
    """Return whether an interrupt shall keep what was trained so far."""
    kinds = with_kinds(settings.callbacks)
    return any(issubclass(kind, KeepOnInterrupt) for _, kind in kinds)


def train_second_or_keep(
    plan: Plan,
    rows: Source,
    first: TrainingResult,
    task: FitTask | None,
    estimator_name: str,
) -> TrainingResult:
    """Run the second stage; an interrupt keeps the first one.

    This is complete, and better than some epochs of the second one.
    """
    settings = plan.settings
    pairs = zip(settings.callbacks, with_kinds(settings.callbacks), strict=True)
    others = [
        each for each, (_, kind) in pairs if not issubclass(kind, KeepOnInterrupt)
    ]
    plan = replace(plan, settings=replace(settings, callbacks=others))
    try:
        result = train_second(plan, rows, first.net.history, task, estimator_name)
    except KeyboardInterrupt:
        warn_user(
            "Training was interrupted. callbacks holds KeepOnInterrupt: the first "
            "stage of refit=True is kept, without the rows that it has held out, and "
            "fit returns."
        )
        return first
    return replace(result, settings=settings)


def train_second(
    plan: Plan,
    rows: Source,
    history: EpochHistory | None,
    task: FitTask | None,
    estimator_name: str,
) -> TrainingResult:
    """Train on all rows, and set the level of later rows."""
    first_stage: Any = plan.first_stage
    n_earlier = plan.origin.n_earlier
    if plan.settings.verbose:
        print(f"Training on all rows, for {first_stage.n_epochs} epochs.")
    with warnings.catch_warnings():
        # The first stage has issued those about the rows.
        warnings.simplefilter("ignore", UserWarning)
        data = encode(plan, rows, estimator_name)
    net = build(plan, data)
    if history is not None:
        net.history = deepcopy(history)
    result = train(plan, data, net, task=None if task is None else StageTask(task))
    for epoch in net.history[n_earlier:]:
        epoch["stage"] = 2
    if first_stage.level is not None:
        # No row is left that would tell the level of later ones, but the first stage
        # has measured how far it is from the level of the rows before.
        net.module_.shift_level(torch.tensor(first_stage.level))
    n_epochs = len(net.history) - n_earlier
    rises = _rises.find_rises(net, data.train, n_epochs, data.unrelated)
    reason = (
        f"{first_stage.stop_reason} Then a new network was trained on all rows. "
        f"{result.stop_reason}"
    )
    return replace(result, rises=rises, stop_reason=reason)
