"""
When PWiseR helps
=================

A click may be an accident. Applied to the click head, PWiseR ranks clicks that
converted above all others, so that the head predicts genuine interest better, and
observed clicks worse. This example measures the gain for several shares of accidental
clicks.
"""

# %%
# The measure
# -----------
#
# Generated impressions come with `interest`, the probability of a genuine click. The
# AUC against it is an expectation: every row is a positive with the weight `interest`,
# and a negative with the weight `1 - interest`.

import numpy as np
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr


def auc_of_interest(interest, scores):
    """Return the expected AUC of scores against genuine clicks."""
    labels = np.repeat([1, 0], len(scores))
    weights = np.concatenate([interest, 1 - interest])
    return roc_auc_score(labels, np.tile(scores, 2), sample_weight=weights)


# %%
# The experiment
# --------------
#
# Both losses train to convergence, with early stopping, on the same rows. The pairwise
# term is applied to the click head only, with a weight above the default.

noises, seeds = [0.0, 0.2, 0.4, 0.6], range(3)
losses = {
    "bce": {"loss": "bce"},
    "pwiser": {
        "loss": "pwiser",
        "pwiser_weight": 2.5,
        "loss_params": {"tasks": ["click"]},
    },
}
interest = {name: np.empty((len(noises), len(seeds))) for name in losses}
click = {name: np.empty((len(noises), len(seeds))) for name in losses}
for i, noise in enumerate(noises):
    for j, seed in enumerate(seeds):
        data = make_ctr_cvr(
            24_000, ctr=0.2, cvr=0.2, click_noise=noise, random_state=seed
        )
        train, test = slice(12_000), slice(12_000, None)
        for name, params in losses.items():
            model = MultiTaskCTRCVRClassifier(
                early_stopping=True, random_state=seed, **params
            )
            model.fit(data.data[train], data.target[train])
            scores = model.predict_proba(data.data[test])[:, 0]
            observed = data.target["click"][test]
            interest[name][i, j] = auc_of_interest(data.interest[test], scores)
            click[name][i, j] = roc_auc_score(observed, scores)

# %%
# The result
# ----------
#
# The plots show the gain in AUC of the click head from cross-entropy to PWiseR, with
# one point per seed: against genuine interest, and against the observed clicks. A gain
# in the first is a loss in the second, and a test on logged clicks shows only the
# second. Decide first which of the two you want.

import matplotlib.pyplot as plt

fig, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained", sharey=True)
for ax, scores, title in zip(
    axes, (interest, click), ("genuine interest", "observed clicks"), strict=True
):
    gain = scores["pwiser"] - scores["bce"]
    ax.axhline(0, color="grey", linewidth=1)
    ax.plot(noises, gain, "o", color="C0", alpha=0.4)
    ax.plot(noises, gain.mean(axis=1), color="C0")
    ax.set(title=title, xlabel="share of accidental clicks", ylabel="gain in AUC")
    print(f"{title}: mean gain {np.round(gain.mean(axis=1), 4)}")
plt.show()
