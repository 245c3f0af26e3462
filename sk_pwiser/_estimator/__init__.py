"""What the user holds: the classifier, its parameters and its predictions."""

from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
from sk_pwiser._estimator._predictions import PredictionMixin
from sk_pwiser._estimator._saving import (
    from_plain,
    requests_of,
    set_requests,
    to_plain,
)
from sk_pwiser._estimator._task_view import TaskView
from sk_pwiser._utils._threads import num_threads
