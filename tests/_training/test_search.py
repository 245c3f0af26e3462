"""pwiser_weight="auto": what it compares, what it chooses, and where it cannot."""

import pickle

import numpy as np
import pytest
import refusals
import torch
from numpy.testing import assert_allclose, assert_array_equal
from refusals import refuses
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import LRScheduler

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._search import (
    CANDIDATES,
    FEWEST_POSITIVES,
    ValidationRows,
    WeightSearch,
)
from sk_pwiser.callbacks import KeepOnInterrupt
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.inspection import WeightSearchDisplay
from sk_pwiser.losses import PWiseR
from sk_pwiser.metrics import ctcvr_auc_scorer
from sk_pwiser.model_selection import compare_losses
from sk_pwiser.transfer import fine_tune

DATA = make_ctr_cvr(1_500, ctr=0.4, cvr=0.4, n_categories=300, random_state=0)
X, Y = DATA.data, DATA.target
RARE = Y.assign(conversion=Y["conversion"] * (np.arange(len(Y)) % 30 == 0))


def small(**params):
    return refusals.small(**{"early_stopping": "auto", **params})


def auto(**params):
    return small(**{"pwiser_weight": "auto", **params})


@pytest.fixture(scope="module")
def model(_estimators_on_device):
    return auto().fit(X, Y)


@pytest.mark.slow
def test_the_model_is_the_fit_with_the_chosen_weight(model):
    numeric = small(pwiser_weight=model.pwiser_weight_).fit(X, Y)
    assert_array_equal(model.predict_proba(X), numeric.predict_proba(X))
    assert model.history_[:, "valid_loss"] == numeric.history_[:, "valid_loss"]
    assert numeric.pwiser_weight_ == model.pwiser_weight_
    assert not hasattr(numeric, "pwiser_weight_search_")
    assert model.pwiser_weight == "auto"


def test_the_table_shows_the_validation_auc_of_the_candidates(model):
    table = model.pwiser_weight_search_
    assert set(table["pwiser_weight"]) <= set(CANDIDATES)
    assert table["n_splits"].max() > 1
    default = table["pwiser_weight"].tolist().index(0.1)
    assert table["difference"][default] == table["standard_error"][default] == 0
    rows = {"eval_set": (X[1_000:], Y[1_000:])}
    table = auto().fit(X[:1_000], Y[:1_000], **rows).pwiser_weight_search_
    for weight, splits, click, conversion in zip(
        *(table[name] for name in table if name[0] in "pnv"), strict=True
    ):
        other = small(pwiser_weight=weight).fit(X[:1_000], Y[:1_000], **rows)
        best = other.history_[other.best_epoch_ - 1]
        expected = [1, best["valid_auc_click"], best["valid_auc_conversion"]]
        assert_allclose([splits, click, conversion], expected, rtol=1e-6)


def test_random_states_and_schedules_are_those_of_one_fit():
    states = [np.random.RandomState(3) for _ in range(2)]
    schedule = LRScheduler(policy="StepLR", step_size=1, gamma=0.5)
    params = {"callbacks": [schedule], "validation_fraction": 0.3}
    model = auto(random_state=states[0], **params).fit(X, Y)
    params["pwiser_weight"] = model.pwiser_weight_
    numeric = small(random_state=states[1], **params).fit(X, Y)
    assert_array_equal(model.predict_proba(X), numeric.predict_proba(X))
    assert states[0].randint(1 << 30) == states[1].randint(1 << 30)


def test_an_eval_set_is_the_one_split():
    fitted = auto().fit(X[:1_000], Y[:1_000], eval_set=(X[1_000:], Y[1_000:]))
    table = fitted.pwiser_weight_search_
    assert_array_equal(table["n_splits"], 1)
    first = table["pwiser_weight"].tolist().index(fitted.pwiser_weight_)
    p = fitted.predict_proba(X[1_000:])[:, 1]
    auc = roc_auc_score(Y["conversion"][1_000:], p)
    assert_allclose(table["valid_auc_conversion"][first], auc, rtol=1e-6)


def test_the_last_rows_in_time_are_the_one_split():
    timed = {"encoding_params": {"time_column": "numeric_0"}, "max_epochs": 1}
    fitted = auto(validation_fraction=0.4, **timed).fit(X, Y)
    assert_array_equal(fitted.pwiser_weight_search_["n_splits"], 1)


@pytest.mark.parametrize(
    ("params", "labels", "reason"),
    [
        ({"early_stopping": False}, Y, "no validation rows"),
        ({}, RARE, f"and {FEWEST_POSITIVES} are needed"),
    ],
)
def test_where_weights_cannot_be_compared_the_default_is_used(params, labels, reason):
    with pytest.warns(UserWarning, match=reason):
        fitted = auto(**params).fit(X, labels)
    default = small(**params).fit(X, labels)
    assert fitted.pwiser_weight_ == default.pwiser_weight_ == 0.1
    assert_array_equal(fitted.predict_proba(X), default.predict_proba(X))
    assert not hasattr(fitted, "pwiser_weight_search_")


def test_other_losses_ignore_it():
    fitted, other = (
        small(loss="bce", pwiser_weight=weight, early_stopping=False).fit(X, Y)
        for weight in ("auto", 0.1)
    )
    assert_array_equal(fitted.predict_proba(X), other.predict_proba(X))
    auto(loss_params={"tasks": ()}, early_stopping=False).fit(X, Y)


@pytest.mark.slow
def test_continued_fits_and_copies_keep_the_weight(model, tmp_path):
    weight, p = model.pwiser_weight_, model.predict_proba(X)
    model.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    for copy in (loaded, pickle.loads(pickle.dumps(model))):
        assert copy.pwiser_weight_ == weight
        assert_array_equal(copy.predict_proba(X), p)
        copy.partial_fit(X, Y)
        numeric = small(pwiser_weight=weight).fit(X, Y).partial_fit(X, Y)
        assert_array_equal(copy.predict_proba(X), numeric.predict_proba(X))
        copy.set_params(warm_start=True).fit(X, Y)
        assert copy.pwiser_weight_ == weight
        found = copy.pwiser_weight_search_
        assert_array_equal(
            found["difference"], model.pwiser_weight_search_["difference"]
        )
    copy.set_params(pwiser_weight=0.7).fit(X, Y)
    assert copy.pwiser_weight_ == 0.7
    assert not hasattr(copy, "pwiser_weight_search_")
    assert clone(copy.set_params(pwiser_weight="auto")).pwiser_weight == "auto"


def test_updates_from_the_first_row_use_the_default():
    with pytest.warns(UserWarning, match="partial_fit holds out no rows"):
        fitted = auto().partial_fit(X, Y)
    fitted.partial_fit(X, Y)
    numeric = small().partial_fit(X, Y).partial_fit(X, Y)
    assert_array_equal(fitted.predict_proba(X), numeric.predict_proba(X))


def test_a_transferred_fit_keeps_the_weight_of_its_source(model):
    tuned = fine_tune(model, X, Y, seen=True, max_epochs=1)
    assert tuned.pwiser_weight_ == model.pwiser_weight_


@pytest.mark.slow
def test_searches_and_comparisons_take_it():
    grid = {"pwiser_weight": ["auto"]}
    search = GridSearchCV(
        small(max_epochs=1, early_stopping=True), grid, scoring=ctcvr_auc_scorer, cv=2
    )
    search.fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    losses = {"losses": ["pwiser"], "weights": [0.1, "auto"], "cv": 2}
    comparison = compare_losses(search.estimator, X, Y, **losses)
    assert "pwiser (weight auto)" in str(comparison)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pwiser_weight": "best"}, "pwiser_weight"),
        ({"checkpoint_dir": "folder"}, "checkpoint_dir must be None"),
    ],
)
def test_what_cannot_be_combined_is_refused(params, message):
    refuses(auto(**params), ValueError, message, X, Y)


def test_an_interrupt_of_one_training_must_not_count_as_its_end():
    with pytest.raises(ValueError, match="must not hold KeepOnInterrupt"):
        auto(callbacks=[("keep", KeepOnInterrupt())]).fit(X, Y)


def test_the_choice_is_printed(capsys):
    fitted = auto(verbose=1, max_epochs=1).fit(X, Y)
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"pwiser_weight={fitted.pwiser_weight_:g} is chosen")
    assert "'conversion'" in last


def test_the_display_shows_the_table(model):
    display = WeightSearchDisplay.from_estimator(model)
    table = model.pwiser_weight_search_
    assert_array_equal(display.values, table["pwiser_weight"])
    ((name, scores),) = display.scores.items()
    assert "conversion" in name
    assert_array_equal(scores, table["difference"])
    assert_array_equal(display.standard_errors[name], table["standard_error"])
    assert display.best_value == model.pwiser_weight_
    with pytest.raises(ValueError, match="'auto'"):
        WeightSearchDisplay.from_estimator(small(max_epochs=1).fit(X, Y))


def draw(n, separation, seed=0, ties=False):
    """Return labels and scores of two tasks; the second has the separation."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, 2)) < 0.2).astype(np.float32)
    logits = rng.normal(size=(n, 2)) + separation * y
    return torch.from_numpy(y), torch.from_numpy(logits.round(0 if ties else 9))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_standard_error_is_that_of_delong(weighted):
    """Against all pairs, in loops; an AUC also against scikit-learn."""
    y, a = draw(60, 1.0, ties=True)
    _, b = draw(60, 0.5, seed=1)
    rng = np.random.default_rng(2)
    weights = torch.from_numpy(
        rng.integers(0 if weighted else 1, 3 if weighted else 2, (60, 2))
    )
    rows = ValidationRows(y, weights, 1)
    found = rows.difference(rows.place(a), rows.place(b))
    label, w = y[:, 1].numpy() > 0, weights[:, 1].numpy().astype(float)
    aucs, variance, shares = [], 0.0, []
    for scores in (a[:, 1].numpy(), b[:, 1].numpy()):
        wins = np.sign(scores[label][:, None] - scores[~label][None]) / 2 + 0.5
        per_row = np.average(wins, 1, w[~label]), np.average(wins, 0, w[label])
        shares.append(per_row)
        aucs.append(np.average(per_row[0], weights=w[label]))
        assert_allclose(aucs[-1], roc_auc_score(label, scores, sample_weight=w))
    for side, is_side in enumerate((label, ~label)):
        of_side, d = w[is_side], shares[0][side] - shares[1][side]
        n = (of_side > 0).sum()
        centred = d - np.average(d, weights=of_side)
        variance += n / (n - 1) * np.sum((of_side * centred) ** 2) / of_side.sum() ** 2
    assert_allclose(found, [aucs[0] - aucs[1], variance])


def search_of(*separations, n=2_000):
    """Return a search over one split whose candidates have these separations."""
    search = WeightSearch(1, ["click", "conversion"])
    y, _ = draw(n, 0.0)
    search.begin_split(Labels(y))
    for seed, (weight, separation) in enumerate(
        zip(CANDIDATES, separations, strict=True)
    ):
        if weight in search.candidates:
            noise = torch.from_numpy(np.random.default_rng(seed).normal(size=y.shape))
            search.add(weight, noise + separation * y, [0.5, 0.5])
    search.end_split()
    return search


class Labels:
    def __init__(self, y):
        self.y = y

    def labels(self):
        return self.y

    def weights(self):
        return None


def test_the_default_is_kept_unless_a_weight_is_two_standard_errors_ahead():
    assert search_of(0.5, 0.4, 0.55, 0.6).choose() == 0.1
    assert search_of(0.0, 1.0, 0.3, 0.5).choose() == 0
    assert search_of(0.0, 0.3, 0.6, 1.0).choose() == 1
    assert search_of(0.0, 0.0, 0.98, 1.0).choose() == 0.3  # within an error of 1


def test_greater_weights_than_one_behind_are_not_trained():
    search = search_of(1.0, 0.5, 0.6, 3.0)
    assert search.table()["pwiser_weight"].tolist() == [0.0, 0.1, 0.3]
    assert search.candidates == [0.1]


def test_heads_of_the_loss_name_the_task():
    assert PWiseR(["click", "buy"]).heads == [1]
