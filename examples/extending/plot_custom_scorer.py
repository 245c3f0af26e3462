"""
Your own scorers in a search
============================

The AUC says nothing about the top of a ranking or the size of the probabilities.
`make_task_scorer` turns any metric of scikit-learn into a scorer for one task. A
function then selects the best candidate of a search by several scorers.
"""

# %%
# Three scorers
# -------------
#
# The average precision of the conversion gives most weight to the rows at the top of
# the ranking. The log loss requires accurate probabilities; its scorer returns minus
# the loss, since larger scores are better. The third scorer evaluates the predicted
# rate instead of the ranking: any function of labels and probabilities can be a metric.

import numpy as np
from sklearn.metrics import average_precision_score, log_loss

from sk_pwiser.metrics import make_task_scorer


def relative_bias(y, p):
    """Return how far the mean prediction is from the rate, relative to the rate."""
    return abs(p.mean() / y.mean() - 1)


scoring = {
    "AP": make_task_scorer(average_precision_score, "conversion"),
    "log loss": make_task_scorer(
        log_loss, "conversion", greater_is_better=False, labels=[0, 1]
    ),
    "bias": make_task_scorer(relative_bias, "conversion", greater_is_better=False),
}

# %%
# The choice
# ----------
#
# `refit` may be a function that receives `cv_results_` and returns the index of a
# candidate: here the candidate with the best average precision among all whose log loss
# is at most 1 % above the lowest.


def choose(results):
    loss = -results["mean_test_log loss"]
    allowed = loss <= 1.01 * loss.min()
    return int(np.argmax(np.where(allowed, results["mean_test_AP"], -np.inf)))


# %%
# The search
# ----------

from sklearn.model_selection import GridSearchCV

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.model_selection import FunnelStratifiedKFold

data = make_ctr_cvr(9_000, ctr=0.2, cvr=0.2, random_state=0)
search = GridSearchCV(
    MultiTaskCTRCVRClassifier(max_epochs=5, random_state=0),
    [
        {"loss": ["pwiser"], "pwiser_weight": [0.3, 1.0, 3.0]},
        {"loss": ["bce", "focal"]},
    ],
    scoring=scoring,
    refit=choose,
    cv=FunnelStratifiedKFold(3, random_state=0),
)
search.fit(data.data, data.target)

import pandas as pd

table = pd.DataFrame(search.cv_results_)
names = [" ".join(map(str, params.values())) for params in table["params"]]
means = table[[f"mean_test_{name}" for name in scoring]].abs().set_axis(names)
spread = table["std_test_AP"].set_axis(names)
print(means.assign(std_AP=spread).round(4))
print("chosen:", search.best_params_)

# %%
# The picture
# -----------
#
# Each point is a candidate; the number is the weight of the pairwise term. Good
# candidates are in the upper left corner, and candidates to the right of the dashed
# line are not allowed.

import matplotlib.pyplot as plt

loss, precision = means["mean_test_log loss"], means["mean_test_AP"]
_, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.plot(loss, precision, "o", markersize=8)
ax.plot(*means.iloc[search.best_index_, [1, 0]], "o", markersize=8, label="chosen")
for k, name in enumerate(names):
    above = precision.iloc[k] == precision.max()
    ax.annotate(
        name,
        (loss.iloc[k], precision.iloc[k]),
        xytext=(6, 2 if above else -2),
        textcoords="offset points",
        va="bottom" if above else "top",
    )
ax.axvline(1.01 * loss.min(), color="grey", linestyle="--")
ax.margins(x=0.25, y=0.15)
ax.set(
    xlabel="Log loss of the conversion", ylabel="Average precision of the conversion"
)
ax.legend()
plt.show()

# %%
# The log loss of the focal loss is almost twice as large as the others, and its average
# precision is the lowest. The differences among the other points, at most 0.011, are of
# the size of the spread over the folds.
