"""
Shapley values by task
======================

Shapley values explain a single prediction: they distribute its difference from the mean
prediction over the columns of the row. The model-agnostic explainers of
`SHAP <https://shap.readthedocs.io>`_ only call a function, so a view of one task is
enough. This example explains the same rows for the click and for the conversion.

This example needs the package ``shap`` (``pip install shap``).
"""

# %%
# A model of both tasks
# ---------------------

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

data = make_ctr_cvr(
    15_000, n_numeric=4, n_categorical=2, ctr=0.2, cvr=0.3, random_state=0
)
X, Y = data.data[:14_000], data.target[:14_000]
X_new = data.data[14_000:]

model = MultiTaskCTRCVRClassifier(max_epochs=5, random_state=0).fit(X, Y)

# %%
# Explanations
# ------------
#
# Columns outside a coalition take their values from the background, which consists of
# some rows of the training data. Category columns need no encoding. We explain the
# logit, because the effects of a network are closer to additive for logits than for
# probabilities. The values of a row and the base value sum to the logit.

import numpy as np
import shap

background, rows = X[:15], X_new[:50]
values = {}
for task in model.task_names_:
    logit = model.task(task).decision_function
    explainer = shap.explainers.Permutation(logit, background, seed=0)
    explanation = explainer(rows, max_evals=26, silent=True)
    values[task] = explanation.values
    sums = explanation.values.sum(axis=1) + explanation.base_values
    print(task, "largest difference to the logit:", np.abs(sums - logit(rows)).max())

# %%
# Columns by task
# ---------------
#
# The mean absolute Shapley value shows how much a column changes the logit of a task.
# The Shapley values plotted against the values of one column show the direction of the
# effect, and whether it is the same for both tasks.

import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
positions = np.arange(X.shape[1])
for k, (task, of_task) in enumerate(values.items()):
    left.barh(positions + 0.4 * k, np.abs(of_task).mean(axis=0), 0.4, label=task)
    right.scatter(rows["numeric_0"], of_task[:, 0], s=12, label=task)
left.set_yticks(positions + 0.2, X.columns)
left.invert_yaxis()
left.set_xlabel("mean absolute Shapley value")
right.set(xlabel="numeric_0", ylabel="Shapley value")
right.axhline(0, color="grey", linewidth=0.5)
left.legend()
right.legend()
plt.show()
