"""Labels and predictions of any fitted estimator, task by task.

Scorers and displays import this room, so that both read the predictions of an
estimator, a pipeline or a search in the same way and with the same errors.
"""

from sk_pwiser._responses._predictions import (
    Predictions,
    event_probability,
    nested_estimators,
)
from sk_pwiser._responses._tasks import (
    check_lengths,
    check_same_tasks,
    check_targets,
    find_task,
)

__all__ = [
    "Predictions",
    "check_lengths",
    "check_same_tasks",
    "check_targets",
    "event_probability",
    "find_task",
    "nested_estimators",
]
