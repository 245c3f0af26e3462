"""
Merging the models of two markets
=================================

A model is fine-tuned in each of two markets, and one network is needed for both. This
example merges the weights, and plots two objectives by which the coefficients can be
chosen: the log loss, and the entropy of the predictions, which needs no labels.
"""

# %%
# A base and two markets
# ----------------------
#
# The base comes from rows with a click rate of 10 %. In the markets 3 % of the
# impressions are clicked, and in each market a different column has the opposite
# effect. `extend=False` keeps the encoder of the base, as merging requires.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import log_loss

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.transfer import fine_tune, merge_estimators

before = make_ctr_cvr(24_000, ctr=0.10, cvr=0.2, n_categorical=2, random_state=0)
after = make_ctr_cvr(24_000, ctr=0.03, cvr=0.2, n_categorical=2, random_state=0)


def market(column, rows):
    X = after.data[rows]
    return X.assign(**{column: -X[column]}), after.target[rows]


base = MultiTaskCTRCVRClassifier(max_epochs=4, random_state=0)
base.fit(before.data[:8_000], before.target[:8_000])
markets = [
    market("numeric_0", slice(8_000, 14_000)),
    market("numeric_1", slice(14_000, 20_000)),
]
members = [fine_tune(base, X, Y, extend=False, max_epochs=4) for X, Y in markets]

# %%
# The objectives
# --------------
#
# Held-out rows of both markets, half of each, choose the coefficients. With
# `objective=None` the coefficients in `prior` are used, here on a grid.

parts = [
    market("numeric_0", slice(20_000, 22_000)),
    market("numeric_1", slice(22_000, 24_000)),
]
X, Y = (pd.concat(tables) for tables in zip(*parts, strict=True))
grid = np.linspace(0, 1, 9)
losses, entropies = np.zeros((2, 9, 9))
for i, first in enumerate(grid):
    for j, second in enumerate(grid):
        merged = merge_estimators(
            base, members, X, objective=None, prior=[first, second]
        )
        p = merged.predict_proba(X).astype(float)
        losses[j, i] = np.mean([log_loss(Y.iloc[:, k], p[:, k]) for k in range(2)])
        entropies[j, i] = -np.mean(p * np.log(p) + (1 - p) * np.log(1 - p))

# %%
# The coefficients
# ----------------
#
# The log loss has its minimum inside the square. The lower all probabilities are, the
# smaller is the entropy, so it drives the coefficients to their bounds.

_, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
for ax, (objective, values) in zip(
    axes, {"log_loss": losses, "entropy": entropies}.items(), strict=True
):
    merged, found = merge_estimators(
        base, members, X, Y, objective=objective, return_coefficients=True
    )
    p = merged.predict_proba(X)
    print(
        f"{objective:<10}coefficients {found.round(2)}, predicted clicks "
        f"{p[:, 0].mean():.4f}, clicks {Y['click'].mean():.4f}, log loss "
        f"{np.mean([log_loss(Y.iloc[:, k], p[:, k]) for k in range(2)]):.4f}"
    )
    ax.contourf(grid, grid, values, levels=20)
    ax.plot(*found, "o", color="white", markeredgecolor="black", clip_on=False)
    ax.set(title=objective, xlabel="coefficient of the first market")
_ = axes[0].set_ylabel("coefficient of the second market")

# %%
# One network in place of two
# ---------------------------
#
# We compute the log loss in each market, on the rows that were used to choose the
# coefficients. Without a network for its own market, an impression of the first market
# would be predicted by the base or by the network of the second market.

merged = merge_estimators(base, members, X, Y)
models = {"base": base, "first": members[0], "second": members[1], "merged": merged}
for name, model in models.items():
    cells = []
    for table, labels in parts:
        p = model.predict_proba(table)
        loss = np.mean([log_loss(labels.iloc[:, k], p[:, k]) for k in range(2)])
        cells.append(f"{loss:.4f}")
    print(f"{name:<8}log loss in the first market {cells[0]}, in the second {cells[1]}")
