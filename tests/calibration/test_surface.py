"""A calibrated estimator is used, saved and served like the estimator itself."""

import datetime
from itertools import product
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from fake_estimators import ReadsFeatures
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from small_model import small

from sk_pwiser import MultiTaskCTRCVRClassifier, TaskView
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.calibration._curves import shifts_by_group
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.export import Scorer, to_onnx
from sk_pwiser.inspection import task_importances
from sk_pwiser.metrics import ctr_auc_scorer
from sk_pwiser.model_selection import FunnelStratifiedKFold

METHODS = ["isotonic", "sigmoid"]
MARKETS = ["de", "fr", "it", None]


@pytest.fixture(scope="module")
def rows():
    """Rows of three markets, and a market that is unknown; "it" has half the clicks."""
    data = make_ctr_cvr(3_000, ctr=0.3, cvr=0.3, random_state=0)
    rng = np.random.default_rng(0)
    market = rng.choice(
        np.array(MARKETS, dtype=object), 3_000, p=[0.5, 0.3, 0.19, 0.01]
    )
    X = data.data.assign(market=pd.Categorical(market))
    Y = data.target.copy()
    Y[(market == "it") & (rng.random(3_000) < 0.5)] = 0
    return X, Y


@pytest.fixture(scope="module")
def model(rows):
    X, Y = rows
    with pytest.warns(UserWarning, match="'market'.* have the same value"):
        return small(max_epochs=3).fit(X.assign(market="de"), Y)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            value,
            marks=()
            if value in {("isotonic", None), ("sigmoid", "market")}
            else pytest.mark.slow,
        )
        for value in product(METHODS, (None, "market"))
    ],
)
def calibrated(request, rows):
    X, Y = rows
    method, by = request.param
    model = small(max_epochs=2).fit(X[:1500], Y[:1500])
    return FunnelCalibrator(model, method=method, by=by).fit(X[1500:], Y[1500:])


def raw_inputs(X, session):
    return {
        i.name: X[[i.name]].to_numpy(object if "string" in i.type else float)
        for i in session.get_inputs()
    }


@pytest.mark.slow
def test_onnx_predicts_the_same(calibrated, rows, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    X = rows[0].head(200).assign(market=[*["new"] * 5, *rows[0]["market"][5:200]])
    p = calibrated.predict_proba(X)
    path = tmp_path / "model.onnx"
    to_onnx(calibrated, path, inputs="raw")
    session = onnxruntime.InferenceSession(path)
    texts = X.assign(market=X["market"].astype(object).fillna(""))
    found = session.run(None, raw_inputs(texts, session))[0]
    # Processors round the products of float32 in other orders: up to 1.5e-6 was seen.
    assert_allclose(found, p, rtol=0, atol=3e-6)


def test_logits_frames_and_tasks(calibrated, rows):
    X, _ = rows
    p = calibrated.predict_proba(X)
    assert_allclose(expit(calibrated.predict_logits(X)), p, rtol=1e-5)
    frame = calibrated.predict_frame(X[::7])
    assert frame.columns.tolist() == ["click", "conversion"]
    assert_array_equal(frame.index, X.index[::7])
    assert_allclose(frame.to_numpy(), p[::7], rtol=1e-5)
    view = calibrated.task("conversion")
    assert isinstance(view, TaskView)
    assert view.estimator is calibrated
    assert_array_equal(view.predict_proba(X)[:, 1], p[:, 1])
    cvr = calibrated.task("cvr").predict_proba(X)[:, 1]
    assert_allclose(cvr, calibrated.predict_cvr(X))
    with pytest.raises(ValueError, match="task must be one of"):
        calibrated.task("sale")


def test_shifts_follow_the_rates_of_the_markets(model, rows):
    X, Y = rows
    calibrated = FunnelCalibrator(model, method="sigmoid", by="market").fit(X, Y)
    p, rates = calibrated.predict_frame(X), Y.groupby(X["market"], observed=True).mean()
    for market, rate in rates.iterrows():
        mean = p[X["market"] == market].mean()
        assert mean["click"] == pytest.approx(rate["click"], rel=0.06)
        assert mean["conversion"] == pytest.approx(rate["conversion"], rel=0.25)
    common = FunnelCalibrator(model, method="sigmoid").fit(X, Y)
    gap = common.predict_frame(X)[X["market"] == "it"].mean() / rates.loc["it"]
    assert gap["click"] > 1.5
    # Markets that are missing or new have the common curve.
    for market in (None, "es"):
        X_other = X.assign(market=market)
        assert_array_equal(
            calibrated.predict_proba(X_other), common.predict_proba(X_other)
        )
    scaled = FunnelCalibrator(model, method="sigmoid", by="market")
    scaled.fit(X, Y, sample_weight=np.full(len(X), 1e-3))
    for market, shifts in scaled.shifts_.items():
        assert_allclose(shifts, calibrated.shifts_[market], atol=1e-6)


def test_markets_with_few_events_keep_the_common_curve():
    """At 0.1 %: 50 markets that do not differ, with 2 conversions each."""
    rng = np.random.default_rng(0)
    n, n_markets = 100_000, 50
    logits = rng.normal(logit(0.001), 0.5, n)
    y = (rng.random(n) < expit(logits)).astype(float)
    group = rng.integers(0, n_markets, n)
    shifts = shifts_by_group(logits, y, np.ones(n), group, n_markets)
    assert np.abs(shifts).max() < 0.15
    # One of them converts ten times as often.
    y[group == 7] = rng.random((group == 7).sum()) < expit(logits[group == 7] + 2.3)
    shifts = shifts_by_group(logits, y, np.ones(n), group, n_markets)
    assert shifts[7] == pytest.approx(2.3, abs=0.5)
    assert np.abs(np.delete(shifts, 7)).mean() < 0.35


def test_one_task(rows):
    X, Y = rows
    labels = np.where(Y["click"], "yes", "no")
    model = small(max_epochs=2).fit(X, labels)
    calibrated = FunnelCalibrator(FrozenEstimator(model), by="market").fit(X, labels)
    p = calibrated.predict_proba(X)
    assert calibrated.predict_logits(X).shape == (3_000,)
    rows_of_dicts = X.head(50).astype(object).where(X.notna(), None).to_dict("records")
    found = Scorer(calibrated, runtime="torch")(rows_of_dicts)
    assert_allclose(found, p[:50], atol=1e-6)


def test_refusals(model, rows, tmp_path):
    X, Y = rows
    path = tmp_path / "model"
    with pytest.raises(ValueError, match="by is 'country', which is not a column"):
        FunnelCalibrator(model, by="country").fit(X, Y)
    calibrated = FunnelCalibrator(model, by="market").fit(X, Y)
    with pytest.raises(ValueError, match="inputs='raw'"):
        to_onnx(calibrated, path)
    rounded = X.assign(numeric_0=X["numeric_0"].round())
    by_number = FunnelCalibrator(model, by="numeric_0").fit(rounded, Y)
    with pytest.raises(ValueError, match="must be a category column"):
        to_onnx(by_number, path, inputs="raw")
    ids = X.assign(numeric_0=np.arange(len(X)) % 4 + 2**53)
    by_id = FunnelCalibrator(model, by="numeric_0").fit(ids, Y)
    with pytest.raises(ValueError, match=r"are rounded numbers.* those of fit are int"):
        by_id.predict_proba(ids.assign(numeric_0=ids["numeric_0"].astype(float)))
    frozen = FunnelCalibrator(FrozenEstimator(model)).fit(X, Y)
    with pytest.raises(TypeError, match="Only a calibrated MultiTaskCTRCVRClassifier"):
        frozen.save(path)
    folds = FunnelCalibrator(small(), cv=FunnelStratifiedKFold(2))
    with pytest.raises(TypeError, match="cv holds FunnelStratifiedKFold"):
        folds.fit(X, Y).save(path)
    assert not path.exists()
    model.save(path)
    with pytest.raises(ValueError, match="not a valid file of a FunnelCalibrator"):
        FunnelCalibrator.load(path)
    calibrated.save(path)
    with pytest.raises(ValueError, match="not a valid file of a MultiTask"):
        MultiTaskCTRCVRClassifier.load(path)
    with pytest.raises(AttributeError):
        FunnelCalibrator(object(), by=None).task("click")


def test_labels_in_another_order_are_refused(model, rows):
    X, Y = rows
    shuffled = Y.sample(frac=1, random_state=0)
    with pytest.raises(ValueError, match="same index labels in different orders"):
        FunnelCalibrator(model).fit(X, shuffled)
    with pytest.raises(ValueError, match="X and sample_weight have the same index"):
        FunnelCalibrator(model).fit(X, Y, sample_weight=shuffled["click"] + 1.0)
    with pytest.raises(ValueError, match="must be in the order of the tasks"):
        FunnelCalibrator(model, ordered=False).fit(X, Y[["conversion", "click"]])


@pytest.mark.filterwarnings("ignore:X has 1 column.* not seen in fit")
def test_a_column_without_groups_is_refused(model, rows):
    X, Y = rows
    with pytest.raises(ValueError, match="by='numeric_0' has 3000 values in 3000 rows"):
        FunnelCalibrator(model, by="numeric_0").fit(X, Y)

    class Untrained(ReadsFeatures):
        def fit(self, X, Y):
            raise AssertionError("by is checked before the estimator is trained")

    lists = FunnelCalibrator(Untrained(), cv=2, by="tags")
    with pytest.raises(TypeError, match="by='tags' must be a column of single values"):
        lists.fit(X.assign(tags=[["a"]] * len(X)), Y)


# A network that has learnt nothing.
@pytest.mark.filterwarnings("ignore:In the calibration rows:UserWarning")
def test_by_finds_its_column_by_name(rows, tmp_path):
    """Also if the columns of later rows are in another order, as the estimator's."""
    X, Y = rows
    X = X[["market", "numeric_0"]]
    model = small(max_epochs=1).fit(X, Y)
    calibrated = FunnelCalibrator(model, by="market", method="sigmoid").fit(X, Y)
    other = X[["numeric_0", "market"]].assign(new=1)
    expected = calibrated.predict_proba(X)
    with pytest.warns(UserWarning, match="not seen in fit"):
        assert_array_equal(calibrated.predict_proba(other), expected)
    calibrated.save(tmp_path / "calibrated")
    loaded = FunnelCalibrator.load(tmp_path / "calibrated")
    assert_array_equal(loaded.predict_proba(X[["numeric_0", "market"]]), expected)
    # Until the next fit, another value of the parameter changes nothing.
    assert_array_equal(calibrated.set_params(by=None).predict_proba(X), expected)
    found = Scorer(calibrated, runtime="torch")(X.to_dict("list"))
    assert_allclose(found, expected, rtol=1e-4)


class Known(ClassifierMixin, BaseEstimator):
    """Returns logits that are columns of the table."""

    task_names_ = ("click", "conversion")
    logits: ClassVar[dict] = {}

    def fit(self, X, y):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, X):
        return expit(self.predict_logits(X))

    def predict_logits(self, X):
        """Return an array that the estimator keeps."""
        return self.logits.setdefault(len(X), X[["click", "conversion"]].to_numpy())


def test_the_cvr_of_tiny_probabilities_is_exact():
    """As those of the estimator: probabilities themselves end at 1e-38."""
    X = pd.DataFrame({"click": [-120.0, -110.0], "conversion": [-123.0, -111.0]})
    Known.logits.clear()
    with pytest.warns(UserWarning, match="Only one class"):
        calibrated = FunnelCalibrator(Known()).fit(X, np.zeros((2, 2)))
    assert_allclose(calibrated.predict_cvr(X), np.exp([-3.0, -1.0]), rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("ordered", [False, True])
def test_labels_that_one_market_lacks_do_not_move_its_rate(share, ordered):
    """Two equal markets, true probabilities, and late conversions in one of them."""
    rng, n = np.random.default_rng(0), 20_000
    click = expit(rng.normal(-1, 1, n))
    market = rng.choice(["a", "b"], n)
    X = pd.DataFrame({"click": logit(click), "conversion": logit(0.2 * click)})
    Y = pd.DataFrame({"click": rng.random(n) < click}).astype(float)
    Y["conversion"] = Y["click"] * (rng.random(n) < 0.2)
    lacks = (market == "a") & (Y["click"] == 1) & (rng.random(n) < share)
    Known.logits.clear()
    params = {"method": "sigmoid", "by": "market", "ordered": ordered}
    calibrator, table = FunnelCalibrator(Known(), **params), X.assign(market=market)
    calibrator.fit(table, Y.assign(conversion=Y["conversion"].mask(lacks)))
    p = calibrator.predict_proba(table)
    assert_array_equal(calibrator.predict_proba(table), p)  # the array was not changed
    for each in ("a", "b"):
        rows = market == each
        assert p[rows, 1].sum() == pytest.approx(0.2 * click[rows].sum(), rel=0.1)


def test_an_empty_text_among_the_markets_cannot_be_exported(tmp_path):
    data = make_ctr_cvr(2_000, ctr=0.3, cvr=0.3, random_state=0)
    market = np.where(np.arange(2_000) % 3 == 0, "", "de")
    model = small(max_epochs=2).fit(
        data.data.assign(market=np.where(market == "", "fr", "de")), data.target
    )
    calibrated = FunnelCalibrator(model, by="market", method="sigmoid")
    calibrated.fit(data.data.assign(market=market), data.target)
    with pytest.raises(ValueError, match="'market' cannot be exported: calibration"):
        to_onnx(calibrated, tmp_path / "model.onnx", inputs="raw")


def test_by_is_no_position(model, rows):
    """An array of columns in another order would have other values there."""
    X, Y = rows
    with pytest.raises(ValueError, match=r"'by' parameter .* of 'str' or None"):
        FunnelCalibrator(model, by=X.columns.get_loc("market")).fit(X, Y)
    calibrated = FunnelCalibrator(model, by="market").fit(X, Y)
    with pytest.raises(ValueError, match="by is 'market', which is not a column"):
        calibrated.predict_proba(X.to_numpy())


@pytest.mark.filterwarnings("ignore:X has 1 column.* not seen in fit")
def test_the_importance_of_a_column_that_only_the_calibrator_reads(rows):
    X, Y = rows
    model = small(max_epochs=1).fit(X[["numeric_0", "numeric_1"]], Y)
    X = X[["numeric_0", "market", "numeric_1"]]
    calibrated = FunnelCalibrator(model, by="market", method="sigmoid").fit(X, Y)
    found = task_importances(calibrated, X, Y, n_repeats=2, random_state=3)
    expected = permutation_importance(
        calibrated, X, Y, scoring=ctr_auc_scorer, n_repeats=2, random_state=3
    )
    assert found.column_names == ["numeric_0", "numeric_1", "market"]
    assert_allclose(found.importances[:, 0], expected.importances[[0, 2, 1]], atol=1e-6)
    assert found.importances_mean[2, 0] > 0.01
    with pytest.raises(ValueError, match="by='market' cannot be exported: its estima"):
        Scorer(calibrated)


@pytest.mark.parametrize(
    ("first", "later", "kinds"),
    [
        (datetime.date, datetime.datetime, "times, .* those of fit are dates"),
        (
            lambda *day: 2**53 + day[2],
            lambda *day: float(2**53 + 2 * day[2]),
            "rounded",
        ),
        (lambda *day: day[2], lambda *day: str(day[2]), "text, such as"),
    ],
)
def test_values_of_another_kind_are_refused(model, rows, first, later, kinds):
    """None would be equal to one of fit, so that all rows would have no shift."""
    X, Y = rows
    day = 1 + np.arange(len(X)) % 3
    known, other = (
        X.assign(day=pd.Series([of(2025, 1, int(d)) for d in day], dtype=object))
        for of in (first, later)
    )
    calibrated = FunnelCalibrator(model, method="sigmoid", by="day").fit(known, Y)
    some = known.assign(day=known["day"].where(known.index < 9))
    expected = calibrated.predict_proba(known)[:9]
    assert_array_equal(calibrated.predict_proba(some)[:9], expected)
    with pytest.raises(ValueError, match=f"by='day' has values that are {kinds}"):
        calibrated.predict_proba(other)
