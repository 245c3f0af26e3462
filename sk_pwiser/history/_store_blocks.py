"""Sorted times of events in blocks of bounded size, with sums that decay, and records.

What a store has of a key are sequences of times: of its impressions, and per task of
events and of missing labels. A short sequence is one block. A long one is a tree: the
record of the key has its root, and other records the blocks below, of which a row reads
one per level, and an update writes those that it changes. Blocks are never changed, but
replaced by blocks with other numbers.
"""

import json
import math
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from math import exp2
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from sk_pwiser._columns._frames import is_missing
from sk_pwiser._utils._integers import ceil_div
from sk_pwiser.history._plan import Plan

# Blocks below the root have about this size; a root has at most as many entries.
BLOCK_BYTES = 800
# Records consist of numbers of this size, also where they are padded.
NUMBER_BYTES = 8
# What a record begins with, the time as of which it holds, how many blocks it has, and
# the number of the history's settings, by the type of the time.
RECORD_HEADS = {
    b"historyQ": struct.Struct("=8sqqQ"),
    b"historyD": struct.Struct("=8sdqQ"),
}
# The heads of earlier versions had no settings.
EARLIER_RECORD_HEADS = {
    b"historyq": struct.Struct("=8sqq"),
    b"historyd": struct.Struct("=8sdq"),
}
# Of a block: its entries, the width of its sums, the bytes of its values, its level,
# the type of its times, and the events that are no longer kept.
BLOCK_HEAD = struct.Struct("=3iBc2xq")
to_json = json.JSONEncoder().encode


# A memory view of integers or floats: one number at a time, it is faster than an array.
Numbers = Any


class Block(NamedTuple):
    """A block of a sequence, to be read: entries `start:stop` of a view of times.

    The entries of a leaf are events, those of other blocks are blocks of a level below,
    at the time of their last event. Entry i has the number of all events up to its end,
    and their decayed sums at its time, one per half-life:
    `sums[place + i * width:][:width]`. In a leaf the number is `n_before + i + 1`: the
    first entry stands for events that are no longer kept, too.
    """

    times: Numbers
    start: int
    stop: int
    sums: Numbers
    place: int
    width: int
    n_before: int = 0
    values: Sequence[Any] | None = None  # of a list: those of the last events
    level: int = 0
    numbers: Numbers | None = None
    at: int = 0  # of the numbers of events, behind which those of the blocks are

    @property
    def counts(self) -> Sequence[int]:
        """The number of events up to the end of each entry."""
        n = self.stop - self.start
        if self.numbers is None or not self.level:
            return range(self.n_before + 1, self.n_before + 1 + n)
        return self.numbers[self.at : self.at + n].tolist()

    @property
    def ids(self) -> list[int]:
        """The numbers of the blocks of the entries."""
        n = self.stop - self.start
        if self.numbers is None or not self.level:
            return []
        return self.numbers[self.at + n : self.at + 2 * n].tolist()


# Returns a block by its number.
ReadBlock = Callable[[int], Block]


EMPTY = Block(
    times=memoryview(b""), start=0, stop=0, sums=memoryview(b""), place=0, width=0
)
EMPTY_LIST = EMPTY._replace(values=[])


def seen(
    block: Block,
    bound: Any,
    time: Any,
    half_lives: Sequence[float],
    read: ReadBlock | None,
    *,
    search: Callable[..., int] = bisect_left,
) -> tuple[int, Any, list[float]]:
    """Return the number of events before a bound, the time of the last, and the sums.

    The sums are decayed to `time`; `half_lives` are those of the block, or the first
    ones. `read` returns a block by its number; it is not called for a block of level 0.
    """
    n_events = 0
    last = None
    sums = [0.0] * len(half_lives)
    numbers: Any
    while True:
        # A block may be read a million times per second: look at each field once.
        (
            times,
            start,
            stop,
            entry_sums,
            place,
            width,
            n_before,
            _,
            level,
            numbers,
            at,
        ) = block
        end = search(times, bound, start, stop)
        if end > start:
            last = times[end - 1]
            i = end - 1 - start
            n_events += numbers[at + i] if level else n_before + i + 1
            if half_lives:
                place += i * width
                for h, half_life in enumerate(half_lives):
                    sums[h] += entry_sums[place + h] * exp2((last - time) / half_life)
        if not level or end == stop:
            return n_events, last, sums
        # The events of this block are on both sides of the bound.
        n_entries = stop - start
        assert read is not None
        block = read(numbers[at + n_entries + end - start])


def newest(
    block: Block, bound: Any, n: int, read: ReadBlock | None
) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the times and values of the last n events before a bound."""
    stop = bisect_left(block.times, bound, block.start, block.stop)
    if not block.level:
        first = max(block.start, stop - n)
        values = block.values or []
        return (
            block.times[first:stop],
            values[first - block.start : stop - block.start],
        )
    assert read is not None
    times: list[Any] = []
    all_values: list[Any] = []
    for number in reversed(block.ids[: stop - block.start + 1]):
        child_times, child_values = newest(read(number), bound, n - len(times), read)
        times = [*child_times, *times]
        all_values = [*child_values, *all_values]
        if len(times) == n:
            break
    return times, all_values


class Entry(NamedTuple):
    """An event, or the events of a block, the last of which has this time and value.

    The number and the decayed sums at this time are those of these events alone.
    """

    time: float
    n_events: int
    sums: list[float]
    value: Any = None
    number: int | None = None  # of the block


_time = attrgetter("time")


def _time_and_value(entry: Entry) -> tuple[float, bool, Any]:
    """Return what events of a list are sorted by: numbers precede text."""
    return entry.time, isinstance(entry.value, str), entry.value


class BlockStore(Protocol):
    """The blocks of a store, by their numbers."""

    def read_block(self, number: int) -> Block: ...

    def write_block(self, block: Block) -> int:
        """Write a block, and return its number."""

    def drop_block(self, number: int) -> None: ...


class Tree:
    """Changes of sequences whose blocks are in a store.

    Parameters
    ----------
    blocks : BlockStore
        Those of the store.
    lag : float
        How long events are kept. Older ones are counted by one entry, except for lists.
    half_lives : list of float
        Those of the sums.
    n_kept : int
        For lists, how many of the older events are kept.
    sorts_values : bool
        Whether events of equal times, of a list, are in the order of their values.
        Otherwise they are in that of their arrival.
    """

    def __init__(
        self,
        blocks: BlockStore,
        lag: float,
        half_lives: Sequence[float] = (),
        *,
        n_kept: int | None = None,
        sorts_values: bool = False,
    ) -> None:
        self.blocks = blocks
        self.lag = lag
        self.half_lives = half_lives
        self.n_kept = n_kept
        self.key: Callable[[Entry], Any] = _time_and_value if sorts_values else _time
        self.width = len(half_lives)
        # An event has its time and its sums; a block has two numbers more.
        event_bytes = NUMBER_BYTES * (1 + self.width)
        block_bytes = NUMBER_BYTES * (3 + self.width)
        self.largest_leaf = max(BLOCK_BYTES // event_bytes, 2)
        self.largest_branch = max(BLOCK_BYTES // block_bytes, 2)

    def _largest_size(self, level: int) -> int:
        """Return the largest number of entries of a block of a level."""
        return self.largest_branch if level else self.largest_leaf

    def changed(
        self,
        root: Block,
        added: Sequence[tuple[float, Any]] = (),
        removed: Sequence[float] = (),
        end: float | None = None,
    ) -> tuple[Block, list[float]]:
        """Return a root after a change, and the removed times that it does not have.

        Parameters
        ----------
        root : Block
            The root of a sequence.
        added : list of (time, value)
            New events in the order of time; the values are those of a list.
        removed : list of time
            Events that go, in order.
        end : time
            The end of the log, without which no event becomes too old. A block goes if
            all its events do.
        """
        cut = -math.inf if end is None else end - self.lag
        n_old = bisect_left(root.times, cut, root.start, root.stop) - root.start
        if not (added or removed or n_old > 1):
            return root, []
        new = [self.new_entry(time, value) for time, value in added]
        entries, absent = self._changed(root, sorted(new, key=self.key), list(removed))
        level = root.level
        entries = self._shortened(entries, level, cut)
        while level and len(entries) == 1:
            # A block that is alone becomes the root.
            number = block_number(entries[0])
            child = self.blocks.read_block(number)
            self.blocks.drop_block(number)
            entries = self.entries(child)
            level = child.level
        return self._root(entries, level if entries else 0), absent

    def new_entry(self, time: float, value: Any) -> Entry:
        """Return the entry of a new event."""
        return Entry(time, 1, [1.0] * self.width, value)

    def root(self, block: Block) -> Block:
        """Return a root of the usual size, for a leaf of any size."""
        is_large = block.stop - block.start > self.largest_leaf
        return self._root(self.entries(block), 0) if is_large else block

    def _root(self, entries: list[Entry], level: int) -> Block:
        while len(entries) > self._largest_size(level):
            entries = self._split(entries, level)
            level += 1
        return self._block(self._cumulated(entries), level)

    def entries(self, block: Block) -> list[Entry]:
        """Return the entries of a block."""
        n = block.stop - block.start
        times = block.times[block.start : block.stop].tolist()
        sums = block.sums[block.place : block.place + n * self.width].tolist()
        values = block.values or [None] * n
        ids: Sequence[int | None] = block.ids or [None] * n
        entries = []
        n_before = 0
        sums_before: list[float] = [0.0] * self.width
        for i, (time, n_upto) in enumerate(zip(times, block.counts, strict=True)):
            sums_upto = sums[i * self.width : (i + 1) * self.width]
            decayed = self._decayed(sums_before, time - times[max(i - 1, 0)])
            entry_sums = [a - b for a, b in zip(sums_upto, decayed, strict=True)]
            n_events = n_upto - n_before
            entries.append(Entry(time, n_events, entry_sums, values[i], ids[i]))
            n_before = n_upto
            sums_before = sums_upto
        return entries

    def drop(self, ids: Iterable[int], level: int) -> None:
        """Drop blocks that are below one of a level, and all below them."""
        for number in ids:
            if level > 1:
                block = self.blocks.read_block(number)
                self.drop(block.ids, block.level)
            self.blocks.drop_block(number)

    def _decayed(self, sums: Sequence[float], span: float) -> list[float]:
        pairs = zip(sums, self.half_lives, strict=True)
        return [total * exp2(-span / half_life) for total, half_life in pairs]

    def _cumulated(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return entries with the numbers and sums of all up to each."""
        cumulated: list[Entry] = []
        for time, n_events, sums, value, number in entries:
            if cumulated:
                last = cumulated[-1]
                n_events += last.n_events
                decayed = self._decayed(last.sums, time - last.time)
                sums = [a + b for a, b in zip(decayed, sums, strict=True)]
            cumulated.append(Entry(time, n_events, sums, value, number))
        return cumulated

    def _block(self, entries: Sequence[Entry], level: int) -> Block:
        """Return a block of cumulated entries."""
        times = [entry.time for entry in entries]
        time_type = "d" if any(isinstance(time, float) for time in times) else "q"
        sums = [total for entry in entries for total in entry.sums]
        counts = [entry.n_events for entry in entries]
        numbers = []
        if level:
            numbers = [*counts, *(block_number(entry) for entry in entries)]
        return Block(
            times=memoryview(array(time_type, times)),
            start=0,
            stop=len(times),
            sums=memoryview(array("d", sums)),
            place=0,
            width=self.width,
            n_before=counts[0] - 1 if entries and not level else 0,
            values=None if self.n_kept is None else [e.value for e in entries],
            level=level,
            numbers=memoryview(array("q", numbers)),
        )

    def _changed(
        self, block: Block, added: list[Entry], removed: list[float]
    ) -> tuple[list[Entry], list[float]]:
        """Return entries after a change, any number, and times that are absent."""
        entries = self.entries(block)
        if not block.level:
            return self._changed_leaf(entries, added, removed)
        new: list[Entry] = []
        absent: list[float] = []
        for entry in entries:
            n_added = len(added)
            n_removed = len(removed)
            if entry is not entries[-1]:
                n_added = bisect_left(added, self.key(entry), key=self.key)
                n_removed = bisect_right(removed, entry.time)
            if not (n_added or n_removed):
                new.append(entry)
                continue
            number = block_number(entry)
            child = self.blocks.read_block(number)
            self.blocks.drop_block(number)
            child_entries, absent_in_child = self._changed(
                child, added[:n_added], removed[:n_removed]
            )
            new += self._split(child_entries, child.level)
            # Events of equal times may fill several blocks.
            n_absent = bisect_left(absent_in_child, entry.time)
            absent += absent_in_child[:n_absent]
            added = added[n_added:]
            removed = absent_in_child[n_absent:] + removed[n_removed:]
        return new, absent + removed

    def _changed_leaf(
        self, entries: list[Entry], added: list[Entry], removed: list[float]
    ) -> tuple[list[Entry], list[float]]:
        absent = []
        for time in removed:
            place = bisect_left(entries, time, key=_time)
            if place < len(entries) and entries[place].time == time:
                del entries[place]
            else:
                absent.append(time)
        entries = sorted([*entries, *added], key=self.key)
        # Late events join the entry of those that are no longer kept.
        is_old = [entry.n_events > 1 for entry in entries]
        n_old = is_old.index(True) + 1 if True in is_old else 0
        return [*self._cumulated(entries[:n_old])[-1:], *entries[n_old:]], absent

    def _split(self, entries: Sequence[Entry], level: int) -> list[Entry]:
        """Write entries as blocks; return the entries of these in the block above."""
        above = []
        size = self._largest_size(level)
        for start in range(0, len(entries), size):
            cumulated = self._cumulated(entries[start : start + size])
            number = self.blocks.write_block(self._block(cumulated, level))
            above.append(cumulated[-1]._replace(number=number))
        return above

    def _shortened(self, entries: list[Entry], level: int, cut: float) -> list[Entry]:
        """Return the entries of a root without old ones."""
        old = self._cumulated(entries[: bisect_left(entries, cut, key=_time)])
        counted: list[Entry] = []
        if self.n_kept is not None:
            n_gone = sum(e.n_events + self.n_kept <= old[-1].n_events for e in old)
        elif len(old) > 1:
            # One event, alone in its block, stands for all.
            n_gone = len(old)
            counted = [old[-1]._replace(number=None)]
        else:
            return entries
        if level:
            self.drop([block_number(entry) for entry in old[:n_gone]], level)
            counted = self._split(counted, 0)
        return counted + entries[n_gone:]


class AmountTree(Tree):
    """Changes of the sequences of known amounts, whose new events come with amounts."""

    def new_entry(self, time: float, value: Any) -> Entry:
        # As in `Plan.amount_half_lives`: sums of the amount and of the number 1.
        n_half_lives = self.width // 2
        return Entry(time, 1, [value, *[value, 1.0] * n_half_lives])


def block_number(entry: Entry) -> int:
    """Return the number of the block of an entry that is not an event."""
    assert entry.number is not None
    return entry.number


class KeyPast(NamedTuple):
    """What a state has of one key, or of all rows, as of the time `reference`.

    The blocks are those of its impressions, per task those of its events and of its
    missing labels, per value those of its known amounts, and those of its lists.
    `settings` is the number of the history's settings if the past is one of a store
    that this version has written.
    """

    reference: Any
    blocks: list[Block]
    settings: int | None = None


def empty_blocks(plan: Plan) -> list[Block]:
    """Return the blocks of a key without rows, for a plan with one key."""
    return [EMPTY] * plan.first_list_block + [EMPTY_LIST] * len(plan.lists)


def record_name(prefix: str, plan: Plan, values: Iterable[Any]) -> str | None:
    """Return the name of the record of a key, None if a value is missing."""
    if not plan.keys[0]:
        return all_rows_record_name(prefix)
    key_name = plan.key_names[0]
    texts = []
    for value in values:
        if type(value) not in (int, str):
            if is_missing(value):
                return None
            value = listed(value, key_name)
            # Equal numbers become the same text.
            if isinstance(value, bool | float) and value % 1 == 0:
                value = int(value)
        texts.append(str(value) if type(value) is int else to_json(value))
    return f"{prefix}:{key_name}:[{', '.join(texts)}]"


def all_rows_record_name(prefix: str) -> str:
    """Return the name of the record of the key of all rows."""
    return f"{prefix}:"


def write_record(reference: Any, blocks: Sequence[Block], settings: int) -> bytes:
    """Return the record of a key, or of a block below: numbers of 8 bytes, and JSON."""
    start = b"historyD" if isinstance(reference, float) else b"historyQ"
    head = RECORD_HEADS[start].pack(start, reference, len(blocks), settings)
    pieces: list[Any] = [head]
    for block in blocks:
        n = block.stop - block.start
        times = block.times[block.start : block.stop].tolist()
        time_type = "d" if block.times.format == "d" else "q"
        text = b""
        if block.values is not None:
            text = to_json(list(block.values)).encode()
            # Views of numbers of 8 bytes need whole ones.
            text = text.ljust(ceil_div(len(text), NUMBER_BYTES) * NUMBER_BYTES)
        block_head = BLOCK_HEAD.pack(
            n,
            block.width,
            len(text),
            block.level,
            time_type.encode(),
            block.n_before,
        )
        pieces.append(block_head)
        pieces.append(array(time_type, times))
        pieces.append(block.sums[block.place : block.place + n * block.width])
        if block.level:
            pieces.append(array("q", [*block.counts, *block.ids]))
        pieces.append(text)
    return b"".join(pieces)


def widths_of_blocks(plan: Plan) -> list[int]:
    """Return the width of the sums of each block of a key, for a plan with one key."""
    n_events = plan.first_value_block
    event_widths = [len(plan.half_lives)] * n_events
    amount_widths = [len(plan.amount_half_lives)] * len(plan.values)
    return [*event_widths, *amount_widths, *([0] * len(plan.lists))]


def check_blocks(past: KeyPast, name: str, widths: Sequence[int]) -> None:
    """Raise unless the blocks of the record of a key have these widths."""
    n_blocks = len(past.blocks)
    if n_blocks != len(widths):
        raise ValueError(
            f"store[{name!r}] is no valid record: it has {n_blocks} blocks, not "
            f"{len(widths)}."
        )
    for block, width in zip(past.blocks, widths, strict=True):
        if block.width != width and block.stop > block.start:
            raise ValueError(
                f"store[{name!r}] is no valid record: a block has {block.width} sums "
                f"per event, not {width}."
            )


def read_record(record: bytes, name: str) -> KeyPast:
    """Return what a record with a given name has, a `KeyPast`."""
    try:
        start = record[:8]
        settings = None
        if start in EARLIER_RECORD_HEADS:
            head = EARLIER_RECORD_HEADS[start]
            _, reference, n_blocks = head.unpack_from(record)
        else:
            head = RECORD_HEADS[start]
            _, reference, n_blocks, settings = head.unpack_from(record)
        return KeyPast(reference, _blocks(record, head.size, n_blocks), settings)
    except (LookupError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"store[{name!r}] is no valid record: {error}.") from error


def _blocks(record: bytes, head_bytes: int, n_blocks: int) -> list[Block]:
    """Return the blocks of a record behind its head."""
    view = memoryview(record)
    integers = view.cast("q")
    floats = view.cast("d")
    views_by_type = {b"q": integers, b"d": floats}
    blocks = []
    place = head_bytes // NUMBER_BYTES
    for _ in range(n_blocks):
        sizes = BLOCK_HEAD.unpack_from(record, NUMBER_BYTES * place)
        n, width, n_text, level, time_type, n_before = sizes
        if min(n, width, n_text) < 0:
            raise ValueError("a block has a negative size")
        start = place + BLOCK_HEAD.size // NUMBER_BYTES
        stop = start + n
        numbers_start = stop + n * width
        numbers_stop = numbers_start + 2 * n if level else numbers_start
        text_start = NUMBER_BYTES * numbers_stop
        text_stop = text_start + n_text
        place = text_stop // NUMBER_BYTES
        if place > len(integers):
            raise ValueError("it is too short")
        values = json.loads(record[text_start:text_stop]) if n_text else None
        times = views_by_type[time_type]
        if n_text and (not isinstance(values, list) or len(values) != n):
            raise ValueError("a list has other values than times")
        if not n:
            blocks.append(EMPTY_LIST if n_text else EMPTY)
            continue
        # In the order of the fields, as in `PastsOfKeys`.
        block = Block._make(
            (
                times,
                start,
                stop,
                floats,
                stop,  # place of the first sum
                width,
                n_before,
                values,
                level,
                integers,
                numbers_start,
            )
        )
        blocks.append(block)
    return blocks


def listed(value: Any, name: str) -> Any:
    """Return a value as one of Python, which JSON keeps."""
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, str | int | float):
        raise TypeError(
            f"A store holds values that are text or numbers; {name!r} has {value!r}."
        )
    return value
