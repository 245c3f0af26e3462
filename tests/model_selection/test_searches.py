"""Searches of scikit-learn and of Optuna over the estimator."""

import numpy as np
import pytest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from small_model import X, Y, small

from sk_pwiser.metrics import mean_auc_scorer
from sk_pwiser.model_selection import FunnelStratifiedKFold

FOLDS = FunnelStratifiedKFold(n_splits=2, random_state=0)


def mean_score(params):
    """Return the mean score over the folds, computed without a search."""
    scores = []
    for train, test in FOLDS.split(X, Y):
        model = small(**params).fit(X.iloc[train], Y.iloc[train])
        scores.append(model.score(X.iloc[test], Y.iloc[test]))
    return np.mean(scores)


def test_grid_search_scores_each_candidate_as_a_loop_does():
    grid = {"max_epochs": [1, 3], "network_params__bottom_units": [(4,)]}
    search = GridSearchCV(
        small(), grid, cv=FOLDS, scoring={"mean": mean_auc_scorer}, refit="mean"
    ).fit(X, Y)
    network_params = {"bottom_units": (4,), "tower_units": (4,)}
    expected = [
        mean_score({"max_epochs": n_epochs, "network_params": network_params})
        for n_epochs in grid["max_epochs"]
    ]
    assert search.cv_results_["mean_test_mean"] == pytest.approx(expected, abs=1e-12)
    best = grid["max_epochs"][int(np.argmax(expected))]
    assert search.best_params_["max_epochs"] == search.best_estimator_.n_iter_ == best
    assert search.predict_proba(X).shape == (len(X), 2)


def halving(cv):
    params = {"resource": "max_epochs", "min_resources": 1, "max_resources": 2}
    params |= {"factor": 2, "random_state": 0}
    return HalvingGridSearchCV(small(), {"lr": [0.001, 0.03]}, cv=cv, **params)


@pytest.mark.parametrize(
    "cv",
    [FunnelStratifiedKFold(2, shuffle=False), pytest.param(2, marks=pytest.mark.slow)],
)
def test_halving_over_epochs_without_a_seed_of_the_folds(cv):
    first, second = (halving(cv).fit(X, Y) for _ in range(2))
    assert first.n_resources_ == [1, 2]
    assert first.n_candidates_ == [2, 1]
    assert first.best_estimator_.n_iter_ == 2
    scores = [s.cv_results_["mean_test_score"] for s in (first, second)]
    assert scores[0].tolist() == scores[1].tolist()


VALIDATED = {"early_stopping": "auc", "max_epochs": 4, "n_iter_no_change": 9}


def test_a_study_prunes_bad_trials():
    optuna = pytest.importorskip("optuna")
    integration = pytest.importorskip("optuna_integration")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial):
        lr = trial.suggest_categorical("lr", [0.03, 1e-7])
        callback = integration.SkorchPruningCallback(trial, "valid_auc_mean")
        model = small(**VALIDATED, lr=lr, callbacks=[callback])
        return max(model.fit(X, Y).history_[:, "valid_auc_mean"])

    # With one trial to compare with, the median is that trial's figure.
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
    sampler = optuna.samplers.GridSampler({"lr": [0.03, 1e-7]}, seed=0)
    study = optuna.create_study(direction="maximize", pruner=pruner, sampler=sampler)
    for lr in (0.03, 1e-7):
        study.enqueue_trial({"lr": lr})
    study.optimize(objective, n_trials=2)
    good, bad = study.trials
    assert good.state == optuna.trial.TrialState.COMPLETE
    assert len(good.intermediate_values) == 4
    assert good.value == max(good.intermediate_values.values())
    assert bad.state == optuna.trial.TrialState.PRUNED
    assert 1 <= len(bad.intermediate_values) <= 4
    assert study.best_params == {"lr": 0.03}
