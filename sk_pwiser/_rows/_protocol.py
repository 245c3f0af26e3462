"""What a fit asks of its rows, and of the schema that encodes them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from sk_pwiser._rows._checked_rows import CheckedRows
from sk_pwiser._rows._encoded_rows import Impressions, TrainingRows
from sk_pwiser._rows._row_summary import RowSummary
from sk_pwiser._settings import Settings
from sk_pwiser._tasks._labels import Targets


class RowEncoder(Protocol):
    """A schema, as rows see it: it encodes tables, and adds target statistics."""

    @property
    def encoder(self) -> Any:
        """The `TableEncoder`."""

    @property
    def statistics(self) -> Any:
        """The `TargetStatistics`, or None."""

    @property
    def value_scales(self) -> tuple[float, ...]:
        """The mean amount of each value that is learnt."""

    def transform(self, X: Any, *, as_shown: bool = False) -> Impressions:
        """Encode a table as predictions read it, at the reference or as shown."""

    def elements(self, bags: Any = None) -> list[Any]:
        """Return the elements of the list columns if they have target statistics."""

    def without_rare(self, codes: np.ndarray) -> np.ndarray:
        """Replace the codes of rare values by the code of unseen values, in place."""


class RowStore(Protocol):
    """Encoded rows of one pass: those to train on, and those that are held out."""

    def add(
        self, encoded: Impressions, is_held_out: np.ndarray, block: np.ndarray | None
    ) -> None:
        """Store rows with their blocks, by which their rates are read."""

    def finish(
        self, schema: RowEncoder, tables: Sequence[Any] | None, holds_out: bool
    ) -> tuple[TrainingRows, TrainingRows | None]:
        """Return the rows, with the target statistics of `tables` by their blocks."""


class Rows(Protocol):
    """The rows of a data set: of a table, which is one part, or of files."""

    settings: Settings
    origin: str  # as errors name the rows
    n_rows: int
    has_groups: bool
    has_task_weights: bool
    tasks: Targets  # without labels
    summary: RowSummary
    # Whether encoded rows stay in memory: then their numeric inputs have columns for
    # the target statistics from the beginning.
    stays_in_memory: bool
    # Numbers of columns are learnt from so many rows, all rows if it is None.
    sample_rows: int | None
    # Values of a category column that are counted; None counts all of them.
    max_values: int | None

    def again(self) -> "Rows":
        """Return the same rows for another fit."""

    def parts(self, label: str) -> Iterator[CheckedRows]:
        """Yield the rows in their order; `label` is what is done with them."""

    def feature_names(self, default: Sequence[Any]) -> Sequence[Any]:
        """Return the names of the columns, `default` if they have none."""

    def check_features(
        self, eval_rows: Mapping[str, "Rows"], schema: RowEncoder | None
    ) -> None:
        """Raise if rows lack features of an earlier fit or of the training rows."""

    def eval_rows(self, dataset: Any) -> "Rows":
        """Return the rows of a data set on which training on these is validated."""

    def value_of_group(self, number: int) -> Any:
        """Return a group as the user passed it, None if that is not known."""

    def new_store(self) -> RowStore:
        """Return an empty store of encoded rows."""

    def encode(self, schema: RowEncoder, loss: Any) -> TrainingRows:
        """Encode validation rows, on which `loss` is measured."""

    def release(self) -> None:
        """Free the memory of rows that were encoded."""
