"""A scorer explains rows that are dictionaries as `explain_rows` explains a table."""

import pickle

import numpy as np
import pandas as pd
import pytest
from author_lists import author_lists
from numpy.testing import assert_allclose, assert_array_equal
from serving_rows import HAS_CONSTANT, OTHER, N, X, Y, one_row_each
from small_model import small

from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.export import Scorer
from sk_pwiser.inspection import explain_rows

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
    }
)
BACKGROUND = X[100:106]


def plain():
    return small(target_encoding=["shop"]).fit(X, Y)


def valued():
    model = small(value_tasks={"spend": "conversion"}, value_loss="tweedie")
    return model.fit(X, LABELS)


def calibrated_per_market():
    model = FunnelCalibrator(valued(), method="sigmoid", by="area")
    return model.fit(X, LABELS)


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
@pytest.mark.parametrize("make", [plain, valued, calibrated_per_market])
def test_contributions_are_those_of_a_table(make, runtime):
    if runtime == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    model = make()
    scorer = Scorer(model, runtime=runtime, explain=True, background=BACKGROUND)
    expected = explain_rows(model, OTHER[:9], background=BACKGROUND)
    rows = one_row_each(OTHER[:9])
    probabilities, found = scorer.explain(rows)
    assert_array_equal(probabilities, scorer(rows))
    assert found.task_names == expected.task_names
    assert found.value_names == expected.value_names
    assert found.column_names == expected.column_names
    assert_allclose(found.contributions, expected.contributions, atol=1e-5)
    assert_allclose(found.log_odds, expected.log_odds, atol=1e-5)
    assert_allclose(found.base_values, expected.base_values, atol=1e-5)
    _, one = scorer.explain(rows[3], tasks="click")
    assert_allclose(
        one.contributions[0, :, 0], expected.contributions[3, :, 0], atol=1e-5
    )
    assert one.data[0, 0] == rows[3]["shop"]
    again = pickle.loads(pickle.dumps(scorer))
    _, of_copy = again.explain(rows)
    assert_array_equal(of_copy.contributions, found.contributions)


def test_values_given_the_event():
    model = valued()
    scorer = Scorer(model, runtime="torch", explain=True, background=BACKGROUND)
    shared = {"shop": "shop 1", "same": 1.0}
    rows = one_row_each(X[:4].assign(**shared))
    items = [{k: v for k, v in row.items() if k not in shared} for row in rows]
    _, found = scorer.explain(items, shared, tasks=["spend"], given_event=True)
    expected = np.log(scorer.predict_value(rows, given_event=True))
    assert_allclose(found.log_odds[:, 0], expected, atol=1e-6)
    assert found.data[:, 0].tolist() == ["shop 1"] * 4
    _, per_impression = scorer.explain(rows, tasks="spend")
    assert_allclose(
        per_impression.log_odds[:, 0], np.log(scorer.predict_value(rows)), atol=1e-6
    )


def test_lists_are_explained():
    table = author_lists(np.random.default_rng(0), N)[["author", "also"]]
    model = small().fit(table, Y)
    scorer = Scorer(model, runtime="torch", explain=True, background=table[20:26])
    expected = explain_rows(model, table[:5], background=table[20:26])
    _, found = scorer.explain(table[:5].to_dict("records"))
    assert_allclose(found.contributions, expected.contributions, atol=1e-5)


def test_lists_beside_the_shifts_of_a_calibrator_are_explained():
    table = author_lists(np.random.default_rng(0), N)[["author", "also"]]
    table["area"] = X["area"].to_numpy()
    model = FunnelCalibrator(small().fit(table, Y), method="sigmoid", by="area")
    model.fit(table, Y)
    background = table[20:26]
    scorer = Scorer(model, runtime="torch", explain=True, background=background)
    expected = explain_rows(model, table[:5], background=background)
    _, found = scorer.explain(table[:5].to_dict("records"))
    assert_allclose(found.contributions, expected.contributions, atol=1e-5)


def test_equal_rows_have_equal_reasons(monkeypatch):
    from sk_pwiser.inspection import _shapley

    monkeypatch.setattr(_shapley, "MOST_EXACT_COLUMNS", 0)
    scorer = Scorer(plain(), runtime="torch", explain=True, background=BACKGROUND)
    row = one_row_each(OTHER)[7]
    _, first = scorer.explain(row)
    _, second = scorer.explain([row])
    assert_array_equal(first.contributions, second.contributions)
    assert first.errors.max() > 0


def test_requests_without_rows_and_wrong_arguments():
    model = plain()
    scorer = Scorer(model, runtime="torch", explain=True, background=BACKGROUND)
    probabilities, found = scorer.explain([])
    assert probabilities.shape == (0, 2)
    assert found.contributions.shape == (0, 6, 3)
    with pytest.raises(ValueError, match=r"task must be one of .* got 'buy'"):
        scorer.explain([], tasks="buy")
    with pytest.raises(ValueError, match="background must be given with explain=True"):
        Scorer(model, runtime="torch", explain=True)
    with pytest.raises(ValueError, match="background must be given with explain=True"):
        Scorer(model, runtime="torch", background=BACKGROUND)
    with pytest.raises(ValueError, match="background must have rows"):
        Scorer(model, runtime="torch", explain=True, background=X[:0])
    with pytest.raises(ValueError, match="made with explain=True and background"):
        Scorer(model, runtime="torch").explain([])
