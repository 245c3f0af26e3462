"""
From a raw log to served predictions
====================================

A raw log holds who saw what and when. What a user did before an impression is in other
rows. :class:`~sk_pwiser.history.HistoryFeatures` turns these rows into columns, the
same way for training, for evaluation and for a single row of a server.
"""

# %%
# A raw log
# ---------
#
# Three weeks of impressions. Users differ in their interest in a category, and in the
# last week a quarter of the rows have new users, whose ids say nothing to a model.

import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
n, n_users, categories = 20_000, 1500, ["news", "sport", "travel", "food"]
days = np.sort(rng.uniform(0, 21, n))
user = (days * n_users / 28 + rng.exponential(150, n)).astype(int)  # new ones arrive
category = rng.integers(0, len(categories), n)
interest = rng.normal(size=(user.max() + 1, len(categories)))
logit = -2.5 + 1.5 * interest[user, category] + 0.5 * interest[user].sum(axis=1)
click = rng.random(n) < 1 / (1 + np.exp(-logit))
conversion = click & (rng.random(n) < 1 / (1 + np.exp(1 - interest[user, category])))
log = pd.DataFrame(
    {
        "user": [f"user {u}" for u in user],
        "category": pd.Categorical.from_codes(category, categories),
        "time": pd.Timestamp("2026-03-02") + pd.to_timedelta(days, unit="D"),
        "day": days,
    }
)
Y = pd.DataFrame({"click": click, "conversion": conversion}).astype(int)
is_late = days >= 14
early, late, Y_early, Y_late = log[~is_late], log[is_late], Y[~is_late], Y[is_late]
print(f"{Y['click'].mean():.1%} clicks, {Y['conversion'].mean():.1%} conversions")
is_known = late["user"].isin(early["user"])
print(f"{is_known.mean():.0%} of the rows of the last week have users of the first two")

# %%
# The past of each row
# --------------------
#
# Clicks are known after five minutes, conversions after a day. `fit_transform` gives
# each row what was known at its time.

from sk_pwiser.history import HistoryFeatures

history = HistoryFeatures(
    keys=["user", ("user", "category")],
    time="time",
    label_delay={"click": "5min", "conversion": "1d"},
)
features = history.fit_transform(early, Y_early)
print(features.iloc[-1].to_string())

# %%
# Training and evaluation
# -----------------------
#
# `replay` walks the last week in the order of time: each row sees the rows before it.
# With `transform` all rows see the state at the end of the second week, as on a server
# that is never updated. Early stopping validates on the last rows by their `day`, since
# the outcomes of random ones are in the columns of training rows.

from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier


def fit(X):
    model = MultiTaskCTRCVRClassifier(
        encoding_params={"time_column": "day"}, max_epochs=15, random_state=0
    )
    return model.fit(X, Y_early)


without, model = fit(early.drop(columns="time")), fit(features)
probabilities = {
    "no past": without.predict_proba(late.drop(columns="time")),
    "state of a week ago": model.predict_proba(history.transform(late)),
    "updated state": model.predict_proba(history.replay(late, Y_late)),
}
aucs = pd.DataFrame(
    {
        name: [roc_auc_score(Y_late.iloc[:, k], p[:, k]) for k in range(2)]
        for name, p in probabilities.items()
    },
    index=list(Y),
)
print(aucs.round(3).to_string())

# %%
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
aucs.T.plot.barh(ax=ax)
ax.invert_yaxis()
ax.set(xlabel="AUC in the last week", xlim=(0.5, None))
plt.show()

# %%
# Serving
# -------
#
# After an update with the last week the server looks up single rows, as dictionaries.
# The values are those of `transform`.

from sk_pwiser.export import Scorer

history.update(late, Y_late)
scorer = Scorer(model)
for name in categories:
    row = {
        "user": late["user"].iloc[-1],
        "category": name,
        "time": pd.Timestamp("2026-03-23 12:00"),
        "day": 21.5,
    }
    ctr, ctcvr = scorer(history.transform_row(row))[0]
    print(f"{name:<7} click {ctr:.3f}, conversion {ctcvr:.3f}")
