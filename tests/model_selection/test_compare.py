"""The comparison of losses against loops that are written by hand, and its errors."""

import time
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from fake_estimators import Fixed
from fake_losses import ByLoss, OwnLoss, assumed_finite, rate, rows
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    RepeatedKFold,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_model import X as IMPRESSIONS
from small_model import Y as LABELS
from small_model import small

from sk_pwiser._columns._frames import column_of
from sk_pwiser._responses import rows_of_values
from sk_pwiser.metrics import (
    ctcvr_auc_scorer,
    ctr_auc_scorer,
    cvr_auc_scorer,
    make_grouped_auc_scorer,
    mean_log_loss_scorer,
)
from sk_pwiser.model_selection import FunnelStratifiedKFold, compare_models

X, Y = rows()
SCORERS = {
    "click AUC": ctr_auc_scorer,
    "conversion AUC": ctcvr_auc_scorer,
    "CVR AUC": cvr_auc_scorer,
    "minus log loss": mean_log_loss_scorer,
}


def weighted(weight, prefix=""):
    return {f"{prefix}loss": "pwiser", f"{prefix}pwiser_weight": weight}


def compare_variants(estimator, X, Y, models=("bce", "pwiser"), **options):
    return compare_models(X, Y, models=models, estimator=estimator, **options)


def scores_by_hand(models, cv, seeds, X, Y):
    """Return the scores (n_candidates, n_splits) of each metric."""
    found = {name: np.zeros((len(models), len(seeds))) for name in SCORERS}
    for j, split in enumerate(cv.split(X, Y)):
        for i, model in enumerate(models):
            model.set_params(random_state=seeds[j])
            scores = cross_validate(model, X, Y, cv=[split], scoring=SCORERS)
            for name in SCORERS:
                found[name][i, j] = scores[f"test_{name}"][0]
    return found


def assert_same_scores(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        assert_allclose(found[name], expected[name], rtol=1e-12)


def test_scores_and_differences_are_those_of_a_loop_by_hand():
    X, Y = rows(720)
    variants = {"bce": "bce", "weight 0": weighted(0.0), "weight 3.5": weighted(3.5)}
    comparison = compare_variants(ByLoss(), X, Y, variants, cv=4)
    assert comparison.candidates == list(variants)
    models = [ByLoss("bce"), *(ByLoss(pwiser_weight=w) for w in (0.0, 3.5))]
    cv = FunnelStratifiedKFold(4, random_state=0)
    expected = scores_by_hand(models, cv, comparison.seeds, X, Y)
    assert_same_scores(comparison.scores, expected)
    table = comparison.table.set_index(["metric", "candidate"])
    for name, values in expected.items():
        differences = values[2] - values[0]
        row = table.loc[name, "weight 3.5"]
        assert row.difference == pytest.approx(differences.mean())
        # 180 test rows and 540 training rows per fold.
        variance = (1 / 4 + 180 / 540) * differences.var(ddof=1)
        assert row.std_error == pytest.approx(np.sqrt(variance))
    # Without the informative column, and with the same seeds, nothing differs.
    assert_array_equal(expected["conversion AUC"][1], expected["conversion AUC"][0])
    assert "no difference" in comparison.verdicts["click AUC"]
    assert "weight 3.5 is ahead of bce by" in comparison.verdicts["conversion AUC"]


def test_the_classifier_on_data_frames_equals_the_loop_by_hand():
    comparison = compare_variants(small(), IMPRESSIONS, LABELS, cv=2)
    assert comparison.candidates == ["bce", "pwiser"]
    cv = FunnelStratifiedKFold(2, random_state=0)
    models = [small(loss="bce"), small(loss="pwiser")]
    expected = scores_by_hand(models, cv, comparison.seeds, IMPRESSIONS, LABELS)
    assert_same_scores(comparison.scores, expected)


@pytest.mark.parametrize("wrap", ["pipeline", "search"])
def test_parameters_are_found_inside_other_estimators(wrap):
    variants = {"bce": "bce", "weight 1": weighted(1.0)}
    plain = compare_variants(ByLoss(), X, Y, variants, cv=3)
    if wrap == "pipeline":
        identity = StandardScaler(with_mean=False, with_std=False)
        model, prefix = make_pipeline(identity, ByLoss()), "byloss__"
    else:
        model = GridSearchCV(ByLoss(), {"loss_params": [None]}, scoring=rate, cv=2)
        prefix = "estimator__"
    variants["weight 1"] = weighted(1.0, prefix)
    comparison = compare_variants(model, X, Y, variants, cv=3)
    assert_same_scores(comparison.scores, plain.scores)
    assert comparison.params[1] == variants["weight 1"]
    assert model.set_params(**comparison.params[1]) is model


def test_the_shallowest_parameter_is_used():
    selector = GridSearchCV(ByLoss(), {})

    class Outer(ByLoss):
        def __init__(self, selector=None, loss="pwiser", random_state=None):
            self.selector = selector
            super().__init__(loss, random_state=random_state)

    comparison = compare_variants(Outer(selector), X, Y, cv=2)
    assert comparison.params == [{"loss": "bce"}, {"loss": "pwiser"}]
    pair = make_pipeline(ByLoss(), ByLoss())
    with pytest.raises(ValueError, match=r"found \['byloss-1__loss', 'byloss-2__loss'"):
        compare_variants(pair, X, Y)


def test_loss_params_belong_to_the_loss_of_the_estimator():
    model = ByLoss(loss_params={"margins": 2.0})
    comparison = compare_variants(model, X, Y, cv=2)
    bce, pwiser = comparison.params
    assert bce == {"loss": "bce", "loss_params": None}
    assert pwiser == {"loss": "pwiser"}
    assert model.get_params() == ByLoss(loss_params={"margins": 2.0}).get_params()


def test_losses_parameters_and_other_models_in_one_comparison():
    own_model = ByLoss("bce")
    models = {
        "plain": "sk_pwiser",
        "class": OwnLoss,
        "strong": {"pwiser_weight": 2.0},
        "own": own_model,
    }
    comparison = compare_variants(ByLoss(), X, Y, models, cv=2)
    assert comparison.candidates == list(models)
    with_class = {"loss": OwnLoss, "loss_params": None}
    assert comparison.params == [{}, with_class, {"pwiser_weight": 2.0}, None]
    plain, of_class, _, of_own = comparison.scores["CVR AUC"]
    assert_array_equal(of_class, plain)
    bce = compare_variants(ByLoss(), X, Y, cv=2).scores["CVR AUC"][0]
    assert_array_equal(of_own, bce)
    names = compare_variants(ByLoss(), X, Y, ["bce", OwnLoss], cv=2).candidates
    assert names == ["bce", "OwnLoss"]


HALVES = [(range(160), range(160, 240)), (range(80), range(80, 240))]


@pytest.mark.parametrize(
    ("cv", "n_splits", "ratio"),  # of 240 rows
    [
        (None, 5, 1 / 4),
        (3, 3, 1 / 2),
        (np.int64(2), 2, 1),
        (RepeatedKFold(n_splits=3, n_repeats=2, random_state=0), 6, 1 / 2),
        (HALVES, 2, (80 / 160 + 160 / 80) / 2),
    ],
)
def test_forms_of_cv(cv, n_splits, ratio):
    comparison = compare_variants(ByLoss(), X, Y, cv=cv)
    assert comparison.scores["click AUC"].shape == (2, n_splits)
    assert comparison.fit_times.shape == (2, n_splits)
    assert comparison.seeds.shape == (n_splits,)
    assert comparison.test_train_ratio == pytest.approx(ratio)


@pytest.mark.filterwarnings("ignore:.*no finite score")
def test_masks_of_rows_are_folds_like_their_indices():
    market = np.arange(len(X)) // 7 % 2
    table = pd.DataFrame(X).assign(market=market).rename(columns=str)
    folds = [np.arange(len(X)) % 3 == fold for fold in range(3)]
    found, expected = (
        compare_variants(ByLoss(), table, Y, cv=cv, by="market")
        for cv in (
            [(~test, test) for test in folds],
            [(np.flatnonzero(~test), np.flatnonzero(test)) for test in folds],
        )
    )
    assert found.test_train_ratio == expected.test_train_ratio == 0.5
    assert_same_scores(found.scores, expected.scores)


def test_groups_and_parameters_of_fit_follow_the_rows():
    groups = np.arange(len(X)) // 80
    weight = np.where(groups == 0, 1.0, 3.0)
    comparison = compare_variants(
        ByLoss(),
        X,
        Y,
        cv=GroupKFold(3),
        groups=groups,
        params={"sample_weight": weight},
        scoring={"rate": rate},
    )
    expected = [
        np.average(Y[train, 0], weights=weight[train])
        for train, _ in GroupKFold(3).split(X, Y, groups)
    ]
    assert_allclose(comparison.scores["rate"], [expected, expected])


@pytest.mark.parametrize(
    ("scoring", "names"),
    [
        (ctr_auc_scorer, ["score"]),
        ("roc_auc", ["roc_auc"]),
        (["average_precision", "roc_auc"], ["average_precision", "roc_auc"]),
        ({"a": ctr_auc_scorer, "b": cvr_auc_scorer}, ["a", "b"]),
    ],
)
def test_forms_of_scoring(scoring, names):
    comparison = compare_variants(small(), IMPRESSIONS, LABELS, cv=2, scoring=scoring)
    assert list(comparison.scores) == names


@pytest.mark.parametrize(
    ("labels", "params", "names"),
    [
        (LABELS.to_numpy(), {}, ["click AUC", "conversion AUC", "CVR AUC"]),
        (LABELS["click"], {}, ["click AUC"]),
        (LABELS["click"].to_numpy(), {}, ["task_0 AUC"]),
        (
            LABELS,
            {"task_names": ["seen", "CVR"]},
            ["seen AUC", "CVR AUC", "AUC of CVR given seen"],
        ),
        (
            np.column_stack([LABELS, LABELS.iloc[:, 1]]),
            {},
            ["task_0 AUC", "task_1 AUC", "task_2 AUC", "CVR AUC"],
        ),
    ],
)
def test_default_metrics_are_named_after_the_tasks(labels, params, names):
    model = small(**params)
    comparison = compare_variants(model, IMPRESSIONS, labels, cv=2)
    assert list(comparison.scores) == [*names, "minus log loss"]


def test_random_state():
    def seeds(random_state):
        comparison = compare_variants(ByLoss(), X, Y, cv=2, random_state=random_state)
        return comparison.seeds.tolist()

    assert seeds(0) == seeds(0)
    assert seeds(0) != seeds(1)
    assert seeds(None) != seeds(None)
    assert seeds(np.random.RandomState(3)) == seeds(np.random.RandomState(3))
    # With weight 0 the candidates are equal if their seeds are.
    for random_state in (None, np.random.RandomState(0)):
        model = ByLoss(pwiser_weight=0.0)
        comparison = compare_variants(model, X, Y, cv=2, random_state=random_state)
        for bce, pwiser in comparison.scores.values():
            assert_array_equal(bce, pwiser)


@pytest.mark.parametrize(
    "backend", [pytest.param("loky", marks=pytest.mark.slow), "threading"]
)
def test_parallel_fits_give_the_same_scores(backend):
    serial = compare_variants(ByLoss(), X, Y, cv=2)
    with joblib.parallel_config(backend, n_jobs=2):
        parallel = compare_variants(ByLoss(), X, Y, cv=2)
        with config_context(assume_finite=True):
            config = compare_variants(ByLoss(), X, Y, cv=4, scoring=assumed_finite)
    assert_same_scores(parallel.scores, serial.scores)
    assert (config.scores["score"] == 1).all()


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_progress(capsys, n_jobs):
    with joblib.parallel_config("threading"):
        compare_variants(ByLoss(), X, Y, cv=2, n_jobs=n_jobs)
        assert capsys.readouterr().out == ""
        comparison = compare_variants(ByLoss(), X, Y, cv=2, n_jobs=n_jobs, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("fold 1 of 2, pwiser: click AUC 0.")
    last = (
        comparison.scores["CVR AUC"][1, 1],
        -comparison.scores["minus log loss"][1, 1],
    )
    assert "CVR AUC {:.4f}, log loss {:.4f} (".format(*last) in lines[3]


class Warns(ByLoss):
    """It warns with another number of each fit."""

    def fit(self, X, Y):
        warnings.warn(f"the first of {np.sum(X):.3f}", UserWarning, stacklevel=1)
        return super().fit(X, Y)


def test_a_warning_of_all_fits_is_issued_once_for_the_line_of_the_call():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compare_variants(Warns(), X, Y, cv=3)
    (warning,) = (w for w in caught if "the first of" in str(w.message))
    assert warning.filename == __file__


class Overlaps(Warns):
    """Its fits in several threads end in another order than they begin."""

    def fit(self, X, Y):
        time.sleep(0.05 if self.loss == "bce" else 0.2)
        return super().fit(X, Y)


def test_threads_leave_the_warnings_of_the_process_as_they_were():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with joblib.parallel_config("threading"):
            compare_variants(Overlaps(), X, Y, cv=2, n_jobs=4)
        warnings.warn("a later warning", UserWarning, stacklevel=1)
    messages = [str(w.message) for w in caught if w.category is UserWarning]
    assert len(messages) == 2
    assert "the first of" in messages[0]
    assert messages[1] == "a later warning"


def test_folds_without_a_conversion_are_left_out_with_one_warning():
    rare = LABELS.copy()
    rare["conversion"] = 0
    # All conversions are in the first half of the rows.
    first = rare.index[rare["click"] == 1][:4]
    rare.loc[first, "conversion"] = 1
    half = len(rare) // 2
    order = np.arange(len(rare))
    thirds = np.array_split(order[half:], 2)
    tests = [order[:half], *thirds]
    cv = [(np.setdiff1d(order, test), test) for test in tests]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        comparison = compare_variants(small(), IMPRESSIONS, rare, cv=cv)
    (warning,) = (w for w in caught if w.category is UndefinedMetricWarning)
    assert "of the 3 folds" in str(warning.message)
    assert "conversion AUC on 2, CVR AUC on 2." in str(warning.message)
    assert warning.filename == __file__
    assert_array_equal(
        np.isnan(comparison.scores["conversion AUC"]), [[False, True, True]] * 2
    )
    assert np.isfinite(comparison.scores["click AUC"]).all()
    assert "fewer than two folds" in comparison.verdicts["conversion AUC"]


def rows_by(table, by):
    found = rows_of_values(column_of(table, "by", by), by)
    return {name: rows.tolist() for name, rows in found.items()}


TEXTS, NUMBERS = ["de", None, "fr", "de"], [1, None, 2, 1]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        *((TEXTS, d, {"m=de": [0, 3], "m=fr": [2]}) for d in (object, "string")),
        (TEXTS, pd.CategoricalDtype(["xx", "de", "fr"]), {"m=de": [0, 3], "m=fr": [2]}),
        (NUMBERS, "Int64", {"m=1": [0, 3], "m=2": [2]}),
        (NUMBERS, "float64", {"m=1.0": [0, 3], "m=2.0": [2]}),
        # Values of equal text are one.
        *(
            ([1, "1", None, 2], d, {"m=1": [0, 1], "m=2": [3]})
            for d in (object, "category")
        ),
    ],
)
def test_values_of_a_column_in_every_dtype(values, dtype, expected):
    assert rows_by(pd.DataFrame({"m": pd.Series(values, dtype=dtype)}), "m") == expected


def test_values_of_a_column_of_polars():
    table = pytest.importorskip("polars").DataFrame({"tab": NUMBERS})
    assert [*rows_by(table, 0).values()] == [[0, 3], [2]]
    # A Series of polars without a name has the name "".
    assert [*rows_of_values(table["tab"].alias(""), "")] == ["1", "2"]


@pytest.mark.parametrize("scoring", [None, "mean", {"click AUC": ctr_auc_scorer}])
def test_scores_by_a_column_are_those_of_its_test_rows(scoring):
    X, Y = rows(720)
    market = np.where(np.arange(720) % 3 < 2, np.arange(720) % 3, np.nan)
    market[:30] = 3  # in the first fold only
    table = pd.DataFrame(X).assign(market=market).rename(columns=str)
    cv = [(np.arange(240, 720), np.arange(240)), (np.arange(480), np.arange(480, 720))]
    scoring = mean_log_loss_scorer if scoring == "mean" else scoring
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        found = compare_variants(
            ByLoss(), table, Y, cv=cv, scoring=scoring, by="market"
        )
        whole = compare_variants(ByLoss(), table, Y, cv=cv, scoring=scoring)
    names = [f"{name}, market={m}" for m in (3.0, 0.0, 1.0) for name in whole.scores]
    assert sorted(found.scores) == sorted([*whole.scores, *names])
    for i, params in enumerate(found.params):
        for j, (train, test) in enumerate(cv):
            model = ByLoss(random_state=found.seeds[j]).set_params(**params)
            p = model.fit(table.iloc[train], Y[train]).predict_proba(table.iloc[test])
            for m in (0.0, 1.0, 3.0):
                own = table["market"].to_numpy()[test] == m
                for name in whole.scores:
                    score = SCORERS.get(name, mean_log_loss_scorer)
                    expected = np.nan
                    if own.any():
                        expected = score(Fixed(p[own]), test[own], Y[test[own]])
                    assert_allclose(found.scores[f"{name}, market={m}"][i, j], expected)
    for name in whole.scores:
        assert_array_equal(found.scores[name], whole.scores[name])


class CountsPredictions(ByLoss):
    calls = 0

    def predict_proba(self, X):
        type(self).calls += 1
        return super().predict_proba(X)


@pytest.mark.parametrize("wrap", [lambda model: model, make_pipeline])
def test_values_of_a_column_need_no_further_predictions(wrap):
    """The rows of all values are predicted in one call, whatever scorers ask for."""
    table = pd.DataFrame(X).assign(market=np.arange(len(X)) % 3).rename(columns=str)
    scoring = {"click AUC": ctr_auc_scorer, "loss": mean_log_loss_scorer}
    CountsPredictions.calls = 0
    compare_variants(
        wrap(CountsPredictions()), table, Y, cv=2, scoring=scoring, by="market"
    )
    assert CountsPredictions.calls == 2 * 2  # losses and folds


def test_a_scorer_that_changes_the_rows_gets_its_own_predictions():
    table = pd.DataFrame(X).assign(market=np.arange(len(X)) % 2).rename(columns=str)

    def second_half(estimator, X, Y):
        return len(estimator.predict_proba(X[len(X) // 2 :]))

    found = compare_variants(
        ByLoss(), table, Y, cv=2, scoring={"rows": second_half}, by="market"
    )
    for name, n_test in (("rows", 120), ("rows, market=0", 60), ("rows, market=1", 60)):
        assert_allclose(found.scores[name], n_test / 2, atol=1)


def test_metadata_of_scorers_follow_the_rows_of_each_value():
    groups = np.arange(len(X)) // 6
    table = pd.DataFrame(X).assign(market=np.arange(len(X)) % 2, group=groups)
    table = table.rename(columns=str)
    of_column = make_grouped_auc_scorer("mean", groups="group")
    expected = compare_variants(
        ByLoss(), table, Y, cv=2, scoring={"auc": of_column}, by="market"
    )
    with config_context(enable_metadata_routing=True):
        found = compare_variants(
            ByLoss(), table, Y, cv=2, scoring={"auc": make_grouped_auc_scorer("mean")},
            by="market", params={"groups": groups},
        )  # fmt: skip
    assert_same_scores(found.scores, expected.scores)
    assert list(found.scores) == ["auc", "auc, market=0", "auc, market=1"]


def test_weights_are_those_of_fits_with_metadata_routing_too():
    params, expected = {"sample_weight": np.ones(len(Y))}, None
    for routing in (False, True):
        with config_context(enable_metadata_routing=routing):
            estimator = small()
            if routing:
                estimator.set_fit_request(sample_weight=True)
            found = compare_variants(estimator, X, Y, cv=2, params=params).scores
        expected = expected or found
    assert_same_scores(found, expected)


class NoLoss(ByLoss):
    def __init__(self, random_state=None):
        super().__init__(random_state=random_state)


VALUE_ERRORS = [
    (small(), {"models": ("bce", "bec")}, r"models\['bec'\] must be one of \['sk_"),
    (small(), {"models": {"a": "bce", "b": {"lr": -1.0}}}, "The 'lr' parameter"),
    (small(), {"models": {"a": "bce", "b": {"weight": 1}}}, "Invalid parameter 'weig"),
    (small(), {"models": {"a": "bce", "b": weighted("strong")}}, r"models\['b'\] must"),
    (small(), {"models": {"a": "bce", "b": weighted(np.nan)}}, "Got nan"),
    (small(lr=-1.0), {}, "The 'lr' parameter"),
    (ByLoss(), {"by": "market"}, "by is 'market', which is not a column of X"),
    (ByLoss(), {"by": 0}, "by=0 .* at most 100 values.*; it has 240"),
    (ByLoss(), {"models": ("bce",)}, r"at least two models, got \['bce'\]"),
    (ByLoss(), {"models": ()}, r"at least two models, got \[\]"),
    (ByLoss(), {"models": ("bce", "bce")}, r"distinct, got \['bce', 'bce'\]"),
    (NoLoss(), {}, "one parameter 'loss'.* found none in NoLoss"),
    (ByLoss(), {"cv": 1}, "cv must be an int >= 2 or a splitter, got 1"),
    (ByLoss(), {"cv": True}, "cv must be an int >= 2 .* got True"),
    (
        ByLoss(),
        {"cv": [(range(9), range(9, 20))]},
        "cv must give at least 2 splits, got 1",
    ),
    (ByLoss(), {"scoring": {"a": "auc"}}, "'auc' is not a valid scoring"),
    (ByLoss(), {"scoring": "auc"}, "'scoring' parameter"),
]
TYPE_ERRORS = [
    (ByLoss(), {"models": 3}, "models must be 'default', a sequence .* got 3"),
    (ByLoss(), {"models": ["bce", ByLoss()]}, "must be a dict if they are other than"),
    (ByLoss(), {"models": {"a": "bce", "b": ByLoss}}, "must have the method predict_p"),
    (ByLoss, {}, "estimator must be an estimator object, got <class"),
]


@pytest.mark.parametrize(
    ("error", "model", "params", "match"),
    [(ValueError, *case) for case in VALUE_ERRORS]
    + [(TypeError, *case) for case in TYPE_ERRORS],
)
def test_bad_input_raises_before_any_fit(monkeypatch, error, model, params, match):
    def fit(self, X, Y):
        raise AssertionError("fitted")

    monkeypatch.setattr(ByLoss, "fit", fit)
    monkeypatch.setattr(type(small()), "fit", fit)
    with pytest.raises(error, match=match):
        compare_variants(model, X, Y, **params)


def test_lengths_must_agree_and_errors_of_fit_are_raised():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        compare_variants(ByLoss(), X, Y[:-1])
    weight = {"sample_weight": pd.Series(np.ones(len(X)))[::-1]}
    with pytest.raises(ValueError, match="X and sample_weight have the same index"):
        compare_variants(ByLoss(), pd.DataFrame(X), Y, params=weight)
    model = ByLoss(loss="bce", loss_params={"margins": 1})
    with pytest.raises(ValueError, match="bce has no loss_params"):
        compare_variants(model, X, Y)
