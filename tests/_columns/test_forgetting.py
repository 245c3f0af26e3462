"""Values that no row of the last updates had make room for new ones."""

import numpy as np
import pandas as pd
import pytest

from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._codes import FIRST_VALUE
from sk_pwiser._columns._vocabulary import Vocabulary


class Memory:
    """Who is known, as dictionaries and loops over values say it."""

    def __init__(self, values, min_frequency, forget_after):
        self.min_frequency = min_frequency
        self.forget_after = forget_after
        self.update_number = 0
        counts = pd.Series(values).value_counts()
        self.last = dict.fromkeys(counts.index, 0)
        frequent = sorted(v for v, n in counts.items() if n >= min_frequency)
        self.frequent = dict(enumerate(frequent, FIRST_VALUE))  # values by code
        self.rare = set(self.last) - set(frequent)

    def update(self, values):
        self.update_number += 1
        counts = pd.Series(values).value_counts()
        for value in counts.index:
            if value in self.last:
                self.last[value] = self.update_number
        has_codes = set(self.frequent.values())
        promoted = sorted(
            value
            for value, n in counts.items()
            if n >= self.min_frequency and value not in has_codes
        )
        if not promoted:
            return
        rare_new = [v for v in counts.index if v not in self.last and v not in promoted]
        self.rare -= set(promoted)
        for value in promoted:
            expired = [
                (self.last[old], code)
                for code, old in self.frequent.items()
                if self.is_expired(old)
            ]
            code = min(expired)[1] if expired else FIRST_VALUE + len(self.frequent)
            self.last.pop(self.frequent.get(code), None)
            self.frequent[code] = value
            self.last[value] = self.update_number
        self.rare |= set(rare_new)
        self.last.update(dict.fromkeys(rare_new, self.update_number))

    def is_expired(self, value):
        return self.update_number - self.last[value] >= self.forget_after


@pytest.mark.parametrize("seed", range(30))
def test_columns_know_the_values_that_a_dictionary_knows(seed):
    rng = np.random.default_rng(seed)
    min_frequency = int(rng.integers(1, 4))
    forget_after = int(rng.integers(1, 5))
    first = rng.integers(0, 30, rng.integers(1, 60))
    column = CategoryColumn("c", Vocabulary(min_frequency))
    column.fit_transform(first)
    memory = Memory(first, min_frequency, forget_after)
    for update in range(1, 25):
        values = rng.integers(3 * update, 3 * update + 30, rng.integers(1, 60))
        earlier_codes = dict(column.codes_)
        earlier_size = column.cardinality
        if rng.random() < 0.1:  # an update that fails changes nothing
            column.grown(rng.integers(0, 500, 60), forget_after=forget_after)
            assert column.codes_ == earlier_codes
        column, origin = column.grown(values, forget_after=forget_after)
        memory.update(values)
        frequent = {v: c for v, c in column.codes_.items() if c < column.cardinality}
        assert {code: value for value, code in frequent.items()} == memory.frequent
        # Codes are those from the first one on, in order.
        codes = list(column.codes_.values())
        assert codes == list(range(FIRST_VALUE, column.n_codes))
        assert len(origin) == column.n_codes == len(column.last_updates)
        for value, code in column.codes_.items():
            assert origin[code] == earlier_codes.get(value, -1)
            known_at = memory.last.get(value)
            assert column.last_updates[code] == known_at
        # Rare values go only for others, and only if they have not been used.
        rare = set(column.codes_) - set(frequent)
        assert rare <= memory.rare
        for value in memory.rare - rare:
            assert memory.is_expired(value)
            memory.rare.remove(value)
            del memory.last[value]
        # Values that had an embedding keep their codes.
        for value, code in earlier_codes.items():
            if code < earlier_size and value in column.codes_:
                assert column.codes_[value] == code


def test_the_oldest_values_go_first_and_only_for_others():
    column = CategoryColumn("c", Vocabulary(1))
    column.fit_transform(np.array(["a", "b", "c", "d"]))
    for values in (["b"], ["c"], ["d"]):
        column, _ = column.grown(np.array(values), forget_after=2)
    # No row of the last two updates had "a" and "b", and nothing has come for them.
    assert list(column.codes_) == ["a", "b", "c", "d"]
    column, origin = column.grown(np.array(["x"]), forget_after=2)
    assert list(column.codes_) == ["x", "b", "c", "d"]
    assert origin.tolist() == [0, 1, -1, 3, 4, 5]
    # "a" is a new value when it comes again; "b" and then "c" make room.
    column, origin = column.grown(np.array(["a", "y"]), forget_after=2)
    assert list(column.codes_) == ["x", "a", "y", "d"]
    assert origin.tolist() == [0, 1, 2, -1, -1, 5]
    column, _ = column.grown(np.array(["p", "q", "r"]), forget_after=9)
    assert list(column.codes_) == ["x", "a", "y", "d", "p", "q", "r"]


def test_a_value_that_becomes_frequent_leaves_its_place_to_a_rare_one():
    column = CategoryColumn("c", Vocabulary(2))
    column.fit_transform(np.array(["a", "a", "b", "b", "r", "s", "t"]))
    assert list(column.codes_) == ["a", "b", "r", "s", "t"]
    column, origin = column.grown(np.array(["b", "s", "s", "u"]), forget_after=1)
    # "s" has the code of "a"; "u" that of "s".
    assert list(column.codes_) == ["s", "b", "r", "u", "t"]
    assert origin.tolist() == [0, 1, 5, 3, 4, -1, 6]
    assert column.cardinality == 4
    column, _ = column.grown(np.array(["b", "s", "t", "t"]), forget_after=5)
    # Two places for "t", of which the last is empty.
    assert list(column.codes_) == ["s", "b", "t", "u", "r"]
    assert column.cardinality == 5


def test_updates_without_forgetting_keep_the_record():
    column = CategoryColumn("c", Vocabulary(1))
    column.fit_transform(np.array(["a", "b"]))
    column, _ = column.grown(np.array(["b"]), forget_after=3)
    column, _ = column.grown(np.array(["c"]))
    assert column.last_updates[FIRST_VALUE:].tolist() == [0, 1, 1]
    assert column.n_updates == 1
    column, _ = column.grown(np.array(["d"]), forget_after=2)
    assert list(column.codes_) == ["d", "b", "c"]
