"""What the user holds: the classifier, its parameters and its predictions."""

from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier

__all__ = ["MultiTaskCTRCVRClassifier"]
