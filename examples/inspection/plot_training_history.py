"""
The history of a training
=========================

`history_` contains the losses and the validation AUC of every epoch.
`TrainingHistoryDisplay` plots the history, or a part of it, and marks the epoch whose
weights were kept.
"""

# %%
# Loss and AUC
# ------------
#
# With early stopping, the learning rate falls to 0 when the validation loss no longer
# improves, and the weights of the best epoch are restored.

import matplotlib.pyplot as plt

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.inspection import TrainingHistoryDisplay

data = make_ctr_cvr(20_000, ctr=0.2, cvr=0.2, random_state=0)
X, Y = data.data, data.target

model = MultiTaskCTRCVRClassifier(
    early_stopping=True, n_iter_no_change=6, max_epochs=20, random_state=0
)
model.fit(X, Y)
TrainingHistoryDisplay.from_estimator(model)
plt.show()

# %%
# Several histories
# -----------------
#
# `ax` takes the axes of both pictures, for example to compare learning rates.

_, axes = plt.subplots(2, 3, figsize=(10.5, 6.4), layout="constrained", sharey="row")
for lr, column in zip([0.001, 0.003, 0.01], axes.T, strict=True):
    model = MultiTaskCTRCVRClassifier(
        lr=lr, early_stopping=True, max_epochs=8, random_state=0
    )
    model.fit(X, Y)
    TrainingHistoryDisplay.from_estimator(model, ax=column)
    column[1].set_xlabel(f"Epoch (lr={lr})")
    for ax in column:
        ax.label_outer()
plt.show()

# %%
# The table behind the picture
# ----------------------------
#
# Every row of `history_` is a dictionary. A tuple of names selects columns.

for epoch, loss, auc in model.history_[
    :, ("epoch", "valid_loss", "valid_auc_conversion")
]:
    mark = "  <- weights kept" if epoch == model.best_epoch_ else ""
    print(f"epoch {epoch}: loss {loss:.4f}, AUC of the conversion {auc:.3f}{mark}")

# %%
# In the first picture the training loss keeps falling, while the validation loss has
# its minimum at the epoch that is kept: in later epochs the network overfits the
# training rows.
