"""Validation rows of the user's own: what they decide and what they do not."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from small_model import refuses, small

from sk_pwiser.datasets import make_ctr_cvr

DATA = make_ctr_cvr(1_500, ctr=0.3, cvr=0.4, n_categories=300, random_state=0)
X, Y = DATA.data[:1_000], DATA.target[:1_000]
X_LATE, Y_LATE = DATA.data[1_000:], DATA.target[1_000:]


make = partial(small, loss="bce", lr=0.02, max_epochs=4, early_stopping="auto")


@pytest.fixture(scope="module")
def stopped(_estimators_on_device):
    return make(max_epochs=60, n_iter_no_change=2).fit(X, Y, eval_set=(X_LATE, Y_LATE))


def test_all_rows_of_fit_are_trained_on(stopped):
    """The result is that of a fit without validation rows that ends after the epoch."""
    other = make(max_epochs=stopped.best_epoch_, early_stopping=False).fit(X, Y)
    assert_array_equal(other.predict_proba(X_LATE), stopped.predict_proba(X_LATE))
    assert other.best_epoch_ == other.n_iter_


def test_validation_rows_do_not_influence_the_encoding():
    """Without early stopping they are measured only; target statistics are used."""
    without = make(early_stopping=False).fit(X, Y)
    assert without.net_.module_.spec.n_numeric > X.shape[1]
    for labels in (Y_LATE, 1 - Y_LATE[["click", "conversion"]]):
        model = make(early_stopping=False).fit(X, Y, eval_set=(X_LATE, labels))
        assert model.n_iter_ == len(model.history_[:, "valid_loss"]) == 4
        assert_array_equal(model.predict_proba(X), without.predict_proba(X))


def test_the_best_epoch_of_a_warm_start_is_counted_from_the_first_fit():
    model = make(warm_start=True).fit(X, Y, eval_set=(X_LATE, Y_LATE))
    model.fit(X, Y, eval_set=(X_LATE, Y_LATE))
    losses = model.history_[:, "valid_loss"]
    assert len(losses) > 4
    assert model.best_epoch_ == 5 + np.argmin(losses[4:])


def test_one_class_in_the_validation_rows_of_a_single_task():
    click = np.where(Y["click"], "yes", "no")
    model = make().fit(X, click, eval_set=(X_LATE[:20], np.repeat("no", 20)))
    assert np.isnan(model.history_[:, f"valid_auc_{model.task_names_[0]}"]).all()
    assert np.isfinite(model.history_[:, "valid_loss"]).all()


@pytest.mark.parametrize(
    ("eval_set", "error", "message"),
    [
        ((X_LATE,), TypeError, r"eval_set must be a pair \(X, Y\); got 1[.]"),
        (X_LATE, TypeError, "eval_set must be a pair .*; got DataFrame"),
        ((X_LATE, Y), ValueError, "In eval_set: X and Y .* 500 rows, Y has 1000"),
        (
            (X_LATE, Y_LATE[["conversion", "click"]]),
            ValueError,
            r"In eval_set: Training uses the tasks \['click', 'conversion'\]",
        ),
        ((X_LATE, Y_LATE["click"]), ValueError, "In eval_set: "),
        ((X_LATE, Y_LATE + 1), ValueError, "In eval_set: Labels must be 0 or 1"),
        ((X_LATE.iloc[:, 1:], Y_LATE), ValueError, "In eval_set: The feature names"),
        ([], ValueError, "eval_set must have at least one set"),
        ({"train": (X, Y), "late": (X_LATE, Y_LATE)}, ValueError, "got 'train'"),
        (
            [(X, Y_LATE), (X_LATE, Y_LATE)],
            ValueError,
            "In the set 'valid_0' of eval_set: X and Y .* 1000 rows, Y has 500",
        ),
    ],
)
def test_a_wrong_eval_set_is_an_error_and_keeps_the_fit(
    earlier, eval_set, error, message
):
    refuses(earlier, error, message, X=X, Y=Y, eval_set=eval_set)


@pytest.mark.parametrize("one", [[(X_LATE, Y_LATE)], {"late": (X_LATE, Y_LATE)}])
def test_one_set_may_come_in_a_list_or_a_dict(stopped, one):
    model = make(max_epochs=60, n_iter_no_change=2).fit(X, Y, eval_set=one)
    assert_array_equal(model.predict_proba(X_LATE), stopped.predict_proba(X_LATE))


@pytest.mark.parametrize(
    ("names", "shown"), [(None, "valid_0"), (("early", "late"), "early")]
)
def test_of_several_sets_the_last_one_decides(stopped, names, shown):
    sets = [(X[:300], Y[:300]), (X_LATE, Y_LATE)]
    if names is not None:
        sets = dict(zip(names, sets, strict=True))
    model = make(max_epochs=60, n_iter_no_change=2).fit(X, Y, eval_set=sets)
    assert_array_equal(model.predict_proba(X_LATE), stopped.predict_proba(X_LATE))
    best = model.history_[model.best_epoch_ - 1]
    auc = roc_auc_score(Y[:300]["click"], model.predict_proba(X[:300])[:, 0])
    assert_allclose(best[f"{shown}_auc_click"], auc, atol=1e-6)
    assert best["valid_loss"] == stopped.history_[model.best_epoch_ - 1, "valid_loss"]
    assert {f"{shown}_loss", f"{shown}_log_loss_mean"} <= best.keys()


def test_x_val_and_y_val_are_an_eval_set(stopped):
    model = make(max_epochs=60, n_iter_no_change=2)
    for labels in ({"Y_val": Y_LATE}, {"y_val": Y_LATE}):
        model.fit(X, Y, X_val=X_LATE, **labels)
        assert_array_equal(model.predict_proba(X), stopped.predict_proba(X))
        assert model.history_[:, "valid_loss"] == stopped.history_[:, "valid_loss"]


def test_weights_and_groups_of_the_validation_rows():
    rows = np.arange(len(X_LATE))
    weight = 3.0 * (rows < 200)
    part = make().fit(X, Y, X_val=X_LATE[:200], Y_val=Y_LATE[:200])
    model = make().fit(X, Y, X_val=X_LATE, Y_val=Y_LATE, sample_weight_val=weight)
    for column in ("valid_loss", "valid_auc_click", "valid_log_loss_conversion"):
        assert_allclose(model.history_[:, column], part.history_[:, column], rtol=1e-5)
    # JRC compares rows within groups, in validation, too.
    groups, sessions = np.arange(len(X)) // 4, rows // 4
    losses = [
        make(loss="jrc", max_epochs=1)
        .fit(X, Y, groups=groups, X_val=X_LATE, Y_val=Y_LATE, groups_val=found)
        .history_[-1, "valid_loss"]
        for found in (sessions, rows)
    ]
    assert losses[0] > losses[1]


@pytest.mark.parametrize(
    "params", [{"loss": "jrc"}, {"loss": "pwiser", "loss_params": {"base": "jrc"}}]
)
def test_the_validation_loss_within_groups_does_not_depend_on_the_order(params):
    model = make(max_epochs=1, **params, early_stopping=False)
    sessions, shuffled = np.arange(3_000) // 7, np.random.default_rng(0)
    data = make_ctr_cvr(3_000, ctr=0.3, cvr=0.4, n_categories=300, random_state=1)
    groups, found = np.arange(len(X)) // 4, []
    for order in (np.arange(3_000), shuffled.permutation(3_000)):
        valid = {"X_val": data.data.iloc[order], "Y_val": data.target.iloc[order]}
        model.fit(X, Y, groups=groups, **valid, groups_val=sessions[order])
        found.append(model.history_[-1])
        # The figures are those of the rows in their own order.
        p = model.predict_proba(valid["X_val"])[:, 0]
        auc = roc_auc_score(valid["Y_val"]["click"], p)
        assert_allclose(found[-1]["valid_auc_click"], auc, atol=1e-6)
    first, second = found
    # Groups of other rows share a batch, whose pairs the term of PWiseR compares.
    rtol = 1e-5 if params["loss"] == "jrc" else 1e-2
    assert_allclose(second["valid_loss"], first["valid_loss"], rtol=rtol)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"X_val": X_LATE, "Y_val": Y_LATE}, "the validation rows"),
        ({"eval_set": (X_LATE, Y_LATE)}, "eval_set"),
    ],
)
def test_validation_rows_without_the_groups_that_the_loss_needs(given, where):
    model = make(loss="jrc", max_epochs=1)
    message = f"In {where}: loss='jrc' .* groups, and these rows have none"
    with pytest.warns(UserWarning, match=message):
        model.fit(X, Y, groups=np.arange(len(X)) // 4, **given)
    model.fit(X, Y, **given)  # each batch is one group in training, too


def test_a_pipeline_transforms_x_val(stopped):
    with config_context(enable_metadata_routing=True):
        last = make(max_epochs=60, n_iter_no_change=2)
        last.set_fit_request(X_val=True, Y_val=True)
        steps = FunctionTransformer(lambda X: X.drop(columns="extra")), last
        pipeline = make_pipeline(*steps, transform_input=["X_val"])
        wide, wide_late = X.assign(extra=1.0), X_LATE.assign(extra=2.0)
        pipeline.fit(wide, Y, X_val=wide_late, Y_val=Y_LATE)
        p = pipeline.predict_proba(wide_late)
    assert_array_equal(p, stopped.predict_proba(X_LATE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X_val": X_LATE}, "Y_val must be given with X_val"),
        ({"Y_val": Y_LATE}, "X_val must be given with Y_val"),
        ({"sample_weight_val": [1.0]}, "X_val must be given with sample_weight_val"),
        (
            {"X_val": X_LATE, "Y_val": Y_LATE, "eval_set": (X_LATE, Y_LATE)},
            "as eval_set or as X_val, not as both",
        ),
        (
            {"X_val": X_LATE, "Y_val": Y_LATE, "sample_weight_val": -np.ones(500)},
            "In the validation rows: .*sample_weight",
        ),
        (
            {"X_val": X_LATE.iloc[:, 1:], "Y_val": Y_LATE},
            "In the validation rows: The feature names",
        ),
    ],
)
def test_bad_validation_rows(arguments, message):
    refuses(make(), ValueError, message, X, Y, **arguments)
