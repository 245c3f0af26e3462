"""ONNX and the scorer give the mean amounts of `predict_value`."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from serving_rows import HAS_CONSTANT, OTHER, N, X, Y, one_row_each, raw_inputs
from small_model import small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.export import TRUSTED_TYPES, Scorer, to_onnx

pytestmark = [
    pytest.mark.slow,
    HAS_CONSTANT,
    pytest.mark.filterwarnings("ignore:In the calibration rows"),
]

RNG = np.random.default_rng(0)
LABELS = pd.DataFrame(
    {
        "click": Y[:, 0],
        "conversion": Y[:, 1],
        "spend": np.where(Y[:, 1] == 1, RNG.gamma(2, 20, N), 0),
        "watch": RNG.gamma(2, 3, N),
    }
)
VALUE_TASKS = {"spend": "conversion", "watch": None}
TABLES = (X, OTHER, OTHER[:1])


def valued(labels=LABELS, **params):
    tasks = {name: VALUE_TASKS[name] for name in VALUE_TASKS if name in labels}
    return small(**{"value_tasks": tasks, **params}).fit(X, labels)


def tweedie():
    return valued(value_loss="tweedie")


def one_value():
    return valued(LABELS.drop(columns="watch"))


def one_task():
    return small(value_tasks={"watch": "click"}).fit(
        X, LABELS[["click"]].assign(watch=LABELS["watch"] * LABELS["click"])
    )


def calibrated():
    return FunnelCalibrator(valued(), method="sigmoid").fit(X, LABELS)


def calibrated_per_market():
    """Amounts of half of the markets are larger."""
    larger = X["area"].cat.codes % 2 == 0
    labels = LABELS.assign(watch=LABELS["watch"] * np.where(larger, 3, 1))
    model = FunnelCalibrator(tweedie(), method="sigmoid", by="area")
    return model.fit(X, labels)


MAKERS = [valued, tweedie, one_value, calibrated, calibrated_per_market]
IDS = [make.__name__ for make in MAKERS]


@pytest.fixture(scope="module", params=MAKERS, ids=IDS)
def model(request):
    return request.param()


def assert_equal(predict, model):
    """Check means per impression and given the event, to float32's rounding."""
    for given_event in (False, True):
        for table in TABLES:
            expected = model.predict_value(table, given_event=given_event)
            values = predict(table, given_event)
            assert values.dtype == np.float64
            assert values.shape == expected.shape
            assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_a_scorer_gives_the_values_of_a_table(model, runtime):
    if runtime == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    scorer = Scorer(model, runtime=runtime)
    assert scorer.value_names == model.value_names_

    def predict(table, given_event):
        return scorer.predict_value(one_row_each(table), given_event=given_event)

    assert_equal(predict, model)
    rows = one_row_each(OTHER)
    assert_allclose(scorer(rows), model.predict_proba(OTHER), atol=1e-6)
    again = pickle.loads(pickle.dumps(scorer))
    assert_array_equal(again.predict_value(rows), scorer.predict_value(rows))
    shared = {"shop": "shop 1", "area": 1, "same": 1.0}
    items = [{**row} for row in rows[:5]]
    for item in items:
        for name in shared:
            del item[name]
    joined = [{**shared, **item} for item in items]
    assert_allclose(
        scorer.predict_value(items, shared), scorer.predict_value(joined), rtol=1e-6
    )
    assert scorer.predict_value([]).shape == model.predict_value(X)[:0].shape


@pytest.mark.parametrize("inputs", ["raw", "encoded"])
def test_onnx_gives_the_values_of_a_table(model, inputs, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    if inputs == "encoded" and getattr(model, "by_", None) is not None:
        with pytest.raises(ValueError, match="export it with inputs='raw'"):
            to_onnx(model, path, inputs=inputs)
        return
    to_onnx(model, path, inputs=inputs)
    session = onnxruntime.InferenceSession(path)
    names = ["probabilities", "values", "values_given_event"]
    assert [output.name for output in session.get_outputs()] == names

    def arrays(table):
        if inputs == "raw":
            return raw_inputs(table)
        estimator = getattr(model, "estimator_", model)
        encoded = estimator.encode(table)
        codes = encoded.codes.astype(np.int64)
        return {"codes": codes, "numeric": encoded.numeric}

    def predict(table, given_event):
        name = "values_given_event" if given_event else "values"
        (values,) = session.run([name], arrays(table))
        assert values.shape == (len(table), len(model.value_names_))
        return values[:, 0] if values.shape[1] == 1 else values

    assert_equal(predict, model)
    (probabilities,) = session.run(["probabilities"], arrays(OTHER))
    assert_allclose(probabilities, model.predict_proba(OTHER), atol=1e-6)


def test_a_single_task_with_a_value():
    model = one_task()
    scorer = Scorer(model, runtime="torch")
    rows = one_row_each(X)
    assert_allclose(scorer(rows), model.predict_proba(X), atol=1e-6)
    assert_allclose(scorer.predict_value(rows), model.predict_value(X), rtol=1e-6)


def test_a_scorer_without_values(tmp_path):
    model = small().fit(X, Y)
    scorer = Scorer(model, runtime="torch")
    assert scorer.value_names == []
    with pytest.raises(ValueError, match="fitted with value_tasks"):
        scorer.predict_value(one_row_each(X))
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    # A column may have the name of an output that there is not.
    table = X[["price"]].assign(values=X["hour"])
    to_onnx(small().fit(table, Y), tmp_path / "model.onnx", inputs="raw")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [output.name for output in session.get_outputs()] == ["probabilities"]
    with pytest.raises(ValueError, match=r"'values' cannot be .* of the output"):
        to_onnx(
            small(value_tasks=VALUE_TASKS).fit(table, LABELS),
            tmp_path / "other.onnx",
            inputs="raw",
        )


def test_files_hold_values(model, tmp_path):
    model.save(tmp_path / "model.skpw")
    loaded = type(model).load(tmp_path / "model.skpw")
    expected = model.predict_value(OTHER)
    assert_array_equal(loaded.predict_value(OTHER), expected)
    assert loaded.value_names_ == model.value_names_
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict_value(OTHER), expected)
    skops = pytest.importorskip("skops.io")
    content = skops.dumps(model)
    assert set(skops.get_untrusted_types(data=content)) <= set(TRUSTED_TYPES)
    again = skops.loads(content, trusted=TRUSTED_TYPES)
    assert_array_equal(again.predict_value(OTHER), expected)


def test_a_loaded_estimator_takes_updates(tmp_path):
    model = valued()
    model.save(tmp_path / "model.skpw")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model.skpw")
    for one in (model, loaded):
        one.partial_fit(X, LABELS)
    assert_array_equal(loaded.predict_value(X), model.predict_value(X))
