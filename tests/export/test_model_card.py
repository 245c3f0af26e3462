"""Model cards, against scikit-learn's scores of the same rows."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from small_model import small

from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.export import model_card
from sk_pwiser.metrics import normalized_gini

pytest.importorskip("skops")
pytestmark = pytest.mark.slow
DATA = make_ctr_cvr(600, ctr=0.5, cvr=0.5, value=True, random_state=0)
X = DATA.data
Y = DATA.target
EVENTS = Y[["click", "conversion"]]


@pytest.fixture(scope="module")
def model():
    return small().fit(X, EVENTS)


def rows_of(card, section):
    """Return the rows of a table of a card by their first cells."""
    table = card.select(section).table
    rows = zip(*table.values(), strict=True)
    return {row[0]: dict(zip(table, row, strict=True)) for row in rows}


def test_figures_are_those_of_scikit_learn(model):
    card = model_card(model, X, EVENTS)
    figures = rows_of(card, "Evaluation")
    p = model.predict_proba(X)
    for task, name in enumerate(EVENTS):
        y = EVENTS[name]
        row = figures[name]
        assert row["rows"] == 600
        assert row["events"] == y.sum()
        assert float(row["rate"]) == pytest.approx(y.mean(), rel=1e-3)
        assert float(row["AUC"]) == pytest.approx(roc_auc_score(y, p[:, task]), 1e-3)
        assert float(row["log loss"]) == pytest.approx(log_loss(y, p[:, task]), 1e-3)
        ratio = p[:, task].sum() / y.sum()
        assert float(row["predicted / observed"]) == pytest.approx(ratio, rel=1e-3)
    clicked = EVENTS["click"] == 1
    cvr = figures["conversion given click"]
    expected = roc_auc_score(
        EVENTS["conversion"][clicked], model.predict_cvr(X)[clicked]
    )
    assert cvr["rows"] == clicked.sum()
    assert float(cvr["AUC"]) == pytest.approx(expected, rel=1e-3)
    bins = card.select("Reliability/click").table
    assert len(bins["observed"]) == 10
    assert sum(int(n) for n in bins["rows"]) == 600


def test_the_text_has_columns_limits_and_parameters(model, tmp_path):
    card = model_card(model, X, EVENTS)
    card.save(tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text("utf-8")
    for section in ("Model", "Evaluation", "Columns", "Limits", "Use"):
        assert f"# {section}\n" in text
    assert "## click\n" in text
    assert "conversion presupposes click." in text
    columns = rows_of(card, "Columns")
    assert list(columns) == list(X)
    for name, encoding in model.column_encodings_.items():
        assert columns[name]["kind"] == encoding.kind
    assert "max_epochs" in card.select("Hyperparameters").table["Hyperparameter"]
    assert "Values" not in text
    assert "MultiTaskCTRCVRClassifier.load(" in card.select("Use").content


def test_values_have_figures():
    labels = Y.assign(seconds=1.0)
    values = {"value": "conversion", "seconds": None}
    model = small(value_tasks=values).fit(X, labels)
    card = model_card(model, X, labels)
    figures = rows_of(card, "Values")
    assert list(figures) == ["value"]  # equal amounts have no order
    spend = Y["value"].fillna(0)
    predicted = model.predict_value(X)[:, 0]
    gini = normalized_gini(spend, predicted)
    ratio = predicted.sum() / spend.sum()
    assert float(figures["value"]["Gini"]) == pytest.approx(gini, rel=1e-3)
    total = figures["value"]["predicted / observed total"]
    assert float(total) == pytest.approx(ratio, rel=1e-3)
    assert "the mean of value, under the event conversion" in card.render()


def test_limits_are_those_that_the_rows_show(model):
    few = model_card(model, X[:100], EVENTS[:100]).select("Limits").content
    n_events = EVENTS["conversion"][:100].sum()
    assert (
        f"conversion: {n_events} events in 100 rows; its figures are uncertain" in few
    )
    rare = EVENTS.assign(conversion=EVENTS["conversion"].where(X.index % 3 == 0, 0))
    weight = np.where(rare["conversion"] == 1, 0.1, 1.0)
    card = model_card(model, X, EVENTS, sample_weight=weight)
    assert "times as many events are predicted" in card.select("Limits").content
    none = EVENTS.assign(conversion=0)
    figures = rows_of(model_card(model, X, none), "Evaluation")
    assert figures["conversion"]["AUC"] == ""
    assert figures["conversion"]["predicted / observed"] == ""


def test_calibrators_and_pipelines(model):
    calibrator = FunnelCalibrator(model).fit(X, EVENTS)
    card = model_card(calibrator, X, EVENTS)
    assert "`FunnelCalibrator` of sk_pwiser" in card.render()
    assert list(rows_of(card, "Columns")) == list(X)
    ratio = rows_of(card, "Evaluation")["click"]["predicted / observed"]
    assert float(ratio) == pytest.approx(1, abs=0.02)
    pipeline = make_pipeline(FunctionTransformer(), small()).fit(X, EVENTS)
    of_pipeline = model_card(pipeline, X, EVENTS)
    assert rows_of(of_pipeline, "Evaluation") == rows_of(
        model_card(model, X, EVENTS), "Evaluation"
    )


def test_one_task_and_wrong_input(model):
    one = small().fit(X, EVENTS["click"])
    card = model_card(one, X, EVENTS["click"])
    assert len(rows_of(card, "Evaluation")) == 1
    with pytest.raises(NotFittedError):
        model_card(small(), X, EVENTS)
    with pytest.raises(ValueError, match="must have the 2 tasks"):
        model_card(model, X, EVENTS.assign(more=0))
