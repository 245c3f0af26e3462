"""
Calibrated probabilities of a funnel
====================================

Rates drift: a page is redesigned, and clicks become fewer. A model of the days before
ranks as well as ever, but its probabilities are too high. `FunnelCalibrator` corrects
the probabilities of all tasks with a few recent rows, and keeps
P(conversion) <= P(click).
"""

# %%
# A log that drifts
# -----------------
#
# The model is trained on the days before the change, in which two of five clicks are
# lost from then on. The calibrator gets the rows of the first days after it, and the
# rows after these are the test. Everything is repeated with several seeds: new rows,
# a new model and new curves.

import numpy as np
import pandas as pd

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr

before, recent = slice(15_000), slice(15_000, 20_000)
test = slice(20_000, None)
methods = ("isotonic", "sigmoid")


def make_log(seed):
    """Return a log in which two of five clicks are lost after the training rows."""
    data = make_ctr_cvr(35_000, ctr=0.2, cvr=0.2, random_state=seed)
    X, Y = data.data, data.target
    lost = np.random.default_rng(seed).random(len(Y)) < 0.4
    lost[before] = False
    Y[lost] = 0
    return X, Y


def fit(X, Y, seed):
    """Return the model before, and with each of the calibration methods."""
    model = MultiTaskCTRCVRClassifier(max_epochs=6, random_state=seed)
    models = {"before": model.fit(X[before], Y[before])}
    for method in methods:
        calibrator = FunnelCalibrator(model, method=method)
        models[method] = calibrator.fit(X[recent], Y[recent])
    return models


# %%
# Before and after
# ----------------
#
# The tables show the mean over the seeds, with half the width of its 95 % interval. The
# change of the log loss is the difference to the same model before the calibration.

from scipy.stats import t
from sklearn.metrics import log_loss, roc_auc_score

from sk_pwiser.metrics import expected_calibration_error, predicted_over_observed

metrics = {
    "predicted / observed": predicted_over_observed,
    "calibration error": expected_calibration_error,
    "AUC": roc_auc_score,
}
n_seeds = 5
found = []
for seed in range(n_seeds):
    X, Y = make_log(seed)
    models = fit(X, Y, seed)
    losses = {}
    for name, model in models.items():
        p = model.predict_proba(X[test]).astype(float)
        for k, task in enumerate(Y):
            y = Y[task][test]
            for metric, function in metrics.items():
                found.append((task, name, metric, function(y, p[:, k])))
            loss = log_loss(y, p[:, k])
            losses.setdefault(task, loss)  # of the model before
            found.append((task, name, "change of log loss", loss - losses[task]))

scores = pd.DataFrame(found, columns=["task", "model", "metric", "score"])
groups = scores.groupby(["task", "metric", "model"], sort=False)["score"]
mean, half = groups.mean(), t.ppf(0.975, n_seeds - 1) * groups.sem()
cells = mean.map("{:.4f}".format) + half.map(" ({:.4f})".format)
for task in Y:
    print(task, cells[task].unstack("metric").to_string(), "", sep="\n")

# %%
# Before the calibration, both tasks are predicted at 1.6 to 1.7 times the observed
# rates. After it the intervals contain 1, and the calibration error and the log loss
# fall in both tasks. The AUC stays the same, since both curves are increasing.

import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for k, task in enumerate(Y):
    ratio, error = (part[task]["predicted / observed"] for part in (mean, half))
    positions = np.arange(len(ratio)) + 0.1 * (2 * k - 1)
    ax.errorbar(ratio, positions, xerr=error, fmt="o", color=f"C{k}", label=task)
ax.set_yticks(range(len(ratio)), ratio.index)
ax.axvline(1, color="grey", linewidth=1)
ax.set_xlabel("predicted / observed")
ax.invert_yaxis()
_ = ax.legend()

# %%
# The curves
# ----------
#
# `TaskView` also accepts a calibrator, so that scikit-learn can plot one task. The
# curves are those of the last seed.

from sklearn.calibration import CalibrationDisplay

from sk_pwiser import TaskView

_, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for task, ax in zip(Y, axes, strict=True):
    for name in ("before", "isotonic", "sigmoid"):
        CalibrationDisplay.from_estimator(
            TaskView(models[name], task),
            X[test],
            Y[task][test],
            n_bins=10,
            strategy="quantile",
            name=name,
            ax=ax,
        )
    limit = 2.5 * Y[task][test].mean()
    ax.set(title=task, xlim=(0, limit), ylim=(0, limit))

# %%
# P(conversion) is at most P(click) in every row, and the CVR is the ratio of both.

p = models["isotonic"].predict_proba(X[test])
print("P(conversion) <= P(click) in every row:", bool((p[:, 1] <= p[:, 0]).all()))
print("CVR of the first rows:", models["isotonic"].predict_cvr(X[test])[:3])
plt.show()
