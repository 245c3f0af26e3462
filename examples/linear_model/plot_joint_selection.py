"""
One choice of features for clicks, conversions and order values
===============================================================

A linear model is the baseline that a network has to beat, and it is easy to interpret.
This example fits a linear model to three tasks of different types and shows in which
order features enter it. Then it learns events in several markets with a low-rank model.
"""

# %%
# Three tasks with different rows
# -------------------------------
#
# Everyone sees the impression, some click, few convert, and only conversions have an
# order value. In all other rows, the value in `y` is NaN, so the task "value" is fitted
# to conversions only. Five of 40 features have an effect, which differs between the
# tasks.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit

from sk_pwiser.linear_model import MultiTaskSparseLinearCV, multi_task_sparse_path

rng = np.random.default_rng(0)
n, p = 4_000, 40
X = rng.standard_normal((n, p))
effects = np.zeros((p, 3))
effects[:5] = [[1, 0.8, 0], [0.8, 0.5, 5], [-0.6, 0, 8], [0, 0.9, -6], [0.4, 0.4, 4]]
click = rng.random(n) < expit(X @ effects[:, 0] - 1)
conversion = click & (rng.random(n) < expit(X @ effects[:, 1] - 1))
value = 60 + X @ effects[:, 2] + 10 * rng.standard_normal(n)
value[~conversion] = np.nan
y = np.column_stack([click, conversion, value])
types = ["binary", "binary", "regression"]
print(f"{click.sum()} clicks, {conversion.sum()} conversions with a value")

# %%
# The path
# --------
#
# The penalty is the sum of the norms of the features' coefficients over the tasks, so a
# feature enters the model for all tasks at once. The penalty decreases from left to
# right; true features are drawn in colour. `scale_targets` divides the order values by
# their standard deviation. Without it they would outweigh the two binary tasks, because
# their unit is larger.

alphas, coefs, _ = multi_task_sparse_path(
    X,
    y,
    task_types=types,
    missing_labels="ignore",
    alphas=30,
    scale_targets=True,
)
scale = np.array([1, 1, np.nanstd(value)])
norms = np.linalg.norm(coefs / scale[:, np.newaxis, np.newaxis], axis=0)

_, ax = plt.subplots(layout="constrained")
ax.plot(alphas, norms[5:].T, color="0.7", lw=0.8)
for j in range(5):
    ax.plot(alphas, norms[j], label=f"feature {j}")
ax.set(xscale="log", xlabel="alpha", ylabel="norm of the coefficients")
ax.invert_xaxis()
_ = ax.legend()

# %%
# The choice of the penalty
# -------------------------
#
# Cross-validation takes the mean of the best alpha for the AUC of the binary tasks and
# of the best alpha for the R2 of the values, weighted by the numbers of tasks. As usual
# for such penalties, the alpha with the best predictions selects some features too
# many.

model = MultiTaskSparseLinearCV(
    task_types=types, missing_labels="ignore", scale_targets=True, random_state=0
)
model.fit(X, y)
print("best alphas:", {kind: round(a, 4) for kind, a in model.best_alphas_.items()})
selected = np.flatnonzero(model.coef_.any(axis=0))
print(f"{len(selected)} features selected, the true ones: {selected[selected < 5]}")

# %%
# Events in several markets
# -------------------------
#
# Two events in five markets are ten tasks, with 120 rows each. A regression per cell
# has too few rows, and one regression for all markets has the wrong coefficients.
# :class:`~sk_pwiser.linear_model.CPMultiTaskLogistic` describes every event and every
# market by two numbers. The market is the last column of `X`.

from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sk_pwiser.linear_model import CPMultiTaskLogistic

n_markets, p = 5, 30
market = np.arange(5_600) % n_markets
X = rng.standard_normal((len(market), p))
loadings = rng.standard_normal((p, 2)) / np.sqrt(p)
events, markets = rng.standard_normal((2, 2)), rng.standard_normal((n_markets, 2))
logits = 3 * ((X @ loadings) * markets[market]) @ events.T
Y = (rng.random(logits.shape) < expit(logits)).astype(int)
train, test = slice(600), slice(600, None)
table = np.column_stack([X, market])

low_rank = CPMultiTaskLogistic(rank=2, alpha=10, group_modes=[p], random_state=0)
low_rank.fit(table[train], Y[train])
predictions = {"low rank": low_rank.predict_proba(table)}
predictions["per cell"] = np.empty(Y.shape)
predictions["per event"] = np.empty(Y.shape)
for k in range(2):
    pooled = LogisticRegression(C=0.1).fit(X[train], Y[train, k])
    predictions["per event"][:, k] = pooled.predict_proba(X)[:, 1]
    for m in range(n_markets):
        rows = market == m
        single = LogisticRegression(C=0.1).fit(
            X[train][rows[train]], Y[train][rows[train], k]
        )
        predictions["per cell"][rows, k] = single.predict_proba(X[rows])[:, 1]

for name, probabilities in predictions.items():
    aucs = [roc_auc_score(Y[test, k], probabilities[test, k]) for k in range(2)]
    print(f"{name:<10} AUC {np.mean(aucs):.3f}")

# %%
# The plot shows the factors of the markets. Markets near each other have similar
# coefficients. The axes themselves have no meaning: both can be stretched and mirrored
# if the loadings change in the opposite way.

factors = low_rank.factors_[p]
_, ax = plt.subplots(layout="constrained")
ax.scatter(factors[:, 0], factors[:, 1])
for name, point in enumerate(factors):
    ax.annotate(f"market {name}", point)
ax.axhline(0, color="0.8", zorder=0)
ax.axvline(0, color="0.8", zorder=0)
ax.set(xlabel="first component", ylabel="second component")
