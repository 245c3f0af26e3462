"""Frames of other packages: wrappers, queries and streams are read like their table."""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from numpy.testing import assert_array_equal
from small_model import X as IMPRESSIONS
from small_model import Y, small

from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.history import HistoryFeatures
from sk_pwiser.inspection import describe_impressions, task_importances
from sk_pwiser.linear_model import MultiTaskSparseLinear
from sk_pwiser.metrics import cvr_auc_scorer
from sk_pwiser.model_selection import (
    FunnelStratifiedKFold,
    FunnelTimeSplit,
    compare_models,
    funnel_depth,
)
from sk_pwiser.transfer import select_estimators

N = len(Y)
X = IMPRESSIONS[["numeric_0", "numeric_1"]].assign(
    user=[f"u{i % 3}" for i in range(N)], time=np.arange(N)[::-1]
)


def table_of(frame):
    return pa.Table.from_pandas(frame, preserve_index=False)


def narwhals(frame):
    return pytest.importorskip("narwhals").from_native(frame)


def duckdb(frame):
    connection = pytest.importorskip("duckdb").connect()
    connection.register("rows", frame)
    return connection.sql("from rows")


class Stream:
    """A table of a package that only exports the stream of Arrow."""

    def __init__(self, frame):
        self._table = table_of(frame)

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


FORMS = {
    "narwhals of pandas": narwhals,
    "narwhals of polars": lambda frame: narwhals(pl.from_pandas(frame)),
    "lazy narwhals of polars": lambda frame: narwhals(pl.from_pandas(frame).lazy()),
    "narwhals of duckdb": lambda frame: narwhals(duckdb(frame)),
    "polars lazy": lambda frame: pl.from_pandas(frame).lazy(),
    "record batch": lambda frame: table_of(frame).to_batches()[0],
    "reader": lambda frame: table_of(frame).to_reader(),
    "dataset": lambda frame: ds.dataset(table_of(frame)),
    "scanner": lambda frame: ds.dataset(table_of(frame)).scanner(),
    "duckdb": duckdb,
    "stream": Stream,
}


FAST = {"lazy narwhals of polars", "record batch", "reader", "scanner", "stream"}
ALL = pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, id=name, marks=() if name in FAST else pytest.mark.slow)
        for name, form in FORMS.items()
    ],
)
# A wrapper has other methods than the table; a reader can be read only once.
TWO = pytest.mark.parametrize("form", [narwhals, FORMS["reader"]], ids=["wrap", "read"])


@pytest.fixture(scope="module")
def model(_estimators_on_device):
    return small().fit(X, Y)


@ALL
def test_fit_and_predictions_are_those_of_the_table(form, model):
    expected = model.predict_proba(X)
    found = small().fit(form(X), form(Y))
    assert found.feature_names_in_.tolist() == list(X.columns)
    assert_array_equal(found.predict_proba(X), expected)
    assert_array_equal(model.predict_proba(form(X[X.columns[::-1]])), expected)
    assert_array_equal(model.predict_cvr(form(X)), model.predict_cvr(X))
    assert_array_equal(model.predict_frame(form(X)).to_numpy(), expected)
    assert model.score(form(X), form(Y)) == model.score(X, Y)
    assert cvr_auc_scorer(model, form(X), form(Y)) == cvr_auc_scorer(model, X, Y)
    validated = [
        small().fit(X, Y, X_val=x, Y_val=y).history_[-1]["valid_log_loss_mean"]
        for x, y in ((form(X), form(Y)), (X, Y))
    ]
    assert validated[0] == validated[1]
    small().partial_fit(form(X), form(Y))


@TWO
@pytest.mark.filterwarnings("ignore:In the calibration rows:UserWarning")
def test_the_calibrator_and_the_views(form, model):
    calibrated = FunnelCalibrator(model, method="sigmoid", by="user")
    expected = calibrated.fit(X, Y).predict_proba(X)
    assert_array_equal(
        calibrated.fit(form(X), form(Y)).predict_proba(form(X)), expected
    )
    crossed = FunnelCalibrator(small(), method="sigmoid", cv=2)
    expected = crossed.fit(X, Y).predict_proba(X)
    assert_array_equal(crossed.fit(form(X), form(Y)).predict_proba(form(X)), expected)
    view = small().task("cvr").fit(form(X), form(Y))
    assert_array_equal(view.predict_proba(form(X)), model.task("cvr").predict_proba(X))
    assert view.score(form(X), form(Y)) == view.score(X, Y)


def numbers_of(found):
    """Return numeric columns of a table, or the figures of another result."""
    found = getattr(found, "to_pandas", lambda: found)()
    if hasattr(found, "select_dtypes"):
        return found.select_dtypes("number").to_numpy(float)
    return getattr(found, "importances", found)


IMPORTANCES = {"n_repeats": 1, "random_state": 0}


@TWO
@pytest.mark.parametrize(
    "call",
    [
        lambda model, X, Y: HistoryFeatures(["user"], time="time").fit_transform(X, Y),
        lambda model, X, Y: str(describe_impressions(X, Y, time="time")),
        lambda model, X, Y: task_importances(model, X, Y, **IMPORTANCES),
        lambda model, X, Y: select_estimators([model] * 2, X, Y, n_select=1).indices,
        lambda model, X, Y: funnel_depth(Y),
    ],
    ids=["history", "description", "importances", "selection", "depth"],
)
def test_results_are_those_of_the_table(call, form, model):
    found, expected = call(model, form(X), form(Y)), call(model, X, Y)
    assert_array_equal(numbers_of(found), numbers_of(expected))


@pytest.mark.slow
@TWO
def test_folds_and_comparisons(form):
    for cv in (
        FunnelStratifiedKFold(2, random_state=0),
        FunnelTimeSplit(2, time="time"),
    ):
        is_by_time = isinstance(cv, FunnelTimeSplit)
        splits = cv.split(form(X) if is_by_time else X, form(Y))
        for found, expected in zip(splits, cv.split(X, Y), strict=True):
            assert_array_equal(found[1], expected[1])
    options = {"cv": 2, "by": "user", "params": {"groups": X["user"]}}
    options |= {"models": ["bce", "pwiser"], "estimator": small()}
    own = options | {"params": {"groups": narwhals(X)["user"]}}
    found = compare_models(form(X), form(Y), **own)
    assert str(found) == str(compare_models(X, Y, **options))
    del options["params"]
    options["models"] = {"a": small(), "b": {"lr": 0.1}}
    found = compare_models(form(X), form(Y), **options)
    assert str(found) == str(compare_models(X, Y, **options))


@TWO
def test_linear_models(form):
    numbers = X[["numeric_0", "numeric_1"]]
    expected = MultiTaskSparseLinear(alpha=0.01).fit(numbers, Y).predict_proba(numbers)
    found = MultiTaskSparseLinear(alpha=0.01).fit(form(numbers), form(Y))
    assert_array_equal(found.predict_proba(form(numbers)), expected)
    with pytest.raises(ValueError, match="in the same order"):
        found.predict_proba(form(numbers[numbers.columns[::-1]]))


def test_series_of_narwhals(model):
    nw = pytest.importorskip("narwhals")
    click, weight, user = (
        nw.from_native(each, series_only=True)
        for each in (Y["click"], X["time"] + 1.0, X["user"])
    )
    found = small(loss="jrc").fit(X, click, sample_weight=weight, groups=user)
    expected = small(loss="jrc").fit(
        X, Y["click"], sample_weight=X["time"] + 1.0, groups=X["user"]
    )
    assert found.task_names_ == ["click"]
    assert_array_equal(found.predict_proba(X), expected.predict_proba(X))


class NamedArray:
    """An array with a name of its own, such as those of dask and xarray."""

    name, ndim = "a0", 2

    def __init__(self, values):
        self._values = values
        self.shape, self.dtype = values.shape, values.dtype

    def __array__(self, dtype=None, copy=None):
        return np.array(self._values, dtype=dtype)


def test_the_name_of_an_array_is_no_name_of_a_task(model):
    found = small().fit(X, NamedArray(Y.to_numpy()))
    assert found.task_names_ == ["click", "conversion"]
    assert_array_equal(found.predict_proba(X), model.predict_proba(X))


def frame_of(package, **attributes):
    """Return an object like a frame of a package that may not be installed."""
    attributes |= {"columns": ["a"], "__module__": f"{package}.core"}
    return type("DataFrame", (), attributes)()


@pytest.mark.parametrize("package", ["dask", "pyspark", "ray", "datasets"])
def test_frames_that_are_not_read_are_refused(package, model):
    lazy = frame_of(package, shape=(N, 4), iloc=None)
    message = f"A DataFrame of {package} is not read: pass a pandas DataFrame"
    for call in (
        lambda: small().fit(lazy, Y),
        lambda: small().fit(X, lazy),
        lambda: model.predict_proba(lazy),
        lambda: FunnelCalibrator(model).fit(lazy, Y),
        lambda: HistoryFeatures(["user"], time="time").fit(lazy, Y),
        lambda: describe_impressions(lazy, Y),
    ):
        with pytest.raises(TypeError, match=message):
            call()
