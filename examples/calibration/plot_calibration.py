"""
Calibrated probabilities of a funnel
====================================

A strong pairwise term ranks conversions higher, but the predicted probabilities then
differ from the observed rates. `FunnelCalibrator` corrects both tasks with rows that
were not used in training, and keeps P(conversion) <= P(click).
"""

# %%
# A ranking loss
# --------------
#
# The rows are split into training rows, rows for the calibration and test rows. In
# logs, use later days for the calibration, because they are closest to the days that
# you predict.

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

data = make_ctr_cvr(50_000, ctr=0.2, cvr=0.2, random_state=0)
train, later, test = slice(20_000), slice(20_000, 30_000), slice(30_000, None)

model = MultiTaskCTRCVRClassifier(
    loss="pwiser", pwiser_weight=5, max_epochs=6, random_state=0
)
model.fit(data.data[train], data.target[train])

# %%
# The calibration
# ---------------
#
# `model` is already fitted, so only the curves are fitted here.

import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.metrics import expected_calibration_error, predicted_over_observed

models = {"before": model}
for method in ("isotonic", "sigmoid", "temperature"):
    calibrated = FunnelCalibrator(model, method=method)
    models[method] = calibrated.fit(data.data[later], data.target[later])

y = data.target["conversion"][test]
rows = {}
for name, estimator in models.items():
    p = estimator.predict_proba(data.data[test])[:, 1].astype(float)
    rows[name] = {
        "predicted / observed": predicted_over_observed(y, p),
        "calibration error": expected_calibration_error(y, p),
        "log loss": log_loss(y, p),
        "AUC": roc_auc_score(y, p),
    }
print(pd.DataFrame(rows).T.round(4))

# %%
# The AUC stays the same, since all three curves are increasing.
#
# The curves
# ----------
#
# `TaskView` also accepts a calibrator, so that scikit-learn can plot one task.

import matplotlib.pyplot as plt
from sklearn.calibration import CalibrationDisplay

from sk_pwiser import TaskView

_, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for task, ax in zip(model.task_names_, axes, strict=True):
    for name in ("before", "isotonic", "sigmoid"):
        CalibrationDisplay.from_estimator(
            TaskView(models[name], task),
            data.data[test],
            data.target[task][test],
            n_bins=10,
            strategy="quantile",
            name=name,
            ax=ax,
        )
    limit = 2.5 * data.target[task].mean()
    ax.set(title=task, xlim=(0, limit), ylim=(0, limit))

# %%
# P(conversion) is at most P(click) in every row, and the CVR is the ratio of both.

p = models["isotonic"].predict_proba(data.data[test])
print("P(conversion) <= P(click) in every row:", bool((p[:, 1] <= p[:, 0]).all()))
print("CVR of the first rows:", models["isotonic"].predict_cvr(data.data[test])[:3])
plt.show()
