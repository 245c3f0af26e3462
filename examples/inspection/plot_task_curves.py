"""
ROC, precision-recall and calibration of all tasks
==================================================

A click is frequent and a conversion rare, and a model may rank one well and the other
badly, or give one honest probabilities and not the other. The displays of `inspection`
draw all tasks in one picture, before and after calibration.
"""

# sphinx_gallery_thumbnail_number = 2

# %%
# A model and its calibration
# ---------------------------
#
# Focal loss gives little weight to rows that are predicted well already. It moves the
# probabilities of rare events far above their rates. `FunnelCalibrator` corrects them
# on rows that were not trained on.

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
# ROC curves do not depend on the base rates. `cvr=True` adds the conversion of clicks.

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
# well ranked, and rare.
#
# Probabilities
# -------------
#
# A dict draws several models: one colour per task, one line style per model. Every
# point is a tenth of the rows, and the vertical lines are intervals of 95 %. The axes
# are logarithmic, because conversions are rare.

TaskCalibrationDisplay.from_estimator(
    {"before": model, "after": calibrated}, X, Y, n_bins=10
)
plt.show()

# %%
# The ranking stays nearly the same, since calibration curves increase.

_, ax = plt.subplots(figsize=(5.5, 5), layout="constrained")
TaskRocCurveDisplay.from_estimator({"before": model, "after": calibrated}, X, Y, ax=ax)
plt.show()

# %%
# The calibration moves the points of both tasks to the diagonal, and leaves their ROC
# curves where they are.
