"""Any task may lack its label in any row, the first one as well."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import roc_auc_score
from small_model import X, Y, small, warnings_in

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr
from sk_pwiser.inspection import describe_impressions
from sk_pwiser.losses import LOSSES
from sk_pwiser.metrics import ctr_auc_scorer, mean_log_loss_scorer
from sk_pwiser.model_selection import FunnelStratifiedKFold, compare_models
from sk_pwiser.networks import NETWORKS

RNG = np.random.default_rng(0)
IS_MISSING = RNG.random(Y.shape) < 0.3
HAS_LABEL = ~IS_MISSING.all(axis=1)
LABELS = Y.astype(float).mask(IS_MISSING)
# Without rows that have no label.
X_SOME = X[HAS_LABEL]
LABELS_SOME = LABELS[HAS_LABEL]
TREES = ["chain", None, {"conversion": "click"}]

pytestmark = pytest.mark.filterwarnings("ignore:.*rows.*no label of any task")


def ignoring(**params):
    return small(missing_labels="ignore", **params)


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("task_space", ["entire", "conditional"])
def test_a_weight_of_0_is_a_missing_label(loss, task_space):
    params = {"loss": loss, "early_stopping": True}
    params["network_params"] = {"task_space": task_space, "bottom_units": (8,)}
    if task_space == "entire":
        params["task_parents"] = None
    weight = (~IS_MISSING).astype(float)
    weighted = small(**params).fit(X, Y, sample_weight=weight)
    by_label = ignoring(**params).fit(X, LABELS)
    assert_array_equal(weighted.predict_proba(X), by_label.predict_proba(X))
    assert by_label.history_[-1]["train_missing_click"] > 0


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_every_network_learns_and_updates(network):
    model = ignoring(network=network, network_params=None, max_epochs=2)
    model.fit(X, LABELS)
    assert np.isfinite(model.predict_proba(X)).all()
    model.partial_fit(X, LABELS)
    assert np.isfinite(model.predict_proba(X)).all()


def test_rows_without_any_label_are_left_out_with_one_warning():
    model = ignoring(early_stopping=True)
    found = warnings_in(model.fit, X, LABELS)
    n_without = int((~HAS_LABEL).sum())
    expected = f"{n_without} of {len(Y)} rows in the training rows have no label"
    about_rows = [text for text in found if "no label of any" in text]
    assert about_rows[0].startswith(expected)
    assert len(about_rows) == 1
    alone = ignoring(early_stopping=True).fit(X_SOME, LABELS_SOME)
    assert_array_equal(model.predict_proba(X), alone.predict_proba(X))
    with pytest.raises(ValueError, match="Y has no label in any row"):
        ignoring().fit(X, LABELS * np.nan)
    with pytest.raises(ValueError, match="Y has no label in any row"):
        ignoring().fit(X, LABELS["click"] * np.nan)


@pytest.mark.parametrize("text", [False, True])
def test_rows_of_a_single_task_without_a_label_have_no_effect(text):
    labels = LABELS["click"].astype(object)
    if text:
        labels = labels.map({0.0: "ham", 1.0: "spam"})
    is_known = LABELS["click"].notna()
    masked = ignoring().fit(X, labels)
    alone = ignoring().fit(X[is_known], labels[is_known])
    assert_array_equal(masked.predict_proba(X), alone.predict_proba(X))
    assert_array_equal(masked.classes_, alone.classes_)


@pytest.mark.parametrize("task_parents", TREES)
def test_a_task_of_one_source_learns_from_it_alone(task_parents):
    """The click is not learnt from rows that lack it, nor its rate."""
    labels = LABELS_SOME.assign(conversion=np.nan)
    model = ignoring(task_parents=task_parents, loss="bce")
    with pytest.warns(UserWarning, match="'conversion' has no label in any row"):
        model.fit(X_SOME, labels)
    is_known = LABELS_SOME["click"].notna()
    assert_allclose(
        model._result.schema.base_rates[0],
        (LABELS_SOME["click"].sum() + 0.5) / (is_known.sum() + 1),
    )


@pytest.mark.parametrize("task_parents", TREES)
def test_files_give_the_same_model(tmp_path, task_parents):
    params = {"task_parents": task_parents, "early_stopping": False}
    table = X.assign(**LABELS)
    table.to_parquet(tmp_path / "rows.parquet", index=False)
    data = ParquetImpressions(tmp_path, targets=list(Y), features=list(X))
    from_files = ignoring(**params).fit(data)
    in_memory = ignoring(**params).fit(X, LABELS)
    assert_array_equal(from_files.predict_proba(X), in_memory.predict_proba(X))


def test_scores_leave_missing_labels_out():
    model = ignoring().fit(X, LABELS)
    p = model.predict_proba(X)
    known = ~IS_MISSING
    y = Y.to_numpy()
    aucs = [roc_auc_score(y[known[:, k], k], p[known[:, k], k]) for k in range(2)]
    assert model.score(X, LABELS) == pytest.approx(np.mean(aucs))
    assert ctr_auc_scorer(model, X, LABELS) == pytest.approx(aucs[0])
    losses = -np.where(y == 1, np.log(p), np.log1p(-p.astype(float)))
    means = [losses[known[:, k], k].mean() for k in range(2)]
    assert mean_log_loss_scorer(model, X, LABELS) == pytest.approx(-np.mean(means))
    comparison = compare_models(
        X, LABELS, models=["bce", "pwiser"], estimator=ignoring(), cv=2
    )
    assert np.isfinite(comparison.scores["CVR AUC"]).all()
    folds = FunnelStratifiedKFold(3, random_state=0).split(X, LABELS)
    tested = np.concatenate([test for _, test in folds])
    assert_array_equal(np.sort(tested), np.arange(len(X)))


def test_validation_rows_updates_and_continued_fits():
    model = ignoring(refit=True, early_stopping=True).fit(X, LABELS)
    assert np.isfinite(model.predict_proba(X)).all()
    model = ignoring(warm_start=True, early_stopping=True)
    model.fit(X, LABELS, X_val=X, Y_val=LABELS)
    assert model.history_[-1]["valid_missing_click"] == np.sum(IS_MISSING[HAS_LABEL, 0])
    model.fit(X, LABELS, X_val=X, Y_val=LABELS)
    model.partial_fit(X, LABELS, sample_weight=RNG.integers(1, 9, len(X)))
    assert np.isfinite(model.predict_proba(X)).all()


def test_description_and_calibration():
    description = describe_impressions(X, LABELS)
    assert any("set missing_labels='ignore'" in note for note in description.notes)
    model = ignoring(max_epochs=20).fit(X, LABELS)
    calibrated = FunnelCalibrator(model, method="sigmoid", cv=None).fit(X, LABELS)
    assert np.isfinite(calibrated.predict_proba(X)).all()
    # The calibration reads the known labels of the click, and no others.
    known = ~IS_MISSING[:, 0]
    rate = calibrated.predict_proba(X)[known, 0].mean()
    assert rate == pytest.approx(Y["click"][known].mean(), abs=0.02)


# ------------------------------------------------------------ labels that follow


def test_a_label_that_all_later_ones_imply_is_filled_in():
    """As in clicks beside which conversions were logged elsewhere."""
    converted = Y["conversion"] == 1
    lacking = Y.astype(float)
    lacking.loc[converted, "click"] = np.nan
    filled = ignoring().fit(X, lacking)
    assert_array_equal(
        filled.predict_proba(X), small().fit(X, Y.astype(float)).predict_proba(X)
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("task_space", ["entire", "conditional"])
def test_two_logs_of_which_one_lacks_the_click(task_space):
    """Learning the clicks that conversions imply would teach that all rows have one."""
    log = make_ctr_cvr(12_000, ctr=0.2, cvr=0.3, random_state=0)
    labels = log.target.astype(float)
    is_second = np.random.default_rng(1).random(len(labels)) < 0.5
    labels.loc[is_second, "click"] = np.nan
    table = log.data.assign(source=np.where(is_second, "b", "a"))
    model = MultiTaskCTRCVRClassifier(
        missing_labels="ignore",
        network_params={"task_space": task_space},
        random_state=0,
    ).fit(table, labels)
    p = model.predict_proba(table)
    for rows in (is_second, ~is_second):
        expected = log.target.to_numpy()[rows].mean(axis=0)
        assert_allclose(p[rows].mean(axis=0), expected, rtol=0.2)


# ------------------------------------------------------------ six attitudes

N_TASKS = 6


def survey(seed, n_rows=6_000):
    """Six alike sibling tasks, of which each row has two to four labels."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, 8, (n_rows, 5))
    numbers = rng.normal(size=(n_rows, 3))
    shared = rng.normal(size=(5, 8))[np.arange(5), columns].sum(axis=1)
    logits = np.empty((n_rows, N_TASKS))
    for task in range(N_TASKS):
        effects = rng.normal(size=(5, 8))[np.arange(5), columns].sum(axis=1)
        slopes = np.ones(3) + 0.5 * rng.normal(size=3)
        logits[:, task] = 0.5 * shared + 0.15 * effects + numbers @ slopes * 0.5 - 0.5
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    n_asked = rng.integers(2, 5, n_rows)
    order = rng.random(logits.shape).argsort(axis=1).argsort(axis=1)
    asked = np.where(order < n_asked[:, np.newaxis], labels, np.nan)
    table = pd.DataFrame(columns, columns=list("abcde")).astype("category")
    table[["x", "y", "z"]] = numbers
    names = [f"q{task}" for task in range(N_TASKS)]
    return table, pd.DataFrame(asked, columns=names), labels


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_six_siblings_are_as_good_as_six_models(seed):
    table, asked, labels = survey(seed, 9_000)
    train = slice(0, 6_000)
    test = slice(6_000, None)
    model = MultiTaskCTRCVRClassifier(
        missing_labels="ignore", task_parents=None, random_state=0
    ).fit(table[train], asked[train])
    p = model.predict_proba(table[test])
    for task, name in enumerate(asked):
        is_asked = asked[train][name].notna()
        alone = MultiTaskCTRCVRClassifier(random_state=0).fit(
            table[train][is_asked], asked[train][name][is_asked]
        )
        separate = alone.predict_proba(table[test])[:, 1]
        y = labels[test, task]
        assert roc_auc_score(y, p[:, task]) >= roc_auc_score(y, separate) - 0.005
