"""
A first fit
===========

The estimator is fitted on a DataFrame of impressions, with categories, numbers and
missing values. It predicts the probabilities of a click and of a conversion.
"""

# %%
# The data
# --------
#
# Generated impressions come with their true probabilities. `Y` has one column per task,
# in the order of the funnel: a conversion needs a click.

from sk_pwiser.datasets import make_ctr_cvr

impressions = make_ctr_cvr(60_000, ctr=0.1, cvr=0.2, random_state=0)
X, Y = impressions.data, impressions.target
X.loc[::7, "numeric_0"] = None  # numbers may be missing
print(X.head())
print(Y.mean())

# %%
# The fit
# -------
#
# The split is stratified by the depth of the funnel, so that both parts have equal
# shares of clicks and conversions. Above 1,000 rows, `fit` splits off validation rows
# and ends, at a learning rate that falls to 0, when their loss no longer improves.

from sklearn.model_selection import train_test_split

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.model_selection import funnel_depth

train, test = train_test_split(
    range(len(X)), test_size=0.5, stratify=funnel_depth(Y), random_state=0
)
model = MultiTaskCTRCVRClassifier(loss="pwiser", verbose=1, random_state=0)
model.fit(X.iloc[train], Y.iloc[train])

# %%
# `history_` contains the printed figures. The weights of the best epoch are kept.

import matplotlib.pyplot as plt

epochs = model.history_[:, "epoch"]
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for part in ("train", "valid"):
    left.plot(epochs, model.history_[:, f"{part}_loss"], marker="o", label=part)
for task in model.task_names_:
    right.plot(epochs, model.history_[:, f"valid_auc_{task}"], marker="o", label=task)
left.set(xlabel="epoch", ylabel="loss")
right.set(xlabel="epoch", ylabel="validation AUC")
left.legend()
_ = right.legend()

# %%
# The predictions
# ---------------
#
# Column k of `predict_proba` is the probability of task k over impressions.
# `predict_cvr` is the probability of a conversion given a click.

import pandas as pd

probabilities = model.predict_proba(X.iloc[test])
print(pd.DataFrame(probabilities, columns=model.task_names_).describe())

# %%
# The AUC of the true probabilities is the highest that any model can be expected to
# reach.

from sklearn.metrics import roc_auc_score

true = {
    "click": impressions.ctr[test],
    "conversion": (impressions.ctr * impressions.cvr)[test],
}
for k, task in enumerate(model.task_names_):
    predicted = roc_auc_score(Y[task].iloc[test], probabilities[:, k])
    best = roc_auc_score(Y[task].iloc[test], true[task])
    print(f"{task}: AUC {predicted:.3f}, with the true probabilities {best:.3f}")

# %%
# The probabilities are calibrated if, among rows with similar predictions, the share of
# events equals the mean prediction.

from sklearn.calibration import CalibrationDisplay

fig, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for k, (task, ax) in enumerate(zip(model.task_names_, axes, strict=True)):
    CalibrationDisplay.from_predictions(
        Y[task].iloc[test],
        probabilities[:, k],
        n_bins=10,
        strategy="quantile",
        ax=ax,
        name=task,
    )
    limit = 1.1 * pd.Series(probabilities[:, k]).quantile(0.98)
    ax.set(xlim=(0, limit), ylim=(0, limit))
plt.show()
