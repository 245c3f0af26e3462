"""The Ray cluster: its resources, and a training on its workers."""

import os
import pickle
import shutil
import socket
import tempfile
import uuid
from contextlib import contextmanager
from numbers import Real
from pathlib import Path

from sk_pwiser._files import write_bytes
from sk_pwiser._streaming import run_job
from sk_pwiser._training import Checkpoints, find_checkpoint, to_state
from sk_pwiser._utils import import_extra
from sk_pwiser.distributed._exchange import LostWorkerError, Workers
from sk_pwiser.distributed._shards import shards
from sk_pwiser.distributed._worker_net import WorkerNet

DEFAULT_PORT = 6379
JOB, RESULT, ERRORS = "job.pickle", "result.pickle", "error-*.pickle"


def import_ray():
    """Return the module, with those of it that are used."""
    for name in ("ray.train.torch", "ray.train"):
        import_extra(name, "sk_pwiser.distributed")
    return import_extra("ray", "sk_pwiser.distributed")


@contextmanager
def joined_cluster(workers, address, timeout, verbose):
    """Connect to a cluster of enough resources, or start one here for a time."""
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
    if not host:
        host, port = port, DEFAULT_PORT
    try:
        socket.create_connection((host, int(port)), timeout).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"No Ray cluster answers at address={address!r} within {timeout:g} s "
            f"({error}). Start one with `ray start --head`, or leave address=None to "
            "use this machine alone."
        ) from error


def check_resources(workers, timeout):
    """Raise if the workers need more than the cluster has, or than is free in time."""
    ray = import_ray()
    each, number = workers["resources_per_worker"], workers["num_workers"]
    has = ray.cluster_resources()
    for name, value in each.items():
        if number * value > has.get(name, 0):
            raise ValueError(
                f"num_workers={number} needs {number * value:g} {name}; the cluster "
                f"has {has.get(name, 0):g}. Use fewer workers or another "
                "resources_per_worker, or add machines."
            )
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([dict(each) for _ in range(number)])
    is_free = group.wait(timeout)
    remove_placement_group(group)
    if not is_free:
        raise TimeoutError(
            f"The resources of num_workers={number}, {each} each, were not free within "
            f"{timeout:g} s: the cluster is in use, or no machine has as much for a "
            "worker. Wait for it, raise timeout, or change resources_per_worker."
        )


def run(folder, workers, storage, max_failures):
    """Train the job of a folder; return the pieces of the network, or raise errors."""
    from ray.train import (
        CheckpointConfig,
        FailureConfig,
        RunConfig,
        ScalingConfig,
        TrainingFailedError,
    )
    from ray.train.torch import TorchTrainer

    name = os.path.basename(folder)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"folder": folder},
        scaling_config=ScalingConfig(**workers),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            **_quiet(),
        ),
    )
    failure = None
    try:
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            failure = error
        if stored := sorted(Path(folder).glob(ERRORS)):
            raise pickle.loads(stored[0].read_bytes()) from failure
        if failure is not None:
            raise RuntimeError(
                f"Training failed, after max_failures={max_failures} restarts: "
                f"{failure}"
            ) from failure
        with result.checkpoint.as_directory() as kept:
            return pickle.loads((Path(kept) / RESULT).read_bytes())
    finally:
        if "://" not in storage:
            shutil.rmtree(os.path.join(storage, name), ignore_errors=True)


def _quiet():
    """Return the argument by which Ray Train is quiet, if it has one."""
    try:
        from ray.train import LoggingConfig
    except ImportError:
        return {}
    return {"logging_config": LoggingConfig(log_level="ERROR")}


def write_pickle(path, content):
    """Write an object to a file, with the classes of a script, such as callbacks."""
    from ray import cloudpickle

    path.write_bytes(cloudpickle.dumps(content))


class ReportedCheckpoints(Checkpoints):
    """Checkpoints that the first worker, of rank 0, writes and all report to Ray."""

    def __init__(self, rank, *args):
        super().__init__(*args)
        self.rank = rank

    def save(self, net, loop):
        """Write the state at the end of an epoch."""
        figures = {k: v for k, v in net.history[-1].items() if isinstance(v, Real)}
        with tempfile.TemporaryDirectory(prefix="sk_pwiser_") as name:
            if self.rank == 0:
                self.folder = Path(name)
                super().save(net, loop)
            _report(figures, name if self.rank == 0 else None)


def _report(figures, folder):
    """Report figures and, if given, the files of a folder; wait for all workers."""
    from ray import train

    checkpoint = None if folder is None else train.Checkpoint.from_directory(folder)
    train.report(figures, checkpoint=checkpoint)


def train_worker(config):
    """Train the job in `config["folder"]` together with the other workers."""
    folder = Path(config["folder"])
    if any(folder.glob(ERRORS)):
        return
    try:
        _train(folder)
    except LostWorkerError:
        raise
    except Exception as error:  # such as divergence, which a restart would repeat
        _write_error(folder, error)
        raise


def _train(folder):
    from ray import train
    from ray.train.torch import get_device

    job = pickle.loads((folder / JOB).read_bytes())
    device = get_device()
    workers = Workers(device)
    rank = workers.rank
    saved, kept = None, train.get_checkpoint()
    if kept is not None:
        with kept.as_directory() as name:
            if (Path(name) / RESULT).exists():  # lost after the end of training
                return
            saved = find_checkpoint(Path(name))
    settings = job.plan.settings
    checkpoints = ReportedCheckpoints(
        rank, folder / "none", job.start(), saved, settings.callbacks or ()
    )
    verbose = int(settings.verbose) if rank == 0 else 0
    result = run_job(
        job,
        shards(job, rank, workers.size),
        device,
        net_class=WorkerNet,
        connect=lambda net: net.join(workers, job.seed),
        checkpoints=checkpoints,
        verbose=verbose,
    )
    with tempfile.TemporaryDirectory(prefix="sk_pwiser_") as name:
        if rank == 0:
            write_pickle(Path(name) / RESULT, to_state(result))
        _report({}, name if rank == 0 else None)


def _write_error(folder, error):
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # not every error can be stored
        content = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    write_bytes(folder / ERRORS.replace("*", uuid.uuid4().hex), content)
