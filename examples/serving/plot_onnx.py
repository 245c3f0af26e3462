"""
A model file for servers
========================

`to_onnx` writes a fitted estimator to a file that servers run without Python. With raw
inputs, the vocabularies and the encoding of numbers are part of the file. This example
runs the file, including missing and unseen values, and compares the result with
`predict_proba`.
"""

# %%
# A fitted estimator
# ------------------
#
# The table has text categories and numbers, with missing values in both.

import numpy as np

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

data = make_ctr_cvr(12_000, n_numeric=3, n_categorical=2, ctr=0.2, random_state=0)
X, Y = data.data, data.target
for column in ("category_0", "category_1"):
    X[column] = "value " + X[column].astype(str)
X.loc[::9, "category_0"] = None
X.loc[::7, "numeric_0"] = None
train, test = slice(8_000), slice(8_000, None)
model = MultiTaskCTRCVRClassifier(max_epochs=5, random_state=0)
model.fit(X[train], Y[train])

# %%
# The file
# --------

import tempfile
from pathlib import Path

import onnxruntime

from sk_pwiser.export import to_onnx

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.onnx"
    to_onnx(model, path, inputs="raw")
    session = onnxruntime.InferenceSession(path.read_bytes())
for field in session.get_inputs():
    print(f"{field.name:<12}{field.type:<16}{field.shape}")

# %%
# A request
# ---------
#
# A request has one array per column. A missing number is NaN, and a missing text is the
# empty string. Text that was not seen in `fit` is an unseen value.

rows = X[test].copy()
rows.iloc[::5, rows.columns.get_loc("category_1")] = "never seen"
request = {
    name: (
        rows[[name]].fillna("").to_numpy(object)
        if name.startswith("category")
        else rows[[name]].to_numpy(np.float64)
    )
    for name in X.columns
}
(served,) = session.run(["probabilities"], request)
expected = model.predict_proba(rows)
print(f"largest difference: {np.abs(served - expected).max():.1e}")

# %%
# The picture
# -----------

import matplotlib.pyplot as plt

_, ax = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
some = np.random.default_rng(0).choice(len(rows), 150, replace=False)
ax.axline((0, 0), slope=1, color="grey", linewidth=1)
for k, task in enumerate(model.task_names_):
    ax.plot(expected[some, k], served[some, k], "o", label=task, alpha=0.6)
ax.set(xlabel="predict_proba", ylabel="ONNX Runtime")
ax.legend()
plt.show()

# %%
# The points lie on the diagonal: the probabilities are the same as from
# `predict_proba`, up to the rounding of 32-bit numbers.
