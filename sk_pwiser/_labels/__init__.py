"""Labels and weights of impressions: read and checked, the same way everywhere.

Training, scorers and splitters import this room, so that what `fit` rejects is rejected
with the same message by a scorer.
"""

from sk_pwiser._labels._arrays import refuse_unreadable
from sk_pwiser._labels._one_task import one_task_labels
from sk_pwiser._labels._reading import (
    MISSING_LABELS,
    ReadLabels,
    is_missing,
    names_of_columns,
    read_labels,
    zero_one_labels,
)
from sk_pwiser._labels._weights import check_weights

__all__ = [
    "MISSING_LABELS",
    "ReadLabels",
    "check_weights",
    "is_missing",
    "names_of_columns",
    "one_task_labels",
    "read_labels",
    "refuse_unreadable",
    "zero_one_labels",
]
