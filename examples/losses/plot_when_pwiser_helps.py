"""
When PWiseR helps
=================

The pairwise term ranks converted impressions above all others. It helps if conversions
are rare, clicks are noisy, and the network has little else to learn the conversions
from. This example measures one log of this kind, and one where the term does not help.
"""

# %%
# Two logs
# --------
#
# In the first log, half of the clicks are accidents and 0.4 % of the impressions
# convert. Its columns have up to 3,000 values, and the network has their embeddings
# only, without target statistics. This is the setting in which the term gains most on
# KuaiRand; see :doc:`../../user_guide/pwiser_helps`. In the second log, every click is
# genuine and 4 % convert.

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

logs = {
    "rare and noisy": {
        "ctr": 0.44,
        "cvr": 0.01,
        "click_noise": 0.5,
        "n_categories": [3000, 1000, 300, 100],
    },
    "frequent and clean": {"ctr": 0.2, "cvr": 0.2},
}
params = {
    "rare and noisy": {"target_encoding": False},
    "frequent and clean": {},
}

# %%
# The measure
# -----------
#
# 20,000 impressions of the first log contain about 80 conversions, too few to compare
# models. Generated impressions come with their true probabilities, so that the expected
# AUC is known: a row is a positive with the weight p, and a negative with the weight
# 1 - p.


def expected_auc(p, scores):
    """Return the AUC that is expected if events have the probabilities p."""
    labels = np.repeat([1, 0], len(scores))
    return roc_auc_score(labels, np.tile(scores, 2), sample_weight=np.r_[p, 1 - p])


# %%
# The experiment
# --------------
#
# The weight is 1, ten times the default. Both losses have the same rows and seeds.

n_seeds, n_rows = 3, 20_000
losses = {"bce": {"loss": "bce"}, "pwiser": {"loss": "pwiser", "pwiser_weight": 1.0}}
found = []
for name, log in logs.items():
    for seed in range(n_seeds):
        data = make_ctr_cvr(2 * n_rows, random_state=seed, **log)
        train, test = slice(n_rows), slice(n_rows, None)
        truth = {"click": data.ctr[test], "conversion": (data.ctr * data.cvr)[test]}
        for loss, of_loss in losses.items():
            model = MultiTaskCTRCVRClassifier(
                random_state=seed, **of_loss, **params[name]
            )
            model.fit(data.data[train], data.target[train])
            probabilities = model.predict_proba(data.data[test])
            for k, (task, p) in enumerate(truth.items()):
                auc = expected_auc(p, probabilities[:, k])
                found.append((name, task, seed, loss, auc))

columns = ["log", "task", "seed", "loss", "AUC"]
aucs = pd.DataFrame(found, columns=columns).set_index(columns[:4])["AUC"].unstack()
aucs = aucs.loc[list(logs)]
aucs["gain"] = aucs["pwiser"] - aucs["bce"]
by_log = aucs.groupby(["log", "task"], sort=False)
table = by_log.mean()
table["standard error"] = by_log["gain"].sem()
print(table.round(4).to_string())

# %%
# The result
# ----------
#
# On the first log, the term gains about 0.02 of AUC on the conversions, for every seed,
# and costs nothing on the clicks. On the second log, it costs about 0.002 on both
# tasks: cross-entropy has enough conversions to learn from, and the term adds variance.
# Therefore the default weight is 0.1, and larger ones are worth a search if conversions
# are rare.

import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
for y, ((_, task), gains) in enumerate(by_log["gain"]):
    color = "C1" if task == "conversion" else "C0"
    ax.plot(gains, [y] * n_seeds, "o", color=color, alpha=0.4)
    ax.plot(gains.mean(), y, "D", color=color)
ax.axvline(0, color="grey", linewidth=1)
ax.set_yticks(range(len(table)), [f"{name}, {task}" for name, task in by_log.groups])
ax.set_xlabel("gain in AUC over cross-entropy")
ax.invert_yaxis()
plt.show()
