"""
A log that is larger than memory
================================

`ParquetImpressions` describes a log in Parquet files, and `fit` takes it in place of
`X` and `Y`. Rows are read in parts, both for training and for predictions. Predictions
are also written to Parquet files.
"""

# %%
# A log in folders
# ----------------
#
# The log has one folder per day, as written by Spark, Arrow and pandas. The value of
# the column `day` is in the name of the folder.

import tempfile
from pathlib import Path

import numpy as np

from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr

folder = tempfile.TemporaryDirectory()
log = Path(folder.name) / "log"
data = make_ctr_cvr(30_000, ctr=0.2, cvr=0.2, random_state=0)
table = data.data.join(data.target)
days = np.arange(len(table)) * 5 // len(table)
table.assign(day=days).to_parquet(log, partition_cols=["day"])
print(sorted(path.name for path in log.iterdir()))

# %%
# Training and validation
# -----------------------
#
# `filters` selects days; files of other days are not read. The second last day is used
# for early stopping.

from sk_pwiser import MultiTaskCTRCVRClassifier

features, tasks = list(data.data), ["click", "conversion"]


def select(*filters):
    return ParquetImpressions(log, features, tasks, filters=list(filters))


model = MultiTaskCTRCVRClassifier(max_epochs=8, random_state=0)
model.fit(select(("day", "<", 3)), eval_set=select(("day", "==", 3)))
print("epochs:", model.n_iter_)

# %%
# Predictions in files
# --------------------
#
# With `output`, predictions are written part by part, in the order of the log.

import pandas as pd

last = select(("day", "==", 4))
predictions = Path(folder.name) / "predictions"
model.predict_proba(last, output=predictions)
P = pd.read_parquet(predictions)
Y = pd.read_parquet(log, filters=[("day", "==", 4)])[tasks]
folder.cleanup()
print(P.head())  # with the column of the folders

# %%
# The picture
# -----------

import matplotlib.pyplot as plt

from sk_pwiser.inspection import TaskCalibrationDisplay

_, ax = plt.subplots(figsize=(5.2, 4.8), layout="constrained")
TaskCalibrationDisplay.from_predictions(Y, P[tasks].to_numpy(), n_bins=8, ax=ax)
plt.show()

# %%
# On the last day, which was not used in training, most of the 95 % intervals contain
# the diagonal: the predictions in the files are nearly calibrated.
