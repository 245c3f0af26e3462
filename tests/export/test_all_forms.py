"""ONNX, skops and the scorer give the probabilities of every network and encoding."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from refusals import small
from serving_rows import HAS_CONSTANT, OTHER, X, Y, one_row_each, raw_inputs
from suites import fast_for

from sk_pwiser._table import NUMERIC_ENCODINGS
from sk_pwiser.export import TRUSTED_TYPES, Scorer, to_onnx
from sk_pwiser.networks import NETWORKS

pytestmark = HAS_CONSTANT

TABLES = (X, OTHER, OTHER[:1])


@pytest.fixture(scope="module", params=fast_for({"shared_bottom", "esmm"}, NETWORKS))
def models(request):
    """One network with every numeric encoding."""
    params = {"network": request.param, "network_params": None, "max_epochs": 1}
    return [
        small(**params, numeric_encoding=name).fit(X, Y) for name in NUMERIC_ENCODINGS
    ]


def assert_equal(predict, model, atol=1e-6):
    for table in TABLES:
        found, expected = predict(table), model.predict_proba(table)
        assert found.dtype == expected.dtype
        assert_allclose(found, expected, atol=atol, rtol=0)


def test_onnx(models, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")

    def run(inputs):
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        return session.run(["probabilities"], inputs)[0]

    def run_encoded(table):
        found = model.encode(table)
        codes = found.codes.astype(np.int64)
        return run({"codes": codes, "numeric": found.numeric})

    for model in models:
        to_onnx(model, tmp_path / "model.onnx")
        assert_equal(run_encoded, model)
        to_onnx(model, tmp_path / "model.onnx", inputs="raw")
        assert_equal(lambda table: run(raw_inputs(table)), model)


def test_skops(models):
    skops = pytest.importorskip("skops.io")
    for model in models:
        again = skops.loads(skops.dumps(model), trusted=TRUSTED_TYPES)
        for table in TABLES:
            assert_array_equal(again.predict_proba(table), model.predict_proba(table))


def test_scorer(models):
    pytest.importorskip("onnxruntime")
    for model in models:
        for runtime in ("auto", "torch"):
            scorer = Scorer(model, runtime=runtime)
            assert scorer.runtime == ("torch" if runtime == "torch" else "onnx")
            assert_equal(lambda table, score=scorer: score(one_row_each(table)), model)
