"""ONNX and the scorer give the probabilities of every network and encoding."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from author_lists import ATTENTION, author_lists
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit
from serving_rows import HAS_CONSTANT, OTHER, X, Y, one_row_each, raw_inputs
from small_model import small

from sk_pwiser._columns._registry import NUMERIC_ENCODINGS
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.calibration._curves import METHODS
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.export import Scorer, to_onnx
from sk_pwiser.networks import NETWORKS

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, HAS_CONSTANT]
TABLES = (X, OTHER, OTHER[:1])

# Numbers are encoded before all networks in the same way: one has every encoding.
ENCODINGS = {"shared_bottom": NUMERIC_ENCODINGS}


@pytest.fixture(scope="module", params=NETWORKS)
def models(request):
    params = {"network": request.param, "network_params": None, "max_epochs": 1}
    encodings = ENCODINGS.get(request.param, ["bins_and_scores"])
    return [small(**params, numeric_encoding=name).fit(X, Y) for name in encodings]


def assert_equal(predict, model, atol=1e-6):
    for table in TABLES:
        found, expected = predict(table), model.predict_proba(table)
        assert found.dtype == expected.dtype
        assert_allclose(found, expected, atol=atol, rtol=0)


def test_onnx(models, tmp_path):
    def run(inputs):
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        return session.run(["probabilities"], inputs)[0]

    def run_encoded(table):
        found = model.encode(table)
        codes = found.codes.astype(np.int64)
        return run({"codes": codes, "numeric": found.numeric})

    for model in models:
        to_onnx(model, tmp_path / "model.onnx", inputs="raw")
        assert_equal(lambda table: run(raw_inputs(table)), model)
    # The encoding of numbers is not part of the other form.
    to_onnx(model, tmp_path / "model.onnx")
    assert_equal(run_encoded, model)


def test_scorer(models):
    scorers = [(model, Scorer(model, runtime="torch")) for model in models]
    scorers.append((models[0], Scorer(models[0])))
    assert [each.runtime for _, each in scorers] == [*["torch"] * len(models), "onnx"]
    for model, scorer in scorers:
        assert_equal(lambda table, score=scorer: score(one_row_each(table)), model)


def starting_at(logits, name="shared_bottom"):
    """Return a network with other output biases."""
    value = property(lambda self: torch.tensor(logits), lambda self, rates: None)
    biases = {"base_logits": value, "conditional_base_logits": value}
    return type("Starting", (NETWORKS[name],), biases)


# Curves read logits, whatever the network. An export takes a second or two.
RARE = [
    *((network, None) for network in NETWORKS),
    *product(["shared_bottom", "esmm"], METHODS),
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # networks that learnt nothing
@pytest.mark.parametrize("task_space", ["entire", "conditional"])
@pytest.mark.parametrize(("network", "method"), RARE)
def test_rare_events(network, task_space, method, tmp_path):
    # A rate of 1e-6, or of 1e-6 of the rows with the first task.
    network, params = starting_at([-7.0, -14.0], network), {"task_space": task_space}
    model = small(network=network, network_params=params, max_epochs=1, lr=1e-6)
    model.fit(X, Y)
    if method is not None:  # rates of 4e-7 and 2e-7
        model = FunnelCalibrator(model, method=method, negative_sampling_rate=1e-6)
        model.fit(X, Y)
    expected = model.predict_proba(OTHER)
    assert np.median(expected[:, 1]) < 1e-6
    # The slope of a curve multiplies rounding errors of the logits.
    check = partial(
        assert_allclose, desired=expected, rtol=1e-5 if not method else 1e-3
    )
    check(Scorer(model, runtime="torch")(one_row_each(OTHER)))
    # Both forms of a file contain the graph that a scorer runs, too.
    to_onnx(model, tmp_path / "model.onnx", inputs="raw")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    check(*session.run(None, raw_inputs(OTHER)))


@pytest.mark.filterwarnings("ignore:Training diverged")
def test_a_single_task_that_almost_always_happens():
    network = starting_at([14.0])
    model = small(network=network, network_params=None, max_epochs=1, lr=1e-6)
    model.fit(X, Y[:, 0])
    logits = model.predict_logits(OTHER).astype(float)
    expected = expit(np.column_stack([-logits, logits]))
    assert expected[:, 0].max() < 2e-6
    assert_allclose(model.predict_proba(OTHER), expected, rtol=1e-6)
    for runtime in ("onnx", "torch"):
        found = Scorer(model, runtime=runtime)(one_row_each(OTHER))
        assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("encoding", NUMERIC_ENCODINGS)
def test_numbers_out_of_range(encoding, tmp_path):
    data = make_ctr_cvr(600, ctr=0.4, n_numeric=2, n_categorical=1, random_state=0)
    X, Y = data.data, data.target
    X["numeric_0"] += 1_000.0  # far from 0, as times are
    model = small(max_epochs=1, numeric_encoding=encoding).fit(X, Y)
    rows = X[:4].copy()
    ends = X["numeric_0"].agg(["min", "min", "max", "max"]).to_numpy()
    rows["numeric_0"] = ends
    beyond = rows.assign(numeric_0=ends + np.array([-0.1, -1e9, 0.1, 1e9]))
    expected = model.predict_proba(beyond)
    # Slightly beyond the range, the outermost row decides, and far beyond, many do.
    assert_array_equal(expected[[0, 2]], model.predict_proba(rows)[[0, 2]])
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
    table = author_lists(np.random.default_rng(0), len(Y))
    encoding = {**ATTENTION, "list_weights": None}
    model = small(max_epochs=1, encoding_params=encoding).fit(table, Y)
    ages, rows = np.concatenate([v for v in table["age"] if v]), table[:9]
    found = [
        model.predict_proba(
            rows.assign(age=[v and [age] * len(v) for v in rows["last"]])
        )
        for age in (0.0, np.nanmin(ages), np.nanmax(ages), 1e9)
    ]
    assert_array_equal(found[0], found[1])
    assert_array_equal(found[2], found[3])
    assert (found[1] != found[2]).any()
