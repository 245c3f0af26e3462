"""Category columns: vocabularies, rare values, hash buckets, codes."""

import datetime
import re
from collections import Counter, defaultdict
from copy import copy
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import compress
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from sklearn.utils import murmurhash3_32

from sk_pwiser._table import _frames

MIN_FREQUENCY = 2
# Every bucket has a code, even if it is not used.
MAX_BUCKETS = 2**31 - 1


class Vocabulary(NamedTuple):
    """Which values of a category column have codes of their own."""

    min_frequency: int = MIN_FREQUENCY  # values in fewer rows share a code
    # Largest number of codes, the shared one included.
    max_categories: int | None = None
    # Codes over which all other values are distributed by their hashes.
    n_hash_buckets: int | None = None

    @property
    def max_values(self):
        """Largest number of values with their own code; None for no limit."""
        if self.max_categories is None:
            return None if self.n_hash_buckets is None else 0
        return self.max_categories - 1


DEFAULT = Vocabulary()


def hash_values(values):
    """Return a hash of each value, uint32; values that compare equal have equal hashes.

    1, 1.0, True and Decimal(1) are the same integer, which is hashed by its 64 bits.
    """
    # Most columns hold text or integers of 64 bits, which have one form already.
    kinds = set(map(type, values))
    if kinds == {str}:
        return _hash_texts(values)
    if kinds == {int} and min(values) >= -(2**63) and max(values) < 2**63:
        return _hash_bits(values, int)
    values = list(map(_canonical, values))
    hashes = np.empty(len(values), dtype=np.uint32)
    for kind in (str, int, float):
        places = [place for place, value in enumerate(values) if type(value) is kind]
        if places:
            own = [values[place] for place in places]
            hashes[places] = _hash_texts(own) if kind is str else _hash_bits(own, kind)
    return hashes


def _canonical(value):
    """Return the same object for equal numbers: an int, a float, or otherwise text."""
    if isinstance(value, str):
        return str(value)
    if type(value) is not int and not isinstance(value, Real | Decimal | np.bool_):
        raise TypeError(
            f"hashing takes text and numbers; got {value!r}, a {type(value).__name__}"
        )
    whole = int(value)
    if whole == value:
        return whole if -(2**63) <= whole < 2**63 else str(whole)
    if float(value) == value:
        return float(value)
    return str(value.normalize() if isinstance(value, Decimal) else value)


def _hash_texts(values):
    # Text such as a file name may contain surrogates, which plain UTF-8 cannot encode.
    texts = (value.encode("utf-8", "surrogatepass") for value in values)
    hashes = (murmurhash3_32(text, positive=True) for text in texts)
    return np.fromiter(hashes, dtype=np.uint32, count=len(values))


def _hash_bits(values, kind):
    """Hash 64 bits by their low words, mixed with the hashes of the high words."""
    bits = np.array(values, dtype=kind).view(np.int64)
    words = bits.astype("<i8").view("<i4").reshape(-1, 2).astype(np.int32)
    low, high = np.ascontiguousarray(words.T)
    return murmurhash3_32(low ^ murmurhash3_32(high), positive=True)


# Up to this number of rows, a dict is faster than sorting or a polars expression.
FEW_ROWS = 64


def factorize(column):
    """Return the index of each row's value, -1 if missing, and the distinct values.

    These are Python objects that compare equal across libraries, in no set order. The
    indices may share memory with the column.
    """
    if isinstance(column, np.ndarray):
        return _factorize_array(column)
    if _frames.is_polars(column):
        return _factorize_polars(column)
    if column.dtype.name == "category":
        return _factorize_pandas_categories(column.array)
    if column.dtype.kind == "f":
        # Nullable dtypes do not treat NaN as missing, and Arrow distinguishes -0.0 from
        # 0.0.
        column = column.mask(column != column) + 0.0
    indices, values = column.factorize()
    return _compact(indices, len(values)), values.tolist()


def _compact(indices, n_values):
    return indices.astype(np.min_scalar_type(-max(1, n_values)), copy=False)


def _factorize_pandas_categories(column):
    codes = column.codes
    if len(codes) <= FEW_ROWS:
        indices, used = _factorize_objects(
            [c if c >= 0 else None for c in codes.tolist()]
        )
        values = (column.categories[code] for code in used)
        return indices, [v.item() if isinstance(v, np.generic) else v for v in values]
    # A few rows may have a dtype with millions of categories.
    if len(codes) < len(column.categories):
        used, indices = np.unique(codes, return_inverse=True)
        if len(used) and used[0] < 0:  # a missing value
            used, indices = used[1:], indices - 1
        return _compact(indices, len(used)), column.categories[used].tolist()
    is_used = np.zeros(len(column.categories) + 1, dtype=bool)
    is_used[codes] = True  # the last entry by code -1, a missing value
    is_used = is_used[:-1]
    if is_used.all():
        return codes, column.categories.tolist()
    # The last entry is selected by code -1, a missing value.
    new_indices = _compact(np.append(is_used.cumsum() - 1, -1), is_used.sum())
    return new_indices[codes], column.categories[is_used].tolist()


def _factorize_polars(column):
    name = str(column.dtype)
    if name == "Object":
        return _factorize_objects(column)
    if column.dtype.is_nested():
        raise TypeError(f"its dtype is {name}, which is nested")
    if name.startswith(("Categorical", "Enum")):
        import polars as pl  # installed, since the column is a polars Series

        column = column.cast(pl.String)
    elif column.dtype.is_float():
        column = column.fill_nan(None)
    if len(column) <= FEW_ROWS:
        return _factorize_objects(column.to_list())
    # Without `sort`, the order of the values would be random.
    values = column.drop_nulls().unique().sort()
    indices = column.replace_strict(values, np.arange(len(values)), default=-1)
    return _compact(indices.to_numpy(), len(values)), values.to_list()


def _factorize_array(column):
    if column.dtype.kind not in "biufU":
        return _factorize_objects(column)
    if len(column) <= FEW_ROWS:
        return _factorize_objects(column.tolist())
    values, indices = np.unique(column, return_inverse=True)
    indices = _compact(indices, len(values))
    if column.dtype.kind == "f" and len(values) and np.isnan(values[-1]):
        indices[indices == len(values) - 1] = -1
        values = values[:-1]
    return indices, values.tolist()


def _factorize_objects(column):
    # Objects of mixed types cannot be sorted, but they can be keys of a dict.
    known = {}
    indices = np.fromiter(
        (
            -1 if _frames.is_missing(value) else known.setdefault(value, len(known))
            for value in column
        ),
        dtype=np.int64,
        count=len(column),
    )
    # Scalars of numpy are not comparable with a Decimal.
    values = [v.item() if isinstance(v, np.number) else v for v in known]
    return _compact(indices, len(known)), values


# Text is checked in the first values of a column. It has many from this number on.
N_CHECKED, MANY_VALUES = 1_000, 100
# New values are usual if more of the rows in fit had a value that was rare or single.
USUAL_SHARE = 0.5

MISSING, UNSEEN, FIRST_VALUE = 0, 1, 2


@dataclass
class Codes:
    """The codes of a category column, stored as a lookup table."""

    indices: np.ndarray  # into `table` for each row; -1 selects the last entry
    table: np.ndarray

    def __getitem__(self, rows):
        return self.table[self.indices[rows]]

    def are_new(self):
        """Return which rows have a value that is not in the vocabulary."""
        is_new = self.table == UNSEEN
        is_new[-1] = False  # missing values
        return is_new[self.indices]


@dataclass(eq=False)
class CategoryColumn:
    """Encodes a category column as codes.

    The codes depend on the distinct values and their frequencies alone, not on the
    order of the rows or the library. Rare values outside of hash buckets also have
    codes of their own, from `cardinality` on: target statistics distinguish them, and
    they are not new.
    """

    name: Any
    vocabulary: Vocabulary = DEFAULT
    place: str = "row"  # of an entry, for messages

    kind = "category"
    # Kinds of `LARGE` numbers in fit.
    large: ClassVar[frozenset[str]] = frozenset()

    @property
    def cardinality(self):
        """Number of codes without those of rare values, the number of embeddings."""
        n_buckets = self.vocabulary.n_hash_buckets or 0
        return FIRST_VALUE + self.n_frequent_ + n_buckets

    @property
    def n_codes(self):
        return self.cardinality + len(self.codes_) - self.n_frequent_

    @property
    def encoding(self):
        return "embedding" if self.vocabulary.n_hash_buckets is None else "hashed"

    @property
    def own_values_(self):
        """Codes of the values that have their own; None stands for missing."""
        frequent = {v: c for v, c in self.codes_.items() if c < self.cardinality}
        if self.missing_code_ == MISSING:
            frequent[None] = MISSING
        return frequent

    def fit_transform(self, column, *others):
        """Learn the values of a column, and of others, and return its `Codes`."""
        found = [self._factorize(each) for each in (column, *others)]
        values, counts, kinds, n_missing = self._count(found)
        self.learn(values, counts, n_missing > 0, kinds)
        return self._encode(*found[0])

    def learn(self, values, counts, has_missing, kinds, n_others=0):
        """Learn values; `n_others` rows have further ones, without codes."""
        limit, least = self.vocabulary.max_values, self.vocabulary.min_frequency
        frequent = []
        if limit != 0:
            frequent = sort_values(list(compress(values, np.array(counts) >= least)))
        if limit is not None and len(frequent) > limit:
            # If values are equally frequent, the last ones are kept, as in
            # scikit-learn.
            n_rows = dict(zip(values, counts, strict=True))
            order = np.argsort([n_rows[value] for value in frequent], kind="stable")
            frequent = [frequent[place] for place in np.sort(order[-limit:])]
        self.n_frequent_ = len(frequent)
        self.codes_ = {value: code for code, value in enumerate(frequent, FIRST_VALUE)}
        if self.vocabulary.n_hash_buckets is None:
            rare = sort_values([value for value in values if value not in self.codes_])
            self.codes_ |= {v: code for code, v in enumerate(rare, self.cardinality)}
        self.large, self.kinds_ = kinds & LARGE.keys(), kinds - LARGE.keys()
        # In another table, the share of rows with new values is about the share of rows
        # in fit whose value occurred once (Good, 1953).
        pairs = zip(values, counts, strict=True)
        unusual = sum(n for value, n in pairs if n == 1 or value not in self.codes_)
        self.usual_share_ = (unusual + n_others) / max(sum(counts) + n_others, 1)
        self.has_one_value = len(values) + has_missing + n_others < 2
        self.content_ = None
        if self.kinds_ == {"text"}:
            self.content_ = _misread_content(values)
        elif self.kinds_.issuperset({"numbers", "text"}) and split_values(values):
            self.content_ = "numbers and their texts"
        # Without missing values in fit, their embedding would not be trained.
        self.missing_code_ = MISSING if has_missing else UNSEEN

    def transform(self, column):
        """Return the `Codes` of a column; raise if its values are of another kind."""
        indices, values = self._factorize(column)
        if self.large or kinds_of(values).isdisjoint(self.kinds_):
            start = f"Column {_frames.describe(self.name, column)} contained"
            check_kinds(values, self.kinds_, start, " in fit; it now contains")
            check_exact(values, self.large, start, " in fit; it now contains")
        return self._encode(indices, values)

    def count(self, *columns):
        """Return the distinct values, their numbers of rows, kinds, and n_missing.

        The kinds include those of `LARGE` numbers.
        """
        return self._count(list(map(self._factorize, columns)))

    def _count(self, factorized):
        start = f"shared_embeddings: column {self.name!r} contains"
        other = ", but a list column that shares its vocabulary contains"
        total, all_kinds, n_missing = Counter(), set(), 0
        for indices, values in factorized:
            n_values = len(values)
            counts = np.zeros(n_values + 1, dtype=np.int64)
            size = max(_frames.CHUNK_ROWS, n_values)
            for row in range(0, len(indices), size):
                # bincount needs int64, and converting the whole column at once would
                # need more memory than the rest of the encoding.
                chunk = indices[row : row + size].astype(np.int64)
                chunk[chunk < 0] = n_values  # missing values
                counts += np.bincount(chunk, minlength=n_values + 1)
            *counts, n_own = counts.tolist()
            n_missing += n_own
            if all_kinds:  # of an earlier column
                check_kinds(values, all_kinds, start, other)
                check_exact(values, all_kinds, start, other)
            all_kinds |= kinds_of(values, with_large=True)
            if len(factorized) == 1:  # millions of values need no further dict
                return values, counts, all_kinds, n_missing
            total.update(dict(zip(values, counts, strict=True)))
        return list(total), list(total.values()), all_kinds, n_missing

    def grown(self, data, *others):
        """Return a column with codes for new values, and where its codes come from.

        Values of `others` count as well; -1 stands for new values.

        Rare new values have codes only if another one is frequent: without frequent
        ones, the cost depends on the rows alone, and the same column is returned.
        """
        self.transform(data)  # raises if the kinds of values differ
        if self.vocabulary.max_values is not None:
            return self, np.arange(self.n_codes)
        values, counts, kinds, _ = self.count(data, *others)
        known, limit = self.codes_, self.cardinality
        frequent = compress(values, np.array(counts) >= self.vocabulary.min_frequency)
        promoted = [value for value in frequent if known.get(value, limit) >= limit]
        if not promoted:
            return self, np.arange(self.n_codes)
        old, moved = list(known), set(promoted)
        kept = [*old[: self.n_frequent_], *sort_values(promoted)]
        grown = copy(self)
        grown.n_frequent_ = len(kept)
        kept += [value for value in old[self.n_frequent_ :] if value not in moved]
        kept += sort_values([v for v in values if v not in known and v not in moved])
        grown.codes_ = {value: code for code, value in enumerate(kept, FIRST_VALUE)}
        grown.large = self.large | kinds & LARGE.keys()
        grown.kinds_ = self.kinds_ | kinds - LARGE.keys()
        origin = [*range(FIRST_VALUE), *(known.get(value, -1) for value in kept)]
        return grown, np.array(origin, dtype=np.int64)

    def _factorize(self, column):
        try:
            indices, values = factorize(column)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise TypeError(
                f"Column {_frames.describe(self.name, column)} cannot be read as "
                f"categories: {error}."
            ) from error
        if np.inf in values or -np.inf in values:
            found = [i for i, value in enumerate(values) if value in (np.inf, -np.inf)]
            row = int(np.isin(indices, found).argmax())
            value = values[indices[row]]
            raise _frames.infinity_error(self.name, column, row, value, self.place)
        return indices, values

    def _encode(self, indices, values):
        n_buckets = self.vocabulary.n_hash_buckets
        codes = [self.codes_.get(value, UNSEEN) for value in values]
        if n_buckets is not None:
            try:
                hashes = hash_values(values).astype(np.int64)
            except TypeError as error:
                raise TypeError(
                    f"Column {self.name!r} cannot have n_hash_buckets: {error}. "
                    "Convert it to text."
                ) from error
            hashed = FIRST_VALUE + self.n_frequent_ + hashes % n_buckets
            codes = np.where(np.array(codes) == UNSEEN, hashed, codes)
        table = np.empty(len(values) + 1, dtype=np.min_scalar_type(-self.n_codes))
        table[:-1], table[-1] = codes, self.missing_code_
        return Codes(indices, table)


def sort_values(values):
    """Sort distinct values: numbers, text, then others by type if comparable."""
    groups = defaultdict(list)
    for value in values:
        groups[_rank(type(value))].append(value)
    ordered = []
    for _, group in sorted(groups.items()):
        try:
            ordered += sorted(group)
        except TypeError:
            ordered += group
    return ordered


KINDS = "numbers", "text", "other objects"
# Other objects, which are never equal; earlier versions did not tell them apart.
TIMES = {"times", "times with a time zone", "dates"}


@cache
def _rank(cls):
    """Return the index of the kind of a class, and the name of one of other objects."""
    if issubclass(cls, str):
        return 1, ""
    # Decimal and the bool of numpy are comparable with numbers, but not registered as
    # Real.
    if issubclass(cls, Real | Decimal | np.bool_):
        return 0, ""
    return 2, f"{cls.__module__}.{cls.__qualname__}"


def kinds_of(values, *, with_large=False):
    """Return the kinds of values, also those of `LARGE` numbers if asked for."""
    classes = set(map(type, values))
    kinds = {KINDS[_rank(c)[0]] for c in classes if not issubclass(c, datetime.date)}
    if any(issubclass(c, datetime.date) for c in classes):
        kinds |= {_frames.kind_of(v) for v in values if isinstance(v, datetime.date)}
    if with_large and "numbers" in kinds:
        kinds |= {kind for kind in LARGE if _find_large(values, kind) is not None}
    return kinds


# A number as text. A zero before another digit is a sign of a code.
NUMBER = re.compile(r"\s*[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*")


# Numbers as people write them: with separators of thousands or a decimal comma.
THOUSANDS = re.compile(r"[-+]?\d{1,3}([,'\s]\d{3})+(\.\d+)?")
DECIMAL_COMMA = re.compile(r"[-+]?(\d+|\d{1,3}([.\s]\d{3})+),\d{1,2}")
CURRENCIES = "$€£¥"

# A date as text, with or without a time.
DATE = re.compile(r"\s*(\d{4}([-/.])\d\d?\2\d\d?|\d\d?([-/.])\d\d?\3\d{4})([T\s].*)?")


def split_values(values):
    """Return pairs of a number and its text among distinct values that hold both.

    Text with zeros in front, such as "007", is another value than the number.
    """
    texts = [value for value in values if isinstance(value, str)]
    text_of = {_to_number(text): text for text in texts if NUMBER.fullmatch(text)}
    numbers = [v for v in values if _rank(type(v))[0] == 0 and not isinstance(v, bool)]
    return [(number, text_of[number]) for number in numbers if number in text_of]


def _to_number(text):
    """Return a number as text as an int, which is exact, or as a float."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _misread_content(values):
    """Return "amounts" or "dates" if many distinct values are such text, else None.

    Half of the amounts are fractions, since ids are whole numbers.
    """
    values = values[:N_CHECKED]
    if len(values) < MANY_VALUES:
        return None
    if all(map(DATE.fullmatch, values)):
        return "dates"
    n_fractions = 0
    for value in values:
        text = value.strip().strip(CURRENCIES).strip()
        if THOUSANDS.fullmatch(text):
            text = re.sub(r"[,'\s]", "", text)
        elif DECIMAL_COMMA.fullmatch(text):
            text = re.sub(r"[.\s]", "", text).replace(",", ".")
        if not NUMBER.fullmatch(text):
            return None
        n_fractions += float(text) % 1 != 0
    return "amounts" if 2 * n_fractions >= len(values) else None


# Doubles hold all whole numbers up to this magnitude.
EXACT = 2**53
# The kinds of numbers above it: a float may be an integer that was rounded.
LARGE = {
    "integers above 2^53": (Integral, Decimal),
    "floats above 2^53": (float, np.floating),
}


def inexact_classes(kinds):
    """Return the classes of large numbers that equal no value, beside known `kinds`.

    A number of them may compare equal to a value, which is another integer if one of
    the two was rounded.
    """
    absent = LARGE.keys() - kinds
    return LARGE[absent.pop()] if len(absent) == 1 else ()


def _find_large(values, kind):
    """Return a number of one of the kinds of `LARGE`, or None."""
    types = set(map(type, values))
    for cls in types:
        if issubclass(cls, LARGE[kind]):
            own = values if len(types) == 1 else [v for v in values if type(v) is cls]
            for value in (max(own), min(own)):
                if not -EXACT <= value <= EXACT:
                    return value
    return None


def check_kinds(values, earlier, start, middle):
    """Raise if no value can equal one of `earlier` kinds, such as text and numbers.

    `start` and `middle` are parts of the message before the kinds of both.
    """
    kinds, known = kinds_of(values), earlier - LARGE.keys()
    others = TIMES if KINDS[2] in known else set()
    if kinds and known and kinds.isdisjoint(known | others):
        raise ValueError(
            f"{start} {' and '.join(sorted(known))}{middle} "
            f"{' and '.join(sorted(kinds))}, such as {values[0]!r}: none can be equal."
        )


def check_exact(values, earlier, start, middle):
    """Raise if integers were rounded to floats, here or among `earlier` kinds.

    The message is made as that of `check_kinds`.
    """
    known = LARGE.keys() & earlier
    for kind in LARGE.keys() - known if known else ():
        value = _find_large(values, kind)
        if value is not None:
            raise ValueError(
                f"{start} {known.pop()}{middle} {kind}, such as {value!r}. Integers "
                "above 2^53 are rounded as floats; use a dtype such as 'Int64' or text."
            )


# The rows that are the last ones for `NewValues`, and what it returns at least.
LATE_SHARE, LEAST_DROPOUT = 0.1, 0.05


@dataclass
class NewValues:
    """Measures how often the last rows have values that no earlier row has.

    Rows come in any order, with codes of rare values, too.
    """

    encoder: Any
    n_rows: int = 0

    def add(self, codes, is_late):
        columns = self.encoder.of_kind(CategoryColumn)
        if not self.n_rows:
            self.n_unseen = np.zeros(len(columns))
            self.seen = [np.zeros(column.n_codes, dtype=bool) for column in columns]
            self.n_late = [np.zeros(len(seen), dtype=np.int64) for seen in self.seen]
        self.n_rows += len(codes)
        for index, column in enumerate(columns):
            own = codes[:, index]
            is_unseen = (own == UNSEEN) | (own >= column.cardinality)
            self.n_unseen[index] += np.count_nonzero(is_unseen)
            self.seen[index][own[~is_late]] = True
            late = own[is_late].astype(np.int64)
            n_late = self.n_late[index]
            n_late += np.bincount(late, minlength=len(n_late))

    def dropouts(self):
        """Return the category dropout of each column.

        It is half the share of the last rows with new values, beyond the share of all
        rows that have the code of unseen values anyway. With the whole share, known
        values, which later rows have as well, were learnt too little.
        """
        found = []
        of_columns = zip(self.seen, self.n_late, self.n_unseen, strict=True)
        for seen, n_late, n_unseen in of_columns:
            new = n_late[~seen].sum() / max(n_late.sum(), 1)
            share = n_unseen / max(self.n_rows, 1)
            missing = (new - share) / max(1 - share, 1 / max(self.n_rows, 1))
            found.append(float(max(LEAST_DROPOUT, missing / 2)))
        return tuple(found)
