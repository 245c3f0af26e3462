"""Which changes a store has had: they tell a repeated call from an equal change.

A caller repeats a call that failed, or whose end it did not see since its process
ended. If the change was made, it must not be made twice. An equal change by a caller
that repeats nothing must be made.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from hashlib import blake2b
from numbers import Integral, Real
from typing import Any, Self

import joblib
import numpy as np

from sk_pwiser import _times
from sk_pwiser._columns import _factorize
from sk_pwiser._columns._frames import is_missing
from sk_pwiser.history._history_state import Columns, Rows
from sk_pwiser.history._history_tables import Table
from sk_pwiser.history._key_log import Array

# Of changes whose calls failed. They are repeated soon, or never.
N_FAILED = 16
# Of writers. Every new object is one, and many workers may share a store.
N_WRITERS = 100
# Of changes with an identifier. A consumer of messages repeats those of some seconds,
# and an update takes some milliseconds. The record has about 30 bytes for each.
N_IDS = 1_000
# Bytes of hashes: of rows, whose collision loses a change; of identifiers, which are
# compared with N_IDS others; and of rows with an equal identifier.
DIGEST_BYTES = 16
ID_BYTES = 12
CHECK_BYTES = 6


class StoredChanges:
    """The changes of a store that may be repeated.

    Parameters
    ----------
    last : dict of str to (int, str)
        Of each writer the number and the digest of its last change, the oldest first.
        Its caller may not have seen that it was made. A writer that has made a later
        change has seen the end of the former one.
    failed : list of str
        The digests of changes whose calls failed, each until it is repeated.
    ids : dict of str to str
        Of identifiers, hashed, the hashes of the rows.
    version_0_1_digests : list of str
        Digests of another form, of the last changes by an earlier version.
    """

    def __init__(
        self,
        last: Mapping[str, tuple[int, str]] | None = None,
        failed: Iterable[str] = (),
        ids: Mapping[str, str] | None = None,
        version_0_1_digests: Iterable[str] = (),
    ) -> None:
        self.last = dict(last or {})
        self.failed = list(failed)
        self.ids = dict(ids or {})
        self.version_0_1_digests = list(version_0_1_digests)

    @classmethod
    def read(cls, record: bytes | None, description: Mapping[str, Any]) -> Self:
        """Return the changes of a record, None for none, and of the store's header."""
        content = {} if record is None else json.loads(record)
        digests = [*description.get("unconfirmed", ()), description.get("last_change")]
        version_0_1_digests = [digest for digest in digests if digest is not None]
        return cls(**content, version_0_1_digests=version_0_1_digests)

    def to_bytes(self) -> bytes:
        content = {"last": self.last, "failed": self.failed, "ids": self.ids}
        return json.dumps(content).encode()

    def settle(self, writer: str, n_confirmed: int | None) -> None:
        """Count the last change of a writer as failed if its end was not seen."""
        if writer not in self.last:
            return
        number, digest = self.last[writer]
        if number != n_confirmed:
            del self.last[writer]
            self.failed.append(digest)

    def take(
        self, digest: str, n_created: int, version_0_1_digest: str | None = None
    ) -> str | None:
        """Remove and return where a change is: "failed", "last", or None for nowhere.

        Of the last changes of other writers, those up to the number `n_created` count:
        an object repeats no call of another one that goes on beside it.
        """
        if digest in self.failed:
            self.failed.remove(digest)
            return "failed"
        if version_0_1_digest in self.version_0_1_digests:
            return "last"
        for writer, (number, other_digest) in self.last.items():
            if other_digest == digest and number <= n_created:
                del self.last[writer]
                return "last"
        return None

    def with_change(
        self,
        writer: str,
        number: int,
        digest: str,
        change_id: str | None,
        *,
        is_confirmed: bool,
    ) -> "StoredChanges":
        """Return the changes with a new one of a writer, as one that failed or not."""
        changes = StoredChanges(self.last, self.failed, self.ids)
        changes.last.pop(writer, None)
        if change_id is not None:
            changes.ids |= {hashed_id(change_id): digest}
        elif is_confirmed:
            changes.last[writer] = number, digest
        else:
            changes.failed.append(digest)
        changes.failed = changes.failed[-N_FAILED:]
        changes.last = dict(list(changes.last.items())[-N_WRITERS:])
        changes.ids = dict(list(changes.ids.items())[-N_IDS:])
        return changes

    def has_id(self, change_id: str, digest: str) -> bool:
        """Return whether a change with an identifier was made; its rows must be equal.

        Another change with this identifier is a mistake, which would lose rows.
        """
        digest_of_id = self.ids.get(hashed_id(change_id))
        if digest_of_id not in (None, digest):
            raise ValueError(
                f"change_id={change_id!r} was that of another change, with other rows "
                "or labels; each call of update and complete needs its own change_id, "
                "and only a repeated call has that of the call before."
            )
        return digest_of_id is not None


def check_change_id(change_id: object) -> None:
    if change_id is not None and not (isinstance(change_id, str) and change_id):
        raise TypeError(f"change_id must be a text or None; got {change_id!r}.")


def hashed_id(change_id: str) -> str:
    digest = blake2b(change_id.encode("utf-8", "surrogatepass"), digest_size=ID_BYTES)
    return b64encode(digest.digest()).decode()


def digest_of_call(method: str, table: Table, rows: Rows, time: str) -> str:
    """Return a digest of a call, of all columns of its table, as text.

    Tables of other libraries and dtypes with equal values have the same digest.
    """
    columns = dict(rows.columns)
    for name in table.names:
        if name not in columns and name != time:
            columns[name] = _factorized(table.column(name))
    return b64encode(_digest(method, rows, columns, DIGEST_BYTES)).decode()


def digest_of_rows(method: str, rows: Rows) -> str:
    """Return a digest of what a call changes in the state, as text."""
    return b64encode(_digest(method, rows, rows.columns, CHECK_BYTES)).decode()


def digest_of_version_0_1(method: str, rows: Rows) -> str:
    """Return the digest by which earlier versions recognised a repeated call."""
    digest: str = joblib.hash((method, rows.columns, rows.time, rows.labels.values))
    return digest


def _digest(method: str, rows: Rows, columns: Columns, n_bytes: int) -> bytes:
    digest = blake2b(digest_size=n_bytes)
    labels = rows.labels.values
    for text in (method, ascii(labels.shape), ascii(_plain_list(rows.time.tolist()))):
        digest.update(text.encode())
    digest.update(labels.tobytes())
    if rows.labels.amounts.size:
        digest.update(rows.labels.amounts.tobytes())
    for name in sorted(columns, key=str):
        indices, values = columns[name]
        order, values = _in_order_of_rows(indices, values)
        digest.update(ascii([name, _plain_list(values)]).encode())
        digest.update(order.tobytes())
    return digest.digest()


def _factorized(column: Any) -> tuple[Array, list[Any]]:
    """Return the index of each row's value and the values, of any type."""
    if len(column) <= _factorize.FEW_ROWS:  # a loop is faster than pandas
        return np.arange(len(column)), column.to_list()
    try:
        indices, values = _factorize.factorize(column)
    except (TypeError, ValueError, NotImplementedError):  # lists and other objects
        values = column.to_list()
        indices = np.arange(len(values))
    return indices, values


def _in_order_of_rows(indices: Array, values: Sequence[Any]) -> tuple[Array, list[Any]]:
    """Return indices and values in the order in which the values occur in the rows.

    Otherwise it depends on the library and on the number of rows.
    """
    places, first_rows = np.unique(indices, return_index=True)
    places = places[np.argsort(first_rows)]
    places = places[places >= 0]
    ranks = np.full(len(values) + 1, -1, dtype=np.int64)  # the last one of missing ones
    ranks[places] = np.arange(len(places))
    return ranks[indices], [values[place] for place in places.tolist()]


def _plain_list(values: list[Any]) -> list[Any]:
    """Return plain objects for values, the same ones for equal values."""
    types = set(map(type, values))
    if types <= {str}:
        return values
    if types <= {int, float, bool}:
        return [_plain_number(value) for value in values]
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, dict):
        pairs = [[_plain(name), _plain(entry)] for name, entry in value.items()]
        return ["dict", sorted(pairs, key=ascii)]
    if isinstance(value, set | frozenset):
        return ["set", sorted(map(_plain, value), key=ascii)]
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    if is_missing(value):
        return None
    if isinstance(value, date | np.datetime64):
        try:
            return ["time", _times.to_number(value, "time")]
        except ValueError:  # too far from 1970 for nanoseconds
            return ["time", str(value)]
    if isinstance(value, timedelta | np.timedelta64):
        return ["duration", _times.read_duration(value, "duration", _times.NAIVE)]
    if hasattr(value, "tolist"):  # arrays and numbers of numpy
        return _plain(value.tolist())
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real | Decimal):
        number = float(value)
        exact: Any = value
        return int(exact) if number % 1 == 0 else number
    return ascii(value)


def _plain_number(value: Any) -> float | None:
    if value % 1 == 0:
        return int(value)
    return value if value == value else None
