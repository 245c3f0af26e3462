"""The records of a state in a key-value store, and the changes of them."""

import hashlib
import json
import math
import struct
from array import array
from collections import Counter
from itertools import accumulate, chain, pairwise

import numpy as np

from sk_pwiser._table._frames import is_missing
from sk_pwiser.history._key_log import unique_keys
from sk_pwiser.history._one_row import KeyPast
from sk_pwiser.history._time_tree import (
    EMPTY,
    EMPTY_LIST,
    Block,
    Tree,
    n_equal,
    node_of,
    seen,
)

# What a record begins with, by the type of its times.
STARTS = {"q": b"history2", "d": b"history3"}
# Of a block: its entries, its level, the width of its sums, and whether it has values.
BLOCK_HEAD = struct.Struct("=8s4q")
to_json = json.JSONEncoder().encode


class BlockIsGone(ValueError):
    """Another process has replaced a block since the record above it was read."""


class RecordForm:
    """The form of the records of a kind of keys: numbers of 8 bytes, then JSON.

    A record is a `KeyPast`: its reference, the sizes of its blocks, the blocks, and the
    values of its lists.
    """

    def __init__(self, plan, key=0):
        self.n_lists, width = len(plan.lists_of(key)), len(plan.half_lives)
        self.widths = [width] * (1 + 2 * len(plan.lags)) + [0] * self.n_lists
        n_sizes = 3 * len(self.widths)
        self.heads = {
            start: struct.Struct(f"=8s{kind}{n_sizes}q")
            for kind, start in STARTS.items()
        }
        n_events = len(self.widths) - self.n_lists
        self.empty = [EMPTY] * n_events + [EMPTY_LIST] * self.n_lists
        self.places = list(enumerate(self.widths))

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
            start, reference, *sizes = head.unpack_from(record)
            views = _views(record, start)
            place, blocks = head.size // 8, self.empty.copy()
            for i, width in self.places:
                if n := sizes[3 * i]:
                    _, level, n_before = sizes[3 * i : 3 * i + 3]
                    blocks[i] = _block(views, place, n, level, width, n_before)
                    place += _length(n, level, width)
            _check_length(views, place)
            if self.n_lists:
                values = json.loads(record[8 * place :])
                first = len(blocks) - self.n_lists
                for i, own in enumerate(values, first):
                    blocks[i] = blocks[i]._replace(values=own)
        except (LookupError, TypeError, ValueError, struct.error) as error:
            raise ValueError(f"store[{name!r}] is no valid record: {error}.") from error
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
        start, n, level, width, is_list = BLOCK_HEAD.unpack_from(record)
        views = _views(record, start)
        place = BLOCK_HEAD.size // 8
        block = _block(views, place, n, level, width, 0)
        _check_length(views, place := place + _length(n, level, width))
        if is_list:
            block = block._replace(values=json.loads(record[8 * place :]))
    except (LookupError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"store[{name!r}] is no valid record: {error}.") from error
    return block


def _packed(nodes, others=()):
    """Return the kind of the times of nodes, and of other times, and their numbers."""
    try:
        array("q", others)
        times = [array("q", each.times) for each in nodes]
    except TypeError:
        times = [array("d", each.times) for each in nodes]
        return "d", _joined(times, nodes)
    return "q", _joined(times, nodes)


def _joined(times, nodes):
    parts = []
    for own, each in zip(times, nodes, strict=True):
        if own:
            parts += [own, array("d", chain.from_iterable(each.sums))]
        if each.level:
            parts.append(array("q", [*each.counts, *each.ids]))
    return b"".join(parts)


def _json(values):
    text = to_json(values).encode()
    # Views of numbers of 8 bytes need whole ones.
    return text.ljust(-(-len(text) // 8) * 8)


def _views(record, start):
    view = memoryview(record)
    ints, floats = view.cast("q"), view.cast("d")
    return ints if start == STARTS["q"] else floats, ints, floats


def _block(views, place, n, level, width, n_before):
    """Return the block that begins at a place of views."""
    times, ints, floats = views
    stop = place + n
    at = stop + n * width
    return Block(times, place, stop, floats, stop, n_before, None, level, ints, at)


def _length(n, level, width):
    return n * (3 + width if level else 1 + width)


def _check_length(views, place):
    if place > len(views[1]):
        raise ValueError("it is too short")


def store_key(prefix, name, values):
    """Return the name of the record of a key, None if one of its values is missing."""
    texts = []
    for value in values:
        if type(value) not in (int, str):
            if is_missing(value):
                return None
            value = _plain(value, name)
        texts.append(str(value) if type(value) is int else to_json(value))
    return f"{prefix}:{name}:[{', '.join(texts)}]"


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


class Change:
    """Records that change, and names of those that go.

    Parameters
    ----------
    plan : Plan
        The plan of the history.
    prefix : str
        What the names of the records begin with.
    read_block : callable
        Returns a `Block` of the store by its number.
    next_id : int
        The number of the next block.
    """

    def __init__(self, plan, prefix, read_block=None, next_id=0):
        self.plan, self.prefix, self.next_id = plan, prefix, next_id
        self.read_stored, self.records, self.dropped = read_block, {}, []
        self.tree, self.tree_of_all = self._tree(plan.half_lives), self._tree([])
        self.tree_of_task = self._tree([], sorts_values=True)
        keys = range(len(plan.keys))
        self.lists = [plan.lists_of(key) for key in keys]
        self.forms = [RecordForm(plan, key) for key in keys]
        self.form_of_all = RecordForm(plan.of_all)
        self.name_of_all = f"{prefix}:"

    def append(self, rows, end, read):
        """Append rows; `read` returns the name of the record of a key, and its past."""
        plan = self.plan
        for key, names in enumerate(plan.keys):
            for values, own in _groups(rows, names):
                name, past = read(key, values)
                blocks = past.blocks if past else self.forms[key].empty
                if plan.max_age is not None:
                    blocks, own = self._present(key, blocks, rows, own)
                    if end - rows.time[own[-1]].item() > plan.max_age:
                        self._drop(name, blocks, past)
                        continue
                added = _events(rows, own) + [
                    _elements(rows, own, each, is_new=True) for each in self.lists[key]
                ]
                blocks = [
                    tree.changed(block, new, cut=end - lag, n_kept=n)
                    for tree, block, new, (lag, n) in zip(
                        self._trees(key), blocks, added, self._kept(key), strict=True
                    )
                ]
                self.records[name] = self.forms[key].write(end, blocks)
        past, own = read(None, None)[1], np.argsort(rows.time, kind="stable")
        cut = end - plan.of_all.horizon
        blocks = [
            self.tree_of_all.changed(block, new, cut=cut)
            for block, new in zip(past.blocks, _events(rows, own), strict=True)
        ]
        self.records[self.name_of_all] = self.form_of_all.write(end, blocks)

    def complete(self, rows, end, read):
        """Fill in labels; return which rows are absent, and which have a label."""
        plan, labels = self.plan, rows.labels.values
        is_asked = (labels >= 0).any(axis=1)
        is_absent = is_asked & (rows.time < end - plan.of_all.horizon)
        is_final = np.zeros(len(labels), dtype=bool)
        for key, names in enumerate(plan.keys):
            for values, own in _groups(rows, names, is_asked):
                name, past = read(key, values)
                found = own[:0]
                if past is not None:
                    found, blocks = self._completed(past.blocks, rows, own, is_final)
                # With `max_age`, keys have forgotten rows that the log of all rows has.
                if plan.max_age is None:
                    is_absent[np.setdiff1d(own, found)] = True
                if past is None:
                    continue
                trees = self._trees(key)
                for i, each in enumerate(self.lists[key], len(blocks)):
                    new = _elements(rows, found, each, is_new=False)
                    blocks.append(trees[i].changed(past.blocks[i], new))
                self.records[name] = self.forms[key].write(past.reference, blocks)
        past, own = read(None, None)[1], np.argsort(rows.time, kind="stable")
        own = own[is_asked[own]]
        found, blocks = self._completed(
            past.blocks, rows, own, is_final, self.tree_of_all
        )
        is_absent[np.setdiff1d(own, found)] = True
        self.records[self.name_of_all] = self.form_of_all.write(past.reference, blocks)
        return is_absent, is_final & ~is_absent

    def write_all(self, key, name, past):
        """Write the record of a key, or of all rows, with a past in memory."""
        if key is None:
            form, trees = self.form_of_all, [self.tree_of_all] * len(past.blocks)
        else:
            form, trees = self.forms[key], self._trees(key)
        pairs = zip(trees, past.blocks, strict=True)
        nodes = [tree.whole(node_of(block, tree.width)) for tree, block in pairs]
        self.records[name] = form.write(past.reference or 0, nodes)

    def _completed(self, blocks, rows, own, is_final, tree=None):
        """Return rows that a key has, and its blocks without lists after the change."""
        tree, labels = tree or self.tree, rows.labels.values
        read = self._read
        times = dict(zip(own.tolist(), rows.time[own].tolist(), strict=True))
        found = [i for i, time in times.items() if n_equal(blocks[0], time, read)]
        new = [node_of(blocks[0], tree.width)]
        for k in range(labels.shape[1]):
            events, missing = blocks[1 + 2 * k : 3 + 2 * k]
            added, removed, n_asked = [], [], Counter()
            for i in found:
                if labels[i, k] < 0:
                    continue
                time = times[i]
                if n_asked[time] == n_equal(missing, time, read):
                    is_final[i] = True
                    continue
                n_asked[time] += 1
                removed.append(time)
                if labels[i, k] == 1:
                    added.append((time, None))
            new.append(tree.changed(events, added))
            new.append(tree.changed(missing, removed=removed))
        return np.array(found, dtype=np.int64), new

    def _present(self, key, blocks, rows, own):
        """Return the blocks and the rows that `max_age` has not ended."""
        last, start = seen(blocks[0], math.inf, 0, (), self._read)[1], None
        for i, time in enumerate(rows.time[own].tolist()):
            if last is not None and time - last > self.plan.max_age:
                start = i
            last = time
        if start is None:
            return blocks, own
        self._drop_blocks(blocks)
        return self.forms[key].empty, own[start:]

    def _drop(self, name, blocks, past):
        self._drop_blocks(blocks)
        if past is not None:
            self.dropped.append(name)

    def _drop_blocks(self, blocks):
        for block in blocks:
            self.tree.dropped(block)

    def _kept(self, key):
        """Return how long each sequence keeps events, and how many older ones."""
        n_events = 1 + 2 * len(self.plan.lags)
        kept = [(self.plan.horizon, 1)] * n_events
        return kept + [(each.lag, each.n) for each in self.lists[key]]

    def _trees(self, key):
        n_events = 1 + 2 * len(self.plan.lags)
        # Labels come in any order, on which lists do not depend.
        return [self.tree] * n_events + [
            self.tree_of_all if each.task is None else self.tree_of_task
            for each in self.lists[key]
        ]

    def _tree(self, half_lives, sorts_values=False):
        width = len(half_lives)

        def write(node):
            number = self.next_id
            self.next_id += 1
            self.records[f"{self.prefix}:{number}"] = write_block(node, width)
            return number

        return Tree(half_lives, self._read, write, self._drop_block, sorts_values)

    def _read(self, number):
        name = f"{self.prefix}:{number}"
        record = self.records.get(name)
        return read_block(record, name) if record else self.read_stored(number)

    def _drop_block(self, number):
        name = f"{self.prefix}:{number}"
        if self.records.pop(name, None) is None:
            self.dropped.append(name)


def _groups(rows, names, is_chosen=None):
    """Yield the values of each key, and its rows in the order of time."""
    ids = np.stack([rows.columns[name][0] for name in names], axis=1)
    has_key = (ids >= 0).all(axis=1)
    chosen = np.flatnonzero(has_key if is_chosen is None else has_key & is_chosen)
    distinct, codes = unique_keys(ids[chosen])
    order = np.lexsort([rows.time[chosen], codes])
    ends = np.bincount(codes, minlength=len(distinct)).cumsum()
    bounds = pairwise([0, *ends.tolist()])
    for row, (start, end) in zip(distinct.tolist(), bounds, strict=True):
        values = [rows.columns[name][1][i] for name, i in zip(names, row, strict=True)]
        yield values, chosen[order[start:end]]


def _events(rows, own):
    """Return the events of rows: impressions, and per task labels 1 and missing."""
    times, labels = rows.time[own], rows.labels.values[own]
    chosen = [times]
    for of_task in labels.T:
        chosen += [times[of_task == 1], times[of_task < 0]]
    return [[(time, None) for time in each.tolist()] for each in chosen]


def _elements(rows, own, each, is_new):
    """Return the elements of a list, those of new rows or of new labels."""
    indices, values = rows.columns[each.column]
    is_element = indices[own] >= 0
    if each.task is not None:
        is_element &= rows.labels.values[own, each.task] == 1
    elif not is_new:
        is_element[:] = False
    own = own[is_element]
    return [
        (time, listed(values[i], each.name))
        for time, i in zip(rows.time[own].tolist(), indices[own].tolist(), strict=True)
    ]


def write_journal(records, dropped):
    """Return the records of a change in one, with the names of those that go."""
    names = [[name, len(record)] for name, record in records.items()]
    head = to_json({"records": names, "dropped": dropped}).encode()
    content = struct.pack("=q", len(head)) + head + b"".join(records.values())
    return hashlib.blake2b(content, digest_size=16).digest() + content


def read_journal(journal):
    """Return records and dropped names; none of a journal that is not complete."""
    digest, content = journal[:16], journal[16:]
    if hashlib.blake2b(content, digest_size=16).digest() != digest:
        return {}, []
    start = 8 + struct.unpack_from("=q", content)[0]
    head = json.loads(content[8:start])
    ends = accumulate((size for _, size in head["records"]), initial=start)
    names = [name for name, _ in head["records"]]
    parts = (content[first:end] for first, end in pairwise(ends))
    return dict(zip(names, parts, strict=True)), head["dropped"]
