"""
A new market with few rows
==========================

A model has learnt the clicks and conversions of some markets, and a new market opens.
At first it has few rows, and its visitors differ in some respects. This example
compares a fit on these rows only with the old model, and with the old model after
fine-tuning.
"""

# %%
# Two old markets and a new one
# -----------------------------
#
# All impressions come from one generator. In the new market one column has the opposite
# effect, so the old model is wrong about it.

import matplotlib.pyplot as plt
import numpy as np

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import mean_auc_scorer
from sk_pwiser.transfer import fine_tune

data = make_ctr_cvr(30_000, ctr=0.2, cvr=0.2, random_state=0)
X, Y = data.data, data.target
is_new = np.arange(len(X)) >= 16_000
X["numeric_0"] = np.where(is_new, -X["numeric_0"], X["numeric_0"])
old, test = slice(16_000), slice(20_000, None)

# %%
# The source
# ----------
#
# The source is one fit on the rows of the old markets.

params = {"early_stopping": True, "random_state": 0}
source = MultiTaskCTRCVRClassifier(**params).fit(X[old], Y[old])

# %%
# Fine-tuning
# -----------
#
# Small batches give enough steps on few rows. The penalty of L2-SP keeps the weights
# close to the weights of the source.

sizes = [250, 1_000, 4_000]
aucs = {"from scratch": [], "fine-tuned": [], "fine-tuned with L2-SP": []}
for n in sizes:
    rows = slice(16_000, 16_000 + n)
    new = X[rows], Y[rows]
    models = [
        MultiTaskCTRCVRClassifier(batch_size=64, **params).fit(*new),
        fine_tune(source, *new, batch_size=64),
        fine_tune(source, *new, batch_size=64, regularizer="l2_sp"),
    ]
    for values, model in zip(aucs.values(), models, strict=True):
        values.append(mean_auc_scorer(model, X[test], Y[test]))

# %%
# The curves
# ----------
#
# The dashed line is the old model, which needs no rows of the new market. A fit from
# scratch needs more than 1,000 rows to reach it. The fine-tuned models start near it.
# With the penalty of L2-SP they improve with more rows; without it they hardly do, and
# with 4,000 rows the fit from scratch is better.

_, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
ax.axhline(mean_auc_scorer(source, X[test], Y[test]), color="grey", linestyle="--")
for label, values in aucs.items():
    ax.plot(sizes, values, marker="o", label=label)
ax.set(xscale="log", xlabel="Rows of the new market", ylabel="Mean AUC of both tasks")
ax.legend()
plt.show()

# %%
# :doc:`/user_guide/transfer` describes the regularisers. Figures over seeds on real
# impressions are in :doc:`/user_guide/explored`.
