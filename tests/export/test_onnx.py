import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from serving_rows import HAS_CONSTANT, OTHER, N, X, Y, raw_inputs
from small_model import small

from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.export import to_onnx

pytestmark = [pytest.mark.slow, HAS_CONSTANT]

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def train(**params):
    defaults = {"network_params": None, "max_epochs": 1}
    return small(**{**defaults, **params}).fit(X, Y)


def run(path, inputs):
    (output,) = onnxruntime.InferenceSession(path).run(["probabilities"], inputs)
    return output


def run_encoded(path, model, table):
    found = model.encode(table)
    codes = found.codes.astype(np.int64)
    return run(path, {"codes": codes, "numeric": found.numeric})


def assert_equal(found, expected):
    assert found.dtype == expected.dtype
    assert_allclose(found, expected, atol=1e-5, rtol=0)


PARAMS = {
    "statistics": {
        "target_encoding": ["shop", "area"],
        "encoding_params": {"min_frequency": {"shop": 6}},
    },
    "fm": {"network_params": {"interaction": "fm"}},
    "cross": {"network_params": {"interaction": "cross"}},
    "deep cross": {
        "network_params": {"interaction": "cross", "n_cross_layers": 2, "cross_rank": 3}
    },
    "limited": {"encoding_params": {"max_categories": 3}},
    "one task": {},
}


@pytest.mark.parametrize("name", PARAMS)
def test_of_further_parameters(name, tmp_path):
    model = small(**PARAMS[name]).fit(X, Y[:, 0] if name == "one task" else Y)
    path = tmp_path / "model.onnx"
    to_onnx(model, path)
    assert_equal(run_encoded(path, model, OTHER), model.predict_proba(OTHER))
    to_onnx(model, path, inputs="raw")
    assert_equal(run(path, raw_inputs(OTHER)), model.predict_proba(OTHER))


def test_a_steep_calibration_curve(tmp_path):
    """Of a model whose log-odds differ little; its intercept has many digits."""
    model = train()
    calibrator = FunnelCalibrator(model, method="sigmoid").fit(X, Y)
    logits = model.predict_logits(X).astype(float)
    for curve, centre in zip(calibrator.calibrators_, logits.mean(0), strict=True):
        curve.slope_, curve.intercept_ = 1e3, -1e3 * centre
    to_onnx(calibrator, tmp_path / "model.onnx")
    found = run_encoded(tmp_path / "model.onnx", model, X)
    # The slope multiplies rounding errors of the logits.
    assert_allclose(found, calibrator.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("columns", [["price", "same", "time"], ["shop", "area"]])
def test_of_columns_of_one_kind(columns, tmp_path):
    model = small().fit(X[columns], Y)
    path, table = tmp_path / "model.onnx", OTHER[columns]
    to_onnx(model, path)
    assert_equal(run_encoded(path, model, table), model.predict_proba(table))
    to_onnx(model, path, inputs="raw")
    assert_equal(run(path, raw_inputs(table)), model.predict_proba(table))


@pytest.mark.filterwarnings(r"ignore:The columns \['codes'\] have the same")
def test_extreme_values_and_categories_of_every_kind(tmp_path):
    table = pd.DataFrame(
        {
            "flag": pd.Categorical(np.arange(N) % 2 == 0),
            "share": pd.Categorical(np.where(np.arange(N) % 5, 0.1, np.nan)),
            "text": pd.Categorical(np.where(np.arange(N) % 3, "e", "é")),
            "probabilities": np.geomspace(1e-12, 1e12, N),
            "codes": pd.Categorical(np.full(N, None, dtype=object)),
        }
    )
    model = small().fit(table, Y)
    path = tmp_path / "model.onnx"
    message = "'probabilities' cannot be exported.*name of the output"
    with pytest.raises(ValueError, match=message):
        to_onnx(model, path, inputs="raw")
    table = table.rename(columns={"probabilities": "numeric"})
    model = small().fit(table, Y)
    to_onnx(model, path, inputs="raw")
    table.loc[:3, "numeric"] = [-1e300, 1e300, np.nan, -0.0]
    inputs = raw_inputs(table, text=("text", "codes"))
    assert_equal(run(path, inputs), model.predict_proba(table))
    inputs["numeric"][:2] = [[-np.inf], [np.inf]]
    assert_equal(run(path, inputs), model.predict_proba(table))


def test_of_a_fit_on_an_array_names_inputs_by_index(tmp_path):
    numbers = X[["hour", "price"]].to_numpy()
    model = small(categorical_features=[0]).fit(numbers, Y)
    path = tmp_path / "model.onnx"
    to_onnx(model, str(path), inputs="raw")
    inputs = {"0": numbers[:, :1], "1": numbers[:, 1:]}
    assert_equal(run(path, inputs), model.predict_proba(numbers))


def mixed():
    table = X.assign(shop=pd.Categorical([1, "one"] * (N // 2)))
    return small().fit(table, Y)


def dates():
    days = pd.to_datetime(["2024-01-01", "2024-01-02"] * (N // 2)).date
    return small(categorical_features=["shop"]).fit(X[["price"]].assign(shop=days), Y)


def large():
    table = X.assign(area=pd.Categorical([2**53 + 1, 1] * (N // 2)))
    return small().fit(table, Y)


def empty_text(other):
    shop = ["", other, "a"] * (N // 3)
    return small().fit(X.assign(shop=pd.Categorical(shop)), Y)


REFUSED = {
    "hash": (
        lambda: small(encoding_params={"n_hash_buckets": {"shop": 3}}).fit(X, Y),
        "raw",
        "Column 'shop' cannot be exported: it has hash buckets",
    ),
    "mixed": (mixed, "raw", "Column 'shop'.*numbers and text"),
    "dates": (dates, "raw", "Column 'shop'.*dates"),
    "empty text": (lambda: empty_text("b"), "raw", "Column 'shop'.*empty string"),
    "both empty": (lambda: empty_text(None), "raw", "Column 'shop'.*empty string"),
    "large": (large, "raw", "Column 'area'.*9007199254740993"),
    "inputs": (lambda: small().fit(X, Y), "table", "inputs must be .*'table'"),
}


@pytest.mark.parametrize(("make", "inputs", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_exported_is_named_and_no_file_written(
    make, inputs, message, tmp_path
):
    model = make()
    path = tmp_path / "model.onnx"
    path.write_text("earlier")
    with pytest.raises(ValueError, match=message):
        to_onnx(model, path, inputs=inputs)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_text() == "earlier"


def test_weights_beyond_the_size_of_a_file_are_refused(tmp_path, monkeypatch):
    model = small().fit(X, Y)
    monkeypatch.setattr("sk_pwiser.export._onnx.LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="The network cannot be exported: its weights"):
        to_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_no_other(tmp_path):
    model = small().fit(X, Y)
    with pytest.raises(FileNotFoundError, match=r"missing/model\.onnx'$"):
        to_onnx(model, tmp_path / "missing" / "model.onnx")
    assert not list(tmp_path.iterdir())
