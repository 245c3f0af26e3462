"""
Values, bids and profit
=======================

A bid is a probability times a value. The estimator learns the amounts of conversions
beside the events; its predictions are turned into bids, and simulated auctions show
what these earn.
"""

# %%
# Amounts beside events
# ---------------------
#
# Generated impressions may have an amount per conversion, whose mean depends on
# categories and numbers. It is 0 without a conversion. The rows after the first 40,000
# are later impressions.

from sk_pwiser.datasets import make_ctr_cvr

impressions = make_ctr_cvr(
    80_000, ctr=0.25, cvr=0.2, value=True, value_tail=1.0, random_state=0
)
X, Y = impressions.data, impressions.target
n_train = 40_000
X_train, Y_train = X[:n_train], Y[:n_train]
X_later, Y_later = X[n_train:], Y[n_train:]
print(Y_train[Y_train["conversion"] == 1].describe())

# %%
# `value_tasks` names the column with the amounts, and the task under which they arise.

from sk_pwiser import MultiTaskCTRCVRClassifier

model = MultiTaskCTRCVRClassifier(value_tasks={"value": "conversion"}, random_state=0)
model.fit(X_train, Y_train)

# %%
# `predict_value` is the mean amount per impression: the probability of a conversion
# times the mean amount given one. The alternative in use is the same probability times
# one mean amount for all.

probability = model.predict_proba(X_later)[:, 1]
mean_amount = Y_train["value"].sum() / Y_train["conversion"].sum()
predictions = {
    "predicted value": model.predict_value(X_later),
    "probability x mean amount": probability * mean_amount,
}

# %%
# The order and the totals
# ------------------------
#
# The normalised Gini is 1 for the perfect order and 0 for a random one. Against the
# true means, it has no noise of single amounts; against the observed amounts, a model
# with the true means would not reach 1.

from sk_pwiser.metrics import (
    normalized_gini,
    predicted_over_observed,
    value_deciles,
)

truth = (impressions.ctr * impressions.cvr * impressions.value)[n_train:]
for name, predicted in predictions.items():
    print(
        f"{name}: normalised Gini {normalized_gini(truth, predicted):.3f} (truth), "
        f"{normalized_gini(Y_later['value'], predicted):.3f} (amounts); "
        f"predicted / true total {predicted_over_observed(truth, predicted):.2f}"
    )

# %%
# Totals should agree in each decile of the predictions, too: a bidder wins more of the
# rows that are predicted too high.

import matplotlib.pyplot as plt
import numpy as np

fig, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained", sharey=True)
for ax, (name, predicted) in zip(axes, predictions.items(), strict=True):
    deciles = value_deciles(truth, predicted)
    places = np.arange(1, len(deciles.predicted) + 1)
    ax.plot(places, deciles.observed, marker="o", label="true means")
    ax.plot(places, deciles.predicted, marker="x", label="predicted")
    ax.set(title=name, xlabel="decile of the prediction", ylabel="total", yscale="log")
    ax.legend()

# %%
# Bids
# ----
#
# An advertiser keeps a share of each amount, the margin, and bids what an impression
# earns: value x margin. In auctions with the second price, the winner pays the highest
# of the other bids. These are drawn at random, around the mean value of an impression
# times the margin, and higher where conversions are more probable, as other bidders
# know the users, too.

margin = 0.3
rng = np.random.default_rng(0)
true_rate = (impressions.ctr * impressions.cvr)[n_train:]
relative_rate = true_rate / true_rate.mean()
other_bids = (
    margin
    * truth.mean()
    * np.sqrt(relative_rate)
    * rng.lognormal(sigma=0.5, size=len(truth))
)


def spend_and_profit(predicted, factor):
    """Return costs and expected profit of bids, per thousand impressions."""
    bids = factor * margin * predicted
    is_won = bids > other_bids
    cost = other_bids[is_won].sum()
    earned = margin * truth[is_won].sum()
    return np.array([cost, earned - cost]) * 1000 / len(truth)


for name, predicted in {**predictions, "true means": truth}.items():
    cost, profit = spend_and_profit(predicted, 1.0)
    print(f"{name}: costs {cost:.0f}, profit {profit:.0f} per 1,000 impressions")

# %%
# The curve of profit
# -------------------
#
# All bids are multiplied by one factor, from cautious to generous. With honest totals,
# the best factor is about 1: nothing has to be tuned in auctions. At the same costs,
# bids from predicted values earn more, since they win other impressions.

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
factors = np.geomspace(0.3, 3, 40)
for name, predicted in {**predictions, "true means": truth}.items():
    curve = np.array([spend_and_profit(predicted, factor) for factor in factors])
    (line,) = ax.plot(*curve.T, label=name)
    at_one = spend_and_profit(predicted, 1.0)
    ax.plot(*at_one, marker="o", color=line.get_color())
ax.set(
    xlabel="costs per 1,000 impressions",
    ylabel="expected profit per 1,000 impressions",
    title="Bids times 0.3 to 3; a dot is the factor 1",
)
ax.legend()
plt.show()
