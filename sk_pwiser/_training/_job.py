"""A training whose rows are stored, to be run by processes that share the folder."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from sk_pwiser._training._batch_samplers import BatchIterator
from sk_pwiser._training._checkpoint import Start, compared
from sk_pwiser._training._checkpoint_writer import Checkpoints
from sk_pwiser._training._components import check_components
from sk_pwiser._training._data import EncodedData, Schema
from sk_pwiser._training._dataset import Impressions
from sk_pwiser._training._dataset_rows import load_rows, store_impressions
from sk_pwiser._training._fit import build, optimise
from sk_pwiser._training._fit_dataset import prepare_dataset
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._plan import LARGEST_SEED, Plan
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._row_store import Arrays, RowStore
from sk_pwiser._training._rows import Rows
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._streamed import StreamedImpressions
from sk_pwiser._utils import seeded_globally

# So many that they can be dealt in about equal shares.
FILES_PER_PROCESS = 8


class Stored(NamedTuple):
    """Rows in a store, and the function that makes impressions of them."""

    store: RowStore
    load: Callable[[Arrays], Impressions]


@dataclass(frozen=True)
class Job:
    """What the processes of a training read before it starts; it can be pickled.

    Parameters
    ----------
    settings : Settings
        The estimator's parameters.
    schema : Schema
        The encoding of the table, and the tasks.
    monitor : str or None
        Column of the history that early stopping monitors.
    random_state : RandomState
        The estimator's random state after the rows were drawn.
    seed : int
        Seed of the order of rows, and of the random numbers of each process.
    train, valid : Stored
        Training rows, and validation rows or None.
    part_rows : int
        Number of rows that are shuffled together.
    has_groups : bool
        Whether the rows have groups.
    """

    settings: Settings
    schema: Schema
    monitor: str | None
    random_state: np.random.RandomState
    seed: int
    train: Stored
    valid: Stored | None
    part_rows: int
    has_groups: bool

    @property
    def n_rows(self) -> tuple[int, int]:
        """Numbers of training and of validation rows."""
        n_valid = 0 if self.valid is None else len(self.valid.store)
        return len(self.train.store), n_valid

    def start(self) -> Start:
        """Return what checkpoints say of the start of the training."""
        state = self.random_state.get_state(legacy=False)
        settings = compared(self.settings)
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
    """Check parameters and rows, learn the encoding, and store the rows.

    Parameters
    ----------
    settings, dataset, eval_set, estimator_name
        As in `fit_dataset`.
    folder : Path
        An empty folder for the rows.
    n_processes : int
        Number of processes that will train.

    Raises
    ------
    ValueError, TypeError
        If a parameter, a column or a label is invalid, or if the network has extra
        losses that are not means over rows.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="sk_pwiser-reader") as pool:
        plan, data = prepare_dataset(
            settings,
            dataset,
            eval_set,
            folder,
            pool,
            n_files=FILES_PER_PROCESS * n_processes,
            estimator_name=estimator_name,
        )
        train, valid = data.rows
        assert isinstance(train, StreamedImpressions)
        if isinstance(valid, Impressions):
            store = store_impressions(valid, folder / "eval", max(train.store.sizes))
            load = partial(load_rows, data.schema, None)
            valid = StreamedImpressions(store, load, train.part_rows, pool)
        _check_divisible(plan, data.schema, train)
    return Job(
        settings,
        data.schema,
        plan.monitor,
        plan.random_state,
        deepcopy(plan.random_state).randint(LARGEST_SEED),
        Stored(train.store, train.load),
        None if valid is None else Stored(valid.store, valid.load),
        dataset.shuffle_rows,
        dataset.groups is not None,
    )


def _check_divisible(plan: Plan, schema: Schema, rows: StreamedImpressions) -> None:
    """Raise if a part of the net needs all rows of a batch in one process."""
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
        output = net.infer(next(iter(BatchIterator(rows.sample, 2)))[0])
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
    """Train, as one of several processes.

    Parameters
    ----------
    job : Job
        What to train.
    rows : object
        Training and validation rows of this process, like a `TrainingData`.
    device : torch.device
        Device of this process.
    net_class : type
        Class of the net.
    connect : callable
        Connects the net to those of the other processes.
    checkpoints : Checkpoints
        Writes checkpoints, and resumes.
    verbose : int
        Verbosity of this process.
    """
    settings = replace(job.settings, device=str(device), verbose=verbose)
    random_state = deepcopy(job.random_state)
    targets = job.schema.targets
    with seeded_globally(deepcopy(random_state).randint(LARGEST_SEED), device):
        components = check_components(
            settings, targets.task_names, device, job.has_groups
        )
    plan = Plan(
        settings,
        device,
        Rows(None, targets, None, None),
        None,
        components,
        job.monitor,
        random_state,
        None,
        single_pass=False,
    )
    net = build(plan, job.schema, net_class)
    connect(net)
    data = EncodedData(rows, job.schema)
    result = optimise(plan, data, net, None, checkpoints)
    return replace(result, settings=job.settings, n_rows=job.n_rows)
