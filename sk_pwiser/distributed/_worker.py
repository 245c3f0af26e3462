"""What a worker runs: its part of a job, with checkpoints that Ray stores."""

import pickle
import tempfile
from numbers import Real
from pathlib import Path

from sk_pwiser._streaming import run_job
from sk_pwiser._training import Checkpoints, find_checkpoint, to_state
from sk_pwiser.distributed._exchange import LostWorkerError
from sk_pwiser.distributed._net import WorkerNet
from sk_pwiser.distributed._shards import shards
from sk_pwiser.distributed._workers import Workers

JOB, RESULT, ERRORS = "job.pickle", "result.pickle", "error-*.pickle"


def write_pickle(path, content):
    """Write an object to a file, with the classes of a script, such as callbacks."""
    from ray import cloudpickle

    path.write_bytes(cloudpickle.dumps(content))


class ReportedCheckpoints(Checkpoints):
    """Checkpoints that the first worker writes and all report to Ray.

    Parameters
    ----------
    rank : int
        Number of this worker.
    *args : tuple
        Parameters of `Checkpoints`.
    """

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
    """Train the job in `config["folder"]` together with the other workers.

    An error other than that a worker was lost, such as that training diverged, is
    stored in the folder: it would come again after every restart.
    """
    folder = Path(config["folder"])
    if any(folder.glob(ERRORS)):
        return
    try:
        _train(folder)
    except LostWorkerError:
        raise
    except Exception as error:
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
    checkpoints = ReportedCheckpoints(
        rank, folder / "none", job.start(), saved, job.settings.callbacks or ()
    )
    verbose = int(job.settings.verbose) if rank == 0 else 0
    with shards(job, rank, workers.size) as rows:
        result = run_job(
            job,
            rows,
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
    """Write an error to a file, which appears when it is complete."""
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # not every error can be stored
        content = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(content)
    path = Path(file.name)
    path.rename(folder / ERRORS.replace("*", path.name))


def read_error(folder):
    """Return the error that a worker stored, or None."""
    paths = sorted(Path(folder).glob(ERRORS))
    return pickle.loads(paths[0].read_bytes()) if paths else None


def read_result(checkpoint):
    """Return the pieces of the fitted network."""
    with checkpoint.as_directory() as name:
        return pickle.loads((Path(name) / RESULT).read_bytes())
