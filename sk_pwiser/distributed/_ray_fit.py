"""`fit` on several workers."""

import tempfile
from dataclasses import replace
from pathlib import Path

from sk_pwiser._estimator import MultiTaskCTRCVRClassifier
from sk_pwiser._streaming import prepare_job
from sk_pwiser._table import reads_in_parts
from sk_pwiser._training import Settings, from_state
from sk_pwiser._utils import check_boolean, check_integer, check_number
from sk_pwiser.distributed._cluster import (
    JOB,
    check_resources,
    import_ray,
    joined_cluster,
    run,
    write_pickle,
)


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
        that all of them see. For checkpoints it may be a URI such as `"s3://..."`,
        where the last ones remain.
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
    settings = _check(estimator, dataset, num_workers, use_gpu, max_failures, timeout)
    storage, folder = _folders(storage_path, dataset)
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
            replace(settings, device="cpu"),
            dataset,
            eval_set,
            Path(name),
            n_processes=int(num_workers),
            estimator_name=type(estimator).__name__,
        )
        write_pickle(Path(name) / JOB, job)
        check_resources(workers, timeout)  # others may have taken them meanwhile
        state = run(name, workers, storage, max_failures)
    # The caller's settings: classes that come from another process would be copies.
    state["settings"] = replace(settings, callbacks=None)
    result = from_state(state, estimator.get_params(deep=False))
    return estimator._set_result(replace(result, settings=settings))


def _check(estimator, dataset, num_workers, use_gpu, max_failures, timeout):
    """Return the estimator's settings; raise if they cannot be distributed."""
    if not isinstance(estimator, MultiTaskCTRCVRClassifier):
        raise TypeError(
            "estimator must be a MultiTaskCTRCVRClassifier; got "
            f"{type(estimator).__name__}."
        )
    if not reads_in_parts(dataset):
        raise TypeError(
            "dataset must be a ParquetImpressions, whose files the workers share; got "
            f"{type(dataset).__name__}."
        )
    check_integer("num_workers", num_workers, at_least=1)
    check_integer("max_failures", max_failures, at_least=0)
    check_boolean("use_gpu", use_gpu)
    check_number("timeout", timeout, above=0)
    estimator._validate_params()
    settings = Settings.of(vars(estimator))
    if settings.warm_start:
        raise ValueError(
            "warm_start must be False: a distributed fit does not continue an earlier "
            "one."
        )
    if settings.pwiser_weight == "auto":
        raise ValueError(
            "pwiser_weight must be a number: a distributed fit trains one network, and "
            "'auto' compares several."
        )
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


def _folders(storage_path, dataset):
    """Return where checkpoints are stored, and the folder of the encoded rows."""
    storage = str(storage_path)
    if "://" in storage:
        if dataset.cache_dir is None:
            raise ValueError(
                f"storage_path={storage!r} is not a folder, and cache_dir of the "
                "dataset is None; set it to a folder for the encoded rows that all "
                "workers see."
            )
        return storage, Path(dataset.cache_dir).absolute()
    path = Path(storage).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(
            "storage_path must be a folder to which files can be written; got "
            f"{storage!r}: {error}"
        ) from error
    return str(path), Path(dataset.cache_dir or path).absolute()
