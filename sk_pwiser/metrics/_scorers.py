"""The scorers that need no further choice."""

from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from sk_pwiser.metrics._task_scorer import make_task_scorer

ctr_auc_scorer = make_task_scorer(roc_auc_score, 0)
ctcvr_auc_scorer = make_task_scorer(roc_auc_score, -1)
cvr_auc_scorer = make_task_scorer(roc_auc_score, "cvr")
mean_auc_scorer = make_task_scorer(roc_auc_score, "mean")
ctr_average_precision_scorer = make_task_scorer(average_precision_score, 0)
ctcvr_average_precision_scorer = make_task_scorer(average_precision_score, -1)


def _log_loss_scorer(task):
    # `labels` defines the log loss of a task without events too.
    return make_task_scorer(log_loss, task, greater_is_better=False, labels=[0, 1])


ctr_log_loss_scorer = _log_loss_scorer(0)
ctcvr_log_loss_scorer = _log_loss_scorer(-1)
mean_log_loss_scorer = _log_loss_scorer("mean")
