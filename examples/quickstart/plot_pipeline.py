"""
A pipeline from the log to the prediction
=========================================

A log has the time of each impression, but the estimator refuses dates: columns such as
the hour must be derived first. In a pipeline, the same code derives them for training
and for serving, and the pipeline is itself an estimator.
"""

# %%
# A log
# -----
#
# The log has two weeks of impressions. Sites and devices are category columns, which
# need no encoding. Most clicks happen in the evening, and later in the evening on the
# weekend.

import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
n = 30_000
seconds = np.sort(rng.uniform(0, 14 * 86_400, n))
log = pd.DataFrame(
    {
        "time": pd.Timestamp("2026-03-02") + pd.to_timedelta(seconds, unit="s"),
        "site": pd.Categorical(rng.choice(["news", "sport", "maps", "games"], n)),
        "device": pd.Categorical(rng.choice(["phone", "tablet", "desktop"], n)),
    }
)
weekend = (log["time"].dt.day_of_week >= 5).to_numpy()
peak = np.where(weekend, 23, 19)  # the hour with most clicks
evening = np.cos(2 * np.pi * (log["time"].dt.hour.to_numpy() + 0.5 - peak) / 24)
appeal = log["site"].map({"news": 0.3, "sport": 0.0, "maps": -0.5, "games": 0.2})
ctr = 1 / (1 + np.exp(1.6 - evening - appeal.to_numpy(float)))
click = rng.uniform(size=n) < ctr
conversion = click & (
    rng.uniform(size=n) < np.where(log["device"] == "phone", 0.1, 0.3)
)
Y = pd.DataFrame({"click": click, "conversion": conversion}).astype(int)

# %%
# The pipeline
# ------------
#
# `FunctionTransformer` calls a function on the DataFrame. The hour stays a number; the
# weekday becomes a category, since its numbers are not amounts.

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_pwiser import MultiTaskCTRCVRClassifier


def derive_from_time(X):
    hour = X["time"].dt.hour + X["time"].dt.minute / 60
    weekday = X["time"].dt.day_name().astype("category")
    return X.drop(columns="time").assign(hour=hour, weekday=weekday)


pipeline = make_pipeline(
    FunctionTransformer(derive_from_time),
    MultiTaskCTRCVRClassifier(loss="bce", max_epochs=12, random_state=0),
)
train, test = slice(n // 2), slice(n // 2, None)  # the second week comes later
pipeline.fit(log[train], Y[train])
print(pipeline[:-1].transform(log[:3]))

# %%
# Methods of a pipeline
# ---------------------
#
# Scorers of :mod:`sk_pwiser.metrics` and searches take the whole pipeline. The names of
# the estimator's parameters are prefixed with the name of its step.

from sk_pwiser.metrics import ctcvr_auc_scorer, ctr_auc_scorer

print(f"click      AUC {ctr_auc_scorer(pipeline, log[test], Y[test]):.3f}")
print(f"conversion AUC {ctcvr_auc_scorer(pipeline, log[test], Y[test]):.3f}")
print("learning rate:", pipeline.get_params()["multitaskctrcvrclassifier__lr"])

# %%
# The predicted CTR by hour
# -------------------------
#
# The plot shows means over the impressions of the second week, and the true
# probabilities.

import matplotlib.pyplot as plt

table = pd.DataFrame(
    {
        "predicted": pipeline.predict_proba(log[test])[:, 0],
        "true": ctr[test],
        "hour": log["time"][test].dt.hour,
        "part": np.where(weekend[test], "weekend", "Monday to Friday"),
    }
)
_, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
for k, (part, rows) in enumerate(table.groupby("part")):
    means = rows.groupby("hour")[["predicted", "true"]].mean()
    ax.plot(means["predicted"], color=f"C{k}", linewidth=2, label=part)
    ax.plot(means["true"], color=f"C{k}", linestyle=":", label=f"{part}, true")
ax.set(xlabel="Hour", ylabel="Predicted CTR", xticks=range(0, 24, 4), ylim=(0, None))
ax.legend()
plt.show()

# %%
# On the weekend, the maximum of the predicted CTR is later in the evening, like the
# maximum of the true CTR. There are fewer rows on the weekend, and the predicted CTR
# rises too early there.
