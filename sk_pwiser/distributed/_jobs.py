"""A training that several processes run together: encoded once, read by all."""

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from sk_pwiser._fit import (
    Plan,
    build,
    check,
    encode,
    name_eval_sets,
    read_files,
    train,
)
from sk_pwiser._streaming import RowStore, StreamedImpressions, load_rows
from sk_pwiser._training._batches import BatchIterator, Impressions
from sk_pwiser._training._checkpoints import Checkpoints, Start, compared
from sk_pwiser._training._components import check_components
from sk_pwiser._training._schema import EncodedData
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._state import TrainingResult
from sk_pwiser._utils import seeded_globally
from sk_pwiser.distributed._workers import Clock, Shard, WorkerNet, Workers

# Enough for about equal shares.
FILES_PER_PROCESS = 8


@dataclass(frozen=True)
class Job:
    """A training that several processes run together; it can be pickled."""

    plan: Plan  # without components and validation rows
    data: EncodedData
    seed: int  # of the order of rows, and of each process
    has_groups: bool

    @property
    def n_rows(self) -> tuple[int, int]:
        valid = self.data.valid
        return len(self.data.train), 0 if valid is None else len(valid)

    def start(self) -> Start:
        state = self.plan.random_state.get_state(legacy=False)
        settings = compared(self.plan.settings)
        return Start(settings, state, 0, self.n_rows[0], {}, self.data.schema)

    def share(self, rank: int, n_workers: int) -> tuple[Shard, Shard | None]:
        """Return a worker's share of the rows."""
        # One clock, so that training rows and validation rows have the same epoch.
        clock = Clock(self.seed)

        def shard(rows: Any) -> Shard:
            return Shard(
                rows.store,
                rows.load,
                rows.part_rows,
                rank=rank,
                n_workers=n_workers,
                clock=clock,
            )

        valid = self.data.valid
        return shard(self.data.train), None if valid is None else shard(valid)


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
    source = read_files(settings, dataset, folder, FILES_PER_PROCESS * n_processes)
    plan = check(settings, source, eval_set)
    data = encode(plan, source, estimator_name)
    train, valid = data.train, data.valid
    assert isinstance(train, StreamedImpressions)
    if isinstance(valid, Impressions):
        store = RowStore(folder / "eval", max(train.store.sizes))
        store.add(valid, np.arange(len(valid)))
        store.flush()
        load = partial(load_rows, data.schema, None)
        valid = StreamedImpressions(store, load, train.part_rows)
    _check_divisible(plan, data, train)
    return Job(
        replace(plan, components=None, eval_rows={}),
        replace(data, train=replace(train, on_read=None), valid=valid),
        deepcopy(plan.random_state).randint(np.iinfo(np.int32).max),
        source.has_groups,
    )


def _check_divisible(plan: Plan, data: EncodedData, rows: StreamedImpressions) -> None:
    net = build(plan, data)
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
    job: Job, workers: Workers, checkpoints: Checkpoints | None, verbose: int
) -> TrainingResult:
    """Train, as one of several connected processes, on the rows of this process."""
    device = workers.device
    settings = replace(job.plan.settings, device=str(device), verbose=verbose)
    random_state, names = deepcopy(job.plan.random_state), job.plan.task_names
    plan = replace(
        job.plan,
        settings=settings,
        device=device,
        components=check_components(
            settings, names, device, job.has_groups, random_state
        ),
        random_state=random_state,
    )
    net = build(plan, job.data, WorkerNet)
    assert isinstance(net, WorkerNet)
    net.join(workers, job.seed)
    rows, valid = job.share(workers.rank, workers.size)
    data = replace(job.data, train=rows, valid=valid)
    result = train(plan, data, net, checkpoints=checkpoints)
    return replace(result, settings=job.plan.settings, n_rows=job.n_rows)
