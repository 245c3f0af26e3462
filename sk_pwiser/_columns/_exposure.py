"""Columns that say how a row was shown, such as its position on a page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from sk_pwiser._columns import _frames
from sk_pwiser._columns._base import Column, EncodedColumn, PartLearner, TableCells
from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._choice import Choice
from sk_pwiser._columns._codes import FIRST_VALUE, MISSING, UNSEEN
from sk_pwiser._columns._standard import StandardColumn
from sk_pwiser._columns._value_counts import ValueCounts
from sk_pwiser._columns._vocabulary import Vocabulary

# Fewer rows do not tell the effect of a value: rare numbers share a term with their
# neighbours, and rare categories one with each other.
FEWEST_ROWS_OF_VALUE = 20

# Terms of a column: positions beyond the first hundred differ by little.
MOST_VALUES = 100


class ExposureShape(NamedTuple):
    """What the terms of a column depend on."""

    n_codes: int
    reference: int  # the code at which its terms are 0
    is_ordered: bool  # whether the codes of values are those of increasing numbers
    never_rises: bool  # whether the terms must not rise with these numbers


@dataclass(eq=False)
class ExposureColumn(Column):
    """A column that says how a row was shown, and is no input of the network.

    Numbers are ordered: each frequent one has a code, and rare ones share the code of
    a neighbour. Other values are categories. Tables of predictions may lack the column,
    which only predictions as shown read.
    """

    name: Any
    is_ordered: bool = True
    reference: Any = None  # as the user passed it
    never_rises: bool = False

    kind = "exposure"
    not_an_input = "is in exposure_features and no input"
    is_read = False

    # Of values that are no numbers.
    vocabulary: ClassVar[Vocabulary] = Vocabulary(
        min_frequency=FEWEST_ROWS_OF_VALUE, max_categories=MOST_VALUES
    )

    @classmethod
    def claim(cls, choice: Choice, name: Any) -> Self | None:
        """Return a column if it is among the `exposure_features`."""
        if name not in choice.exposure:
            return None
        is_ordered = not choice.is_shown_category(name)
        never_rises = name in choice.monotone_exposure
        return cls(name, is_ordered, choice.exposure[name], never_rises)

    @property
    def encoding(self) -> str:
        """How the values are encoded, in a few words."""
        order = "ordered" if self.is_ordered else "unordered"
        return f"additive, {order}, reference {self.reference_!r}"

    @property
    def exposure_shape(self) -> ExposureShape:  # type: ignore[override]
        """What the terms of the column depend on."""
        return ExposureShape(
            n_codes=self.n_codes_,
            reference=self.reference_code_,
            is_ordered=self.is_ordered,
            never_rises=self.never_rises,
        )

    def describe(self, columns: Mapping[Any, Column]) -> dict[str, Any]:
        """Return what `column_encodings_` says of the column."""
        return {**super().describe(columns), "values": dict(self.codes_)}

    def stored_values(self) -> Iterable[Any]:
        """Return the values that a file of the column must hold."""
        return self.codes_

    def check_cells(self, table: TableCells) -> None:
        """Raise if the cells cannot be read, before any column is learnt."""
        if _frames.content_of(table.cells[self.name]) in ("lists", "arrays"):
            raise TypeError(
                f"exposure_features contains {self.name!r}, which holds lists; it "
                "must hold one number or category per row."
            )
        if self.is_ordered:
            self._read_numbers(table.cells[self.name])

    def fit_table(
        self, table: TableCells, sample_weight: np.ndarray | None
    ) -> EncodedColumn:
        """Learn the values. The encoded table does not have them."""
        values, counts, kinds, n_missing = self.count(table.cells[self.name])
        self.learn(values, counts, n_missing > 0, kinds)
        return EncodedColumn()

    def part_learner(self, max_values: int) -> PartLearner:
        """Return what counts the values of rows in parts."""
        return ValueCounts(self, max_values)

    def count(self, *columns: Any) -> Any:
        """Return the distinct values, their numbers of rows, kinds, and n_missing."""
        return self._new_categories().count(*columns)

    def _new_categories(self) -> CategoryColumn:
        return CategoryColumn(self.name, self.vocabulary)

    def learn(
        self,
        values: list[Any],
        counts: list[int],
        has_missing: bool,
        kinds: set[str],
        n_others: int = 0,
    ) -> None:
        """Learn values; `n_others` rows have further ones, without codes."""
        self.has_missing_ = has_missing
        self.has_one_value = len(values) + has_missing + n_others < 2
        self.has_rare_ = False
        self.codes_: dict[Any, int] = {}
        if self.is_ordered and values:
            self._learn_numbers(values, counts)
        elif not self.is_ordered:
            self._learn_categories(values, counts, kinds, n_others)
        self.n_codes_ = FIRST_VALUE + len(self.codes_)
        self._learn_reference(dict(zip(values, counts, strict=True)))

    def _learn_categories(
        self, values: list[Any], counts: list[int], kinds: set[str], n_others: int
    ) -> None:
        """Give codes to frequent categories, and to the reference."""
        categories = self._new_categories()
        # Missing values have a code of their own, also without a term.
        categories.learn(values, counts, True, kinds, n_others)
        frequent = list(categories.codes_)[: categories.n_frequent_]
        if self.reference in values and self.reference not in frequent:
            frequent.append(self.reference)
        self.codes_ = {value: code for code, value in enumerate(frequent, FIRST_VALUE)}
        self.has_rare_ = n_others > 0 or len(values) > len(frequent)
        # Others are rare, whether or not a fit has seen them.
        categories.codes_ = dict(self.codes_)
        categories.n_frequent_ = len(self.codes_)
        self.categories_ = categories

    def _learn_numbers(self, values: list[Any], counts: list[int]) -> None:
        """Give codes to numbers in their order; rare ones share those of others."""
        numbers = np.array(values, dtype=np.float64)
        order = np.argsort(numbers)
        numbers = numbers[order]
        in_order = [values[place] for place in order]
        sizes = np.array(counts)[order]
        fewest = max(FEWEST_ROWS_OF_VALUE, int(sizes.sum()) // (10 * MOST_VALUES))
        lasts = []  # the last number of each code
        n_rows = 0
        for place, size in enumerate(sizes.tolist()):
            n_rows += size
            if n_rows >= fewest or len(numbers) <= 2:
                lasts.append(place)
                n_rows = 0
        if n_rows and lasts:
            lasts[-1] = len(numbers) - 1
        elif n_rows:
            lasts.append(len(numbers) - 1)
        lasts = _thin_out(lasts, sizes)
        firsts = [0, *(place + 1 for place in lasts[:-1])]
        # Between two numbers, the nearer one counts.
        self.edges_ = (numbers[lasts[:-1]] + numbers[firsts[1:]]) / 2
        self.codes_ = {
            in_order[first]: code for code, first in enumerate(firsts, FIRST_VALUE)
        }

    def _learn_reference(self, count_of: Mapping[Any, int]) -> None:
        """Find the code at which the terms are 0."""
        self.reference_ = self.reference
        if self.reference is None and not self.codes_:
            self.reference_code_ = UNSEEN if self.has_rare_ else MISSING
        elif self.reference is None:
            self.reference_ = next(iter(self.codes_))  # the smallest number
            if not self.is_ordered:
                # Of equally frequent categories, the first one.
                self.reference_ = max(self.codes_, key=count_of.__getitem__)
            self.reference_code_ = self.codes_[self.reference_]
        elif self.is_ordered and isinstance(self.reference, Real) and self.codes_:
            cells = np.array([self.reference], dtype=np.float64)
            self.reference_code_ = int(self._codes_of_numbers(cells)[0])
        elif not self.is_ordered and self.reference in self.codes_:
            self.reference_code_ = self.codes_[self.reference]
        else:
            form = "a number" if self.is_ordered else "a value of the column"
            raise ValueError(
                f"exposure_features[{self.name!r}], the reference, must be {form}, or "
                f"None; got {self.reference!r}. The column has "
                f"{list(self.codes_)[:10]}."
            )

    def transform(self, cells: Any) -> np.ndarray:
        """Return the codes of cells, those of the reference for unknown values."""
        if self.is_ordered:
            codes = self._codes_of_numbers(cells)
        else:
            lookup = self.categories_.transform(cells)
            codes = lookup.table[lookup.indices].astype(np.int64)
        if not self.has_missing_:
            codes = np.where(codes == MISSING, self.reference_code_, codes)
        if not self.has_rare_:
            codes = np.where(codes == UNSEEN, self.reference_code_, codes)
        return codes

    def _codes_of_numbers(self, cells: Any) -> np.ndarray:
        numbers = self._read_numbers(cells)
        edges = self.edges_ if self.codes_ else np.zeros(0)
        codes = FIRST_VALUE + np.searchsorted(edges, numbers)
        return np.where(np.isnan(numbers), MISSING, codes)

    def _read_numbers(self, cells: Any) -> np.ndarray:
        numbers: np.ndarray = StandardColumn(self.name).read(cells)
        return numbers


def _thin_out(lasts: list[int], sizes: np.ndarray) -> list[int]:
    """Return the last numbers of at most `MOST_VALUES` codes."""
    if len(lasts) <= MOST_VALUES:
        return lasts
    # The first ones are kept: positions at the top differ most.
    n_first = MOST_VALUES // 2
    n_rows = sizes.cumsum()
    later = np.array(lasts[n_first:])
    shares = (n_rows[later] - n_rows[lasts[n_first - 1]]) / (
        n_rows[-1] - n_rows[lasts[n_first - 1]]
    )
    group = np.ceil(shares * (MOST_VALUES - n_first)).astype(int)
    is_last = np.append(np.diff(group) > 0, True)
    return [*lasts[:n_first], *later[is_last].tolist()]
