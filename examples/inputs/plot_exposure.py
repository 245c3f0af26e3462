"""
What an item is worth, wherever it was shown
============================================

A log shows good items first, and what is first is clicked. With the position among its
columns, or without it, a model learns part of the position as a property of the items.
`exposure_features` separates them; see :doc:`/user_guide/exposure`.
"""

# %%
# A log with known truth
# ----------------------
#
# Pages of ten items, sorted by an old score, which is the quality of an item plus
# noise. A row is examined with a probability that falls with its position, and clicked
# if it was examined and pleases.

import numpy as np
import pandas as pd
from scipy.special import expit

rng = np.random.default_rng(0)
n_pages, n_items, n_positions = 2_000, 200, 10
quality = rng.normal(size=n_items)


def draw_pages(n_pages, noise):
    """Return rows, whether they please, and whether they were examined."""
    item = rng.integers(0, n_items, (n_pages, n_positions))
    price = rng.normal(size=item.shape)
    score = quality[item] + noise * rng.normal(size=item.shape)
    position = (-score).argsort(axis=1).argsort(axis=1) + 1
    rows = pd.DataFrame(
        {
            "item": item.ravel().astype(str),
            "price": price.ravel(),
            "position": position.ravel(),
        }
    )
    pleases = rng.random(rows.shape[0]) < expit(
        -1 + 0.8 * quality[item].ravel() - 0.5 * rows["price"]
    )
    examined = rng.random(rows.shape[0]) < 1 / rows["position"]
    return rows, pleases, examined


log, pleases, examined = draw_pages(n_pages, noise=0.5)
click = (pleases & examined).astype(int)
print(f"{click.mean():.1%} of {len(log):,} rows are clicked")
print(click.groupby(log["position"]).mean().round(3).to_string())

# %%
# Two models
# ----------
#
# The first one has the position as a column, which predictions set to 1. The second
# one needs no position in predictions.

from sk_pwiser import MultiTaskCTRCVRClassifier

with_column = MultiTaskCTRCVRClassifier(random_state=0).fit(log, click)
model = MultiTaskCTRCVRClassifier(exposure_features=["position"], random_state=0)
model.fit(log, click)
print(model.column_encodings_["position"]["encoding"])

# %%
# They are compared on items in a random order, all of which are examined.

from sklearn.metrics import roc_auc_score

rows, pleases, _ = draw_pages(n_pages, noise=1e9)
as_column = with_column.predict_proba(rows.assign(position=1))[:, 1]
as_exposure = model.predict_proba(rows[["item", "price"]])[:, 1]
for name, p in {"column": as_column, "exposure_features": as_exposure}.items():
    print(f"{name}: AUC {roc_auc_score(pleases, p):.3f}, mean {p.mean():.3f}")
print(f"{pleases.mean():.3f} of the rows please in truth")

# %%
# The effect of the position
# --------------------------
#
# `as_shown` predicts each row where it was shown. The same rows at all positions show
# what the model has learnt of them. The rates of the log fall faster, since good items
# are first.

import matplotlib.pyplot as plt

positions = np.arange(1, n_positions + 1)
as_shown = model.as_shown()
means = np.array(
    [as_shown.predict_proba(rows.assign(position=k))[:, 1].mean() for k in positions]
)
rates = click.groupby(log["position"]).mean()
fig, ax = plt.subplots(figsize=(7, 4))
ax.plot(positions, rates / rates[1], "o--", label="click rate of the log")
ax.plot(positions, means / means[0], "o-", label="exposure_features")
ax.plot(positions, 1 / positions, color="black", label="truth: examination")
ax.set(xlabel="position", ylabel="relative to the first position", ylim=(0, None))
ax.set_xticks(positions)
ax.legend()
fig.tight_layout()
plt.show()
