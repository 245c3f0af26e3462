"""Columns of tables become arrays: a class per kind of column."""

from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._columns._registry import KINDS
from sk_pwiser._columns._sparse import SparseColumns
from sk_pwiser._columns._target_statistics import ExtendedStatistics, TargetStatistics
from sk_pwiser._columns._vocabulary import Vocabulary

# The classes of the objects in a fitted encoder, which files may contain.
STATE_CLASSES = (
    *KINDS,
    ExtendedStatistics,
    SparseColumns,
    TableEncoder,
    TargetStatistics,
    Vocabulary,
)
