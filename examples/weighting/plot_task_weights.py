"""
Weights of the tasks
====================

The loss of a rare event is small, so clicks dominate a plain sum of losses. The methods
of `weighting` change this in different ways. This example plots their weights, and
compares the AUC of both tasks.
"""

# %%
# One fit per method
# ------------------
#
# 5 % of the impressions are clicked, and 5 % of the clicks convert: the two losses
# differ by a factor of more than 10.

import matplotlib.pyplot as plt
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
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
# `ema` divides every loss by its moving average. `uncertainty` learns its weights,
# which change slowly because of the learning rate. `nash` computes weights from the
# lengths of the gradients and their angle.

_, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for ax, (weighting, model) in zip(axes, models.items(), strict=True):
    for task in model.task_names_:
        ax.plot(model.history_[:, f"train_weight_{task}"], marker=".", label=task)
    ax.set(title=weighting, xlabel="Epoch", ylabel="Weight", yscale="log")
    ax.legend()

# %%
# The effect on AUC
# -----------------
#
# Here `ema` loses 0.08 on the conversion, whose weight grows until the end, and `nash`
# 0.03. One seed on generated data is not enough to choose a method:
# :doc:`/user_guide/weighting` has figures for real impressions, and
# :ref:`low_rates` for few conversions.

for task in models["equal"].task_names_:
    scorer = make_task_scorer(roc_auc_score, task)
    for weighting, model in models.items():
        auc = scorer(model, data.data[test], data.target[test])
        print(f"{task:<12}{weighting:<12}AUC {auc:.3f}")
