"""
A funnel of four tasks
======================

A purchase needs a cart, a cart needs a click, and a click needs a view. If each head
learns its event from all impressions, the predictions need not follow this order. In
conditional task space, each head after the first learns from the rows in which the
event before it happened, and the order holds in every prediction.
"""

# %%
# Four events
# -----------
#
# Every event depends on the columns in a different way. Half of the impressions are
# viewed, and most of the carts end in a purchase.

from itertools import pairwise

import numpy as np
import pandas as pd

from sk_pwiser import MultiTaskCTRCVRClassifier

rng = np.random.default_rng(0)
n = 30_000
X = rng.standard_normal((n, 6))
tasks = ["view", "click", "cart", "purchase"]
scores = X @ rng.standard_normal((6, 4)) / 2 + [0.0, -1.0, -0.5, 1.0]
happens = rng.uniform(size=(n, 4)) < 1 / (1 + np.exp(-scores))
Y = pd.DataFrame(happens.cumprod(axis=1), columns=tasks)  # needs all events before it
train, test = slice(10_000), slice(10_000, None)
print(Y.mean().round(3).to_dict())

# %%
# Two task spaces
# ---------------
#
# In both, column k of `predict_proba` is the probability of task k over impressions.

spaces = {}
for space in ("entire", "conditional"):
    model = MultiTaskCTRCVRClassifier(
        loss="bce",
        network_params={"task_space": space},
        max_epochs=8,
        random_state=0,
    )
    spaces[space] = model.fit(X[train], Y[train])

# %%
# Rising probabilities
# --------------------
#
# In this share of the test rows, a later event is predicted to be more probable than
# the event before it, which is impossible.

rising = pd.DataFrame(
    {
        space: (np.diff(model.predict_proba(X[test]), axis=1) > 0).mean(axis=0)
        for space, model in spaces.items()
    },
    index=[f"{a} to {b}" for a, b in pairwise(tasks)],
)
print(rising.round(4))

# %%
# The quality of the predictions
# ------------------------------

from sklearn.metrics import log_loss, roc_auc_score

rows = {}
for space, model in spaces.items():
    P = model.predict_proba(X[test]).astype(float)
    for k, task in enumerate(tasks):
        rows[task, space] = {
            "log loss": log_loss(Y[task][test], P[:, k]),
            "AUC": roc_auc_score(Y[task][test], P[:, k]),
        }
print(pd.DataFrame(rows).T.round(4))

# %%
# The picture
# -----------

import matplotlib.pyplot as plt

from sk_pwiser.inspection import TaskCalibrationDisplay

_, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
(100 * rising).plot.bar(ax=left, rot=0, width=0.8)
for bars in left.containers:
    left.bar_label(bars, fmt="%.1f")
left.set(ylabel="Rows with rising probabilities, %")
left.legend(title="Task space")
TaskCalibrationDisplay.from_estimator(
    spaces["conditional"], X[test], Y[test], n_bins=8, ax=right
)
right.set_title("conditional")
plt.show()

# %%
# In entire task space, a purchase is predicted to be more probable than its cart in 5 %
# of the rows; in conditional task space no probability rises. Most points lie near the
# diagonal, and the lowest ones below it.
