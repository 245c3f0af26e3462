"""What changed between two models, for servers that have the older one."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from sk_pwiser import _model_files
from sk_pwiser._utils._integers import ceil_div
from sk_pwiser.export._served_model import ServedModel, fitted_result, to_plain

KIND = "delta"
# The lines of the JSON of a model, as an array among the others.
LINES = "lines"


@dataclass(frozen=True, kw_only=True)
class RowChanges:
    """How the rows of a new array follow from those of an old one.

    Runs have the first row in the old array, or -1, and the number of rows: they are
    copies, or the next ones of the new rows.
    """

    runs: np.ndarray  # int32 (n_runs, 2)
    new_rows: np.ndarray

    @classmethod
    def between(cls, old: np.ndarray | None, new: np.ndarray) -> "RowChanges":
        """Compare arrays, whose rows may also have moved."""
        if old is None or old.dtype != new.dtype or old.shape[1:] != new.shape[1:]:
            old = new[:0]
        sources = _sources(_row_bytes(old), _row_bytes(new))
        is_copy = sources >= 0
        goes_on = is_copy[:-1] & (sources[1:] == sources[:-1] + 1)
        are_both_new = ~is_copy[:-1] & ~is_copy[1:]
        begins = np.r_[True, ~(goes_on | are_both_new)][: len(sources)]
        starts = np.flatnonzero(begins)
        lengths = np.diff(np.r_[starts, len(sources)])
        runs = np.stack([sources[starts], lengths], axis=1)
        return cls(runs=runs.astype(np.int32), new_rows=new[~is_copy])

    def applied_to(self, old: np.ndarray | None) -> np.ndarray:
        """Return the new array."""
        if old is None or old.shape[1:] != self.new_rows.shape[1:]:
            old = self.new_rows[:0]
        # A row is copied at most to its place and to another one. More copies would
        # take memory without bytes in the file.
        lengths = self.runs[:, 1]
        n_rows = int(lengths.sum(dtype=np.int64))
        if (lengths < 0).any() or n_rows > 2 * len(old) + len(self.new_rows):
            raise ValueError(f"it makes {n_rows} rows of {len(old)} and its own")
        pieces = []
        n_used = 0
        for source, length in self.runs.tolist():
            if source < 0:
                pieces.append(self.new_rows[n_used : n_used + length])
                n_used += length
            else:
                pieces.append(old[source : source + length])
        return np.concatenate(pieces) if pieces else self.new_rows


def _row_bytes(array: np.ndarray) -> np.ndarray:
    """Return the bytes of each row as words of 64 bits, `(n_rows, n_words)`."""
    n_rows = len(array)
    n_bytes = math.prod(array.shape[1:]) * array.itemsize
    as_bytes = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    words = np.zeros((n_rows, 8 * max(1, ceil_div(n_bytes, 8))), dtype=np.uint8)
    words[:, :n_bytes] = as_bytes.reshape(n_rows, n_bytes)
    return words.view(np.uint64)


def _sources(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return an equal old row for each new one, or -1: the one at its place, if any."""
    n_both = min(len(old), len(new))
    stays = (old[:n_both] == new[:n_both]).all(axis=1)
    sources = np.full(len(new), -1, dtype=np.int64)
    sources[:n_both][stays] = np.flatnonzero(stays)
    changed = np.flatnonzero(sources < 0)
    sources[changed] = _moved_from(old, new[changed])
    return sources


def _moved_from(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return an equal old row for each new one, in their order, or -1."""
    multipliers = np.random.default_rng(0).integers(
        1, 2**63, size=old.shape[1], dtype=np.uint64
    )
    # Sums of products modulo 2^64; equal values are compared below.
    old_hashes = (old * (2 * multipliers + 1)).sum(axis=1, dtype=np.uint64)
    new_hashes = (new * (2 * multipliers + 1)).sum(axis=1, dtype=np.uint64)
    all_hashes = np.concatenate([old_hashes, new_hashes])
    order = np.argsort(all_hashes, kind="stable")
    is_first = np.r_[True, np.diff(all_hashes[order]) != 0][: len(order)]
    # The first row with a hash is paired with the first one, and so on.
    group = np.cumsum(is_first) - 1
    is_old = order < len(old)
    n_old_of_group = np.bincount(group[is_old], minlength=len(order))
    first_of_group = np.flatnonzero(is_first)[group]
    place = np.arange(len(order)) - first_of_group - n_old_of_group[group]
    has_pair = ~is_old & (place < n_old_of_group[group])
    sources = np.full(len(new), -1, dtype=np.int64)
    new_rows = order[has_pair] - len(old)
    sources[new_rows] = order[(first_of_group + place)[has_pair]]
    is_copy = sources >= 0
    copies = np.flatnonzero(is_copy)
    differs = (old[sources[copies]] != new[copies]).any(axis=1)
    sources[copies[differs]] = -1
    return sources


def fingerprint(values: Any, arrays: Mapping[str, np.ndarray]) -> str:
    """Return a checksum of a model in its plain form."""
    digest = hashlib.sha256(json.dumps(values).encode("ascii"))
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class Delta:
    """What changed from an old to a new model; :func:`delta` creates it.

    It holds the rows of the embedding tables and of the target statistics that differ,
    the new category values, and the other weights; nothing that only training needs.

    Parameters
    ----------
    old : str
        Checksum of the old model.
    new : str
        Checksum of the new model.
    values : dict
        Forms of the new model's arrays.
    arrays : dict of str to ndarray
        The rows that differ, and where the others come from.

    Attributes
    ----------
    nbytes : int
        The size of the arrays, nearly that of the file.

    See Also
    --------
    delta : Creates a delta of two fitted estimators.
    Scorer.apply : Takes over the changes.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.export import delta
    >>> data = make_ctr_cvr(500, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0)
    >>> model = model.fit(data.data, data.target)
    >>> change = delta(model, model)
    >>> change.old == change.new
    True
    """

    def __init__(
        self, *, old: str, new: str, values: Any, arrays: Mapping[str, np.ndarray]
    ) -> None:
        self.old = old
        self.new = new
        self._values = values
        self._arrays = dict(arrays)

    def __repr__(self) -> str:
        return f"Delta({self.old[:8]} to {self.new[:8]}, {self.nbytes:,} bytes)"

    @property
    def nbytes(self) -> int:
        """The size of the arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that holds no code and has a checksum.

        Parameters
        ----------
        path : str or path-like
            The file. One that exists is replaced.
        """
        header = {"kind": KIND, "old": self.old, "new": self.new}
        _model_files.write_file(path, {**header, "changes": self._values}, self._arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` wrote.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        Delta
            What was saved.

        Raises
        ------
        ValueError
            If the file is damaged, or not that of a delta.
        """
        values, arrays = _model_files.read_file(path)
        if not isinstance(values, dict) or values.get("kind") != KIND:
            raise ValueError(f"{str(path)!r} is not a file of Delta.save.")
        with _model_files.refusing(path, "has no valid delta", _model_files.ADVICE):
            return cls(
                old=values["old"],
                new=values["new"],
                values=values["changes"],
                arrays=arrays,
            )

    def applied_to(
        self, values: Any, arrays: Mapping[str, np.ndarray]
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """Return the new model in its plain form, given the old one in this form.

        Parameters
        ----------
        values : object
            The old model's values of JSON.
        arrays : dict of str to ndarray
            Its arrays.

        Returns
        -------
        tuple
            Those of the new model.

        Raises
        ------
        ValueError
            If it is not the old model of this delta.
        """
        served = fingerprint(values, arrays)
        if served != self.old:
            is_new = " (it is the new one already)" if served == self.new else ""
            raise ValueError(
                f"The delta leads from model {self.old[:8]} to {self.new[:8]}; the "
                f"model that is served is {served[:8]}{is_new}. Apply deltas in the "
                "order in which the models were trained."
            )
        with _model_files.refusing("delta", "is damaged"):
            lines = self._changed_lines(_lines_of(values))
            new_values = json.loads("".join(lines))
            new_arrays = {
                name: self._changes_of(name)
                .applied_to(_rows_of(arrays, name))
                .reshape(shape)
                for name, shape in self._values["shapes"].items()
            }
            if fingerprint(new_values, new_arrays) != self.new:
                raise ValueError("its result is not the new model")
        return new_values, new_arrays

    def _changes_of(self, name: str) -> RowChanges:
        return RowChanges(
            runs=self._arrays[f"runs.{name}"], new_rows=self._arrays[f"rows.{name}"]
        )

    def _changed_lines(self, old_lines: list[str]) -> list[str]:
        new_lines = self._arrays[LINES].tobytes().decode("ascii").splitlines(True)
        places = np.arange(len(old_lines) + len(new_lines))
        runs = self._arrays[f"runs.{LINES}"]
        old_places = places[: len(old_lines)]
        new_places = places[len(old_lines) :]
        chosen = RowChanges(runs=runs, new_rows=new_places).applied_to(old_places)
        all_lines = [*old_lines, *new_lines]
        return [all_lines[place] for place in chosen.tolist()]


def delta(old: Any, new: Any) -> Delta:
    """Return what changed from an old to a new fitted estimator.

    After a day's `partial_fit`, the rows of the day have changed a small share of the
    embeddings and of the target statistics. A server that has a :class:`Scorer` of the
    old model brings it up to date with :meth:`Scorer.apply`.

    Parameters
    ----------
    old, new : MultiTaskCTRCVRClassifier or FunnelCalibrator
        Two fitted estimators: the one that is served, and its successor. They need not
        be of one training, but a delta between unrelated models is as large as a model.

    Returns
    -------
    Delta
        The changes, which :meth:`Delta.save` writes to a file.

    Raises
    ------
    TypeError, ValueError
        As in :class:`Scorer`, or if a model cannot be saved, such as one with a network
        of your own.

    See Also
    --------
    Scorer.apply : Takes over the changes.

    Examples
    --------
    >>> import copy
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.export import Scorer, delta
    >>> data = make_ctr_cvr(600, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(
    ...     encoding_params={"grow_vocabulary": True}, max_epochs=1, random_state=0
    ... )
    >>> model = model.fit(data.data[:500], data.target[:500])
    >>> scorer = Scorer(model, runtime="torch")
    >>> yesterday = copy.deepcopy(model)
    >>> model = model.partial_fit(data.data[500:], data.target[500:])
    >>> scorer = scorer.apply(delta(yesterday, model))
    >>> row = data.data.iloc[0].to_dict()
    >>> bool((scorer(row) == Scorer(model, runtime="torch")(row)).all())
    True
    """
    old_values, old_arrays = _plain_of(old)
    new_values, new_arrays = _plain_of(new)
    arrays = {}
    for name, array in new_arrays.items():
        old_array = _rows_of(old_arrays, name)
        changes = RowChanges.between(old_array, np.atleast_1d(array))
        arrays[f"runs.{name}"] = changes.runs
        arrays[f"rows.{name}"] = changes.new_rows
    old_lines = _lines_of(old_values)
    new_lines = _lines_of(new_values)
    all_lines = dict.fromkeys([*old_lines, *new_lines])
    numbers = {line: number for number, line in enumerate(all_lines)}
    changes = RowChanges.between(
        np.array([numbers[line] for line in old_lines], dtype=np.int64),
        np.array([numbers[line] for line in new_lines], dtype=np.int64),
    )
    line_of_number = list(numbers)
    text = "".join(line_of_number[number] for number in changes.new_rows.tolist())
    arrays[LINES] = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    arrays[f"runs.{LINES}"] = changes.runs
    return Delta(
        old=fingerprint(old_values, old_arrays),
        new=fingerprint(new_values, new_arrays),
        values={"shapes": {name: list(a.shape) for name, a in new_arrays.items()}},
        arrays=arrays,
    )


def _plain_of(estimator: Any) -> tuple[Any, dict[str, np.ndarray]]:
    network = fitted_result(estimator).net.module_
    return to_plain(ServedModel.of(estimator), network)


def _rows_of(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray | None:
    """Return an array with a dimension of rows, if there is one."""
    return np.atleast_1d(arrays[name]) if name in arrays else None


def _lines_of(values: Any) -> list[str]:
    """Return values of JSON as text with one line per value."""
    return json.dumps(values, indent=0).splitlines(True)
