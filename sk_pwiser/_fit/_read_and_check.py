"""Before the work of a fit: its rows are read, and all that can be refused is."""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from sk_pwiser._fit._file_rows import FileRows
from sk_pwiser._table._frames import reads_in_parts
from sk_pwiser._training import _components
from sk_pwiser._training._checkpoints import Checkpoint, check_folder, find_checkpoint
from sk_pwiser._training._early_stopping import check_monitored, plan_epochs
from sk_pwiser._training._schema import GivenRows, Schema, TableRows, read_table
from sk_pwiser._training._settings import Settings, find_device
from sk_pwiser._training._state import TrainingResult, check_same_model
from sk_pwiser._utils import equal

Source = TableRows | FileRows


@dataclass(frozen=True)
class Origin:
    """What a training continues from, if from anything."""

    earlier: TrainingResult | None = None
    saved: Checkpoint | None = None
    is_update: bool = False  # `partial_fit`: one pass over rows that are added
    schema: Schema | None = None  # that encodes the rows; None if it is to be learnt
    # The random state that drew the validation rows of the first fit, and the rows that
    # they were drawn from, as `find_split` returns them.
    split_state: dict[str, Any] | None = None
    split_rows: dict[str, Any] | None = None
    n_earlier: int = 0  # epochs before this training


def find_origin(
    settings: Settings, X: Any, earlier: TrainingResult | None, is_update: bool
) -> Origin:
    """Return what a training on `X` continues from; a fit may resume a checkpoint."""
    if earlier is not None:
        check_same_model(settings, earlier.settings)
        n_earlier = len(earlier.net.history)
        splits = earlier.split_state, earlier.split_rows
        return Origin(earlier, None, is_update, earlier.schema, *splits, n_earlier)
    folder, resumes = settings.checkpoint_dir, settings.warm_start
    saved = None
    if folder is not None and resumes and not (is_update or reads_in_parts(X)):
        saved = find_checkpoint(Path(folder))
    if saved is None:
        return Origin(is_update=is_update)
    saved.check_settings(settings)
    start = saved.start
    splits = start.split_state, start.split_rows
    return Origin(None, saved, is_update, start.schema, *splits, start.n_earlier)


def read(
    settings: Settings, given: GivenRows, origin: Origin, classes: Any, stack: ExitStack
) -> Source:
    """Return the rows: a table, whose labels are checked, or files.

    Encoded rows of files are in a folder that is deleted when the stack is closed.
    """
    # No context manager itself: warnings of a generator would not name the user's line.
    # Updates take tables only, and refuse files.
    if not reads_in_parts(given.X) or origin.is_update:
        earlier = origin.earlier if origin.is_update else None
        rows = read_table(
            settings,
            given,
            None if origin.schema is None else origin.schema.targets,
            classes,
            is_update=origin.is_update,
            weight_scale=None if earlier is None else earlier.weight_scale,
        )
        if origin.saved is not None:
            origin.saved.check_n_rows(rows.n_rows)
        return rows
    dataset, *arrays = given
    for name, value in zip(given._fields[1:], arrays, strict=True):
        if value is not None:
            role = "targets" if name == "Y" else name
            raise ValueError(
                f"{name} must be None for a dataset, whose parameter {role} names its "
                "columns."
            )
    folder = tempfile.TemporaryDirectory(prefix="sk_pwiser_", dir=dataset.cache_dir)
    return FileRows(settings, dataset, Path(stack.enter_context(folder)))


def one_eval_set(eval_set: Any, rows: GivenRows) -> Any:
    """Return validation rows as `eval_set`: it itself, or `rows` of X_val and so on."""
    given = [name for name, value in rows._asdict().items() if value is not None]
    if not given:
        return eval_set
    if eval_set is not None:
        raise ValueError(
            f"Pass validation rows as eval_set or as {given[0]}_val, not as both."
        )
    if reads_in_parts(rows.X):
        if given != ["X"]:
            raise ValueError(
                f"{given[1]}_val must be None for X_val={rows.X!r}, which names its "
                "columns of labels and of groups, and has no weights."
            )
        return rows.X
    for name in ("X", "Y"):
        if name not in given:
            raise ValueError(f"{name}_val must be given with {given[0]}_val.")
    return rows


def name_eval_sets(eval_set: Any) -> dict[str, Any]:
    """Return validation sets by the names of their figures; the last is "valid"."""
    sets: dict[Any, Any] = {"valid": eval_set}
    if isinstance(eval_set, Mapping):
        sets = dict(eval_set)
    elif isinstance(eval_set, list) and (
        len(eval_set) == 1 or all(isinstance(pair, tuple) for pair in eval_set)
    ):
        sets = {f"valid_{k}": pair for k, pair in enumerate(eval_set)}
    if not sets:
        raise ValueError(f"eval_set must have at least one set; got {eval_set!r}.")
    names = list(sets)[:-1]
    for name in names:
        if not isinstance(name, str) or name in ("train", "valid"):
            raise ValueError(
                "The names of eval_set must be strings other than 'train' and 'valid', "
                f"which the history has; got {name!r}."
            )
    return dict(zip([*names, "valid"], sets.values(), strict=True))


def read_eval_sets(eval_set: Any, source: Source) -> dict[str, Source]:
    """Check validation rows, all but the tables, against the training labels."""
    sets = name_eval_sets(eval_set)
    if isinstance(source, FileRows) and any(map(reads_in_parts, sets.values())):
        return {"valid": _read_eval_files(sets, source)}
    checked: dict[str, Source] = {}
    for name, given in sets.items():
        if isinstance(given, GivenRows):
            origin = "the validation rows"  # X_val, Y_val and so on
        elif not isinstance(given, tuple | list):
            found = type(given).__name__
            raise TypeError(f"eval_set must be a pair (X, Y); got {found}.")
        elif len(given) != 2:
            raise TypeError(
                f"eval_set must be a pair (X, Y); got {len(given)} entries."
            )
        else:
            origin = "eval_set" if len(sets) == 1 else f"the set {name!r} of eval_set"
        try:
            # Validation rows may have only one of the classes, as those of an update.
            checked[name] = read_table(
                source.settings,
                GivenRows(*given),
                source.tasks,
                is_update=True,
                origin=origin,
            )
        except (ValueError, TypeError) as error:
            raise type(error)(f"In {origin}: {error}") from error
    return checked


def _read_eval_files(sets: dict[str, Any], source: FileRows) -> FileRows:
    """Return the rows of a dataset, which must be the only validation set."""
    eval_set, targets = sets.pop("valid"), source.dataset.targets
    if sets or not reads_in_parts(eval_set):
        raise ValueError(
            "Several sets in eval_set must be tables with labels; a dataset that is "
            "read in parts must be the only one."
        )
    if eval_set.targets != targets:
        raise ValueError(
            f"In eval_set: targets are {eval_set.targets}; the targets of the training "
            f"rows are {targets}."
        )
    if eval_set.sample_weight is not None:
        raise ValueError(
            f"In eval_set: sample_weight={eval_set.sample_weight!r}; validation rows "
            "of a dataset have no weights."
        )
    return FileRows(source.settings, eval_set, source.folder, origin="eval_set")


@dataclass(frozen=True)
class Plan:
    """What a fit has decided before it reads the values of X."""

    settings: Settings
    origin: Origin
    device: torch.device
    task_names: tuple[str, ...]
    has_groups: bool  # of the rows on which early stopping decides
    eval_rows: dict[str, Source]
    components: _components.Components | None  # None: the net is updated in place
    random_state: np.random.RandomState
    first_random_state: dict[str, Any]
    # The random state that draws the validation rows, and where it begins.
    split_random_state: np.random.RandomState
    split_state: dict[str, Any]
    by_time: bool  # whether times order the rows, the last of which are held out

    def epochs(self, n_rows: int) -> tuple[str | None, int, int]:
        """Return the monitored column, the first epoch that may be best, and the last.

        Raises if a figure is monitored that does not exist.
        """
        settings, has_eval_rows = self.settings, bool(self.eval_rows)
        found: tuple[str | None, int, int] = None, 1, 1
        if not self.origin.is_update:
            found = plan_epochs(settings, n_rows, self.task_names, has_eval_rows)
        check_monitored(found[0], settings.callbacks, has_eval_rows, self.has_groups)
        return found


def check(
    settings: Settings,
    source: Source,
    eval_set: Any = None,
    origin: Origin | None = None,
) -> Plan:
    """Check all parameters and rows before any work is done, except the values of X."""
    origin = Origin() if origin is None else origin
    if origin.schema is not None:
        origin.schema.targets.check_same_tasks(source.tasks, "the dataset")
    device = find_device(settings.device)
    random_state = check_random_state(settings.random_state)
    if origin.saved is not None:
        random_state = random_state_at(origin.saved.start.random_state)
    first_random_state = random_state.get_state(legacy=False)
    eval_rows = {} if eval_set is None else read_eval_sets(eval_set, source)
    if isinstance(source, FileRows):
        source.check_features(eval_rows, origin.schema)
    names, has_groups = source.tasks.task_names, source.has_groups
    built, loss = None, _loss_of_update_in_place(settings, origin, has_groups)
    if loss is None:
        built = _components.check_components(
            settings, names, device, has_groups, random_state
        )
        loss = built.loss
    if any(rows.has_task_weights for rows in (source, *eval_rows.values())):
        _components.check_task_weights(loss)
    # With `find_split`, no row is held out that the first fit was trained on.
    split_state = origin.split_state or first_random_state
    split_random_state = random_state
    if not equal(split_state, first_random_state):
        split_random_state = random_state_at(split_state)
    # Rows that are added to those of earlier fits need no order.
    adds = origin.is_update and origin.schema is not None
    plan = Plan(
        settings=settings,
        origin=origin,
        device=device,
        task_names=names,
        has_groups=eval_rows.get("valid", source).has_groups,
        eval_rows=eval_rows,
        components=built,
        random_state=random_state,
        first_random_state=first_random_state,
        split_random_state=split_random_state,
        split_state=split_state,
        by_time=settings.encoding_params["time_column"] is not None and not adds,
    )
    plan.epochs(source.n_rows)
    if settings.checkpoint_dir is not None and not origin.is_update:
        check_folder(settings.checkpoint_dir)
    return plan


def random_state_at(state: dict[str, Any]) -> np.random.RandomState:
    """Return a new random state at the position of another one."""
    random_state = np.random.RandomState()
    random_state.set_state(state)
    return random_state


def _loss_of_update_in_place(
    settings: Settings, origin: Origin, has_groups: bool
) -> Any:
    """Return the loss of the earlier net if only its weights change, otherwise None."""
    earlier = origin.earlier
    if not origin.is_update or earlier is None or not earlier.single_pass:
        return None
    if not equal(vars(settings), vars(earlier.settings)):
        return None
    net, loss = earlier.net, earlier.net.criterion_.loss
    sampler = _components.batch_sampler(settings, loss, has_groups)
    return loss if net.iterator_train__sampler == sampler else None
