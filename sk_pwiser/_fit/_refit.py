"""A fit of two stages: the second one trains on all rows, for the length found."""

import warnings
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from sk_pwiser._fit._encode import encode
from sk_pwiser._fit._fit import build, read
from sk_pwiser._fit._fit_plan import FitPlan, check
from sk_pwiser._fit._learn_columns import EarlierColumns, NewColumns
from sk_pwiser._fit._resume import (
    check_resumed,
    resumed_checkpoints,
    saved_training,
    train_resumed,
)
from sk_pwiser._fit._time_column import take_time_column
from sk_pwiser._fit._train import train
from sk_pwiser._fit._weight_trial import try_weight
from sk_pwiser._rows._checked_rows import GivenRows
from sk_pwiser._rows._hold_out import random_state_at
from sk_pwiser._rows._protocol import Rows
from sk_pwiser._settings import Settings
from sk_pwiser._training._callbacks import (
    FitTask,
    KeepOnInterrupt,
    StageTask,
    with_kinds,
)
from sk_pwiser._training._checked_components import check_components
from sk_pwiser._training._checkpoints import Checkpoint
from sk_pwiser._training._early_stopping import (
    BestEpochStopping,
    FirstStage,
    check_unmonitored,
)
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._epoch_history import EpochHistory
from sk_pwiser._training._levels._levels import Levels
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._pwiser_weight import WeightTrial
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._rises import find_rises
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
    given_rows: GivenRows,
    eval_set: Any = None,
    *,
    earlier_fit: TrainingResult | None = None,
    task: FitTask | None = None,
    estimator_name: str,
) -> TrainingResult:
    """Train with early stopping, and then on all rows for the length that it found.

    The second stage is a fit of its own, with a new network. It is left out if the
    first one has held out no rows, or was ended by an interrupt or a callback.
    """
    check_refit(settings, eval_set, earlier_fit)
    settings = take_time_column(settings, given_rows.X)
    saved = saved_training(settings, given_rows.X)
    with ExitStack() as stack:
        if saved is None:
            rows = read(settings, given_rows, stack)
            plan = check(settings, rows)
        else:
            rows = read(settings, given_rows, stack, saved.start.schema.targets)
            plan = check_resumed(settings, rows, None, saved)
        stages = Stages(estimator_name=estimator_name, task=task)
        stages.begin()
        if saved is not None and saved.start.first_stage is not None:
            return stages.end(resume_second(plan, rows, stages, saved))
        first = train_first(plan, rows.again(), stages, saved)
        first_stage = find_length(first)
        if first_stage is None:
            return stages.end(first)
        history = first.net.history
        plan = second_plan(plan, rows, first_stage, n_earlier=len(history))
        if keeps_on_interrupt(settings):
            return stages.end(train_second_or_keep(plan, rows, stages, first))
        weight_trial = first.schema.weight_trial
        del first  # frees the memory of its network
        second = train_second(
            plan, rows, stages, history=history, weight_trial=weight_trial
        )
        return stages.end(second)


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What both stages of a fit share."""

    estimator_name: str
    task: FitTask | None

    def begin(self) -> None:
        """Tell scikit-learn's callbacks that a fit begins, of an unknown length."""
        if self.task is not None:
            self.task.begin(None)

    def end(self, result: TrainingResult) -> TrainingResult:
        """Tell scikit-learn's callbacks that the fit has ended."""
        if self.task is not None:
            self.task.end(lambda: result)
        return result

    def task_of_stage(self) -> FitTask | None:
        """Return a stage as scikit-learn's callbacks see it."""
        return None if self.task is None else StageTask(self.task)


def check_refit(
    settings: Settings, eval_set: Any, earlier_fit: TrainingResult | None
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
    if earlier_fit is not None:
        raise ValueError(
            "refit=True trains a new network on all rows, and continues no earlier "
            "fit. Set warm_start=False, or refit=False."
        )
    reason = "the second stage of refit=True has no validation rows. Set refit=False."
    check_unmonitored(settings.callbacks, reason)


def train_first(
    plan: FitPlan, rows: Rows, stages: Stages, saved: Checkpoint | None
) -> TrainingResult:
    """Train with early stopping, from the start or from a checkpoint on."""
    task = stages.task_of_stage()
    if saved is None:
        data = encode(plan, rows, NewColumns(plan.settings, stages.estimator_name))
        data = try_weight(plan, data)
        net = build(plan, data)
        result = train(plan, data, net, task=task)
    else:
        result = train_resumed(plan, rows, saved, task)
    for epoch in result.net.history:
        epoch["stage"] = 1
    return result


def find_length(result: TrainingResult) -> FirstStage | None:
    """Return what the first stage has found, or None if no second one follows."""
    net = result.net
    stopping = net.stopping
    if stopping is None or result.used_all or net.is_interrupted_:
        return None
    if not has_ended(net, stopping):
        return None
    levels = Levels(net)
    return FirstStage.of(
        stopping,
        result.best_epoch,
        stop_reason=str(result.stop_reason),
        level=levels.of_events(),
        log_moves=levels.moves_of_amounts(),
        n_amount_epochs=net.n_amount_epochs_,
    )


def has_ended(net: MultiTaskNet, stopping: BestEpochStopping) -> bool:
    """Return whether a training with early stopping was ended by no callback."""
    n_epochs = net.n_complete_
    has_decayed = stopping.n_decay and n_epochs >= stopping.n_held + stopping.n_decay
    has_stopped = stopping.misses_ == stopping.patience
    return bool(has_stopped or has_decayed or n_epochs == net.max_epochs)


def second_plan(
    plan: FitPlan, rows: Rows, first_stage: FirstStage, *, n_earlier: int
) -> FitPlan:
    """Return the plan of the second stage, with new components.

    It draws the same random numbers as a fit without early stopping.
    """
    random_state = random_state_at(plan.first_random_state)
    components = check_components(
        plan.settings,
        rows.tasks.task_names,
        plan.device,
        has_groups=rows.has_groups,
        random_state=random_state,
    )
    return replace(
        plan,
        components=components,
        random_state=random_state,
        split_state=plan.first_random_state,
        earlier_split=None,
        n_earlier=n_earlier,
        first_stage=first_stage,
    )


def keeps_on_interrupt(settings: Settings) -> bool:
    """Return whether an interrupt shall keep what was trained so far."""
    kinds = with_kinds(settings.callbacks)
    return any(issubclass(kind, KeepOnInterrupt) for _, kind in kinds)


def train_second_or_keep(
    plan: FitPlan, rows: Rows, stages: Stages, first: TrainingResult
) -> TrainingResult:
    """Run the second stage; an interrupt keeps the first one.

    This is complete, and better than some epochs of the second one.
    """
    settings = plan.settings
    pairs = zip(settings.callbacks, with_kinds(settings.callbacks), strict=True)
    kept_callbacks = [
        callback
        for callback, (_, kind) in pairs
        if not issubclass(kind, KeepOnInterrupt)
    ]
    plan = replace(plan, settings=replace(settings, callbacks=kept_callbacks))
    try:
        result = train_second(
            plan,
            rows,
            stages,
            history=first.net.history,
            weight_trial=first.schema.weight_trial,
        )
    except KeyboardInterrupt:
        warn_user(
            "Training was interrupted. callbacks holds KeepOnInterrupt: the first "
            "stage of refit=True is kept, without the rows that it has held out, and "
            "fit returns."
        )
        return first
    return replace(result, settings=settings)


def train_second(
    plan: FitPlan,
    rows: Rows,
    stages: Stages,
    *,
    history: EpochHistory,
    weight_trial: WeightTrial | None,
) -> TrainingResult:
    """Train on all rows, after the epochs of the first stage."""
    announce_second(plan)
    with warnings.catch_warnings():
        # The first stage has issued those about the rows.
        warnings.simplefilter("ignore", UserWarning)
        data = encode(plan, rows, NewColumns(plan.settings, stages.estimator_name))
    schema = replace(data.schema, weight_trial=weight_trial)
    data = replace(data, schema=schema)
    net = build(plan, data)
    net.history = deepcopy(history)
    result = train(plan, data, net, task=stages.task_of_stage())
    return finish_second(plan, data, result)


def resume_second(
    plan: FitPlan, rows: Rows, stages: Stages, saved: Checkpoint
) -> TrainingResult:
    """Train on all rows, from a checkpoint of the second stage on."""
    start = saved.start
    assert start.first_stage is not None
    plan = second_plan(plan, rows, start.first_stage, n_earlier=start.n_earlier)
    announce_second(plan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        data = encode(plan, rows, EarlierColumns(plan.settings, start.schema))
    net = build(plan, data)
    result = train(
        plan,
        data,
        net,
        checkpoints=resumed_checkpoints(plan, data, saved),
        task=stages.task_of_stage(),
    )
    return finish_second(plan, data, result)


def announce_second(plan: FitPlan) -> None:
    """Say that the second stage begins, if the user wants to know."""
    if plan.settings.verbose:
        first_stage: Any = plan.first_stage
        print(f"Training on all rows, for {first_stage.n_epochs} epochs.")


def finish_second(
    plan: FitPlan, data: EncodedData, result: TrainingResult
) -> TrainingResult:
    """Set the level of later rows, and say how both stages have ended."""
    first_stage: Any = plan.first_stage
    net = result.net
    for epoch in net.history[plan.n_earlier :]:
        epoch["stage"] = 2
    # No row is left that would tell the level of later ones, but the first stage has
    # measured how far it is from the level of the rows before.
    Levels(net).shift_as_measured(first_stage.level, first_stage.log_moves)
    n_epochs = len(net.history) - plan.n_earlier
    reason = (
        f"{first_stage.stop_reason} Then a new network was trained on all rows. "
        f"{result.stop_reason}"
    )
    return replace(
        result,
        rises=find_rises(net, data.train, n_epochs, data.unrelated),
        stop_reason=reason,
    )
