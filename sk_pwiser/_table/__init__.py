"""Tables and labels become arrays: column encodings, labels, row weights, groups."""

from sk_pwiser._table._categories import CategoryColumn, Vocabulary
from sk_pwiser._table._column_kinds import TimeColumn
from sk_pwiser._table._encoder import TableEncoder
from sk_pwiser._table._labels import SoftTargets, Targets
from sk_pwiser._table._lists import ListAges, ListColumn, ListWeights, SparseColumns
from sk_pwiser._table._numbers import NUMERIC_ENCODINGS, ArrayColumn
from sk_pwiser._table._target_statistics import ExtendedStatistics, TargetStatistics

# The classes of the objects in a fitted encoding, which files may contain.
STATE_CLASSES = (
    ArrayColumn,
    CategoryColumn,
    ExtendedStatistics,
    ListAges,
    ListColumn,
    ListWeights,
    SoftTargets,
    SparseColumns,
    TableEncoder,
    Targets,
    TargetStatistics,
    TimeColumn,
    Vocabulary,
    *NUMERIC_ENCODINGS.values(),
)
