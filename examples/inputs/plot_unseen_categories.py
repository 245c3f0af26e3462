"""
Categories that were not seen in training
=========================================

New items appear every day. Predictions treat a value that was not in `fit` as "unseen".
`partial_fit` can learn it in two ways: with a vocabulary that grows, or with hash
buckets, over which all values are distributed. A vocabulary that grows may also forget
the items that do not come any more. This example compares these over a week.
"""

# %%
# A log with new items
# --------------------
#
# Each item has a different appeal, and few items are popular. Each day 15 of 100 items
# are replaced by new ones.

import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
n_days, n_items, n_new, n_rows = 7, 100, 15, 4_000
appeal = rng.standard_normal(n_items + n_days * n_new)
popularity = 1 / np.arange(3, n_items + 3)
items = np.arange(n_items)
log = []
for day in range(n_days):
    item = rng.choice(items, n_rows, p=popularity / popularity.sum())
    hour = rng.uniform(0, 24, n_rows)
    score = appeal[item] + np.sin(2 * np.pi * hour / 24)
    click = rng.uniform(size=n_rows) < 1 / (1 + np.exp(1.5 - score))
    conversion = click & (rng.uniform(size=n_rows) < 1 / (1 + np.exp(1 - appeal[item])))
    X = pd.DataFrame({"item": [f"item {i}" for i in item], "hour": hour})
    Y = pd.DataFrame({"click": click, "conversion": conversion}).astype(int)
    log.append((X, Y))
    replaced = rng.choice(n_items, n_new, replace=False)
    items[replaced] = n_items + day * n_new + np.arange(n_new)

# %%
# Unseen values
# -------------
#
# All unseen items have the same embedding, and therefore the same prediction at the
# same hour.

from sk_pwiser import MultiTaskCTRCVRClassifier

params = {"loss": "bce", "max_epochs": 8, "batch_size": 256, "random_state": 0}
once = MultiTaskCTRCVRClassifier(**params).fit(*log[0])
two = pd.DataFrame({"item": ["item 1000", "item 1001"], "hour": [12.0, 12.0]})
print(once.predict_proba(two))

# %%
# Four ways to serve a week
# -------------------------
#
# Every day is predicted by the model of the evening before. Then the rows of the day
# are learnt with three passes of `partial_fit`, except by the model that is fitted
# once. With ``forget_after=6``, a new item takes the place of one that no row of six
# calls, of two days, had.

from sk_pwiser.metrics import ctr_auc_scorer

models = {"fitted on the first day only": once}
for name, encoding in {
    "hash buckets": {"n_hash_buckets": 2_000},
    "growing vocabulary": {"grow_vocabulary": True},
    "growing, forgets": {"grow_vocabulary": True, "forget_after": 6},
}.items():
    model = MultiTaskCTRCVRClassifier(encoding_params=encoding, **params)
    models[name] = model.fit(*log[0])

aucs = pd.DataFrame(index=range(2, n_days + 1), columns=list(models), dtype=float)
for day, (X, Y) in enumerate(log[1:], start=2):
    for name, model in models.items():
        aucs.loc[day, name] = ctr_auc_scorer(model, X, Y)
        if model is not once:
            for _ in range(3):
                model.partial_fit(X, Y)
print(aucs.round(3).to_string())

# %%
# The vocabulary has grown by one code per new item, and much less if it forgets; the
# number of buckets has not changed.

for name, model in models.items():
    print(f"{name}: {model.net_.module_.spec.cardinalities[0]} codes")

# %%
# The picture
# -----------

import matplotlib.pyplot as plt

_, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
aucs.plot(ax=ax, marker="o")
ax.set(xlabel="Day", ylabel="AUC of the click, before learning the day")
ax.legend(loc="lower left")
plt.show()

# %%
# The AUC of the model that is fitted once falls as items are replaced. The models that
# are updated every day are ahead of it from day 3 on, and by 0.03 to 0.04 on the last
# two days; they differ little from each other. Items that are forgotten cost nothing
# here, since none comes back.
