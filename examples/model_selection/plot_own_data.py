"""
Your own data: does PWiseR help?
================================

Whether the pairwise term helps depends on the data. `compare_models` fits the
cross-entropy and PWiseR on the same folds with the same seeds, and reports which
differences are larger than chance. Replace the first lines of this example by your own
file.
"""

# %%
# A file
# ------
#
# This table takes the place of yours. It has one row per impression, and the labels are
# columns.

import tempfile
from pathlib import Path

import pandas as pd

from sk_pwiser.datasets import make_ctr_cvr

data = make_ctr_cvr(6_000, n_numeric=4, ctr=0.3, cvr=0.1, random_state=0)
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "impressions.csv"
data.data.join(data.target).to_csv(path, index=False)

# %%
# Reading it
# ----------
#
# A CSV file does not say which columns of integers are ids. The `category` dtype marks
# them; otherwise they would be read as amounts.

table = pd.read_csv(path)
folder.cleanup()
ids = [column for column in table if column.startswith("category")]
table[ids] = table[ids].astype("category")
Y = table[["click", "conversion"]]  # in the order of the funnel
X = table.drop(columns=Y.columns)
print(X.dtypes)
print(Y.sum())

# %%
# The comparison
# --------------
#
# Five folds, the cross-entropy and two weights make fifteen fits. If the rows are from
# many days, pass a :class:`~sk_pwiser.model_selection.FunnelTimeSplit` as `cv`; if
# there are several rows per user, a
# :class:`~sk_pwiser.model_selection.FunnelGroupKFold`.

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.model_selection import compare_models

model = MultiTaskCTRCVRClassifier(max_epochs=5)
models = {
    "bce": "bce",
    "weight 0.3": {"pwiser_weight": 0.3},
    "weight 3": {"pwiser_weight": 3.0},
}
comparison = compare_models(X, Y, models=models, estimator=model)
print(comparison)

# %%
# The picture
# -----------
#
# The plot shows differences from the cross-entropy, with 95 % intervals. To the right
# of 0, PWiseR is better.

import matplotlib.pyplot as plt

_, ax = plt.subplots(figsize=(7, 4), layout="constrained")
comparison.plot(ax=ax)
ax.legend(loc="best")
plt.show()

# %%
# `python -m sk_pwiser --data FILE --targets click conversion` makes the same comparison
# from the command line.
#
# Every interval of the picture contains 0: with 159 conversions, five folds cannot show
# whether PWiseR helps on this table.
