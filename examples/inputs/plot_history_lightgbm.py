"""
Histories, calibration and splits for LightGBM
==============================================

The parts of the package around the network work in front of any classifier of
scikit-learn. This example gives LightGBM the past of users, calibrates it for both
tasks, tests it on later rows and serves single rows.
"""

# %%
# A raw log
# ---------
#
# Three weeks of impressions in which new users arrive all the time.

import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
n, n_users, categories = 20_000, 3000, ["news", "sport", "travel", "food"]
days = np.sort(rng.uniform(0, 21, n))
user = (days * n_users / 21 + rng.exponential(100, n)).astype(int)  # new ones arrive
category = rng.integers(0, len(categories), n)
interest = rng.normal(size=(user.max() + 1, len(categories)))
logit = -2.5 + 1.5 * interest[user, category] + 0.5 * interest[user].sum(axis=1)
click = rng.random(n) < 1 / (1 + np.exp(-logit))
conversion = click & (rng.random(n) < 1 / (1 + np.exp(1 - interest[user, category])))
log = pd.DataFrame(
    {
        "user": pd.Categorical(user),
        "category": pd.Categorical.from_codes(category, categories),
        "time": pd.Timestamp("2026-03-02") + pd.to_timedelta(days, unit="D"),
    }
)
Y = pd.DataFrame({"click": click, "conversion": conversion}).astype(int)

# %%
# A look before the fit
# ---------------------
#
# :func:`~sk_pwiser.inspection.describe_impressions` shows that most users of later
# rows are new. A model that is given the ids learns users who do not come back, so
# that the ids are left out below.

from sk_pwiser.inspection import describe_impressions

description = describe_impressions(log.drop(columns="time"), Y, time=log["time"])
print(description)

# %%
# The past of each row
# --------------------
#
# Every row gets what a server knows that appends impressions once per hour, fills in
# clicks after five minutes and conversions after a day.

from sk_pwiser.history import HistoryFeatures

history = HistoryFeatures(
    keys=["user", ("user", "category")],
    time="time",
    label_delay={"click": "5min", "conversion": "1d"},
    state_delay="1h",
)
features = history.fit_transform(log, Y)
tables = {
    "ids": log.drop(columns="time"),
    "no ids": log[["category"]],
    "past, ids": features,
    "past, no ids": features.drop(columns="user"),
}

# %%
# Test on later rows
# ------------------
#
# :class:`~sk_pwiser.model_selection.FunnelTimeSplit` tests each model on a later
# period, after a gap in which the labels become known. A
# :class:`~sklearn.multioutput.MultiOutputClassifier` is one model per task, which the
# scorers of :mod:`sk_pwiser.metrics` read.

from lightgbm import LGBMClassifier
from sklearn.model_selection import cross_validate
from sklearn.multioutput import MultiOutputClassifier

from sk_pwiser.metrics import ctcvr_auc_scorer, ctr_auc_scorer
from sk_pwiser.model_selection import FunnelTimeSplit

lightgbm = LGBMClassifier(
    n_estimators=100, learning_rate=0.05, num_leaves=15, verbose=-1, random_state=0
)
model = MultiOutputClassifier(lightgbm)
cv = FunnelTimeSplit(3, time=log["time"], gap="1d")
scoring = {"click": ctr_auc_scorer, "conversion": ctcvr_auc_scorer}
aucs = {}
for name, table in tables.items():
    scores = cross_validate(model, table, Y, cv=cv, scoring=scoring)
    aucs[name] = {task: scores[f"test_{task}"].mean() for task in scoring}
print(pd.DataFrame(aucs).T.round(3).to_string())

# %%
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
pd.DataFrame(aucs).T.plot.barh(ax=ax)
ax.invert_yaxis()
ax.set(xlabel="AUC in later periods", xlim=(0.5, None))
plt.show()

# %%
# Calibration
# -----------
#
# :class:`~sk_pwiser.calibration.FunnelCalibrator` calibrates both tasks on rows that
# the model has not seen, here the third week up to its last two days, and keeps
# P(conversion) below P(click). The rates of this log do not change, so that there is
# little to correct.

from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.metrics import predicted_over_observed

table = tables["past, no ids"]
train, recent, test = (
    slice(*np.searchsorted(days, d)) for d in ((0, 14), (14, 19), (19, 21))
)
fitted = model.fit(table[train], Y[train])
calibrated = FunnelCalibrator(fitted, cv=None).fit(table[recent], Y[recent])
before = np.column_stack([p[:, 1] for p in fitted.predict_proba(table[test])])
after = calibrated.predict_proba(table[test])
for k, task in enumerate(Y):
    ratios = [predicted_over_observed(Y[task][test], p[:, k]) for p in (before, after)]
    print(f"{task}: predicted / observed {ratios[0]:.2f}, calibrated {ratios[1]:.2f}")

# %%
# Serving
# -------
#
# A server looks up the past of a row, and passes it to the model as a table of one row.

row = {
    "user": int(user[-1]),
    "category": "sport",
    "time": pd.Timestamp("2026-03-23 12:00"),
}
served = pd.DataFrame([history.transform_row(row)])[list(table)]
served["category"] = served["category"].astype(table["category"].dtype)
print(calibrated.predict_proba(served).round(4))
