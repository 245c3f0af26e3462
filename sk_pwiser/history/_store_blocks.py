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
from dataclasses import dataclass
from itertools import chain
from math import exp2
from operator import itemgetter
from typing import NamedTuple

from sk_pwiser._table._frames import is_missing

# Blocks below the root have about this size; a root has at most as many entries.
BLOCK_BYTES = 800
# What a record begins with, by the type of its times.
STARTS = {"q": b"history2", "d": b"history3"}
# Of a block: its entries, its level, the width of its sums, and whether it has values.
BLOCK_HEAD = struct.Struct("=8s4q")
to_json = json.JSONEncoder().encode


class Block(NamedTuple):
    """A block of a sequence, to be read: entries `start:stop` of a view of times.

    The entries of a leaf are events. Entry i has the decayed sums of the events up to
    it, at its time, one per half-life: `sums[place + i * width:][:width]`. The entries
    of other blocks are blocks of the level below, at the time of their first event,
    with the number of events before it, and their decayed sums at its time. The root
    includes events that are no longer kept, `n_before` ones if it is a leaf.
    """

    times: memoryview
    start: int
    stop: int
    sums: memoryview
    place: int
    n_before: int = 0
    values: list | memoryview | None = None  # of the events of a list
    level: int = 0
    numbers: memoryview | None = None
    at: int = 0  # of the counts in the numbers, behind which the blocks' numbers are

    @property
    def counts(self):
        n = (self.stop - self.start) * (self.level > 0)
        return self.numbers[self.at : self.at + n].tolist() if n else []

    @property
    def ids(self):
        n = (self.stop - self.start) * (self.level > 0)
        return self.numbers[self.at + n : self.at + 2 * n].tolist() if n else []


EMPTY = Block(memoryview(b""), 0, 0, memoryview(b""), 0)
EMPTY_LIST = EMPTY._replace(values=[])


_time = itemgetter(0)


def _time_and_value(event):
    """Return what events of a list are sorted by: numbers precede text."""
    time, value = event
    return time, isinstance(value, str), value


def seen(block, bound, time, half_lives, read, search=bisect_left):
    """Return the number of events before a bound, the time of the last, and the sums.

    The sums are decayed to `time`. `read` returns a block by its number.
    """
    n_events, sums = 0, [0.0] * len(half_lives)
    while True:
        # A block may be read a million times per second: look at each field once.
        times, start, stop, of_entries, place, n_before, _, level, numbers, at = block
        last_place = search(times, bound, start, stop) - 1
        if last_place < start:
            return 0, None, sums
        last, i = times[last_place], last_place - start
        if half_lives:
            place += i * len(sums)
            for h, half_life in enumerate(half_lives):
                sums[h] += of_entries[place + h] * exp2((last - time) / half_life)
        if not level:
            return n_events + n_before + i + 1, last, sums
        n_events += numbers[at + i]
        block = read(numbers[at + stop - start + i])


def n_equal(block, time, read):
    """Return the number of events at a time."""
    upto = seen(block, time, time, (), read, bisect_right)[0]
    return upto - seen(block, time, time, (), read)[0]


def newest(block, bound, n, read):
    """Return the times and values of the last n events before a bound."""
    stop = bisect_left(block.times, bound, block.start, block.stop)
    if not block.level:
        first = max(block.start, stop - n)
        own = slice(first - block.start, stop - block.start)
        return block.times[first:stop], block.values[own]
    times, values, ids = [], [], block.ids
    for place in range(stop - 1, block.start - 1, -1):
        child = read(ids[place - block.start])
        own_times, own_values = newest(child, bound, n - len(times), read)
        times, values = [*own_times, *times], [*own_values, *values]
        if len(times) == n:
            break
    return times, values


@dataclass
class Node:
    """A block that is written: lists of what the entries of a `Block` have."""

    times: list
    sums: list
    n_before: int = 0
    values: list | None = None
    level: int = 0
    counts: list | tuple = ()
    ids: list | tuple = ()


def node_of(block, width):
    """Return a block as one to write; `width` is the number of half-lives."""
    n = block.stop - block.start
    if not n:
        return Node([], [], values=None if block.values is None else [])
    times = block.times[block.start : block.stop].tolist()
    flat = block.sums[block.place : block.place + n * width].tolist()
    sums = [flat[i : i + width] for i in range(0, n * width, width)] if width else []
    values = None if block.values is None else list(block.values)
    end = values, block.level, block.counts, block.ids
    return Node(times, sums, block.n_before, *end)


class Tree:
    """Changes of sequences whose blocks are in a store.

    Parameters
    ----------
    half_lives : list of float
        Those of the sums.
    blocks : object
        Those of the store. Its method `read_block` returns a `Block` by its number,
        `write_block` writes a `Node` with sums of a width, and returns its number, and
        `drop_block` removes a block by its number.
    sorts_values : bool
        Whether events of equal times, of a list, are in the order of their values.
        Otherwise they are in that of their arrival.
    """

    def __init__(self, half_lives, blocks, sorts_values=False):
        self.half_lives, self.blocks = half_lives, blocks
        self.key = _time_and_value if sorts_values else _time
        self.width = width = len(half_lives)
        # The bytes of an entry are its time and its sums; blocks have two numbers more.
        sizes = BLOCK_BYTES // (8 * (1 + width)), BLOCK_BYTES // (8 * (3 + width))
        self.sizes = [max(size, 2) for size in sizes]

    def changed(self, block, added=(), removed=(), cut=None, n_kept=1):
        """Return a root after a change.

        Parameters
        ----------
        block : Block
            The root of a sequence.
        added : list of (time, value)
            New events in the order of time; the values are those of a list.
        removed : list of time
            Events that go, in order. All must be there.
        cut : time
            Events before this time are no longer kept, except for the last `n_kept`
            ones, but counted. A block goes if all its events do.
        """
        root, added = node_of(block, self.width), sorted(added, key=self.key)
        if added and self._has_base(root):
            # Events that were dropped are not later than the first one.
            n_early = bisect_left(added, root.times[0], key=_time)
            for time, _ in added[:n_early]:
                sums = [exp2((time - root.times[0]) / h) for h in self.half_lives]
                self._add_base(root, 1, sums)
            added = added[n_early:]
        if added or removed:
            root, _ = self._changed(root, added, list(removed))
        return self.whole(self._shortened(root, cut, n_kept))

    def whole(self, root):
        """Return a root of the usual size, for one of any length."""
        while len(root.times) > self._size(root):
            root = self._branch(self._split(root), root.level + 1)
        return root

    def drop(self, ids, level):
        """Drop blocks that are below one of a level, and all below them."""
        for number in ids:
            if level > 1:
                block = self.blocks.read_block(number)
                self.drop(block.ids, block.level)
            self.blocks.drop_block(number)

    def _has_base(self, root):
        """Return whether a root counts events that are no longer kept."""
        if root.level:
            return root.counts[0] > 0 or (
                self.width > 0 and max(map(abs, root.sums[0])) > 1e-9
            )
        # The last missing label that is no longer kept has the time of the last event.
        return root.n_before > 0 or any(
            total != 1.0 for row in root.sums[:1] for total in row
        )

    def _size(self, node):
        return self.sizes[node.level > 0]

    def _decayed(self, sums, span):
        pairs = zip(sums, self.half_lives, strict=True)
        return [total * exp2(-span / half_life) for total, half_life in pairs]

    def _running_sums(self, times, before):
        """Return the decayed sums up to each event; `before` are those before all."""
        if not self.half_lives:
            return []
        rows, sums, last = [], before, times[0]
        for time in times:
            sums = [total + 1.0 for total in self._decayed(sums, time - last)]
            rows.append(sums)
            last = time
        return rows

    def _add_base(self, node, n_events, sums):
        """Count events before the first one; the sums are those at its time."""
        node.n_before += n_events * (not node.level)
        node.counts = [count + n_events for count in node.counts]
        for i, own in enumerate(node.sums):
            more = self._decayed(sums, node.times[i] - node.times[0])
            node.sums[i] = [a + b for a, b in zip(own, more, strict=True)]

    def _changed(self, node, added, removed):
        """Return a node of any length, and events to remove that it does not have."""
        if node.level:
            return self._changed_branch(node, added, removed)
        times, values, left = node.times, node.values, []
        before = [0.0] * self.width
        if node.sums:
            before = [total - 1.0 for total in node.sums[0]]
        for time in removed:
            place = bisect_left(times, time)
            if place < len(times) and times[place] == time:
                del times[place]
            else:
                left.append(time)
        if values is None:
            times = sorted([*times, *(time for time, _ in added)])
        else:
            pairs = [*zip(times, values, strict=True), *added]
            pairs.sort(key=self.key)
            times, values = [time for time, _ in pairs], [value for _, value in pairs]
        sums = self._running_sums(times, before) if times else []
        return Node(times, sums, node.n_before, values), left

    def _changed_branch(self, node, added, removed):
        entries, shift = [], []
        # From the last to the first: of equal times, some may be in the block before.
        for i in reversed(range(len(node.times))):
            low = node.times[i] if i else -math.inf
            n_added = self._n_before(added, low, node.ids[i])
            n_removed = bisect_left(removed, low)
            own_added, own_removed = added[n_added:], removed[n_removed:]
            added, removed = added[:n_added], removed[:n_removed]
            children = [(node.times[i], 0, [0.0] * self.width, node.ids[i])]
            gone = own_removed
            if own_added or own_removed:
                child = node_of(self.blocks.read_block(node.ids[i]), self.width)
                self.blocks.drop_block(node.ids[i])
                child, left = self._changed(child, own_added, own_removed)
                gone, removed = own_removed[len(left) :], removed + left
                children = self._split(child)
            entries.append(children)
            shift.append([(t, 1) for t, _ in own_added] + [(t, -1) for t in gone])
        new, more = [], []
        for i, (children, own) in enumerate(
            zip(entries[::-1], shift[::-1], strict=True)
        ):
            first = node.times[i]
            n_events = node.counts[i] + sum(sign for _, sign in more)
            sums = list(node.sums[i]) if node.sums else []
            for h, half_life in enumerate(self.half_lives):
                changes = (sign * exp2((t - first) / half_life) for t, sign in more)
                sums[h] += sum(changes)
            for time, count, own_sums, number in children:
                decayed = self._decayed(sums, max(time - first, 0))
                total = [a + b for a, b in zip(decayed, own_sums, strict=True)]
                new.append((time, n_events + count, total, number))
            more += own
        return self._branch(new, node.level), removed

    def _n_before(self, added, low, number):
        """Return how many new events precede a block whose first event is at `low`."""
        n = bisect_left(added, low, key=_time)
        if self.key is _time or n == len(added) or added[n][0] > low:
            return n
        block = self.blocks.read_block(number)
        while block.level:
            block = self.blocks.read_block(block.ids[0])
        first = block.times[block.start], block.values[0]
        return bisect_left(added, self.key(first), key=self.key)

    def _branch(self, entries, level):
        """Return a block of blocks, each given by its time, count, sums and number."""
        times, counts, sums, ids = zip(*entries, strict=True) if entries else [()] * 4
        sums = list(sums) if self.half_lives else []
        return Node(list(times), sums, level=level, counts=list(counts), ids=list(ids))

    def _split(self, node):
        """Write a node in parts; return their entries in the block above."""
        entries, size, n = [], self._size(node), len(node.times)
        for start in range(0, n, size):
            own = slice(start, start + size)
            times, sums = node.times[own], node.sums[own]
            before = list(sums[0]) if sums else []
            if node.level:
                count, counts = node.counts[start], node.counts[own]
                part = Node(times, sums, 0, None, node.level, counts, node.ids[own])
                self._add_base(part, -count, [-total for total in before])
            else:
                count = node.n_before + start
                before = [total - 1.0 for total in before]
                values = None if node.values is None else node.values[own]
                sums = self._running_sums(times, [0.0] * self.width)
                part = Node(times, sums, 0, values)
            entries.append(
                (times[0], count, before, self.blocks.write_block(part, self.width))
            )
        return entries

    def _shortened(self, root, cut, n_kept):
        """Return a root without old entries; a block that is alone becomes the root."""
        while root.times:
            n_gone = 0
            if cut is not None:
                n_before = bisect_left(root.times, cut)
                n_gone = max(n_before - n_kept, 0)
                if root.level and n_before:
                    # The last block before the cut has an event before it.
                    last = root.counts[n_before - 1] + 1 - n_kept
                    n_gone = max(bisect_right(root.counts, last, 0, n_before) - 1, 0)
            if n_gone:
                self._drop_first(root, n_gone)
            if not root.level or len(root.times) > 1:
                return root
            child = node_of(self.blocks.read_block(root.ids[0]), self.width)
            self._add_base(child, root.counts[0], root.sums[0] if root.sums else [])
            self.blocks.drop_block(root.ids[0])
            root = child
        return Node([], [], values=None if root.values is None else [])

    def _drop_first(self, root, n):
        """Drop the first entries of a root, but keep counting their events."""
        self.drop(root.ids[:n], root.level)
        for each in (root.times, root.sums, root.counts, root.ids, root.values):
            if each:
                del each[:n]
        root.n_before += n * (not root.level)


class KeyPast(NamedTuple):
    """What a state has of one key, or of all rows, as of the time `reference`.

    The blocks are those of its impressions, per task those of its events and of its
    missing labels, and those of its lists.
    """

    reference: float
    blocks: list


class RecordForm:
    """The form of the records of a kind of keys: numbers of 8 bytes, then JSON.

    A record is a `KeyPast`: its reference, the sizes of its blocks, the blocks, and the
    values of its lists.
    """

    def __init__(self, plan):
        self.plan, self.lists, self.n_lists = plan, plan.lists, len(plan.lists)
        (self.columns,), (self.key_name,) = plan.keys, plan.key_names
        n_events, width = 1 + 2 * len(plan.lags), len(plan.half_lives)
        self.empty = [EMPTY] * n_events + [EMPTY_LIST] * self.n_lists
        self.widths = [width] * n_events + [0] * self.n_lists
        # How long each sequence keeps events, and how many older ones.
        self.kept = [(plan.horizon, 1)] * n_events
        self.kept += [(each.lag, each.n) for each in self.lists]
        self.heads = {
            start: struct.Struct(f"=8s{kind}{3 * len(self.empty)}q")
            for kind, start in STARTS.items()
        }

    def name(self, prefix, values):
        """Return the name of the record of a key, None if a value is missing."""
        if not self.columns:  # the key of all rows
            return f"{prefix}:"
        texts = []
        for value in values:
            if type(value) not in (int, str):
                if is_missing(value):
                    return None
                value = _plain(value, self.key_name)
            texts.append(str(value) if type(value) is int else to_json(value))
        return f"{prefix}:{self.key_name}:[{', '.join(texts)}]"

    def write(self, reference, nodes):
        """Return the record of a key with the nodes of its sequences."""
        kind, parts = _packed(nodes, [reference])
        sizes = [
            n for each in nodes for n in (len(each.times), each.level, each.n_before)
        ]
        record = self.heads[STARTS[kind]].pack(STARTS[kind], reference, *sizes) + parts
        if not self.n_lists:
            return record
        return record + _json([each.values or [] for each in nodes[-self.n_lists :]])

    def read(self, record, name):
        """Return the past of the key of a record with a given name."""
        try:
            head = self.heads[record[:8]]
            _, reference, *sizes = head.unpack_from(record)
            shapes = zip(sizes[::3], sizes[1::3], self.widths, sizes[2::3], strict=True)
            blocks, texts = _blocks(record, head.size, shapes)
            if self.n_lists:
                own = zip(blocks[-self.n_lists :], json.loads(texts), strict=True)
                lists = [block._replace(values=values) for block, values in own]
                blocks[-self.n_lists :] = lists
        except (LookupError, TypeError, ValueError, struct.error) as error:
            raise _invalid_record(name, error) from error
        return KeyPast(reference, blocks)


def write_block(node, width):
    """Return the record of a block below a root."""
    is_list, (kind, parts) = node.values is not None, _packed([node])
    sizes = len(node.times), node.level, width, is_list
    record = BLOCK_HEAD.pack(STARTS[kind], *sizes) + parts
    return record + _json(node.values) if is_list else record


def read_block(record, name):
    """Return the block of a record with a given name."""
    try:
        _, n, level, width, is_list = BLOCK_HEAD.unpack_from(record)
        (block,), texts = _blocks(record, BLOCK_HEAD.size, [(n, level, width, 0)])
        return block._replace(values=json.loads(texts)) if is_list else block
    except (LookupError, TypeError, ValueError, struct.error) as error:
        raise _invalid_record(name, error) from error


def _invalid_record(name, error):
    return ValueError(f"store[{name!r}] is no valid record: {error}.")


def _packed(nodes, others=()):
    """Return the kind of the times of nodes, and of other times, and their numbers."""
    times = chain(others, *(node.times for node in nodes))
    kind, parts = "d" if any(isinstance(t, float) for t in times) else "q", []
    for node in nodes:
        parts += [array(kind, node.times), array("d", chain.from_iterable(node.sums))]
        parts.append(array("q", [*node.counts, *node.ids]))
    return kind, b"".join(parts)


def _json(values):
    text = to_json(values).encode()
    # Views of numbers of 8 bytes need whole ones.
    return text.ljust(-(-len(text) // 8) * 8)


def _blocks(record, start, shapes):
    """Return the blocks of a record behind its head, and the bytes behind them.

    A block has a number of entries and a level, a width of its sums, and events before.
    """
    view, place, blocks = memoryview(record), start // 8, []
    ints, floats = view.cast("q"), view.cast("d")
    times = ints if record[:8] == STARTS["q"] else floats
    for n, level, width, n_before in shapes:
        if not n:
            blocks.append(EMPTY)
            continue
        stop = place + n
        at = stop + n * width
        parts = times, place, stop, floats, stop, n_before, None, level, ints, at
        blocks.append(Block._make(parts))
        place = at + 2 * n if level else at
    if place > len(ints):
        raise ValueError("it is too short")
    return blocks, record[8 * place :]


def _plain(value, name):
    """Return a value as text or a number; equal numbers become the same one."""
    value = listed(value, name)
    if isinstance(value, bool | float) and math.isfinite(value):
        value = int(value) if value == int(value) else value
    return value


def listed(value, name):
    """Return a value as one of Python, which JSON keeps."""
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, str | int | float):
        raise TypeError(
            f"A store holds values that are text or numbers; {name!r} has {value!r}."
        )
    return value
