"""Importances of encoded rows are those of scikit-learn's permutation importance."""

import numpy as np
import pytest
from author_lists import ATTENTION, author_lists
from numpy.testing import assert_allclose, assert_array_equal
from serving_rows import HAS_CONSTANT, OTHER, X, Y
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from small_model import small

from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.inspection import TaskImportanceDisplay, task_importances
from sk_pwiser.metrics import ctcvr_auc_scorer, ctr_auc_scorer

pytestmark = HAS_CONSTANT
AUCS = {"click": ctr_auc_scorer, "conversion": ctcvr_auc_scorer}
PARAMS = {
    "statistics": {
        "target_encoding": ["shop", "area"],
        "encoding_params": {"min_frequency": {"shop": 6}},
    },
    "positions": {"numeric_encoding": "piecewise_linear", "embedding_dim": "auto"},
    "bfloat16": {"precision": "bfloat16"},
}


def by_scikit_learn(model, X, Y, scoring=AUCS, **kwargs):
    found = permutation_importance(
        model, X, Y, scoring=scoring, n_repeats=2, random_state=3, **kwargs
    )
    return np.stack([each.importances for each in found.values()], axis=1)


def assert_equals_scikit_learn(model, X=X, Y=Y):
    found = task_importances(model, X, Y, n_repeats=2, random_state=3)
    assert_allclose(found.importances, by_scikit_learn(model, X, Y), atol=1e-12)
    assert_allclose(found.baseline, [score(model, X, Y) for score in AUCS.values()])
    return found


def test_the_table_is_encoded_once(monkeypatch):
    model = small(network="esmm", network_params=None).fit(X, Y)
    before = model.predict_proba(X)
    found = assert_equals_scikit_learn(model)
    calls, schema = [], type(model._result.schema)
    transform = schema.transform

    def counting(own, *args, **params):
        calls.append(args)
        return transform(own, *args, **params)

    with monkeypatch.context() as patch:
        patch.setattr(schema, "transform", counting)
        task_importances(model, X, Y, n_repeats=2)
    assert len(calls) == 2  # of the table itself, not of its permutations
    assert found.column_names == list(X)
    assert found.task_names == list(model.task_names_)
    assert np.abs(found.importances).max() > 0.01
    assert_array_equal(model.predict_proba(X), before)


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_of_every_encoding(params):
    model = small(**params).fit(X, Y)
    assert_equals_scikit_learn(model, OTHER)
    model.partial_fit(X, Y)
    assert_equals_scikit_learn(model, X)


def test_statistics_of_the_repeats():
    model = small().fit(X, Y)
    found = task_importances(model, X, Y, random_state=np.random.RandomState(0))
    assert found.importances.shape == (6, 2, 5)
    assert_allclose(found.importances_mean, found.importances.mean(axis=2))
    assert_allclose(found.importances_std, found.importances.std(axis=2))
    # Student's t with 4 degrees of freedom.
    half = 2.776445 * found.importances.std(axis=2, ddof=1) / np.sqrt(5)
    ends = [found.importances_mean - half, found.importances_mean + half]
    assert_allclose(found.intervals, np.stack(ends, axis=-1), atol=1e-7)
    once = task_importances(model, X, Y, n_repeats=1)
    assert np.isnan(once.intervals).all()


@pytest.mark.parametrize("weights", ["rows", "tasks"])
def test_weights_and_missing_labels(weights):
    labels = Y.astype(float)
    labels[::5, 1] = np.nan
    model = small(missing_labels="ignore").fit(X, labels)
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 3, Y.shape if weights == "tasks" else len(Y))
    expected = by_scikit_learn(model, X, labels, sample_weight=weight)
    options = {"n_repeats": 2, "random_state": 3}
    found = task_importances(model, X, labels, sample_weight=weight, **options)
    assert_allclose(found.importances, expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:In the calibration rows:UserWarning")
@pytest.mark.parametrize("method", ["isotonic", "sigmoid"])
@pytest.mark.parametrize("by", [pytest.param(None, marks=pytest.mark.slow), "shop"])
def test_of_a_calibrated_estimator(method, by):
    model = small().fit(X, Y)
    calibrated = FunnelCalibrator(model, method=method, by=by).fit(OTHER, Y)
    assert_equals_scikit_learn(calibrated)
    assert_equals_scikit_learn(FrozenEstimator(model))


def test_of_one_task():
    labels = np.where(Y[:, 0], "yes", "no")
    model = small().fit(X, labels)
    found = task_importances(model, X, labels, n_repeats=2, random_state=3)
    expected = by_scikit_learn(model, X, labels, {"auc": "roc_auc"})
    assert_allclose(found.importances, expected, atol=1e-9)


def test_of_all_containers():
    polars = pytest.importorskip("polars")
    pyarrow = pytest.importorskip("pyarrow")
    numbers = X[["hour", "price", "time"]].astype(float)
    model = small(categorical_features=[0]).fit(numbers.to_numpy(), Y)
    assert_equals_scikit_learn(model, numbers.to_numpy())
    frame = small(categorical_features=["hour"]).fit(numbers, Y)
    expected = task_importances(frame, numbers, Y, random_state=0).importances
    tables = polars.from_pandas(numbers), pyarrow.Table.from_pandas(numbers)
    for table in (*tables, numbers[["time", "hour", "price"]]):
        found = task_importances(frame, table, Y, random_state=0)
        assert_array_equal(found.importances, expected)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_of_lists(pooling):
    """Lists share embeddings with a column; weights and ages move with them."""
    rng = np.random.default_rng(0)
    table = author_lists(rng, len(Y)).assign(n=rng.normal(size=len(Y)))
    table["weight"] = [rng.random(len(v)).tolist() for v in table["also"]]
    table["vector"] = list(rng.normal(size=(len(Y), 3)))
    encoding = ATTENTION
    if pooling == "mean":
        table = table.drop(columns="age")
        encoding = {**ATTENTION, "list_pooling": "mean", "list_ages": None}
    model = small(encoding_params=encoding).fit(table, Y)
    found = task_importances(model, table, Y, n_repeats=2, random_state=3)
    parts = {"last": ["last", "age"], "also": ["also", "weight"]}
    assert found.column_names == ["author", "last", "also", "n", "vector"]
    seed = np.random.RandomState(3).randint(2**31)
    for name, importance in zip(found.column_names, found.importances, strict=True):
        rng, permuted = np.random.RandomState(seed), table.copy()
        rows = np.arange(len(table))
        for repeat in range(2):
            rng.shuffle(rows)
            for part in {*parts.get(name, [name])} & {*table}:
                permuted[part] = permuted[part].array[rows]
            scores = [score(model, permuted, Y) for score in AUCS.values()]
            assert_allclose(importance[:, repeat], found.baseline - scores, atol=1e-6)


def test_of_rare_conversions():
    data = make_ctr_cvr(4_000, ctr=0.05, cvr=0.05, random_state=0)
    model = small().fit(data.data, data.target)
    found = assert_equals_scikit_learn(model, data.data, data.target)
    assert data.target["conversion"].sum() < 20
    assert found.importances_mean[:, 0].max() > 0.01
    none = data.target.assign(conversion=0)
    with pytest.warns(UndefinedMetricWarning, match="nan for task 'conversion': one"):
        found = task_importances(model, data.data, none, random_state=0)
    assert np.isnan(found.importances[:, 1]).all()
    assert np.isfinite(found.importances[:, 0]).all()


def test_bad_input():
    model = small().fit(X, Y)
    pipeline = make_pipeline(FunctionTransformer(), model)
    for estimator in (pipeline, model.task(0), "model"):
        with pytest.raises(TypeError, match="estimator must be a MultiTask"):
            task_importances(estimator, X, Y)
    assert_equals_scikit_learn(pipeline[-1], pipeline[:-1].transform(X))
    with pytest.raises(NotFittedError):
        task_importances(small(), X, Y)
    with pytest.raises(ValueError, match=r"n_repeats must be .*0"):
        task_importances(model, X, Y, n_repeats=0)
    with pytest.raises(ValueError, match="sample_weight must have shape"):
        task_importances(model, X, Y, sample_weight=[1.0])
    with pytest.raises(ValueError, match="X and sample_weight have the same index"):
        task_importances(model, X, Y, sample_weight=X["time"][::-1])
    with pytest.raises(ValueError, match="price"):
        task_importances(model, X.drop(columns="price"), Y)
    with pytest.raises(ValueError, match="Y"):
        task_importances(model, X, Y[:5])
    import scipy.sparse as sp

    counts = sp.csr_array(np.eye(len(X)))
    with pytest.raises(ValueError, match="X must not be a sparse table"):
        task_importances(small().fit(counts, Y), counts, Y)


def test_display(pyplot):
    model = small(max_epochs=4).fit(X, Y)
    display = TaskImportanceDisplay.from_estimator(
        model, X, Y, n_repeats=3, random_state=0, n_columns=4
    )
    found = task_importances(model, X, Y, n_repeats=3, random_state=0)
    assert_array_equal(display.importances, found.importances)
    order = np.argsort(-found.importances_mean.max(axis=1))[:4]
    assert display.shown_ == [list(X)[column] for column in order]
    for k, bars in enumerate(display.bars_):
        widths = [bar.get_width() for bar in bars]
        assert_allclose(widths, found.importances_mean[order, k])
    _, ax = pyplot.subplots()
    assert display.plot(ax).ax_ is ax
    with pytest.raises(ValueError, match="n_columns"):
        display.plot(n_columns=0)
