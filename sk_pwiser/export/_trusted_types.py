"""The classes that a file of skops has for the estimators of the package."""

# None of them reads a pickle, imports something by name or calls an argument: they hold
# arrays, plain values and each other.
TRUSTED_TYPES = [
    "sk_pwiser._estimator._classifier.MultiTaskCTRCVRClassifier",
    "sk_pwiser._estimator._task_view.TaskView",
    "sk_pwiser.calibration._curves.IsotonicCurve",
    "sk_pwiser.calibration._curves.SigmoidCurve",
    "sk_pwiser.calibration._curves.TemperatureCurve",
    "sk_pwiser.calibration._funnel_calibrator.FunnelCalibrator",
    "sk_pwiser.linear_model._cp_logistic.CPMultiTaskLogistic",
    "sk_pwiser.linear_model._cp_logistic.GroupModes",
    "sk_pwiser.linear_model._sparse_linear.MultiTaskSparseLinear",
    "sk_pwiser.linear_model._sparse_linear_cv.MultiTaskSparseLinearCV",
    "sk_pwiser.model_selection._folds.FunnelStratifiedKFold",
]
