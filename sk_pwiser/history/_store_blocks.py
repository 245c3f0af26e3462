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
from math import exp2
from operator import attrgetter
from typing import NamedTuple

from sk_pwiser._columns._frames import is_missing

# Blocks below the root have about this size; a root has at most as many entries.
BLOCK_BYTES = 800
# What a record begins with, the time as of which it holds, and how many blocks it has,
# by the type of the time.
RECORD_HEADS = {
    b"historyq": struct.Struct("=8sqq"),
    b"historyd": struct.Struct("=8sdq"),
}
# Of a block: its entries, the width of its sums, the bytes of its values, its level,
# the type of its times, and the events that are no longer kept.
BLOCK_HEAD = struct.Struct("=3iBc2xq")
to_json = json.JSONEncoder().encode


class Block(NamedTuple):
    """A block of a sequence, to be read: entries `start:stop` of a view of times.

    The entries of a leaf are events, those of other blocks are blocks of a level below,
    at the time of their last event. Entry i has the number of all events up to its end,
    and their decayed sums at its time, one per half-life:
    `sums[place + i * width:][:width]`. In a leaf the number is `n_before + i + 1`: the
    first entry stands for events that are no longer kept, too.
    """

    times: memoryview
    start: int
    stop: int
    sums: memoryview
    place: int
    width: int
    n_before: int = 0
    values: list | memoryview | None = None  # of a list: those of the last events
    level: int = 0
    numbers: memoryview | None = None
    at: int = 0  # of the numbers of events, behind which those of the blocks are

    @property
    def counts(self):
        """The number of events up to the end of each entry."""
        n = self.stop - self.start
        if not self.level:
            return range(self.n_before + 1, self.n_before + 1 + n)
        return self.numbers[self.at : self.at + n].tolist()

    @property
    def ids(self):
        """The numbers of the blocks of the entries."""
        n = self.stop - self.start
        return (
            self.numbers[self.at + n : self.at + 2 * n].tolist() if self.level else []
        )


EMPTY = Block(memoryview(b""), 0, 0, memoryview(b""), 0, 0)
EMPTY_LIST = EMPTY._replace(values=[])


def seen(block, bound, time, half_lives, read, search=bisect_left):
    """Return the number of events before a bound, the time of the last, and the sums.

    The sums are decayed to `time`. `read` returns a block by its number.
    """
    n_events, last, sums = 0, None, [0.0] * len(half_lives)
    while True:
        # A block may be read a million times per second: look at each field once.
        times, start, stop, of_entries, place, _, n_before, _, level, numbers, at = (
            block
        )
        end = search(times, bound, start, stop)
        if end > start:
            last, i = times[end - 1], end - 1 - start
            n_events += numbers[at + i] if level else n_before + i + 1
            if half_lives:
                place += i * len(sums)
                for h, half_life in enumerate(half_lives):
                    sums[h] += of_entries[place + h] * exp2((last - time) / half_life)
        if not level or end == stop:
            return n_events, last, sums
        # The events of this block are on both sides of the bound.
        block = read(numbers[at + stop - start + end - start])


def newest(block, bound, n, read):
    """Return the times and values of the last n events before a bound."""
    stop = bisect_left(block.times, bound, block.start, block.stop)
    if not block.level:
        first = max(block.start, stop - n)
        own = slice(first - block.start, stop - block.start)
        return block.times[first:stop], block.values[own]
    times, values = [], []
    for number in reversed(block.ids[: stop - block.start + 1]):
        own_times, own_values = newest(read(number), bound, n - len(times), read)
        times, values = [*own_times, *times], [*own_values, *values]
        if len(times) == n:
            break
    return times, values


class Entry(NamedTuple):
    """An event, or the events of a block, the last of which has this time and value.

    The number and the decayed sums at this time are those of these events alone.
    """

    time: float
    n_events: int
    sums: list
    value: object = None
    number: int | None = None  # of the block


_time = attrgetter("time")


def _time_and_value(entry):
    """Return what events of a list are sorted by: numbers precede text."""
    return entry.time, isinstance(entry.value, str), entry.value


class Tree:
    """Changes of sequences whose blocks are in a store.

    Parameters
    ----------
    blocks : object
        Those of the store. Its method `read_block` returns a `Block` by its number,
        `write_block` writes one and returns its number, and `drop_block` removes a
        block by its number.
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

    def __init__(self, blocks, lag, half_lives=(), n_kept=None, sorts_values=False):
        self.blocks, self.lag = blocks, lag
        self.half_lives, self.n_kept = half_lives, n_kept
        self.key = _time_and_value if sorts_values else _time
        self.width = width = len(half_lives)
        # The bytes of an entry are its time and its sums; blocks have two numbers more.
        sizes = BLOCK_BYTES // (8 * (1 + width)), BLOCK_BYTES // (8 * (3 + width))
        self.sizes = [max(size, 2) for size in sizes]

    def changed(self, root, added=(), removed=(), end=None):
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
        new = [Entry(time, 1, [1.0] * self.width, value) for time, value in added]
        entries, absent = self._changed(root, sorted(new, key=self.key), list(removed))
        level = root.level
        entries = self._shortened(entries, level, cut)
        while level and len(entries) == 1:
            # A block that is alone becomes the root.
            child = self.blocks.read_block(entries[0].number)
            self.blocks.drop_block(entries[0].number)
            entries, level = self.entries(child), child.level
        return self._root(entries, level if entries else 0), absent

    def root(self, block):
        """Return a root of the usual size, for a leaf of any size."""
        is_large = block.stop - block.start > self.sizes[0]
        return self._root(self.entries(block), 0) if is_large else block

    def _root(self, entries, level):
        while len(entries) > self.sizes[level > 0]:
            entries, level = self._split(entries, level), level + 1
        return self._block(self._cumulated(entries), level)

    def entries(self, block):
        """Return the entries of a block."""
        n = block.stop - block.start
        times = block.times[block.start : block.stop].tolist()
        sums = block.sums[block.place : block.place + n * self.width].tolist()
        values, ids = block.values or [None] * n, block.ids or [None] * n
        entries, n_before, before = [], 0, [0.0] * self.width
        for i, (time, n_upto) in enumerate(zip(times, block.counts, strict=True)):
            upto = sums[i * self.width : (i + 1) * self.width]
            earlier = self._decayed(before, time - times[max(i - 1, 0)])
            own = [a - b for a, b in zip(upto, earlier, strict=True)]
            entries.append(Entry(time, n_upto - n_before, own, values[i], ids[i]))
            n_before, before = n_upto, upto
        return entries

    def drop(self, ids, level):
        """Drop blocks that are below one of a level, and all below them."""
        for number in ids:
            if level > 1:
                block = self.blocks.read_block(number)
                self.drop(block.ids, block.level)
            self.blocks.drop_block(number)

    def _decayed(self, sums, span):
        pairs = zip(sums, self.half_lives, strict=True)
        return [total * exp2(-span / half_life) for total, half_life in pairs]

    def _cumulated(self, entries):
        """Return entries with the numbers and sums of all up to each."""
        found = []
        for time, n_events, sums, value, number in entries:
            if found:
                last, n_before, before, *_ = found[-1]
                n_events += n_before
                earlier = self._decayed(before, time - last)
                sums = [a + b for a, b in zip(earlier, sums, strict=True)]
            found.append(Entry(time, n_events, sums, value, number))
        return found

    def _block(self, entries, level):
        """Return a block of cumulated entries."""
        times = [entry.time for entry in entries]
        kind = "d" if any(isinstance(time, float) for time in times) else "q"
        sums = [total for entry in entries for total in entry.sums]
        counts = [entry.n_events for entry in entries]
        n, n_before = len(times), counts[0] - 1 if entries and not level else 0
        values = None if self.n_kept is None else [entry.value for entry in entries]
        numbers = [*counts, *(entry.number for entry in entries)] if level else []
        arrays = array(kind, times), array("d", sums), array("q", numbers)
        times, sums, numbers = map(memoryview, arrays)
        parts = times, 0, n, sums, 0, self.width, n_before, values, level, numbers
        return Block(*parts)

    def _changed(self, block, added, removed):
        """Return entries after a change, any number, and times that are absent."""
        entries = self.entries(block)
        if not block.level:
            return self._changed_leaf(entries, added, removed)
        new, absent = [], []
        for entry in entries:
            n_added, n_removed = len(added), len(removed)
            if entry is not entries[-1]:
                n_added = bisect_left(added, self.key(entry), key=self.key)
                n_removed = bisect_right(removed, entry.time)
            if not (n_added or n_removed):
                new.append(entry)
                continue
            child = self.blocks.read_block(entry.number)
            self.blocks.drop_block(entry.number)
            own, left = self._changed(child, added[:n_added], removed[:n_removed])
            new += self._split(own, child.level)
            # Events of equal times may fill several blocks.
            n_absent = bisect_left(left, entry.time)
            absent += left[:n_absent]
            added, removed = added[n_added:], left[n_absent:] + removed[n_removed:]
        return new, absent + removed

    def _changed_leaf(self, entries, added, removed):
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

    def _split(self, entries, level):
        """Write entries as blocks; return the entries of these in the block above."""
        above, size = [], self.sizes[level > 0]
        for start in range(0, len(entries), size):
            own = self._cumulated(entries[start : start + size])
            number = self.blocks.write_block(self._block(own, level))
            above.append(own[-1]._replace(number=number))
        return above

    def _shortened(self, entries, level, cut):
        """Return the entries of a root without old ones."""
        old = self._cumulated(entries[: bisect_left(entries, cut, key=_time)])
        if self.n_kept is not None:
            n_gone = sum(e.n_events + self.n_kept <= old[-1].n_events for e in old)
            counted = []
        elif len(old) > 1:
            # One event, alone in its block, stands for all.
            n_gone, counted = len(old), [old[-1]._replace(number=None)]
        else:
            return entries
        if level:
            self.drop([entry.number for entry in old[:n_gone]], level)
            counted = self._split(counted, 0)
        return counted + entries[n_gone:]


class KeyPast(NamedTuple):
    """What a state has of one key, or of all rows, as of the time `reference`.

    The blocks are those of its impressions, per task those of its events and of its
    missing labels, and those of its lists.
    """

    reference: float
    blocks: list


def empty_blocks(plan):
    """Return the blocks of a key without rows, for a plan with one key."""
    return [EMPTY] * (1 + 2 * len(plan.lags)) + [EMPTY_LIST] * len(plan.lists)


def record_name(prefix, plan, values):
    """Return the name of the record of a key, None if a value is missing."""
    if not plan.keys[0]:  # the key of all rows
        return f"{prefix}:"
    texts, key_name = [], plan.key_names[0]
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


def write_record(reference, blocks):
    """Return the record of a key, or of a block below: numbers of 8 bytes, and JSON."""
    start = b"historyd" if isinstance(reference, float) else b"historyq"
    parts = [RECORD_HEADS[start].pack(start, reference, len(blocks))]
    for block in blocks:
        n, width = block.stop - block.start, block.width
        times = block.times[block.start : block.stop].tolist()
        kind = "d" if block.times.format == "d" else "q"
        text = b""
        if block.values is not None:
            text = to_json(list(block.values)).encode()
            # Views of numbers of 8 bytes need whole ones.
            text = text.ljust(-(-len(text) // 8) * 8)
        sizes = n, width, len(text), block.level, kind.encode(), block.n_before
        parts += [BLOCK_HEAD.pack(*sizes), array(kind, times)]
        parts.append(block.sums[block.place : block.place + n * width])
        parts += [array("q", [*block.counts, *block.ids])] if block.level else []
        parts.append(text)
    return b"".join(parts)


def read_record(record, name):
    """Return what a record with a given name has, a `KeyPast`."""
    try:
        head = RECORD_HEADS[record[:8]]
        _, reference, n_blocks = head.unpack_from(record)
        return KeyPast(reference, _blocks(record, head.size, n_blocks))
    except (LookupError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"store[{name!r}] is no valid record: {error}.") from error


def _blocks(record, start, n_blocks):
    """Return the blocks of a record behind its head."""
    view, place, blocks = memoryview(record), start // 8, []
    ints, floats = view.cast("q"), view.cast("d")
    for _ in range(n_blocks):
        sizes = BLOCK_HEAD.unpack_from(record, 8 * place)
        n, width, n_text, level, kind, n_before = sizes
        start = place + BLOCK_HEAD.size // 8
        stop = start + n
        at = stop + n * width
        end = 8 * (at + 2 * n if level else at)
        place = (end + n_text) // 8
        if place > len(ints):
            raise ValueError("it is too short")
        values = json.loads(record[end : end + n_text]) if n_text else None
        times = {b"q": ints, b"d": floats}[kind]
        own = times, start, stop, floats, stop, width, n_before, values, level, ints, at
        empty = EMPTY_LIST if n_text else EMPTY
        blocks.append(Block._make(own) if n else empty)
    return blocks


def listed(value, name):
    """Return a value as one of Python, which JSON keeps."""
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, str | int | float):
        raise TypeError(
            f"A store holds values that are text or numbers; {name!r} has {value!r}."
        )
    return value
