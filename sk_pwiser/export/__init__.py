"""Fitted estimators for serving: a scorer of single rows, and files of other formats.

The functions take fitted estimators, which they do not change. `TRUSTED_TYPES` is the
list of the names of classes that skops files of estimators of this package contain, for
`skops.io.load(file, trusted=TRUSTED_TYPES)`; see :ref:`files`.
"""

from sk_pwiser.export._delta import Delta, delta
from sk_pwiser.export._model_card import model_card
from sk_pwiser.export._onnx import to_onnx
from sk_pwiser.export._scorer import Scorer

__all__ = ["TRUSTED_TYPES", "Delta", "Scorer", "delta", "model_card", "to_onnx"]

# None of these classes reads a pickle, imports a module by name or calls an argument:
# they contain arrays, plain values and each other.
TRUSTED_TYPES = [
    "sk_pwiser._estimator._classifier.MultiTaskCTRCVRClassifier",
    "sk_pwiser._estimator._task_view.TaskView",
    "sk_pwiser._estimator._value_view.ValueView",
    "sk_pwiser._tasks._amounts.Values",
    "sk_pwiser.calibration._curves.IsotonicCurve",
    "sk_pwiser.calibration._curves.SigmoidCurve",
    "sk_pwiser.calibration._funnel_calibrator.FunnelCalibrator",
    "sk_pwiser.history._history_features.HistoryFeatures",
    "sk_pwiser.history._history_state.HistoryState",
    "sk_pwiser.history._history_state.ValueIndex",
    "sk_pwiser.history._key_log.KeyLog",
    "sk_pwiser.history._key_log.Slices",
    "sk_pwiser.history._plan.ListPlan",
    "sk_pwiser.history._plan.Plan",
    "sk_pwiser.linear_model._cp_logistic.CPMultiTaskLogistic",
    "sk_pwiser.linear_model._sparse_linear.MultiTaskSparseLinear",
    "sk_pwiser.linear_model._sparse_linear.MultiTaskSparseLinearCV",
    "sk_pwiser.model_selection._folds.FunnelGroupKFold",
    "sk_pwiser.model_selection._folds.FunnelStratifiedKFold",
    "sk_pwiser.model_selection._folds.FunnelTimeSplit",
]
