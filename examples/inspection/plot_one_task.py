"""
One task for the tools of scikit-learn
======================================

Tools that plot or explain a classifier expect one column of labels. `task` returns a
view of one task of a fitted estimator, which has this form and neither trains nor
copies anything.
"""

# %%
# A view
# ------
#
# The view of the conversion is a binary classifier: the two columns of `predict_proba`
# are 1 - P(conversion) and P(conversion).

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

data = make_ctr_cvr(30_000, ctr=0.2, cvr=0.3, random_state=0)
X, Y = data.data[:20_000], data.target[:20_000]
X_test, Y_test = data.data[20_000:], data.target[20_000:]

model = MultiTaskCTRCVRClassifier(max_epochs=6, random_state=0).fit(X, Y)
conversion = model.task("conversion")
print(conversion.predict_proba(X_test[:3]))

# %%
# Curves
# ------
#
# Both displays call the view for its predictions. "cvr" is P(conversion | click), for
# rows that were clicked.

import matplotlib.pyplot as plt
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import RocCurveDisplay

clicked = (Y_test["click"] == 1).to_numpy()
_, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
RocCurveDisplay.from_estimator(
    conversion, X_test, Y_test["conversion"], name="conversion", ax=left
)
RocCurveDisplay.from_estimator(
    model.task("cvr"),
    X_test[clicked],
    Y_test["conversion"][clicked],
    name="conversion of clicks",
    ax=left,
)
CalibrationDisplay.from_estimator(
    conversion,
    X_test,
    Y_test["conversion"],
    n_bins=8,
    strategy="quantile",
    name="conversion",
    ax=right,
)
_ = right.set(xlim=(0, 0.3), ylim=(0, 0.3))

# %%
# Effects of columns
# ------------------
#
# Partial dependence shows how the mean prediction changes with one column. A view of
# another task shows whether the column has the same effect on it.

from sklearn.inspection import PartialDependenceDisplay

_, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for task, ax in zip(["click", "conversion"], axes, strict=True):
    PartialDependenceDisplay.from_estimator(
        model.task(task), X_test[:500], ["numeric_0"], grid_resolution=15, ax=ax
    )
    ax.set_title(task)

# %%
# Permutation importance is the loss of AUC if the values of a column are shuffled. The
# display computes it for all tasks at once, and needs no views. The lines are intervals
# of 95 % over the permutations.

from sk_pwiser.inspection import TaskImportanceDisplay

_ = TaskImportanceDisplay.from_estimator(
    model, X_test[:4_000], Y_test[:4_000], n_repeats=5, random_state=0
)

# %%
# Embeddings
# ----------
#
# `category_embeddings` returns the learnt vectors of the values of a category column,
# for example to find similar values.

embeddings = model.category_embeddings("category_0")
print(embeddings.iloc[:3, :4])
plt.show()
