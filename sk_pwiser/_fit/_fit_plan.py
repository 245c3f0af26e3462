"""What a fit decides, and refuses, before any work that takes long."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from sk_pwiser._fit._eval_sets import read_eval_sets
from sk_pwiser._rows._hold_out import random_state_at
from sk_pwiser._rows._protocol import Rows
from sk_pwiser._rows._task_weights import check_task_weights
from sk_pwiser._settings import Settings
from sk_pwiser._training._checked_components import Components, check_components
from sk_pwiser._training._checkpoints import check_folder
from sk_pwiser._training._device import find_device
from sk_pwiser._training._early_stopping import (
    FirstStage,
    check_early_stopping,
    check_unmonitored,
)
from sk_pwiser._training._encoded_data import Epochs
from sk_pwiser._training._schema import Schema
from sk_pwiser._training._validation_figures import GROUPED
from sk_pwiser._utils._equality import equal
from sk_pwiser._utils._integers import ceil_div

# With at most so many rows, a tenth of them says less about the best epoch than a
# number of steps that grows with the rows; see the page of what was tried. With more
# rows, the best epoch has at least the number of steps of a fit to so many rows.
MOST_ROWS_OF_STEPS = 1_000
# The number of steps is this one, ...
FIRST_STEPS = 4
# ... and one more for so many rows.
ROWS_PER_STEP = 200


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """What a fit has decided before it reads the values of X."""

    settings: Settings
    device: torch.device
    components: Components
    random_state: np.random.RandomState
    first_random_state: dict[str, Any]  # before the first draw
    split_state: dict[str, Any]  # of the random state that draws the validation rows
    by_time: bool  # whether times order the rows, the last of which are held out
    eval_rows: dict[str, Rows] = field(default_factory=dict)
    # The rows that the validation rows of an earlier fit were drawn from, as
    # `find_split` returns them: no row is held out that it was trained on.
    earlier_split: dict[str, Any] | None = None
    n_earlier: int = 0  # epochs before this training
    first_stage: FirstStage | None = None  # of a fit of two, if this is the second one

    def split_random_state(self) -> np.random.RandomState:
        """Return the random state that draws the validation rows."""
        if equal(self.split_state, self.first_random_state):
            return self.random_state
        return random_state_at(self.split_state)

    def epochs(self, rows: Rows, n_rows: int) -> Epochs:
        """Return the monitored column, the first epoch that may be best, and the last.

        Raises if early stopping or a callback monitors a figure that does not exist.
        """
        if self.first_stage is not None:
            return Epochs(None, 1, self.first_stage.n_epochs)
        settings = self.settings
        first = 1
        last = settings.max_epochs
        stops_early = bool(settings.early_stopping)
        if settings.early_stopping == "auto" and not self.eval_rows:
            n_steps = FIRST_STEPS + min(n_rows, MOST_ROWS_OF_STEPS) // ROWS_PER_STEP
            n_batches = ceil_div(n_rows, settings.batch_size)
            first = min(last, ceil_div(n_steps, n_batches))
            if n_rows <= MOST_ROWS_OF_STEPS:
                stops_early = False
                last = first
        monitor = None
        if stops_early:
            monitor = self._monitor(rows)
        elif not self.eval_rows:
            check_unmonitored(settings.callbacks)
        return Epochs(monitor, first, last)

    def _monitor(self, rows: Rows) -> str:
        """Return the column of the history on which early stopping decides."""
        early_stopping = self.settings.early_stopping
        monitor = check_early_stopping(early_stopping, rows.tasks.task_names)
        has_groups = self.eval_rows.get("valid", rows).has_groups
        if monitor.startswith(GROUPED) and not has_groups:
            figure = monitor.removeprefix("valid_").removesuffix("_mean")
            raise ValueError(
                f"early_stopping={figure!r} needs the group of each validation row:"
                " groups of fit or ParquetImpressions, or groups_val with X_val."
            )
        return monitor


def check(
    settings: Settings,
    rows: Rows,
    eval_set: Any = None,
    *,
    schema: Schema | None = None,
    random_state: np.random.RandomState | None = None,
) -> FitPlan:
    """Check all parameters and rows before any work is done, except the values of X.

    `schema` is that of the training that this one continues, if any, and `random_state`
    replaces that of the settings.
    """
    if schema is not None:
        schema.targets.check_same_tasks(rows.tasks, "the dataset")
    device = find_device(settings.device)
    if random_state is None:
        random_state = check_random_state(settings.random_state)
    eval_rows = {} if eval_set is None else read_eval_sets(eval_set, rows)
    rows.check_features(eval_rows, schema)
    plan = _plan_of(
        settings, rows, device=device, random_state=random_state, eval_rows=eval_rows
    )
    plan.epochs(rows, rows.n_rows)
    if settings.checkpoint_dir is not None:
        check_folder(settings.checkpoint_dir)
    return plan


def check_update(settings: Settings, rows: Rows) -> FitPlan:
    """Check all parameters and rows of an update that builds a net."""
    plan = _plan_of(
        settings,
        rows,
        device=find_device(settings.device),
        random_state=check_random_state(settings.random_state),
        eval_rows={},
    )
    check_unmonitored(settings.callbacks)
    return plan


def _plan_of(
    settings: Settings,
    rows: Rows,
    *,
    device: torch.device,
    random_state: np.random.RandomState,
    eval_rows: dict[str, Rows],
) -> FitPlan:
    """Return the plan for checked rows, after a check of loss and network."""
    first_random_state = random_state.get_state(legacy=False)
    components = check_components(
        settings,
        rows.tasks.task_names,
        device,
        has_groups=rows.has_groups,
        random_state=random_state,
    )
    all_rows = (rows, *eval_rows.values())
    if any(checked.has_task_weights for checked in all_rows):
        check_task_weights(components.loss)
    return FitPlan(
        settings=settings,
        device=device,
        components=components,
        random_state=random_state,
        first_random_state=first_random_state,
        split_state=first_random_state,
        by_time=settings.encoding_params["time_column"] is not None,
        eval_rows=eval_rows,
    )
