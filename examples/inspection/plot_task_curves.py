"""
ROC, precision-recall and calibration of all tasks
==================================================

Clicks are frequent and conversions are rare. A model may rank one well and the other
badly, or be calibrated for only one of them. The displays of `inspection` draw all
tasks in one picture, before and after calibration.
"""

# sphinx_gallery_thumbnail_number = 2

# %%
# A model and its calibration
# ---------------------------
#
# Focal loss gives little weight to rows that are already predicted well. As a result,
# the probabilities of rare events are far above their rates. `FunnelCalibrator`
# corrects them with rows that were not used in training.

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr

data = make_ctr_cvr(60_000, ctr=0.1, cvr=0.15, random_state=0)
train, later, test = slice(15_000), slice(15_000, 35_000), slice(35_000, None)

model = MultiTaskCTRCVRClassifier(loss="focal", max_epochs=6, random_state=0)
model.fit(data.data[train], data.target[train])
calibrated = FunnelCalibrator(model).fit(data.data[later], data.target[later])
X, Y = data.data[test], data.target[test]

# %%
# Ranking
# -------
#
# ROC curves do not depend on the base rates. `cvr=True` adds the conversion given a
# click.

import matplotlib.pyplot as plt

from sk_pwiser.inspection import (
    TaskCalibrationDisplay,
    TaskPrecisionRecallDisplay,
    TaskRocCurveDisplay,
)

_, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")
TaskRocCurveDisplay.from_estimator(model, X, Y, cvr=True, ax=left)
TaskPrecisionRecallDisplay.from_estimator(model, X, Y, cvr=True, ax=right)
plt.show()

# %%
# The conversion has the highest ROC curve and the lowest precision: its positives are
# ranked well, but rare.
#
# Probabilities
# -------------
#
# Pass a dict to draw several models, with one colour per task and one line style per
# model. Every point is a tenth of the rows, and the vertical lines are intervals of
# 95 %. The axes are logarithmic, because conversions are rare.

TaskCalibrationDisplay.from_estimator(
    {"before": model, "after": calibrated}, X, Y, n_bins=10
)
plt.show()

# %%
# The ranking hardly changes, since calibration curves are increasing.

_, ax = plt.subplots(figsize=(5.5, 5), layout="constrained")
TaskRocCurveDisplay.from_estimator({"before": model, "after": calibrated}, X, Y, ax=ax)
plt.show()

# %%
# After calibration, the points of both tasks are near the diagonal, and their ROC
# curves are the same.
