"""What a fit begins with: its rows, its validation rows, and an earlier fit."""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sk_pwiser._streaming import FileRows
from sk_pwiser._table import check_encoding_params, reads_in_parts
from sk_pwiser._training._checkpoints import Checkpoint, Start, find_checkpoint
from sk_pwiser._training._schema import GivenRows, Schema, TableRows, read_table
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._state import TrainingResult, check_same_model

Source = TableRows | FileRows


@dataclass(frozen=True)
class Origin:
    """The state that a training continues from, if there is one."""

    earlier: TrainingResult | None = None
    saved: Checkpoint | None = None
    is_update: bool = False  # `partial_fit`: one pass over rows that are added

    @property
    def state(self) -> TrainingResult | Start | None:
        """The earlier fit, or the start of the training that is resumed."""
        return self.earlier if self.saved is None else self.saved.start

    @property
    def schema(self) -> Schema | None:
        """The schema that encodes the rows, None if it is to be learnt."""
        return None if self.state is None else self.state.schema

    @property
    def split(self) -> dict[str, Any] | None:
        """The random state that drew the validation rows of the first fit."""
        return None if self.state is None else self.state.split

    @property
    def split_rows(self) -> dict[str, Any] | None:
        """The rows that these were drawn from, as `find_split` returns them."""
        return None if self.state is None else self.state.split_rows

    @property
    def n_earlier(self) -> int:
        """The number of epochs before this training."""
        if self.saved is not None:
            return self.saved.start.n_earlier
        return 0 if self.earlier is None else len(self.earlier.net.history)

    @property
    def weight_scale(self) -> float | None:
        """The number by which weights are divided, None for their mean."""
        is_later = self.is_update and self.earlier is not None
        return self.earlier.weight_scale if is_later and self.earlier else None


def find_origin(
    settings: Settings, X: Any, earlier: TrainingResult | None, is_update: bool
) -> Origin:
    """Return what a training on `X` continues from; a fit may resume a checkpoint."""
    if earlier is not None:
        check_same_model(settings, earlier.settings)
    saved, folder = None, settings.checkpoint_dir
    resumes = folder is not None and settings.warm_start
    if resumes and not (is_update or earlier or reads_in_parts(X)):
        saved = find_checkpoint(Path(folder))
    if saved is not None:
        saved.check_settings(settings)
    return Origin(earlier, saved, is_update)


def read(
    settings: Settings,
    given: GivenRows,
    origin: Origin,
    classes: Any,
    stack: ExitStack,
) -> Source:
    """Return the rows: a table, whose labels are checked, or files.

    Encoded rows of files are in a folder that is deleted when the stack is closed.
    """
    # No context manager itself: warnings of a generator would not name the user's line.
    # Updates take tables only, and refuse files.
    if not reads_in_parts(given.X) or origin.is_update:
        expected = None if origin.schema is None else origin.schema.targets
        rows = read_table(
            settings,
            given,
            expected,
            classes,
            is_update=origin.is_update,
            weight_scale=origin.weight_scale,
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
    where = {"prefix": "sk_pwiser_", "dir": dataset.cache_dir}
    folder = stack.enter_context(tempfile.TemporaryDirectory(**where))
    return read_files(settings, dataset, Path(folder))


def read_files(
    settings: Settings, dataset: Any, folder: Path, n_files: int | None = None
) -> FileRows:
    """Return the rows of a dataset, checked as far as they need not be read."""
    source = FileRows(settings, dataset, folder, n_files)
    check_encoding_params(settings.encoding_params)
    if settings.checkpoint_dir is not None:
        raise ValueError(
            "checkpoint_dir must be None for a dataset that is read in parts; got "
            f"{str(settings.checkpoint_dir)!r}."
        )
    return source


def name_eval_sets(eval_set: Any) -> dict[str, Any]:
    """Return validation sets by the names of their figures; the last is "valid"."""
    if eval_set is None:
        return {}
    names: list[Any] = []
    sets = [eval_set]
    if isinstance(eval_set, Mapping):
        names, sets = list(eval_set)[:-1], list(eval_set.values())
    elif isinstance(eval_set, list) and (
        len(eval_set) == 1 or all(isinstance(pair, tuple) for pair in eval_set)
    ):
        names, sets = [f"valid_{k}" for k in range(len(eval_set) - 1)], eval_set
    if not sets:
        raise ValueError(f"eval_set must have at least one set; got {eval_set!r}.")
    for name in names:
        if not isinstance(name, str) or name in ("train", "valid"):
            raise ValueError(
                "The names of eval_set must be strings other than 'train' and 'valid', "
                f"which the history has; got {name!r}."
            )
    return dict(zip([*names, "valid"], sets, strict=True))


def read_eval_sets(eval_set: Any, source: Source) -> dict[str, Source]:
    """Check validation rows, all but the tables, against the training labels."""
    sets = name_eval_sets(eval_set)
    checked: dict[str, Source] = {}
    if isinstance(source, FileRows) and any(map(reads_in_parts, sets.values())):
        return {"valid": _read_eval_files(sets, source)}
    for name, given in sets.items():
        has_names = isinstance(given, GivenRows)  # X_val, Y_val and so on
        is_sequence = isinstance(given, tuple | list)
        if not has_names and not (is_sequence and len(given) == 2):
            found = type(given).__name__
            if is_sequence:
                found = f"{len(given)} entries"
            raise TypeError(f"eval_set must be a pair (X, Y); got {found}.")
        origin = "the validation rows"
        if not has_names:
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
    return FileRows(
        source.settings, eval_set, source.folder, source.n_files, origin="eval_set"
    )
