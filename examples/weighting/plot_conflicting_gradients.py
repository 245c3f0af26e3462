"""
Tasks whose gradients conflict
==============================

A headline may increase clicks but decrease conversions. Then the gradients of the two
tasks point in opposite directions, and a step that improves one task makes the other
worse. This example measures the angle between the gradients, and compares their plain
sum with methods that combine them differently.
"""

# %%
# Two tasks with little room
# --------------------------
#
# The columns that lead to a click also prevent a conversion, and others act on the
# conversion only. The shared layer has only two units, so the tasks compete for them.

import numpy as np
import pandas as pd

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.weighting import GradientWeighting

rng = np.random.default_rng(0)
n = 40_000
X = rng.standard_normal((n, 6))
loud, useful = X[:, :3].sum(axis=1), X[:, 3] + X[:, 4] * X[:, 5]
ctr = 1 / (1 + np.exp(1.0 - 0.6 * loud))
cvr = 1 / (1 + np.exp(2.0 + 0.9 * loud - useful))
click = rng.uniform(size=n) < ctr
conversion = click & (rng.uniform(size=n) < cvr)
Y = pd.DataFrame({"click": click, "conversion": conversion}).astype(int)
train, test = slice(10_000), slice(10_000, None)
print(Y.mean().round(3).to_dict())

# %%
# The angle of the gradients
# --------------------------
#
# A weighting of gradients receives their inner products. This class returns the weights
# of the plain sum, and records the cosine of the angle.


class Cosine(GradientWeighting):
    """The plain sum; records the cosine of the gradients of two tasks."""

    cosines = []  # noqa: RUF012 (one list for all steps of the example)

    def weigh(self, gram):
        lengths = gram.diagonal().clamp(min=1e-30).sqrt()
        self.cosines.append(float(gram[0, 1] / lengths.prod()))
        return gram.new_ones(self.n_tasks)


params = {
    "loss": "bce",
    "network_params": {"bottom_units": (2,), "tower_units": (16,)},
    "max_epochs": 6,
    "early_stopping": False,
}
MultiTaskCTRCVRClassifier(weighting=Cosine, random_state=0, **params).fit(
    X[train], Y[train]
)
print(
    f"The gradients conflict in {np.mean(np.array(Cosine.cosines) < 0):.0%} of steps."
)

# %%
# Four ways to combine them
# -------------------------
#
# Two of them are aggregators of TorchJD: PCGrad removes the part of a gradient that
# points against another one, and IMTL-G gives all tasks the same part of the step. The
# table shows by how much the log loss of each task exceeds the log loss of the true
# probabilities, in thousandths.

from sklearn.metrics import log_loss

truth = np.column_stack([ctr, ctr * cvr])[test]
excess = {}
methods = {
    "equal": {"weighting": "equal"},
    "PCGrad": {"weighting": "torchjd", "weighting_params": {"aggregator": "PCGrad"}},
    "IMTL-G": {"weighting": "torchjd", "weighting_params": {"aggregator": "IMTLG"}},
    "nash": {"weighting": "nash"},
}
for name, chosen in methods.items():
    for seed in range(3):
        model = MultiTaskCTRCVRClassifier(random_state=seed, **chosen, **params)
        P = model.fit(X[train], Y[train]).predict_proba(X[test]).astype(float)
        excess[name, seed] = [
            1000 * (log_loss(y, p) - log_loss(y, best))
            for y, p, best in zip(Y[test].T.to_numpy(), P.T, truth.T, strict=True)
        ]
table = pd.DataFrame(excess, index=Y.columns).T
print(table.groupby(level=0, sort=False).agg(["mean", "std"]).round(1))

# %%
# The picture
# -----------
#
# The left plot shows the cosine in each step, the right plot the mean excess over the
# seeds, with standard deviations.

import matplotlib.pyplot as plt

_, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
left.plot(Cosine.cosines, ".", color="grey")
left.axhline(0, color="black", linewidth=1)
left.set(xlabel="Step", ylabel="Cosine of the gradients", ylim=(-1, 1))
by_method = table.groupby(level=0, sort=False)
by_method.mean().plot.bar(yerr=by_method.std(), capsize=3, rot=0, ax=right)
right.set(ylabel="Excess of the log loss, thousandths", ylim=(0, 42))
right.legend(loc="upper left", ncols=2)
plt.show()

# %%
# The gradients conflict in nearly two thirds of the steps. The three methods learn the
# conversion slightly better and the click worse than the plain sum, by no more than the
# spread over the seeds. They find a different compromise, but do not remove
# the conflict.
