"""Splits by funnel depth, and a comparison of losses on the same folds.

At a conversion rate of one in ten thousand, a random split leaves folds without any
conversion. :class:`FunnelStratifiedKFold` and :func:`funnel_holdout` stratify by the
:func:`funnel_depth`, the number of leading tasks that are 1.

:func:`compare_losses` shows whether PWiseR or another loss improves an estimator on
given data. It returns a :class:`LossComparison`, which contains differences to a
baseline and their confidence intervals.
"""

from sk_pwiser.model_selection._compare import compare_losses
from sk_pwiser.model_selection._comparison import LossComparison
from sk_pwiser.model_selection._folds import (
    FunnelStratifiedKFold,
    funnel_depth,
    funnel_holdout,
)

__all__ = [
    "FunnelStratifiedKFold",
    "LossComparison",
    "compare_losses",
    "funnel_depth",
    "funnel_holdout",
]
