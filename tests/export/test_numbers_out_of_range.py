"""Numbers outside of the range of fit count as its ends, in all forms of a model."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from refusals import small
from suites import fast_for

from sk_pwiser._table import NUMERIC_ENCODINGS
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.export import Scorer, to_onnx


@pytest.mark.parametrize("encoding", fast_for({"standard"}, NUMERIC_ENCODINGS))
def test_numbers_out_of_range(encoding, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    data = make_ctr_cvr(600, ctr=0.4, n_numeric=2, n_categorical=1, random_state=0)
    X, Y = data.data, data.target
    X["numeric_0"] += 1_000.0  # far from 0, as times are
    model = small(max_epochs=1, numeric_encoding=encoding).fit(X, Y)
    rows = X[:4].copy()
    ends = X["numeric_0"].agg(["min", "min", "max", "max"]).to_numpy()
    rows["numeric_0"] = ends
    beyond = rows.assign(numeric_0=ends + np.array([-0.1, -1e9, 0.1, 1e9]))
    expected = model.predict_proba(rows)
    assert_array_equal(model.predict_proba(beyond), expected)
    scorer = Scorer(model, runtime="torch")
    assert_allclose(scorer(beyond.to_dict("records")), expected, rtol=1e-5)
    assert_allclose(scorer(beyond.to_dict("list")), expected, rtol=1e-5)
    to_onnx(model, tmp_path / "model.onnx", inputs="raw")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    feed = {name: beyond[[name]].to_numpy(dtype=float) for name in X}
    [found] = session.run(["probabilities"], feed)
    assert_allclose(found, expected, rtol=1e-4)
    assert np.ptp(expected[:, 0]) > 0


def test_ages_of_lists_out_of_range():
    rng = np.random.default_rng(0)
    data = make_ctr_cvr(300, ctr=0.4, random_state=0)
    sizes = rng.integers(1, 4, 300)
    items = [rng.integers(0, 9, size).tolist() for size in sizes]
    ages = [rng.uniform(5, 50, size).tolist() for size in sizes]
    X = data.data.assign(item=rng.integers(0, 9, 300), items=items, ages=ages)
    model = small(
        max_epochs=1,
        categorical_features=["item", "items"],
        encoding_params={
            "list_ages": {"items": "ages"},
            "list_pooling": "attention",
            "shared_embeddings": {"items": "item"},
        },
    ).fit(X, data.target)
    low, high = min(map(min, ages)), max(map(max, ages))
    found = [
        model.predict_proba(X[:9].assign(ages=[[age] * n for n in sizes[:9]]))
        for age in (0.0, low, high, 1e9)
    ]
    assert_array_equal(found[0], found[1])
    assert_array_equal(found[2], found[3])
    assert (found[1] != found[2]).any()
