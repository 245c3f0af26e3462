"""
How PWiseR changes the scores
=============================

PWiseR adds a term to the cross-entropy that ranks the rows at the end of the funnel,
the conversions, above clicks without conversion and above rows without a click. This
example draws the scores by depth of the funnel, without and with the term.
"""

# sphinx_gallery_thumbnail_number = 2

# %%
# Two losses
# ----------
#
# A third of the clicks are accidental and never convert.

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

data = make_ctr_cvr(45_000, ctr=0.2, cvr=0.2, click_noise=0.3, random_state=0)
train, test = slice(20_000), slice(20_000, None)
models = {}
for name, params in {
    "cross-entropy": {"loss": "bce"},
    "PWiseR, weight 3": {"loss": "pwiser", "pwiser_weight": 3},
}.items():
    model = MultiTaskCTRCVRClassifier(max_epochs=6, random_state=0, **params)
    models[name] = model.fit(data.data[train], data.target[train])

# %%
# Scores of the click head
# ------------------------
#
# The depth of a row is the number of leading tasks that are 1. Every density has the
# area 1, so that the few conversions can be compared with the many rows without a
# click.

import matplotlib.pyplot as plt

from sk_pwiser.inspection import FunnelScoreDisplay

X, Y = data.data[test], data.target[test]
for task in model.task_names_:
    _, axes = plt.subplots(
        1, 2, figsize=(9.5, 3.8), layout="constrained", sharex=True, sharey=True
    )
    for ax, (name, model) in zip(axes, models.items(), strict=True):
        FunnelScoreDisplay.from_estimator(model, X, Y, task=task, ax=ax)
        ax.set_title(name)
        ax.label_outer()
plt.show()

# %%
# How far the depths are apart
# ----------------------------
#
# The AUC of conversions against clicks without conversion is the probability that a
# conversion has a higher score than a click without conversion.

from sklearn.metrics import roc_auc_score

clicked = (Y["click"] == 1).to_numpy()
for name, model in models.items():
    scores = model.predict_logits(X[clicked])
    aucs = [roc_auc_score(Y["conversion"][clicked], z) for z in scores.T]
    print(f"{name:<18} click head {aucs[0]:.3f}   conversion head {aucs[1]:.3f}")

# %%
# PWiseR separates the scores of conversions slightly better from the scores of clicks
# without conversion, in both heads.
