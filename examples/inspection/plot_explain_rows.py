"""
Why a row is predicted as it is
===============================

:func:`~sk_pwiser.inspection.explain_rows` distributes the prediction of a row over its
columns, for all tasks at once: a contribution is what a column adds to the log-odds,
compared with the rows of a background. The contributions of a row sum to its log-odds
less the mean log-odds of the background.
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
# One row
# -------
#
# The background answers the question "compared with what?": here with 100 rows of the
# training data. ``tasks=None`` explains all tasks and the CVR. The reasons name the
# columns with the largest contributions; odds are multiplied, since log-odds are added.

from sklearn.utils import resample

from sk_pwiser.inspection import RowExplanationDisplay, explain_rows

background = resample(X, replace=False, n_samples=100, random_state=0)
row = X_new[:1]
explanation = explain_rows(model, row, background=background)
for task in explanation.task_names:
    print(task)
    for reason in explanation.reasons(0, task):
        print("   ", reason)

# %%
# The bars are the contributions to one task. With up to eight columns, as here, they
# are exact; with more, they have standard errors, which are drawn, too.

import matplotlib.pyplot as plt

RowExplanationDisplay(explanations=explanation, task="cvr").plot()
plt.show()

# %%
# Many rows
# ---------
#
# In the beeswarm, each dot is a row. A number is dark if it is small among the rows: a
# column whose dots change their colour from left to right has an effect in one
# direction. Categories are grey.

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
explanations = explain_rows(model, X_new[:200], background=background[:20])
for ax, task in zip(axes, ["click", "cvr"], strict=True):
    RowExplanationDisplay(explanations=explanations, task=task).plot(ax)
plt.show()

# %%
# As a table
# ----------
#
# One line per row, task and column, for example to store the reasons beside a decision.

table = explanations.to_frame()
table.head(6)
