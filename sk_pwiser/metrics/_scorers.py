"""The scorers that need no further choice."""

from sklearn.metrics import log_loss, roc_auc_score

from sk_pwiser.metrics._task_scorer import make_task_scorer

ctr_auc_scorer = make_task_scorer(roc_auc_score, 0)
ctcvr_auc_scorer = make_task_scorer(roc_auc_score, -1)
cvr_auc_scorer = make_task_scorer(roc_auc_score, "cvr")
mean_auc_scorer = make_task_scorer(roc_auc_score, "mean")
# `labels` defines the log loss of a task without events too.
mean_log_loss_scorer = make_task_scorer(
    log_loss, "mean", greater_is_better=False, labels=[0, 1]
)
