"""Columns of tables become arrays: a class per kind of column."""

from sk_pwiser._columns._array import ArrayColumn
from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._columns._list import ListColumn
from sk_pwiser._columns._list_weights import ListAges, ListWeights
from sk_pwiser._columns._registry import NUMERIC_ENCODINGS
from sk_pwiser._columns._sparse import SparseColumns
from sk_pwiser._columns._target_statistics import ExtendedStatistics, TargetStatistics
from sk_pwiser._columns._time import TimeColumn
from sk_pwiser._columns._vocabulary import Vocabulary

# The classes of the objects in a fitted encoder, which files may contain.
STATE_CLASSES = (
    ArrayColumn,
    CategoryColumn,
    ExtendedStatistics,
    ListAges,
    ListColumn,
    ListWeights,
    SparseColumns,
    TableEncoder,
    TargetStatistics,
    TimeColumn,
    Vocabulary,
    *NUMERIC_ENCODINGS.values(),
)
