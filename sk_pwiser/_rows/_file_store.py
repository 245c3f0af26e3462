"""The encoded rows of files, to train on and to validate."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sk_pwiser._columns._target_statistics import BlockInputs
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._protocol import RowEncoder
from sk_pwiser._rows._stored_rows import StoredRows
from sk_pwiser._rows._streamed_rows import StreamedImpressions

# The fewest of them, if a number of files is asked for.
FEWEST_FILE_ROWS = 128


class FileStore:
    """Encoded rows of files, stored in two folders: to train on, and to validate."""

    def __init__(
        self,
        folder: Path,
        *,
        file_rows: int | None,
        part_rows: int,
        validation_fraction: float,
    ) -> None:
        self.train = StoredRows(folder / "train", file_rows)
        self.valid = StoredRows(folder / "valid", file_rows)
        self.part_rows = part_rows
        self.validation_fraction = validation_fraction

    def add(
        self, encoded: Impressions, is_held_out: np.ndarray, block: np.ndarray | None
    ) -> None:
        """Store rows with their blocks, by which their rates are read."""
        self.train.add(encoded, np.flatnonzero(~is_held_out), block)
        self.valid.add(encoded, np.flatnonzero(is_held_out), block)

    def finish(
        self, schema: RowEncoder, tables: Sequence[BlockInputs] | None, holds_out: bool
    ) -> tuple[StreamedImpressions, StreamedImpressions | None]:
        """Return the rows, which are read with the target statistics of `tables`."""
        self.train.flush()
        self.valid.flush()
        if not len(self.train) or (holds_out and not len(self.valid)):
            raise ValueError(
                f"validation_fraction={self.validation_fraction} leaves "
                f"{len(self.train)} training and {len(self.valid)} validation rows; "
                "use early_stopping=False."
            )
        train = StreamedImpressions(self.train, schema, tables, self.part_rows)
        valid = None
        if len(self.valid):
            valid = StreamedImpressions(self.valid, schema, tables, self.part_rows)
        return train, valid
