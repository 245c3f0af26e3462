"""The checks of a fit, before any work: parameters, labels, and what is monitored."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from sk_pwiser._fit._read import Origin, Source, read_eval_sets
from sk_pwiser._streaming import FileRows
from sk_pwiser._training._checkpoints import check_folder
from sk_pwiser._training._components import (
    LARGEST_SEED,
    Components,
    batch_sampler,
    check_components,
    check_task_weights,
)
from sk_pwiser._training._devices import find_device
from sk_pwiser._training._early_stopping import check_monitored, plan_epochs
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._state import TrainingResult
from sk_pwiser._utils import equal, warn_user


@dataclass(frozen=True)
class Plan:
    """What a fit has decided before it reads the values of X."""

    settings: Settings
    origin: Origin
    device: torch.device
    task_names: tuple[str, ...]
    has_groups: bool  # of the rows on which early stopping decides
    eval_rows: dict[str, Source]
    components: Components | None  # None: the earlier net is updated in place
    random_state: np.random.RandomState
    first_random_state: dict[str, Any]
    # The random state that draws the validation rows, and where it begins.
    split_random_state: np.random.RandomState
    split_state: dict[str, Any]
    # Seeds that take nothing from the random state: of random blocks, and of samples of
    # rows in parts.
    block_seed: int
    sample_seed: int
    by_time: bool  # whether times order the rows, the last of which are held out

    def epochs(self, n_rows: int) -> tuple[str | None, int, int]:
        """Return the monitored column, the first epoch that may be best, and the last.

        Raises if a figure is monitored that does not exist.
        """
        if self.origin.is_update:
            found: tuple[str | None, int, int] = None, 1, 1
        else:
            found = plan_epochs(
                self.settings, n_rows, self.task_names, bool(self.eval_rows)
            )
        callbacks = self.settings.callbacks
        check_monitored(found[0], callbacks, bool(self.eval_rows), self.has_groups)
        return found

    def check_labels(self, source: Source) -> None:
        """Check labels and weights when all of them were read."""
        summary = source.summary
        if summary.per_task and self.components is not None:
            check_task_weights(self.components.loss)
        for message in summary.targets().problems(
            constant_tasks=not self.origin.is_update,
            task_space=self.settings.shared_param("task_space"),
            weights=summary.label_weights(),
        ):
            warn_user(message)


def random_state_at(state: dict[str, Any]) -> np.random.RandomState:
    """Return a new random state at the position of another one."""
    random_state = np.random.RandomState()
    random_state.set_state(state)
    return random_state


def check(
    settings: Settings,
    source: Source,
    eval_set: Any = None,
    origin: Origin = Origin(),  # noqa: B008
) -> Plan:
    """Check all parameters and rows before any work is done, except the values of X."""
    if origin.earlier is not None:
        targets = origin.earlier.schema.targets
        targets.check_same_tasks(source.tasks, "the dataset")
    device = find_device(settings.device)
    random_state = check_random_state(settings.random_state)
    if origin.saved is not None:
        random_state = random_state_at(origin.saved.start.random_state)
    first_random_state = random_state.get_state(legacy=False)
    eval_rows = {} if eval_set is None else read_eval_sets(eval_set, source)
    if isinstance(source, FileRows):
        source.check_features(eval_rows, origin.schema)
    names, has_groups = source.tasks.task_names, source.has_groups
    components: Components | None = None
    if origin.is_update and _updates_in_place(settings, origin.earlier, has_groups):
        assert origin.earlier is not None
        loss = origin.earlier.net.criterion_.loss
    else:
        components = check_components(settings, names, device, has_groups, random_state)
        loss = components.loss
    if any(rows.has_task_weights for rows in (source, *eval_rows.values())):
        check_task_weights(loss)
    # With `find_split`, no row is held out that the first fit was trained on.
    split_state, split_random_state = origin.split_state, random_state
    if split_state is None or equal(split_state, first_random_state):
        split_state = first_random_state
    else:
        split_random_state = random_state_at(split_state)
    block_seed, sample_seed = random_state_at(split_state).randint(LARGEST_SEED, size=2)
    # Rows that are added to those of earlier fits need no order.
    adds = origin.is_update and origin.schema is not None
    plan = Plan(
        settings=settings,
        origin=origin,
        device=device,
        task_names=names,
        has_groups=eval_rows.get("valid", source).has_groups,
        eval_rows=eval_rows,
        components=components,
        random_state=random_state,
        first_random_state=first_random_state,
        split_random_state=split_random_state,
        split_state=split_state,
        block_seed=int(block_seed),
        sample_seed=int(sample_seed),
        by_time=settings.encoding_params["time_column"] is not None and not adds,
    )
    plan.epochs(source.n_rows)
    if source.summary.n_rows:  # those of files are read later
        plan.check_labels(source)
    if settings.checkpoint_dir is not None and not origin.is_update:
        check_folder(settings.checkpoint_dir)
    return plan


def _updates_in_place(
    settings: Settings, earlier: TrainingResult | None, has_groups: bool
) -> bool:
    """Return whether an update changes nothing of the earlier net but its weights."""
    if earlier is None or not earlier.single_pass:
        return False
    if not equal(vars(settings), vars(earlier.settings)):
        return False
    sampler = batch_sampler(settings, earlier.net.criterion_.loss, has_groups)
    return bool(earlier.net.iterator_train__sampler == sampler)
