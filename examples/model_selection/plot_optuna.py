"""
Ending bad trials early
=======================

If the validation figures of an Optuna trial are worse than in earlier trials, it need
not train to the end. `SkorchPruningCallback` reports a figure after every epoch and
ends trials that the study's pruner rejects.
"""

# %%
# The objective
# -------------
#
# Each trial draws a learning rate and the weight of the pairwise term, and returns the
# best validation AUC. All trials use the same split of the rows, since the seed is the
# same.

import optuna
from optuna_integration import SkorchPruningCallback

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

data = make_ctr_cvr(16_000, ctr=0.2, cvr=0.2, random_state=0)
train, test = slice(8_000), slice(8_000, None)


def build(params, callbacks=None):
    return MultiTaskCTRCVRClassifier(
        max_epochs=6,
        early_stopping="auc",
        n_iter_no_change=6,
        validation_fraction=0.25,
        callbacks=callbacks,
        random_state=0,
        **params,
    )


def objective(trial):
    params = {
        "lr": trial.suggest_float("lr", 1e-4, 3e-2, log=True),
        "pwiser_weight": trial.suggest_float("pwiser_weight", 0.01, 10, log=True),
    }
    model = build(params, callbacks=[SkorchPruningCallback(trial, "valid_auc_mean")])
    model.fit(data.data[train], data.target[train])
    return max(model.history_[:, "valid_auc_mean"])


# %%
# The study
# ---------
#
# The median pruner ends a trial if its figure is below the median of the earlier trials
# at the same epoch. The first four trials, and the first two epochs of every trial,
# always run.

optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(
    direction="maximize",
    sampler=optuna.samplers.RandomSampler(seed=0),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
)
study.optimize(objective, n_trials=12)
print("best parameters:", study.best_params)
print(f"their validation AUC: {study.best_value:.3f}")

# %%
# The parameters and the epoch were chosen on the validation rows, so other rows are
# needed for an honest estimate.

from sk_pwiser.metrics import mean_auc_scorer

best = build(study.best_params).fit(data.data[train], data.target[train])
print(f"test AUC: {mean_auc_scorer(best, data.data[test], data.target[test]):.3f}")

# %%
# The picture
# -----------
#
# The plot shows the figures that each trial reported.

import matplotlib.pyplot as plt
from optuna.trial import TrialState

_, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
looks = {
    TrialState.COMPLETE: {"color": "C0", "label": "complete"},
    TrialState.PRUNED: {"color": "C1", "label": "pruned"},
}
for trial in study.trials:
    epochs, figures = zip(*sorted(trial.intermediate_values.items()), strict=True)
    ax.plot(epochs, figures, marker="o", **looks[trial.state])
handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
ax.legend(handles.values(), handles.keys(), title="Trial", loc="lower right")
ax.set(xlabel="Epoch", ylabel="Mean validation AUC")
plt.show()

n_epochs = sum(len(trial.intermediate_values) for trial in study.trials)
print(f"{n_epochs} of {6 * len(study.trials)} epochs were trained.")

# %%
# The first four trials ran to the end. Four later ones with figures below the median
# ended after three epochs, so that 60 of 72 epochs were trained.
