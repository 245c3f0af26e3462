"""
Shapley values by task
======================

Shapley values explain a single prediction: they distribute its difference to the mean
prediction over the columns of the row. The model-agnostic explainers of
`SHAP <https://shap.readthedocs.io>`_ only call a function, so that a view of one task
is enough. Here the same rows are explained for the click and for the conversion.

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
# A column that takes no part in a coalition has its values from the background, some
# rows of the training data. Category columns need no encoding. The function is the
# logit, in which the effects of a network add up better than in the probability; all
# values of a row and the base value sum to it.

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
# The mean absolute value says how much a column moves the logit of a task. The values
# of one column over its own values show in which direction, and whether both tasks
# agree.

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
