"""Training of a net that was built for the rows of a fit."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sk_pwiser._fit._fit_plan import FitPlan
from sk_pwiser._training._amount_epochs import learn_amounts, limit_amounts
from sk_pwiser._training._callbacks import FitTask
from sk_pwiser._training._checkpoints import Checkpoints, Start, compared, fingerprint
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._levels._levels import Levels
from sk_pwiser._training._memorized import warn_if_memorized
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._rises import find_rises
from sk_pwiser._training._stop_reason import stop_reason
from sk_pwiser._utils._random import (
    LARGEST_SEED,
    Generators,
    active,
    draws_globally,
    seeded_globally,
)
from sk_pwiser._utils._threads import limited_threads

CPU = torch.device("cpu")


def train(
    plan: FitPlan,
    data: EncodedData,
    net: MultiTaskNet,
    *,
    checkpoints: Checkpoints | None = None,
    task: FitTask | None = None,
) -> TrainingResult:
    """Train a net with random numbers of its own."""
    if checkpoints is None and plan.settings.checkpoint_dir is not None:
        checkpoints = new_checkpoints(plan, data)
    if task is not None:
        task.begin(data.epochs.last)
    generators = Generators(int(plan.random_state.randint(LARGEST_SEED)))
    global_seed = draw_global_seed(generators)
    return train_epochs(
        plan,
        data,
        net,
        generators=generators,
        global_seed=global_seed,
        checkpoints=checkpoints,
        task=task,
    )


def train_further(
    plan: FitPlan,
    data: EncodedData,
    net: MultiTaskNet,
    earlier_fit: TrainingResult,
    *,
    task: FitTask | None = None,
) -> TrainingResult:
    """Train a net with the weights, and the random numbers, of an earlier fit."""
    checkpoints = None
    if plan.settings.checkpoint_dir is not None:
        checkpoints = new_checkpoints(plan, data)
    if task is not None:
        task.begin(data.epochs.last)
    generators = deepcopy(earlier_fit.generators)
    # From a copy: two fits draw the orders of rows of one longer fit.
    global_seed = draw_global_seed(deepcopy(generators))
    return train_epochs(
        plan,
        data,
        net,
        generators=generators,
        global_seed=global_seed,
        checkpoints=checkpoints,
        task=task,
    )


def train_epochs(
    plan: FitPlan,
    data: EncodedData,
    net: MultiTaskNet,
    *,
    generators: Generators,
    global_seed: int,
    checkpoints: Checkpoints | None,
    task: FitTask | None,
) -> TrainingResult:
    """Train a net for the epochs of a fit, and say what was found of it."""

    def result_of(trained: MultiTaskNet, best_epoch: int) -> TrainingResult:
        return fit_result(plan, data, trained, generators, best_epoch=best_epoch)

    if bool(net.criterion_.n_rows > 0):  # of earlier fits
        net.module_.set_base_rates(net.criterion_.rates_so_far())
    threads = limited_threads(net.n_products)
    numbers = random_numbers(net, generators, global_seed, plan.device)
    with numbers as global_device, threads:
        if checkpoints is not None:
            checkpoints.generators = generators
            checkpoints.global_device = global_device
        rows = data.to(torch.device(net.device))
        epochs: Any = nullcontext()
        if task is not None:
            # scikit-learn's callbacks see each epoch with the network it left.
            epochs = task.epochs(
                net, lambda: result_of(net.copy_network(), net.history[-1, "epoch"])
            )
        with epochs:
            terms = net.criterion_.value_terms
            if terms is not None:
                limit_amounts(net, rows.train)
            net.partial_fit(rows, checkpoints)
            if terms is not None:
                learn_amounts(net, rows.train, rows.valid)
            Levels(net).set_by_fit(rows)
    result = describe_end(plan, data, net, result_of(net, kept_epoch(net)))
    net.criterion_.count_fit(data.event_shares, len(data.train), data.n_counted)
    if task is not None:
        task.end(lambda: result)
    return result


def kept_epoch(net: MultiTaskNet) -> int:
    """Return the epoch whose weights a net has after its training."""
    return int(net.kept_epoch_ or net.history[-1, "epoch"])


def describe_end(
    plan: FitPlan, data: EncodedData, net: MultiTaskNet, result: TrainingResult
) -> TrainingResult:
    """Say how a training has ended, and warn about what it has memorized."""
    n_epochs = len(net.history) - plan.n_earlier
    knows_length = net.stopping is not None or plan.first_stage is not None
    if not knows_length and data.schema.statistics is not None:
        warn_if_memorized(net, data.train, data.schema)
    rises = find_rises(net, data.train, n_epochs, data.unrelated)
    reason = stop_reason(net, n_epochs, result.best_epoch)
    if plan.settings.verbose:
        print(reason)
    return replace(result, rises=rises, stop_reason=reason)


def fit_result(
    plan: FitPlan,
    data: EncodedData,
    net: MultiTaskNet,
    generators: Generators,
    *,
    best_epoch: int,
) -> TrainingResult:
    """Return what a fit has learnt, also while it is trained."""
    return TrainingResult(
        net=net,
        schema=data.schema,
        generators=generators,
        settings=plan.settings,
        single_pass=False,
        best_epoch=best_epoch,
        n_rows=(len(data.train), 0 if data.valid is None else len(data.valid)),
        split_state=plan.split_state if data.holds_out else None,
        weight_scale=data.weight_scale,
        scales_counts=data.rows_per_weight is not None,
        split_rows=data.split_rows,
        used_all=not data.holds_out,
    )


def new_checkpoints(plan: FitPlan, data: EncodedData) -> Checkpoints:
    """Return the object that writes the checkpoints of a training."""
    return Checkpoints(Path(plan.settings.checkpoint_dir), start_of(plan, data))


def start_of(plan: FitPlan, data: EncodedData) -> Start:
    """Return the start of a training, which is part of each of its checkpoints."""
    return Start(
        settings=compared(plan.settings),
        random_state=plan.first_random_state,
        n_earlier=plan.n_earlier,
        digests=fingerprint(data.train, data.valid),
        schema=data.schema,
        split_state=plan.split_state,
        split_rows=data.split_rows,
        first_stage=plan.first_stage,
    )


def draw_global_seed(generators: Generators) -> int:
    """Draw the seed of torch's own generators, whether or not these are used.

    The order of rows does not depend on the components.
    """
    return int(torch.randint(LARGEST_SEED, (), generator=generators.on(CPU)))


@contextmanager
def random_numbers(
    net: MultiTaskNet, generators: Generators, global_seed: int, device: torch.device
) -> Iterator[torch.device | None]:
    """Activate the fit's generators; seed torch's own if they may be used.

    Yields the device of the latter, None if they are not used. The user's own layers,
    such as `torch.nn.Dropout`, and compiled code draw from the global generators. Such
    fits in several threads run one after the other.
    """
    with active(generators), ExitStack() as stack:
        is_compiled = net.compile_mode not in (None, "graph")
        if is_compiled or draws_globally(net.module_, net.criterion_, net.optimizer_):
            stack.enter_context(seeded_globally(global_seed, device))
            yield device
        else:
            yield None
