"""Splits by funnel depth, time and groups, and a comparison of models on equal folds.

At a conversion rate of one in ten thousand, a random split leaves folds without any
conversion. :class:`FunnelStratifiedKFold` and :func:`funnel_holdout` stratify on the
:func:`funnel_depth`, the number of leading tasks that are 1. :class:`FunnelTimeSplit`
tests on periods after those of training, and :class:`FunnelGroupKFold` on groups, such
as users, that training has not seen.

:func:`compare_models` shows whether PWiseR, another loss or another parameter improves
an estimator on given data, and compares it with models of other packages. It returns a
:class:`ModelComparison`, which contains differences to a baseline and their confidence
intervals.
"""

from sk_pwiser._tasks._stratify import funnel_depth, funnel_holdout
from sk_pwiser.model_selection._compare_models import compare_models
from sk_pwiser.model_selection._folds import (
    FunnelGroupKFold,
    FunnelStratifiedKFold,
    FunnelTimeSplit,
)
from sk_pwiser.model_selection._folds import (
    warn_about_random_folds as warn_about_random_folds,
)
from sk_pwiser.model_selection._model_comparison import ModelComparison
from sk_pwiser.model_selection._package_models import named_models as named_models
from sk_pwiser.model_selection._value_models import (
    named_value_models as named_value_models,
)

__all__ = [
    "FunnelGroupKFold",
    "FunnelStratifiedKFold",
    "FunnelTimeSplit",
    "ModelComparison",
    "compare_models",
    "funnel_depth",
    "funnel_holdout",
]
