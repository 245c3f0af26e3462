"""Calibration of the probabilities of all tasks, on rows that were not trained on.

:class:`FunnelCalibrator` maps the probability of each task to one that agrees with the
observed rates, and keeps P(conversion) <= P(click).
"""

from sk_pwiser.calibration._funnel_calibrator import FunnelCalibrator

__all__ = ["FunnelCalibrator"]
