"""Encoded rows in files, which are read in parts: what does not fit into memory."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Rows per file: few enough that an epoch mixes rows of many places, and enough that a
# file is read as fast as the disk allows.
FILE_ROWS = 16_384

Arrays = dict[str, np.ndarray]


class RowStore:
    """Encoded rows in the files of a folder.

    Plain reads are used instead of memory maps, whose pages would count as memory of
    the process.

    Parameters
    ----------
    folder : str or os.PathLike
        An existing folder, of which the store is the only user.
    file_rows : int, default=None
        Number of rows from which on a file is written; None for 16,384.
    """

    def __init__(
        self, folder: str | os.PathLike[str], file_rows: int | None = None
    ) -> None:
        self.folder = Path(folder)
        self.file_rows = FILE_ROWS if file_rows is None else file_rows
        self.sizes: list[int] = []
        self.n_bytes = 0
        self._pending: list[Arrays] = []

    def __len__(self) -> int:
        """Return the number of rows."""
        return sum(self.sizes) + self._n_pending

    @property
    def _n_pending(self) -> int:
        return sum(len(arrays["y"]) for arrays in self._pending)

    def append(self, arrays: Arrays) -> None:
        """Add rows: arrays by name, and offsets, indices and weights of bags."""
        self._pending.append(arrays)
        self.n_bytes += sum(array.nbytes for array in arrays.values())
        if self._n_pending >= self.file_rows:
            self.flush()

    def flush(self) -> None:
        """Write what was added to a file."""
        if self._n_pending:
            arrays = concatenate(self._pending)
            np.savez(self._path(len(self.sizes)), **arrays)  # type: ignore[arg-type]
            self.sizes.append(len(arrays["y"]))
        self._pending = []

    def read(self, files: Sequence[int], names: Sequence[str] | None = None) -> Arrays:
        """Return the rows of some files, one file after the other.

        Parameters
        ----------
        files : sequence of int
            Numbers of the files.
        names : sequence of str, default=None
            Names of the arrays to read; by default all are.
        """
        parts = []
        for number in files:
            with np.load(self._path(number)) as file:
                chosen = file.files if names is None else {*names} & {*file.files}
                parts.append({name: file[name] for name in chosen})
        return concatenate(parts)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.npz"


def concatenate(parts: Sequence[Arrays]) -> Arrays:
    """Join the arrays of rows; those without weights have the weight 1."""
    names = dict.fromkeys(name for part in parts for name in part)
    joined = {}
    for name in names:
        if name == "bag_offsets":
            starts = np.cumsum([0, *(part[name][-1] for part in parts)])
            moved = [p[name][1:] + s for p, s in zip(parts, starts[:-1], strict=True)]
            joined[name] = np.concatenate([np.zeros(1, np.int64), *moved])
            continue
        known = next(part[name] for part in parts if name in part)
        arrays = [
            part[name] if name in part else _ones_like(name, part, known)
            for part in parts
        ]
        joined[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return joined


def _ones_like(name: str, part: Arrays, known: np.ndarray) -> np.ndarray:
    """Return weights of 1 in the form of those that another part has."""
    n_rows = len(part["bag_indices"] if name == "bag_weights" else part["y"])
    return np.ones((n_rows, *known.shape[1:]), dtype=known.dtype)
