"""What a training continues from: an earlier fit, a checkpoint, or neither."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sk_pwiser._table import reads_in_parts
from sk_pwiser._training._checkpoints import Checkpoint, Start, find_checkpoint
from sk_pwiser._training._encode import Schema
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._state import TrainingResult, check_same_model


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
