"""The kinds of columns: the one place that lists them.

A column is of the first kind that claims it.
"""

from sk_pwiser._columns._array import ArrayColumn
from sk_pwiser._columns._base import Column
from sk_pwiser._columns._bins_and_scores import BinsAndScoresColumn
from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._combination import CombinationColumn
from sk_pwiser._columns._exposure import ExposureColumn
from sk_pwiser._columns._list import ListColumn
from sk_pwiser._columns._list_weights import ListAges, ListWeights
from sk_pwiser._columns._number import NumericColumn
from sk_pwiser._columns._piecewise_linear import PiecewiseLinearColumn
from sk_pwiser._columns._quantile import QuantileColumn
from sk_pwiser._columns._standard import StandardColumn
from sk_pwiser._columns._time import TimeColumn
from sk_pwiser._columns._vectors import VectorColumn

# The encodings of numbers, by the names that users choose.
NUMERIC_ENCODINGS: dict[str, type[NumericColumn]] = {
    "standard": StandardColumn,
    "quantile": QuantileColumn,
    "piecewise_linear": PiecewiseLinearColumn,
    "bins_and_scores": BinsAndScoresColumn,
}

KINDS: tuple[type[Column], ...] = (
    TimeColumn,  # it may be the only column of dates, which are no features
    ExposureColumn,  # numbers and categories that are no features either
    ListWeights,
    ListAges,
    ListColumn,
    VectorColumn,
    CategoryColumn,
    ArrayColumn,
    CombinationColumn,  # of several columns: it claims none
    *NUMERIC_ENCODINGS.values(),
)
