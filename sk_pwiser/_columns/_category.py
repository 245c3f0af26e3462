"""Category columns: codes of values."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import compress
from typing import Any, ClassVar, Self, cast

import numpy as np

from sk_pwiser._columns import _frames
from sk_pwiser._columns._base import (
    Column,
    EncodedColumn,
    GrownColumn,
    Lookup,
    TableCells,
)
from sk_pwiser._columns._choice import Choice
from sk_pwiser._columns._codes import FIRST_VALUE, MISSING, UNSEEN, Codes
from sk_pwiser._columns._factorize import factorize
from sk_pwiser._columns._forgetting import (
    keep_record,
    with_reused_codes,
    with_update,
)
from sk_pwiser._columns._row_fields import Field, as_column, as_list
from sk_pwiser._columns._text_cells import numbers_of_texts
from sk_pwiser._columns._value_counts import ValueCounts
from sk_pwiser._columns._value_kinds import (
    LARGE,
    check_exact,
    check_kinds,
    inexact_classes,
    kinds_of,
    misread_content,
    sort_values,
    split_values,
)
from sk_pwiser._columns._vocabulary import DEFAULT, Vocabulary, hash_values


@dataclass(eq=False)
class CategoryColumn(Column):
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
    network_input = "codes"
    # Kinds of `LARGE` numbers in fit.
    large: ClassVar[frozenset[str]] = frozenset()
    # The number of updates so far that forget values, and the last one of them whose
    # rows had the value of each code; 0 for rows before.
    n_updates: ClassVar[int] = 0
    last_updates: ClassVar[np.ndarray | None] = None

    @classmethod
    def claim(cls, choice: Choice, name: Any) -> Self | None:
        """Return a column for what is a category by its dtype or by its name."""
        if not choice.is_category(name):
            return None
        return cls(name, choice.vocabulary(name))

    @property
    def is_combinable(self) -> bool:  # type: ignore[override]
        """Whether all of its values are told apart."""
        return self.vocabulary.max_values is None

    @property
    def cardinality(self) -> int:
        """Number of codes without those of rare values, the number of embeddings."""
        n_buckets = self.vocabulary.n_hash_buckets or 0
        return FIRST_VALUE + self.n_frequent_ + n_buckets

    @property
    def n_codes(self) -> int:
        """Number of codes with those of rare values."""
        return self.cardinality + len(self.codes_) - self.n_frequent_

    @property
    def n_vectors(self) -> int:
        """Number of embeddings."""
        return self.cardinality

    @property
    def n_values(self) -> int:
        """Number of values that target statistics tell apart."""
        return self.n_codes - FIRST_VALUE

    @property
    def n_counted_codes(self) -> int:
        """Number of codes of a table of target statistics."""
        return self.n_codes

    @property
    def encoding(self) -> str:
        """How the values are encoded, in a few words."""
        return "embedding" if self.vocabulary.n_hash_buckets is None else "hashed"

    @property
    def own_values_(self) -> dict[Any, int]:
        """Codes of the values that have their own; None stands for missing."""
        cardinality = self.cardinality
        codes = {value: c for value, c in self.codes_.items() if c < cardinality}
        if self.missing_code_ == MISSING:
            codes[None] = MISSING
        return codes

    def describe(self, columns: Mapping[Any, Column]) -> dict[str, Any]:
        """Return what `column_encodings_` says of the column beside its rates."""
        return {**super().describe(columns), "values": self.own_values_}

    def stored_values(self) -> Iterable[Any]:
        """Return the values that a file of the column must hold."""
        return self.codes_

    def cells_of_texts(self, texts: Sequence[str | None]) -> Sequence[Any]:
        """Return the texts, or the numbers if the values were numbers in fit."""
        if self.kinds_ == {"numbers"}:
            return numbers_of_texts(self.name, texts)
        if self.kinds_ - {"text"}:  # such as dates
            return super().cells_of_texts(texts)
        return texts

    # A table.

    def fit_table(
        self, table: TableCells, sample_weight: np.ndarray | None
    ) -> EncodedColumn:
        """Learn the values, with those of lists that share them."""
        elements = table.elements_beside(self.name)
        codes = self.fit_transform(table.cells[self.name], *elements)
        return EncodedColumn(codes=codes)

    def encode_table(self, table: TableCells) -> EncodedColumn:
        """Return the codes of another table."""
        cells = table.cells[self.name]
        codes = self.transform(cells)
        return EncodedColumn(codes=codes, lookup=Lookup(self, cells, codes))

    def part_learner(self, max_values: int) -> ValueCounts:
        """Return what counts the values of rows in parts."""
        return ValueCounts(self, max_values)

    def grow_table(
        self, table: TableCells, forget_after: int | None = None
    ) -> GrownColumn:
        """Return a column with codes for the frequent new values of a table."""
        elements = table.elements_beside(self.name)
        cells = table.cells[self.name]
        grown, origin = self.grown(cells, *elements, forget_after=forget_after)
        return GrownColumn(column=grown, code_origin=origin)

    def for_serving(self) -> Self:
        """Return the column without the record of uses, or itself."""
        if self.last_updates is None:
            return self
        served: Any = copy(self)
        served.last_updates = None
        served.n_updates = 0
        return cast(Self, served)

    def unchanged(self) -> GrownColumn:
        """Return the column itself, with its codes as their own origins."""
        return GrownColumn(column=self, code_origin=np.arange(self.n_codes))

    # Values.

    def fit_transform(self, column, *elements):
        """Learn the values of a column, and of elements; return its `Codes`."""
        factorized = [self._factorize(cells) for cells in (column, *elements)]
        values, counts, kinds, n_missing = self._count(factorized)
        self.learn(values, counts, n_missing > 0, kinds)
        indices, values = factorized[0]
        return self._encode(indices, values)

    def learn(self, values, counts, has_missing, kinds, n_further=0):
        """Learn values; `n_further` rows have further ones, without codes."""
        limit = self.vocabulary.max_values
        frequent = []
        if limit != 0:
            is_frequent = np.array(counts) >= self.vocabulary.min_frequency
            frequent = sort_values(list(compress(values, is_frequent)))
        if limit is not None and len(frequent) > limit:
            # If values are equally frequent, the last ones are kept, as in
            # scikit-learn.
            count_of = dict(zip(values, counts, strict=True))
            order = np.argsort([count_of[value] for value in frequent], kind="stable")
            most_frequent = np.sort(order[-limit:])
            frequent = [frequent[index] for index in most_frequent]
        self.n_frequent_ = len(frequent)
        self.codes_ = {value: code for code, value in enumerate(frequent, FIRST_VALUE)}
        if self.vocabulary.n_hash_buckets is None:
            rare = sort_values([value for value in values if value not in self.codes_])
            self.codes_ |= {v: code for code, v in enumerate(rare, self.cardinality)}
        self.large = kinds & LARGE.keys()
        self.kinds_ = kinds - LARGE.keys()
        # In another table, the share of rows with new values is about the share of rows
        # in fit whose value occurred once (Good, 1953).
        pairs = zip(values, counts, strict=True)
        n_unusual = sum(n for value, n in pairs if n == 1 or value not in self.codes_)
        n_rows = max(sum(counts) + n_further, 1)
        self.usual_share_ = (n_unusual + n_further) / n_rows
        self.has_one_value = len(values) + has_missing + n_further < 2
        self.content_ = None
        if self.kinds_ == {"text"}:
            self.content_ = misread_content(values)
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
        middle = ", but a list column that shares its vocabulary contains"
        total = Counter()
        all_kinds = set()
        n_missing = 0
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
            *counts, n_missing_here = counts.tolist()
            n_missing += n_missing_here
            if all_kinds:  # of an earlier column
                check_kinds(values, all_kinds, start, middle)
                check_exact(values, all_kinds, start, middle)
            all_kinds |= kinds_of(values, with_large=True)
            if len(factorized) == 1:  # millions of values need no further dict
                return values, counts, all_kinds, n_missing
            total.update(dict(zip(values, counts, strict=True)))
        return list(total), list(total.values()), all_kinds, n_missing

    def grown(self, data, *elements, forget_after=None):
        """Return a column with codes for new values, and where its codes come from.

        The `elements` of lists count as well; -1 stands for new values.

        Rare new values have codes only if another one is frequent: without frequent
        ones, the cost depends on the rows alone, and the same column is returned. With
        `forget_after`, the values of the rows are recorded, and those that so many
        updates have not had make room for new ones.
        """
        self.transform(data)  # raises if the kinds of values differ
        if self.vocabulary.max_values is not None:
            return self, np.arange(self.n_codes)
        values, counts, kinds, _ = self.count(data, *elements)
        is_frequent = np.array(counts) >= self.vocabulary.min_frequency
        recorded = self if forget_after is None else with_update(self, values)
        earlier_codes = self.codes_
        n_embeddings = self.cardinality
        promoted = [
            value
            for value in compress(values, is_frequent)
            if earlier_codes.get(value, n_embeddings) >= n_embeddings
        ]
        if not promoted:
            return recorded, np.arange(self.n_codes)
        moved = set(promoted)
        promoted = sort_values(promoted)
        rare_new = sort_values(
            [v for v in values if v not in earlier_codes and v not in moved]
        )
        if forget_after is None:
            earlier_values = list(earlier_codes)
            frequent = earlier_values[: self.n_frequent_] + promoted
            rare = [v for v in earlier_values[self.n_frequent_ :] if v not in moved]
            ordered = [*frequent, *rare, *rare_new]
            n_frequent = len(frequent)
        else:
            ordered, n_frequent = with_reused_codes(
                recorded, promoted, rare_new, forget_after
            )
        grown = copy(recorded)
        grown.n_frequent_ = n_frequent
        grown.codes_ = {value: code for code, value in enumerate(ordered, FIRST_VALUE)}
        grown.large = self.large | kinds & LARGE.keys()
        grown.kinds_ = self.kinds_ | kinds - LARGE.keys()
        # Missing and unseen values keep their codes.
        origin = [*range(FIRST_VALUE), *(earlier_codes.get(v, -1) for v in ordered)]
        origin = np.array(origin, dtype=np.int64)
        keep_record(grown, recorded, origin)
        return grown, origin

    def _factorize(self, column):
        try:
            indices, values = factorize(column)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise TypeError(
                f"Column {_frames.describe(self.name, column)} cannot be read as "
                f"categories: {error}."
            ) from error
        if np.inf in values or -np.inf in values:
            ends = [i for i, value in enumerate(values) if value in (np.inf, -np.inf)]
            row = int(np.isin(indices, ends).argmax())
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
        table[:-1] = codes
        table[-1] = self.missing_code_
        return Codes(indices, table)

    # Other forms.

    def plain_values(self, cells: Any) -> np.ndarray:
        """Return the values as text, and missing ones as a value."""
        texts = ["missing" if _frames.is_missing(v) else str(v) for v in cells]
        return np.array(texts, dtype=object)

    def row_field(self) -> "CategoryField":
        """Return what encodes the values of single rows and small batches."""
        return CategoryField(self)

    def onnx_obstacle(self) -> str | None:
        """Return why an ONNX graph cannot take the raw values, or None."""
        kinds = sorted(self.kinds_)
        if self.vocabulary.n_hash_buckets is not None:
            return "it has hash buckets, for which ONNX has no operator"
        if kinds not in ([], ["numbers"], ["text"]):
            return f"it contains {' and '.join(kinds)}; a graph takes text or numbers"
        for value in self.codes_:
            if value == "":
                return (
                    "its values in fit contain the empty string, which stands for "
                    "missing values in the graph; replace it by None before fit"
                )
            if "numbers" in kinds and float(value) != value:
                return f"its value {value!r} has no equal of type double"
        return None

    def add_to_graph(self, graph: Any) -> list[str]:
        """Add the lookup of the codes, those of rare values included."""
        if "numbers" not in self.kinds_:
            values = graph.text_input(self.name)
            texts = {str(value): code for value, code in self.codes_.items()}
            texts[""] = self.missing_code_
            return [graph.look_up(values, texts, UNSEEN)]
        values = graph.number_input(self.name)
        numbers = {float(value): code for value, code in self.codes_.items()}
        codes = graph.look_up(values, numbers or {0.0: UNSEEN}, UNSEEN)
        is_missing = graph.add("IsNaN", values)
        missing_code = np.int64(self.missing_code_)
        return [graph.add("Where", is_missing, missing_code, codes)]

    def add_places(self, graph: Any, values: Iterable[Any], default: int) -> str:
        """Add a lookup of the places of some values, after `add_to_graph`."""
        convert = float if "numbers" in self.kinds_ else str
        places = {convert(value): place for place, value in enumerate(values)}
        return graph.look_up(str(self.name), places or {convert(): default}, default)


class CategoryField(Field):
    """Encodes the values of a category column by lookup, in a copy of the column.

    Categories may be integers above 2^53, or floats above it, but not both. A number of
    the other kind is refused, as in a table, even if it equals a category.
    """

    def __init__(self, column: CategoryColumn) -> None:
        super().__init__(copy(column))
        self.column.place = None  # messages begin with the row
        self.column.codes_ = dict(column.codes_)
        self._inexact = inexact_classes(column.large)
        # Unknown values of these types are unseen values, without a further check.
        self._unseen_types: set[type] = set()
        if column.vocabulary.n_hash_buckets is None:
            types: dict[str, set[type]] = {"text": {str}, "numbers": {int, bool}}
            types_of_kinds = [types.get(kind, set()) for kind in column.kinds_]
            self._unseen_types.update(*types_of_kinds)

    def encode_one(self, value: Any) -> int:
        """Return the code of a value."""
        try:
            code = None if self._inexact else self.column.codes_.get(value)
        except TypeError:
            code = None
        return self.encode([value])[0] if code is None else code

    def encode(self, values: Any) -> list[int]:
        """Return the codes of a list or array of values; rare values keep their own."""
        values = as_list(values)
        find = self.column.codes_.get
        try:
            codes = [find(value) for value in values]
        except TypeError:  # of a value without a hash, which `transform` refuses
            codes = [None] * len(values)
        if None in codes or self._inexact:
            codes = [
                self._other_code(value, row)
                if code is None or isinstance(value, self._inexact)
                else code
                for row, (value, code) in enumerate(zip(values, codes, strict=True))
            ]
        return codes

    def _other_code(self, value, row):
        """Return the code of a value that is not in the vocabulary, or inexact."""
        if _frames.is_missing(value):
            return self.column.missing_code_
        if type(value) in self._unseen_types and not isinstance(value, self._inexact):
            return UNSEEN
        # `transform` checks the kind of the value.
        try:
            return int(self.column.transform(as_column([value]))[0])
        except (TypeError, ValueError) as error:
            raise type(error)(f"Row {row}, field {self.name!r}: {error}") from error
