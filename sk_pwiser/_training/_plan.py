"""All checks of a fit but those of the values of `X`, before any work is done."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from sk_pwiser._training._callbacks import check_monitors
from sk_pwiser._training._checkpoint import Checkpoint, find_checkpoint
from sk_pwiser._training._checkpoint_writer import check_folder
from sk_pwiser._training._components import (
    Components,
    check_components,
    check_task_weights,
)
from sk_pwiser._training._data import Schema, check_rows
from sk_pwiser._training._device import find_device
from sk_pwiser._training._early_stopping import monitored_column
from sk_pwiser._training._eval_set import check_eval_set
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._resume import check_same_model
from sk_pwiser._training._rows import Rows
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import seeded_globally
from sk_pwiser.losses import MultiTaskLoss

LARGEST_SEED = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Plan:
    """What to train, on which rows and how, after all checks but those of `X`."""

    settings: Settings
    device: torch.device
    rows: Rows
    eval_rows: Rows | None
    components: Components | None  # None: the earlier net is updated in place
    monitor: str | None
    random_state: np.random.RandomState
    earlier: TrainingResult | None
    single_pass: bool
    first_random_state: dict[str, Any] | None = None
    folder: Path | None = None  # of checkpoints
    saved: Checkpoint | None = None  # from which training resumes

    @property
    def schema(self) -> Schema | None:
        """The schema of the earlier fit, if training continues or resumes."""
        return _schema(self.earlier, self.saved)

    @property
    def n_earlier(self) -> int:
        """The number of epochs before this training."""
        if self.saved is not None:
            return self.saved.start.n_earlier
        return 0 if self.earlier is None else len(self.earlier.net.history)

    def draw_seed(self) -> int:
        """Draw a seed from the estimator's `random_state`."""
        return int(self.random_state.randint(LARGEST_SEED))


def validate(
    settings: Settings,
    X: Any,
    Y: Any,
    sample_weight: Any,
    groups: Any,
    eval_set: Any,
    earlier: TrainingResult | None,
    classes: Any,
    single_pass: bool,
) -> Plan:
    """Check all parameters and rows before any work is done, except the values of X."""
    if earlier is not None:
        check_same_model(settings, earlier.settings)
    is_update = (
        single_pass
        and earlier is not None
        and earlier.single_pass
        and settings.equals(earlier.settings)
    )
    saved = None if single_pass or earlier else _find_saved(settings)
    device = find_device(settings.device)
    random_state = check_random_state(settings.random_state)
    if saved is not None:
        random_state = saved.random_state
    first_random_state = random_state.get_state(legacy=False)
    schema = _schema(earlier, saved)
    tasks = None if schema is None else schema.targets
    rows = check_rows(
        settings, X, Y, sample_weight, groups, tasks, classes, single_pass
    )
    if saved is not None:
        saved.check_n_rows(len(rows.targets.values))
    eval_rows = check_eval_set(settings, eval_set, rows.targets)
    task_names = rows.targets.task_names
    components = None
    if not is_update:
        # Seeded by a copy: how many numbers a loss or weighting draws leaves the
        # network's initial weights unchanged.
        with seeded_globally(deepcopy(random_state).randint(LARGEST_SEED), device):
            components = check_components(
                settings, task_names, device, rows.groups is not None
            )
    if any(part and part.has_task_weights for part in (rows, eval_rows)):
        check_task_weights(components.loss if components else _loss_of(earlier))
    monitor = _monitor(settings, rows, eval_rows, single_pass)
    rows.targets.warn_about_labels(
        constant_tasks=not single_pass,
        selection=settings.shared_param("task_space") == "entire",
    )
    writes = not single_pass and settings.checkpoint_dir is not None
    return Plan(
        settings,
        device,
        rows,
        eval_rows,
        components,
        monitor,
        random_state,
        earlier,
        single_pass,
        first_random_state,
        check_folder(settings.checkpoint_dir) if writes else None,
        saved,
    )


def _monitor(
    settings: Settings, rows: Rows, eval_rows: Rows | None, single_pass: bool
) -> str | None:
    """Return the column that early stopping monitors; check those of callbacks."""
    monitor = None
    if not single_pass:
        monitor = monitored_column(
            settings.early_stopping,
            len(rows.targets.values),
            rows.targets.task_names,
            has_eval_set=eval_rows is not None,
        )
    if monitor is None and eval_rows is None:
        check_monitors(settings.callbacks)
    return monitor


def _find_saved(settings: Settings) -> Checkpoint | None:
    """Read the checkpoint to resume from, if there is one with these settings."""
    if settings.checkpoint_dir is None or not settings.warm_start:
        return None
    saved = find_checkpoint(Path(settings.checkpoint_dir))
    if saved is not None:
        saved.check_settings(settings)
    return saved


def _schema(earlier: TrainingResult | None, saved: Checkpoint | None) -> Schema | None:
    """Return the schema that encodes the rows, None if it is to be learnt."""
    if saved is not None:
        return saved.start.schema
    return None if earlier is None else earlier.schema


def _loss_of(earlier: TrainingResult | None) -> MultiTaskLoss:
    """Return the loss of a net that is updated in place."""
    assert earlier is not None
    loss: MultiTaskLoss = earlier.net.criterion_.loss
    return loss
