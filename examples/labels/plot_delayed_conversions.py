"""
Delayed conversions
===================

A conversion may come days after its impression. In a log that ends today, recent
impressions have too few conversions. This example compares three ways to train on such
a log: with the labels as logged, without the labels of recent rows, and with weights.
"""

# %%
# The log
# -------
#
# We generate impressions of the last four days, whose true probabilities are known.
# Delays are exponential with a mean of one day. Conversions after the end of the log
# are not seen.

import numpy as np

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.delayed_feedback import delay_distribution, delayed_feedback_weights

rng = np.random.default_rng(0)
data = make_ctr_cvr(40_000, ctr=0.3, cvr=0.3, random_state=0)
elapsed = rng.uniform(0, 4, len(data.data))  # days from the impression until now
delay = np.where(data.target["conversion"] == 1, rng.exponential(1.0, len(elapsed)), 9)
seen = delay <= elapsed
labels = data.target.assign(conversion=seen.astype(int))
print(f"{labels['conversion'].sum() / data.target['conversion'].sum():.0%} are seen")

# %%
# Delays
# ------
#
# The delays in the log are too short, because conversions with long delays are not seen
# yet. The product-limit estimate corrects this. Here the true distribution is known.

import matplotlib.pyplot as plt

delays, probabilities = delay_distribution(delay[seen], elapsed=elapsed[seen])
fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
days = np.linspace(0, 4, 100)
ax.plot(days, 1 - np.exp(-days), color="black", label="truth")
ax.plot(delays, probabilities, color="C0", label="product-limit estimate")
ax.plot(np.sort(delay[seen]), np.linspace(0, 1, seen.sum()), "C1--", label="in the log")
ax.set(xlabel="delay in days", ylabel="share of conversions")
ax.legend()
plt.show()

# %%
# Three fits
# ----------
#
# In the second fit, the conversion labels of the last two days are missing. In the
# third, weights correct for the conversions that are not seen yet.

recent = elapsed < 2
without_recent = labels.astype(float)
without_recent.loc[recent, "conversion"] = np.nan
weights = delayed_feedback_weights(
    labels,
    delay=np.where(seen, delay, np.nan),
    elapsed=elapsed,
    min_probability=0.2,
)
fits = {
    "as it stands": (labels, None),
    "recent labels missing": (without_recent, None),
    "weights": (labels, weights),
    "all conversions": (data.target, None),
}
means = {}
for name, (Y, sample_weight) in fits.items():
    model = MultiTaskCTRCVRClassifier(
        loss="bce",
        network_params={"bottom_units": (32,), "tower_units": (16,)},
        missing_labels="ignore",
        max_epochs=6,
        early_stopping=False,
        random_state=0,
    )
    model.fit(data.data, Y, sample_weight=sample_weight)
    means[name] = model.predict_proba(data.data)[:, 1].mean()

# %%
# The result
# ----------
#
# The plot shows the mean predicted probability of a conversion, and the true mean
# (line). The fit to all conversions, which a real log does not contain, shows the best
# result that can be expected.

truth = (data.ctr * data.cvr).mean()
fig, ax = plt.subplots(figsize=(6, 2.5), layout="constrained")
ax.barh(list(means), list(means.values()), color="C0")
ax.axvline(truth, color="black")
ax.invert_yaxis()
ax.set(xlabel="mean predicted probability of a conversion")
for name, mean in means.items():
    print(f"{name}: {mean / truth:.2f} times the truth")
plt.show()
