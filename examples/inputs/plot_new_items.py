"""
Items that no row has shown yet
===============================

A shop lists new items every day. Their ids say nothing to a model, their texts do. Here
vectors of the texts are read by id, from a table beside the log, and the vectors of new
items are added to a model that serves. See :ref:`new_items`.
"""

# %%
# A log, and a table of vectors
# -----------------------------
#
# The items differ by six hidden properties, which decide who clicks and buys. A vector
# of 16 numbers, as a model of texts returns it, is a noisy mixture of them. The last
# fifth of the items is new: no training row shows them.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier

rng = np.random.default_rng(0)
n_rows, n_items, n_new = 20_000, 1_000, 200
properties = rng.normal(size=(n_items, 6))
mixture = properties @ rng.normal(size=(6, 16)) + 0.5 * rng.normal(size=(n_items, 16))
ids = [f"item {index}" for index in range(n_items)]
vectors = pd.DataFrame(mixture, index=ids)
appeal = 0.6 * properties.sum(axis=1) / np.sqrt(6) + np.sin(1.5 * properties[:, 0])

item = rng.integers(n_items, size=n_rows)
hour = rng.uniform(0, 24, n_rows)
log_odds = -1.5 + appeal[item] + 0.3 * np.sin(hour / 24 * 2 * np.pi)
click = rng.random(n_rows) < 1 / (1 + np.exp(-log_odds))
buys = click & (rng.random(n_rows) < 1 / (1 + np.exp(1 - appeal[item])))
X = pd.DataFrame({"item": np.array(ids)[item], "hour": hour})
Y = pd.DataFrame({"click": click, "purchase": buys}).astype(int)
is_new = item >= n_items - n_new
is_test = is_new | (rng.random(n_rows) < 0.2)
X_train, Y_train = X[~is_test], Y[~is_test]

# %%
# With and without vectors
# ------------------------
#
# The table of this fit has the known items only.

known_vectors = vectors[: n_items - n_new]
plain = MultiTaskCTRCVRClassifier(random_state=0).fit(X_train, Y_train)
model = MultiTaskCTRCVRClassifier(
    encoding_params={"vectors": {"item": known_vectors}}, random_state=0
).fit(X_train, Y_train)


def aucs(estimator):
    """Return the AUC of clicks on test rows of known items, and of new ones."""
    p = estimator.predict_proba(X)[:, 0]
    rows = {"known items": is_test & ~is_new, "new items": is_new}
    return {name: roc_auc_score(Y["click"][m], p[m]) for name, m in rows.items()}


figures = {"ids only": aucs(plain), "vectors of known items": aucs(model)}

# %%
# New items
# ---------
#
# `add_vectors` makes the new items known, without a training step. Predictions of other
# items stay equal.

before = model.predict_proba(X[~is_new])
model.add_vectors({"item": vectors[n_items - n_new :]})
assert np.array_equal(model.predict_proba(X[~is_new]), before)
figures["and of new ones"] = aucs(model)
table = pd.DataFrame(figures).T
print(table.round(3))

# %%
# The new items are now ordered by what their vectors say of them.

one_row_per_new_item = pd.DataFrame({"item": ids[n_items - n_new :], "hour": 12.0})
predicted = model.predict_proba(one_row_per_new_item)[:, 0]
true_rate = 1 / (1 + np.exp(1.5 - appeal[n_items - n_new :]))

fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
table.plot.bar(ax=axes[0], rot=0, ylim=(0.45, 0.8), ylabel="AUC of clicks")
axes[0].tick_params(axis="x", labelsize=8)
axes[1].scatter(predicted, true_rate, s=12)
axes[1].axline((0, 0), slope=1, color="grey", lw=1)
axes[1].set(xlabel="predicted click rate", ylabel="true click rate")
axes[1].set_title("Items without a row", fontsize=10)
plt.show()
