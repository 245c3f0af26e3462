"""What `fit` does with a dataset that is read in parts."""

import tempfile
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from sklearn.utils import check_random_state

from sk_pwiser._training._components import (
    Components,
    check_components,
    check_task_weights,
)
from sk_pwiser._training._data import (
    EncodedData,
    check_encoding_params,
    choose_task_names,
    reads_in_parts,
)
from sk_pwiser._training._dataset_rows import encode_eval_rows, encode_rows
from sk_pwiser._training._dataset_schema import DatasetSchema, learn_schema
from sk_pwiser._training._device import find_device
from sk_pwiser._training._early_stopping import monitored_column
from sk_pwiser._training._eval_set import check_eval_set, with_eval_rows
from sk_pwiser._training._fit import build, optimise
from sk_pwiser._training._plan import LARGEST_SEED, Plan
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._resume import check_same_model
from sk_pwiser._training._row_store import FILE_ROWS
from sk_pwiser._training._rows import Rows
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._streamed import TrainingData
from sk_pwiser._utils import seeded_globally, warn_user

FEWEST_ROWS = 128  # per stored file


def fit_dataset(
    params: Mapping[str, Any],
    dataset: Any,
    Y: Any = None,
    sample_weight: Any = None,
    groups: Any = None,
    eval_set: Any = None,
    *,
    earlier: TrainingResult | None = None,
    estimator_name: str,
) -> TrainingResult:
    """Train on a dataset: learn the encoding, store encoded rows on disk, optimise.

    Parameters
    ----------
    params : mapping
        The estimator's parameters.
    dataset : object
        Rows with labels, such as a :class:`~sk_pwiser.datasets.ParquetImpressions`.
    Y, sample_weight, groups : None
        What the dataset has itself.
    eval_set : object or tuple of (X, Y), default=None
        Validation rows: another dataset, or a table and labels.
    earlier : TrainingResult, default=None
        The fit to continue from.
    estimator_name : str
        Name of the estimator, for messages.

    Returns
    -------
    TrainingResult
        A new result.
    """
    _refuse_arrays(Y=Y, sample_weight=sample_weight, groups=groups)
    with (
        tempfile.TemporaryDirectory(prefix="sk_pwiser_", dir=dataset.cache_dir) as name,
        ThreadPoolExecutor(1, thread_name_prefix="sk_pwiser-reader") as pool,
    ):
        plan, data = prepare_dataset(
            Settings.of(params),
            dataset,
            eval_set,
            Path(name),
            pool,
            earlier=earlier,
            estimator_name=estimator_name,
        )
        net = build(plan, data.schema)
        return optimise(plan, data, net)


def prepare_dataset(
    settings: Settings,
    dataset: Any,
    eval_set: Any,
    folder: Path,
    pool: Executor,
    *,
    earlier: TrainingResult | None = None,
    n_files: int | None = None,
    estimator_name: str,
) -> tuple[Plan, EncodedData]:
    """Check parameters and rows, learn the encoding, and store encoded rows on disk.

    Parameters
    ----------
    settings : Settings
        The estimator's parameters.
    dataset, eval_set, earlier, estimator_name
        As in `fit_dataset`.
    folder : Path
        Folder for the rows, which is empty.
    pool : Executor
        Its thread reads.
    n_files : int, default=None
        Least number of stored files, if there are rows enough; by default the files
        have about 16,384 rows.

    Returns
    -------
    plan : Plan
        What to train.
    data : EncodedData
        The rows.
    """
    if not dataset.targets:
        raise ValueError("targets of the dataset is empty; fit needs labels.")
    check_encoding_params(settings.encoding_params)
    if settings.checkpoint_dir is not None:
        raise ValueError(
            "checkpoint_dir must be None for a dataset that is read in parts; got "
            f"{str(settings.checkpoint_dir)!r}."
        )
    if earlier is not None:
        check_same_model(settings, earlier.settings)
    random_state = check_random_state(settings.random_state)
    components = _check_components(settings, dataset, random_state)
    if reads_in_parts(eval_set):
        _check_eval_dataset(dataset, eval_set)
    seeds = [int(seed) for seed in random_state.randint(LARGEST_SEED, size=2)]
    schema = None if earlier is None else earlier.schema
    learnt = learn_schema(settings, dataset, schema, seeds[0], pool, estimator_name)
    plan = _plan(settings, learnt, components, eval_set, earlier, random_state)
    file_rows = None
    if n_files is not None:
        by_file = learnt.summary.n_rows // n_files
        file_rows = min(FILE_ROWS, max(FEWEST_ROWS, by_file))
    holds_out = plan.monitor is not None and eval_set is None
    data = encode_rows(
        settings,
        dataset,
        learnt,
        folder,
        pool,
        seed=seeds[1] if holds_out else None,
        file_rows=file_rows,
    )
    if plan.eval_rows is not None:
        data = with_eval_rows(data, plan.eval_rows)
    elif eval_set is not None:
        valid = encode_eval_rows(
            settings, eval_set, data.schema, folder, pool, file_rows
        )
        data = replace(data, rows=TrainingData(data.rows.train, valid))
    for message in components.loss.cautions(data.schema.base_rates.tolist()):
        warn_user(message)
    return plan, data


def _refuse_arrays(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            role = "targets" if name == "Y" else name
            raise ValueError(
                f"{name} must be None for a dataset, whose parameter {role} names its "
                "columns."
            )


def _check_components(
    settings: Settings, dataset: Any, random_state: Any
) -> Components:
    """Build what does not depend on the rows, before any is read."""
    n_tasks = len(dataset.targets)
    names = choose_task_names(n_tasks, settings.task_names, dataset.targets, None)
    device = find_device(settings.device)
    with seeded_globally(deepcopy(random_state).randint(LARGEST_SEED), device):
        components = check_components(
            settings, names, device, dataset.groups is not None
        )
    if isinstance(dataset.sample_weight, list):
        check_task_weights(components.loss)
    return components


def _check_eval_dataset(dataset: Any, eval_set: Any) -> None:
    """Raise if the validation rows have other tasks, or what they must not have."""
    if eval_set.targets != dataset.targets:
        raise ValueError(
            f"In eval_set: targets are {eval_set.targets}; those of the training rows "
            f"are {dataset.targets}."
        )
    for name in ("sample_weight", "groups"):
        if getattr(eval_set, name) is not None:
            raise ValueError(
                f"In eval_set: {name}={getattr(eval_set, name)!r}; validation rows "
                "have no weights and no groups."
            )


def _plan(
    settings: Settings,
    learnt: DatasetSchema,
    components: Components,
    eval_set: Any,
    earlier: TrainingResult | None,
    random_state: Any,
) -> Plan:
    """Check what depends on all labels."""
    summary, targets = learnt.summary, learnt.summary.targets()
    eval_rows = None
    if eval_set is not None and not reads_in_parts(eval_set):
        eval_rows = check_eval_set(settings, eval_set, targets)
    if summary.per_task or (eval_rows is not None and eval_rows.has_task_weights):
        check_task_weights(components.loss)
    monitor = monitored_column(
        settings.early_stopping,
        summary.n_rows,
        targets.task_names,
        has_eval_set=eval_set is not None,
    )
    if earlier is not None and (
        targets.task_names != earlier.schema.targets.task_names
    ):
        raise ValueError(
            f"Training uses the tasks {list(earlier.schema.targets.task_names)}; the "
            f"dataset has {list(targets.task_names)}."
        )
    targets.warn_about_labels(selection=settings.shared_param("task_space") == "entire")
    return Plan(
        settings,
        find_device(settings.device),
        Rows(None, targets, None, None),
        eval_rows,
        components,
        monitor,
        random_state,
        earlier,
        single_pass=False,
    )
