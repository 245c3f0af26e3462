"""
Networks compared over several seeds
====================================

The networks differ in which parts the tasks share. Two fits of the same network often
differ more than two networks, so a comparison needs several seeds. This example draws
every fit.
"""

# %%
# The fits
# --------
#
# 10 % of the impressions are clicked, and 10 % of the clicks convert: about 80
# conversions in the 8,000 training rows of a seed. Each seed has different training
# rows, and all fits are scored on the same test rows.

import pandas as pd

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import ctcvr_auc_scorer, ctr_auc_scorer

data = make_ctr_cvr(44_000, ctr=0.1, cvr=0.1, random_state=0)
X, Y, test = data.data, data.target, slice(24_000, None)
networks = ["single_task", "shared_bottom", "mmoe", "esmm"]
rows = []
for seed in range(3):
    train = slice(8_000 * seed, 8_000 * (seed + 1))
    for network in networks:
        model = MultiTaskCTRCVRClassifier(
            network=network,
            loss="bce",
            max_epochs=4,
            early_stopping=False,
            random_state=seed,
        )
        model.fit(X[train], Y[train])
        rows.append(
            {
                "network": network,
                "seed": seed,
                "click": ctr_auc_scorer(model, X[test], Y[test]),
                "conversion": ctcvr_auc_scorer(model, X[test], Y[test]),
            }
        )
scores = pd.DataFrame(rows)
tasks = ["click", "conversion"]
print(scores.groupby("network")[tasks].agg(["mean", "std"]).round(4))

# %%
# All networks of a seed have the same training rows. Differences from one network
# within the seed therefore vary less than the scores.

by_seed = scores.pivot(index="seed", columns="network", values=tasks)
for task in tasks:
    difference = by_seed[task].sub(by_seed[task]["single_task"], axis=0)
    print(f"{task}: difference to single_task")
    print(difference.agg(["mean", "std"])[networks[1:]].round(4))

# %%
# The picture
# -----------
#
# Small points are fits, and large points are the means of the networks.

import matplotlib.pyplot as plt

_, axes = plt.subplots(1, 2, figsize=(8.5, 3.6), layout="constrained", sharey=True)
for k, (task, ax) in enumerate(zip(tasks, axes, strict=True)):
    ax.plot(scores[task], scores["network"], "o", color=f"C{k}", alpha=0.4)
    mean = scores.groupby("network")[task].mean()
    ax.plot(mean, mean.index, "D", color=f"C{k}", markersize=9)
    ax.set(xlabel=f"AUC of the {task}")
    ax.grid(axis="x", alpha=0.3)
    ax.margins(y=0.12)
axes[0].invert_yaxis()
plt.show()

# %%
# Here, `shared_bottom` and `esmm` gain 0.01 in the AUC of the rare conversion, and
# `mmoe` a third as much. The AUC of the click hardly changes with the first two, and is
# 0.007 lower with `mmoe`.
