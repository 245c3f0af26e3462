"""
Which task counts for how much
==============================

The loss of a rare event is a small number, so that a plain sum of losses listens to
clicks. The methods of `weighting` shift that, each in its own way. This example draws
the weights that they use, and what becomes of both tasks.
"""

# %%
# One fit a method
# ----------------
#
# Clicks at 5 % and conversions at 5 % of these: the two losses differ by a factor of
# about 14.

import matplotlib.pyplot as plt
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.inspection import plot_task_weights
from sk_pwiser.metrics import make_task_scorer

data = make_ctr_cvr(60_000, ctr=0.05, cvr=0.05, random_state=0)
train, test = slice(30_000), slice(30_000, None)
models = {}
for weighting in ["equal", "ema", "uncertainty", "nash"]:
    model = MultiTaskCTRCVRClassifier(
        weighting=weighting, loss="bce", batch_size=2_048, max_epochs=8, random_state=0
    )
    models[weighting] = model.fit(data.data[train], data.target[train])

# %%
# The weights
# -----------
#
# `ema` divides every loss by its own average, and `uncertainty` gets there slowly,
# within what the learning rate allows. `nash` weighs gradients by their lengths and
# their angle.

_, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for ax, (weighting, model) in zip(axes, models.items(), strict=True):
    plot_task_weights(model, ax=ax).set(title=weighting, yscale="log")

# %%
# What it brings
# --------------
#
# One seed on generated data decides nothing: :doc:`/user_guide/weighting` has figures
# on real impressions.

for task in models["equal"].task_names_:
    scorer = make_task_scorer(roc_auc_score, task)
    for weighting, model in models.items():
        auc = scorer(model, data.data[test], data.target[test])
        print(f"{task:<12}{weighting:<12}AUC {auc:.3f}")
