"""Encoded rows in files on disk."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._utils._integers import ceil_div

# Rows per file: few enough that an epoch mixes rows of many places, and enough that a
# file is read as fast as the disk allows.
FILE_ROWS = 16_384
Arrays = dict[str, np.ndarray]


class StoredRows:
    """Encoded rows in files, as memory maps would count as memory of the process."""

    def __init__(self, folder: Path, file_rows: int | None = None) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # the rows of an earlier pass
        folder.mkdir()
        self.folder = folder
        self.file_rows = file_rows
        # Files are written from half the rows on, since parts that end with a group
        # differ in size.
        self.fewest_rows = FILE_ROWS
        if file_rows is not None:
            self.fewest_rows = ceil_div(file_rows, 2)
        self.sizes: list[int] = []
        # The dtype and the shape per row of each array.
        self.forms: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self._pending: list[Arrays] = []

    def __len__(self) -> int:
        return sum(self.sizes)

    def add(
        self,
        impressions: Impressions,
        rows: np.ndarray,
        block: np.ndarray | None = None,
    ) -> None:
        """Add some of the rows, about `file_rows` at a time."""
        if not len(rows):
            return
        size = len(rows) if self.file_rows is None else self.file_rows
        cuts = np.arange(size, len(rows), size)
        if len(cuts) and impressions.groups is not None:
            # Moved to the next group, so that the rows of a group stay together.
            starts = np.flatnonzero(np.diff(impressions.groups.numpy()[rows])) + 1
            cuts = np.append(starts, len(rows))[np.searchsorted(starts, cuts)]
        for rows_of_file in np.split(rows, np.unique(cuts).astype(int)):
            if len(rows_of_file):
                inputs, y = impressions.batch(torch.from_numpy(rows_of_file))
                arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
                arrays["y"] = y.numpy()
                if block is not None:
                    arrays["block"] = block[rows_of_file].astype(np.int32)
                self._pending.append(arrays)
                for name, array in arrays.items():
                    self.forms.setdefault(name, (array.dtype, array.shape[1:]))
                n_pending = sum(len(arrays["y"]) for arrays in self._pending)
                if n_pending >= self.fewest_rows:
                    self.flush()

    def flush(self) -> None:
        if self._pending:
            arrays = self._join(self._pending, self.forms)
            np.savez(self._path(len(self.sizes)), **arrays)  # type: ignore[arg-type]
            self.sizes.append(len(arrays["y"]))
        self._pending = []

    def read(self, files: Sequence[int], names: Sequence[str] | None = None) -> Arrays:
        """Return the named arrays, by default all, of some files in their order."""
        chosen = list(self.forms) if names is None else names
        parts = []
        for number in files:
            with np.load(self._path(number)) as file:
                # The labels also tell the number of rows, if these have no weights.
                parts.append({n: file[n] for n in {*chosen, "y"} if n in file})
        return self._join(parts, chosen)

    def _join(self, parts: Sequence[Arrays], names: Iterable[str]) -> Arrays:
        """Join the arrays of rows; those without weights have the weight 1."""
        joined = {}
        for name in names:
            if name == "bag_offsets":
                # Each part counts the entries of its bags from 0.
                starts = np.cumsum([0, *(part[name][-1] for part in parts)])
                pairs = zip(parts, starts[:-1], strict=True)
                moved = [part[name][1:] + start for part, start in pairs]
                joined[name] = np.concatenate([np.zeros(1, np.int64), *moved])
                continue
            dtype, shape = self.forms[name]
            key = "bag_indices" if name == "bag_weights" else "y"
            arrays = [
                part[name] if name in part else np.ones((len(part[key]), *shape), dtype)
                for part in parts
            ]
            joined[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        return joined

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.npz"
