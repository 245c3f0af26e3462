"""Scorers for one task of a funnel, for the CVR, or for the mean over all tasks.

Pass them as ``scoring`` to :class:`~sklearn.model_selection.GridSearchCV`,
:func:`~sklearn.model_selection.cross_validate` and similar functions:

- ``ctr_auc_scorer``: ROC AUC of the first task.
- ``ctcvr_auc_scorer``: ROC AUC of the last task, over all rows.
- ``cvr_auc_scorer``: ROC AUC of P(last task | first task), over the rows where the
  first task is 1.
- ``mean_auc_scorer``: mean ROC AUC over the tasks.
- ``ctr_average_precision_scorer``, ``ctcvr_average_precision_scorer``: average
  precision of the first and of the last task, over all rows.
- ``ctr_log_loss_scorer``, ``ctcvr_log_loss_scorer``: minus the binary log loss of the
  first and of the last task, in nats.
- ``mean_log_loss_scorer``: minus the mean binary log loss over the tasks, in nats.
  Scikit-learn's ``"neg_log_loss"`` treats two tasks as two classes.

An AUC is NaN, with an ``UndefinedMetricWarning``, if the labels have only one class.
:func:`make_task_scorer` makes other scorers, for example of the metrics in this module:
:func:`normalized_entropy`, :func:`expected_calibration_error` and
:func:`predicted_over_observed`. :func:`grouped_auc` needs a group per row, which
:func:`make_grouped_auc_scorer` takes from a column of ``X`` or by metadata routing.
:func:`reliability_curve`, the rates behind the calibration error, is called with the
predictions. Several scorers in one ``scoring`` share their predictions, as
scikit-learn's own scorers do.

:func:`normalized_gini` tells how well predicted amounts order rows, and
:func:`value_deciles` and :func:`predicted_over_observed` whether their totals agree
with those of the log.
"""

from sk_pwiser.metrics._metrics import auc_within as auc_within
from sk_pwiser.metrics._metrics import (
    expected_calibration_error,
    grouped_auc,
    normalized_entropy,
    normalized_gini,
    predicted_over_observed,
    reliability_curve,
    value_deciles,
)
from sk_pwiser.metrics._task_scorer import (
    ctcvr_auc_scorer,
    ctcvr_average_precision_scorer,
    ctcvr_log_loss_scorer,
    ctr_auc_scorer,
    ctr_average_precision_scorer,
    ctr_log_loss_scorer,
    cvr_auc_scorer,
    make_grouped_auc_scorer,
    make_task_scorer,
    mean_auc_scorer,
    mean_log_loss_scorer,
)

__all__ = [
    "ctcvr_auc_scorer",
    "ctcvr_average_precision_scorer",
    "ctcvr_log_loss_scorer",
    "ctr_auc_scorer",
    "ctr_average_precision_scorer",
    "ctr_log_loss_scorer",
    "cvr_auc_scorer",
    "expected_calibration_error",
    "grouped_auc",
    "make_grouped_auc_scorer",
    "make_task_scorer",
    "mean_auc_scorer",
    "mean_log_loss_scorer",
    "normalized_entropy",
    "normalized_gini",
    "predicted_over_observed",
    "reliability_curve",
    "value_deciles",
]
