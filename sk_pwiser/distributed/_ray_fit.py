"""`fit` on the workers of a Ray cluster: rows are encoded once, and read by all."""

import os
import pickle
import shutil
import socket
import tempfile
import uuid
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from sk_pwiser import _fit
from sk_pwiser._columns._frames import reads_in_parts
from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
from sk_pwiser._model_files import write_bytes
from sk_pwiser._rows._batches import BatchIterator
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._file_rows import FileRows
from sk_pwiser._rows._stored_rows import StoredRows
from sk_pwiser._rows._streamed_rows import StreamedImpressions
from sk_pwiser._settings import Settings
from sk_pwiser._training import _checkpoints
from sk_pwiser._training._checked_components import check_components
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._result_files import from_state, to_state
from sk_pwiser._utils import _checks, _extras, _random
from sk_pwiser._utils._random import LARGEST_SEED
from sk_pwiser.distributed import _workers

# Names of the files by which the calling process and the workers exchange the job, the
# pieces of the trained network, and errors.
JOB = "job.pickle"
RESULT = "result.pickle"
ERRORS = "error-*.pickle"

# Enough for about equal shares.
FILES_PER_PROCESS = 8


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training that several processes run together; it can be pickled."""

    settings: Settings
    random_state: np.random.RandomState
    first_random_state: dict[str, Any]  # before the first draw
    by_time: bool
    data: EncodedData
    seed: int  # of the order of rows, and of each process
    has_groups: bool

    def plan(self, settings: Settings, device: torch.device) -> _fit.FitPlan:
        """Return the plan of a process, with components on its device."""
        components = check_components(
            settings,
            self.data.schema.targets.task_names,
            device,
            has_groups=self.has_groups,
            random_state=self.random_state,
        )
        return _fit.FitPlan(
            settings=settings,
            device=device,
            components=components,
            random_state=self.random_state,
            first_random_state=self.first_random_state,
            split_state=self.first_random_state,
            by_time=self.by_time,
        )


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
    n_sets = len(_fit.name_eval_sets(eval_set))
    if n_sets > 1:
        raise ValueError(
            f"eval_set must be one set for a fit by several workers; got {n_sets}."
        )
    source = FileRows(settings, dataset, folder, FILES_PER_PROCESS * n_processes)
    plan = _fit.check(settings, source, eval_set)
    columns = _fit.NewColumns(settings, estimator_name)
    data = _fit.encode(plan, source, columns)
    data = _fit.try_weight(plan, data)
    train = data.train
    valid = data.valid
    assert isinstance(train, StreamedImpressions)
    if isinstance(valid, Impressions):
        store = StoredRows(folder / "eval", max(train.store.sizes))
        store.add(valid, np.arange(len(valid)))
        store.flush()
        valid = StreamedImpressions(store, data.schema, None, train.part_rows)
    _check_divisible(plan, data, train)
    return Job(
        settings=settings,
        random_state=plan.random_state,
        first_random_state=plan.first_random_state,
        by_time=plan.by_time,
        data=replace(data, valid=valid),
        seed=deepcopy(plan.random_state).randint(LARGEST_SEED),
        has_groups=source.has_groups,
    )


def _check_divisible(
    plan: _fit.FitPlan, data: EncodedData, rows: StreamedImpressions
) -> None:
    net = _fit.build(plan, data)
    network = net.module_
    weighting = net.criterion_.weighting
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
    with torch.no_grad(), _random.seeded_globally(0, plan.device):
        inputs, _ = next(iter(BatchIterator(rows.spaced(2), 2, device=plan.device)))
        output = net.infer(inputs)
    if output.extra_losses and not network.extra_losses_are_means:
        raise ValueError(
            f"network={plan.settings.network!r} has the extra losses "
            f"{list(output.extra_losses)}, which compare the rows of a batch (its "
            "extra_losses_are_means is False). Use another, or fit in one process."
        )


def run_job(
    job: Job,
    workers: _workers.Workers,
    checkpoints: _checkpoints.Checkpoints | None,
    verbose: int,
) -> TrainingResult:
    """Train, as one of several connected processes, on the rows of this process."""
    device = workers.device
    settings = replace(job.settings, device=str(device), verbose=verbose)
    plan = job.plan(settings, device)
    net = _fit.build(plan, job.data, _workers.WorkerNet)
    assert isinstance(net, _workers.WorkerNet)
    net.join(workers, job.seed)
    # One clock, so that training rows and validation rows have the same epoch.
    clock = _workers.Clock(job.seed)

    def shard(rows: Any) -> _workers.Shard:
        return _workers.Shard(
            store=rows.store,
            schema=rows.schema,
            tables=rows.tables,
            part_rows=rows.part_rows,
            device=rows.device,
            rank=workers.rank,
            n_workers=workers.size,
            clock=clock,
        )

    valid = job.data.valid
    data = replace(
        job.data,
        train=shard(job.data.train),
        valid=None if valid is None else shard(valid),
    )
    result = _fit.train(plan, data, net, checkpoints=checkpoints)
    n_rows = len(job.data.train), 0 if valid is None else len(valid)
    return replace(result, settings=job.settings, n_rows=n_rows)


def import_ray():
    """Import ray with the modules that this file uses."""
    _extras.import_extra("ray.train.torch", "sk_pwiser.distributed")
    return _extras.import_extra("ray", "sk_pwiser.distributed")


@contextmanager
def joined_cluster(workers, address, timeout, verbose):
    """Connect to a cluster that has the resources, or start one for the fit."""
    ray = import_ray()
    starts = not ray.is_initialized()
    if not starts and address is not None:
        raise ValueError(
            f"address={address!r}, but this process is connected to a Ray cluster "
            "already. Leave address=None to use that, or call ray.shutdown() first."
        )
    if starts:
        _connect(ray, address or os.environ.get("RAY_ADDRESS"), timeout, verbose)
    try:
        check_resources(workers, timeout)
        yield
    finally:
        if starts:
            ray.shutdown()


def _connect(ray, address, timeout, verbose):
    options = {"log_to_driver": verbose, "logging_level": "ERROR"}
    if address in (None, "local"):
        # On the loopback address, only this machine can reach the cluster.
        ray.init(
            address="local",
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **options,
        )
        return
    if address != "auto":
        _check_address(address, timeout)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConnectionError(
            f"No Ray cluster answers at address={address!r}: {error}"
        ) from error


def _check_address(address, timeout):
    """Raise if nothing listens at an address; Ray itself waits for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"No Ray cluster answers at address={address!r} within {timeout:g} s "
            f"({error}). Start one with `ray start --head`, or leave address=None to "
            "use this machine alone."
        ) from error


def check_resources(workers, timeout):
    """Raise if the cluster lacks the resources, or if they are not free in time."""
    ray = import_ray()
    per_worker = workers["resources_per_worker"]
    n_workers = workers["num_workers"]
    available = ray.cluster_resources()
    for name, value in per_worker.items():
        if n_workers * value > available.get(name, 0):
            raise ValueError(
                f"num_workers={n_workers} needs {n_workers * value:g} {name}; the "
                f"cluster has {available.get(name, 0):g}. Use fewer workers or another "
                "resources_per_worker, or add machines."
            )
    from ray.util.placement_group import placement_group, remove_placement_group

    # A reservation for a moment: Ray Train itself would wait for resources for ever.
    group = placement_group([dict(per_worker) for _ in range(n_workers)])
    is_free = group.wait(timeout)
    remove_placement_group(group)
    if not is_free:
        raise TimeoutError(
            f"The resources of num_workers={n_workers}, {per_worker} each, were not "
            f"free within {timeout:g} s: the cluster is in use, or no machine has as "
            "much for a worker. Wait for it, raise timeout, or change "
            "resources_per_worker."
        )


def run(folder, workers, storage, max_failures):
    """Train the job of a folder; return the pieces of the network, or raise errors."""
    from ray import train
    from ray.train.torch import TorchTrainer

    name = os.path.basename(folder)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"folder": folder},
        scaling_config=train.ScalingConfig(**workers),
        run_config=train.RunConfig(
            name=name,
            storage_path=storage,
            failure_config=train.FailureConfig(max_failures=max_failures),
            checkpoint_config=train.CheckpointConfig(num_to_keep=2),
            logging_config=train.LoggingConfig(log_level="ERROR"),
        ),
    )
    failure = None
    try:
        try:
            result = trainer.fit()
        except train.TrainingFailedError as error:
            failure = error
        # Ray wraps errors; users should see the worker's own, as from `fit`.
        if stored := sorted(Path(folder).glob(ERRORS)):
            raise pickle.loads(stored[0].read_bytes()) from failure
        if failure is not None:
            raise RuntimeError(
                f"Training failed after max_failures={max_failures}: {failure}"
            ) from failure
        with result.checkpoint.as_directory() as checkpoint_folder:
            return pickle.loads((Path(checkpoint_folder) / RESULT).read_bytes())
    finally:
        shutil.rmtree(os.path.join(storage, name), ignore_errors=True)


def write_pickle(path, content):
    """Write an object to a file, with the classes of a script, such as callbacks."""
    from ray import cloudpickle

    write_bytes(path, cloudpickle.dumps(content))


class ReportedCheckpoints(_checkpoints.Checkpoints):
    """Checkpoints that the first worker, of rank 0, writes and all report to Ray."""

    def __init__(self, rank, *args):
        super().__init__(*args)
        self.rank = rank

    def save(self, net):
        """Write the state at the end of an epoch."""
        figures = {k: v for k, v in net.history[-1].items() if isinstance(v, Real)}
        with tempfile.TemporaryDirectory(prefix="sk_pwiser_") as name:
            if self.rank == 0:
                self.folder = Path(name)
                super().save(net)
            _report(figures, name if self.rank == 0 else None)


def _report(figures, folder):
    """Report figures and, if given, the files of a folder; wait for all workers."""
    from ray import train

    checkpoint = None if folder is None else train.Checkpoint.from_directory(folder)
    train.report(figures, checkpoint=checkpoint)


def train_worker(config):
    """Train the job in `config["folder"]` together with the other workers."""
    folder = Path(config["folder"])
    # A restart after an error of the training itself would repeat it.
    if any(folder.glob(ERRORS)):
        return
    try:
        _train(folder)
    except _workers.LostWorkerError:
        raise
    except Exception as error:  # such as divergence, which a restart would repeat
        try:
            content = pickle.dumps(error)
            pickle.loads(content)
        except Exception:  # not every error can be stored
            content = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        write_bytes(folder / ERRORS.replace("*", uuid.uuid4().hex), content)
        raise


def _train(folder):
    from ray import train
    from ray.train.torch import get_device

    job = pickle.loads((folder / JOB).read_bytes())
    workers = _workers.Workers(get_device())
    rank = workers.rank
    # After a restart, Ray has the last checkpoint that was reported.
    saved = None
    reported = train.get_checkpoint()
    if reported is not None:
        with reported.as_directory() as name:
            if (Path(name) / RESULT).exists():  # lost after the end of training
                return
            saved = _checkpoints.find_checkpoint(Path(name))
    settings = job.settings
    start = _checkpoints.Start(
        settings=_checkpoints.compared(settings),
        random_state=job.random_state.get_state(legacy=False),
        n_earlier=0,
        digests={},  # all workers read the files of one job
        schema=job.data.schema,
    )
    checkpoints = ReportedCheckpoints(rank, folder / "none", start, saved)
    verbose = int(settings.verbose) if rank == 0 else 0
    result = run_job(job, workers, checkpoints, verbose)
    with tempfile.TemporaryDirectory(prefix="sk_pwiser_") as name:
        if rank == 0:
            write_pickle(Path(name) / RESULT, to_state(result))
        _report({}, name if rank == 0 else None)


def fit(
    estimator,
    dataset,
    *,
    num_workers,
    storage_path,
    use_gpu=False,
    eval_set=None,
    resources_per_worker=None,
    max_failures=3,
    address=None,
    timeout=60.0,
):
    """Train an estimator on a dataset with several workers of a Ray cluster.

    The columns are learnt and the rows encoded once, by the calling process. Every
    worker then reads its share of the encoded rows and runs the network on it. Outputs
    and labels are joined over the workers before the loss is computed, and gradients
    are summed. The loss and the gradient of a step, with all pairs of rows that PWiseR,
    JRC and the combined pair loss compare, are therefore the same as in one process on
    the joined batch of `batch_size` rows. See :ref:`many_workers`.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier
        The estimator. Copies of its callbacks run in every worker.
    dataset : ParquetImpressions
        Rows with labels.
    num_workers : int
        Number of workers, each a process.
    storage_path : str or os.PathLike
        Folder for checkpoints and, unless `dataset.cache_dir` is set, for the encoded
        rows; both are deleted at the end. With workers on several machines, a folder
        that all of them see.
    use_gpu : bool, default=False
        Whether every worker uses a GPU.
    eval_set : ParquetImpressions or tuple of (X, Y), default=None
        Validation rows, as in `MultiTaskCTRCVRClassifier.fit`.
    resources_per_worker : dict of str to float, default=None
        Resources that Ray reserves per worker; by default one CPU, and one GPU if
        `use_gpu`.
    max_failures : int, default=3
        How often training resumes from its last checkpoint after a worker was lost.
        A checkpoint is written after every epoch.
    address : str, default=None
        Address of a running cluster, such as `"10.0.0.1:6379"`, or `"auto"` for the one
        on this machine. By default the cluster that this process is connected to, or
        the address in the environment variable `RAY_ADDRESS`; without either, Ray is
        started on this machine and stopped at the end.
    timeout : float, default=60.0
        Seconds to wait for the cluster to answer, and for its resources to be free.

    Returns
    -------
    MultiTaskCTRCVRClassifier
        The same estimator, fitted.

    Raises
    ------
    ValueError, TypeError
        If a parameter, a column or a label is invalid; if the cluster has fewer
        resources than the workers need; or if a setting cannot be distributed. An
        earlier fit is kept.
    OSError
        If there cannot be a folder at `storage_path`.
    TimeoutError
        If the resources are not free in time.
    ConnectionError
        If there is no cluster at the address.
    RuntimeError
        If workers were lost more than `max_failures` times, or if they do not have the
        same weights after an epoch, since a callback or a class of your own depends on
        the worker. Other errors of a worker are raised unchanged.

    Notes
    -----
    With the same `random_state`, files, parameters and number of workers the result is
    the same on CPUs, also after a worker was lost; with another number of workers, the
    rows come in another order.

    The example `examples/cluster/ray_fit.py` runs on one machine.
    """
    import_ray()
    settings = _check(
        estimator,
        dataset,
        num_workers=num_workers,
        use_gpu=use_gpu,
        max_failures=max_failures,
        timeout=timeout,
    )
    storage = Path(storage_path).absolute()
    storage.mkdir(parents=True, exist_ok=True)
    folder = Path(dataset.cache_dir or storage).absolute()
    resources = dict(resources_per_worker or {"CPU": 1})
    if use_gpu:
        resources.setdefault("GPU", 1)
    workers = {
        "num_workers": int(num_workers),
        "use_gpu": use_gpu,
        "resources_per_worker": {k: v for k, v in resources.items() if v},
    }
    with (
        joined_cluster(workers, address, timeout, bool(settings.verbose)),
        tempfile.TemporaryDirectory(prefix="sk_pwiser_", dir=folder) as name,
    ):
        job = prepare_job(
            # The calling process only encodes, and may have no GPU.
            replace(settings, device="cpu"),
            dataset,
            eval_set,
            Path(name),
            n_processes=int(num_workers),
            estimator_name=type(estimator).__name__,
        )
        write_pickle(Path(name) / JOB, job)
        check_resources(workers, timeout)  # others may have taken them meanwhile
        state = run(name, workers, str(storage), max_failures)
    # Classes of callbacks that come from another process are copies; the caller's own
    # settings are kept instead.
    state["settings"] = replace(settings, callbacks=None)
    result = from_state(state, estimator.get_params(deep=False))
    return estimator._set_result(replace(result, settings=settings))


def _check(estimator, dataset, *, num_workers, use_gpu, max_failures, timeout):
    """Return the estimator's settings; raise if they cannot be distributed."""
    if not isinstance(estimator, MultiTaskCTRCVRClassifier):
        raise TypeError(
            f"estimator must be a MultiTaskCTRCVRClassifier; got {estimator!r}."
        )
    if not reads_in_parts(dataset):
        raise TypeError(
            f"dataset must be a ParquetImpressions; got {type(dataset).__name__}."
        )
    _checks.check_integer("num_workers", num_workers, at_least=1)
    _checks.check_integer("max_failures", max_failures, at_least=0)
    _checks.check_boolean("use_gpu", use_gpu)
    _checks.check_number("timeout", timeout, above=0)
    estimator._validate_params()
    settings = Settings.of(vars(estimator))
    if settings.warm_start:
        raise ValueError("warm_start must be False for a distributed fit; got True.")
    _fit.refuse_refit(settings, "training by several workers")
    settings = _fit.take_time_column(settings, dataset)
    # Each worker needs a row per step, and with stratified batches one of either kind.
    least = num_workers * (2 if settings.stratified_batches else 1)
    if settings.batch_size < least:
        raise ValueError(
            f"batch_size={settings.batch_size} of the estimator is divided among "
            f"num_workers={num_workers}; it must be at least {least}"
            f"{' with stratified_batches' if settings.stratified_batches else ''}."
        )
    expected = ("auto", "cuda") if use_gpu else ("auto", "cpu")
    if str(settings.device) not in expected:
        raise ValueError(
            f"device={str(settings.device)!r} of the estimator contradicts "
            f"use_gpu={use_gpu!r}; use device='auto'."
        )
    return settings
