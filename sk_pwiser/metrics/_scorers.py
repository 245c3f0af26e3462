"""The scorers that the package provides."""

from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from sk_pwiser.metrics._task_scorer import make_task_scorer


def _make(description, *args, **kwargs):
    """Make a scorer with its own docstring, which IPython and the API pages show."""
    scorer = make_task_scorer(*args, **kwargs)
    scorer.__doc__ = f"""{description}

    A scorer of :func:`make_task_scorer`, called as ``scorer(estimator, X, Y,
    sample_weight=None)``.
    """
    return scorer


ctr_auc_scorer = _make("ROC AUC of the first task.", roc_auc_score, 0)
ctcvr_auc_scorer = _make("ROC AUC of the last task, over all rows.", roc_auc_score, -1)
cvr_auc_scorer = _make(
    "ROC AUC of P(last task | first task), over rows where the first task is 1.",
    roc_auc_score,
    "cvr",
)
mean_auc_scorer = _make("Mean ROC AUC over the tasks.", roc_auc_score, "mean")
ctr_average_precision_scorer = _make(
    "Average precision of the first task.", average_precision_score, 0
)
ctcvr_average_precision_scorer = _make(
    "Average precision of the last task, over all rows.", average_precision_score, -1
)

# With `labels`, the log loss is also defined for a task without events.
_LOG_LOSS = {"greater_is_better": False, "labels": [0, 1]}
ctr_log_loss_scorer = _make(
    "Minus the binary log loss of the first task, in nats.", log_loss, 0, **_LOG_LOSS
)
ctcvr_log_loss_scorer = _make(
    "Minus the binary log loss of the last task, over all rows, in nats.",
    log_loss,
    -1,
    **_LOG_LOSS,
)
mean_log_loss_scorer = _make(
    "Minus the mean binary log loss over the tasks, in nats.",
    log_loss,
    "mean",
    **_LOG_LOSS,
)
