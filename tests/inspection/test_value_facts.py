"""The amounts of values before a fit, against pandas."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.inspection import describe_impressions

LOG = make_ctr_cvr(
    3_000, n_numeric=1, n_categorical=1, ctr=0.5, cvr=0.5, value=True, random_state=0
)
X = LOG.data
Y = LOG.target.rename(columns={"value": "spend"})
VALUE_TASKS = {"spend": "conversion"}


def test_facts_are_those_of_the_amounts_under_the_event():
    labels = Y.copy()
    events = labels.index[labels["conversion"] == 1]
    labels.loc[events[:3], "spend"] = np.nan
    labels.loc[events[3:5], "spend"] = 0.0
    labels["seconds"] = 2.0
    value_tasks = {**VALUE_TASKS, "seconds": None}
    description = describe_impressions(X, labels, value_tasks=value_tasks)
    table = description.values.set_index("value")
    spend = table.loc["spend"]
    amounts = labels.loc[events, "spend"].dropna()
    assert spend["task"] == "conversion"
    assert spend["n_events"] == len(events)
    assert spend["n_amounts"] == len(amounts)
    assert spend["n_zeros"] == 2
    expected = [amounts.mean(), amounts.median(), amounts.quantile(0.99), amounts.max()]
    assert_allclose(spend["mean":"largest"].astype(float), expected)
    largest = amounts.nlargest(int(np.ceil(len(amounts) / 100)))
    assert_allclose(spend["largest_share"], largest.sum() / amounts.sum())
    assert_allclose(
        spend["n_effective"], amounts.sum() ** 2 / (amounts**2).sum(), rtol=1e-12
    )
    seconds = table.loc["seconds"]
    assert seconds["task"] == ""
    assert seconds["n_events"] == seconds["n_amounts"] == len(X)
    assert_allclose(seconds["n_effective"], len(X))
    # The text has the same numbers, and the missing amounts.
    text = str(description)
    assert f"'spend': 3 of {len(events)} rows with conversion have no amount" in text
    [line] = [line for line in text.splitlines() if line.startswith("seconds")]
    assert line.split() == [
        "seconds",
        "impression",
        "3,000",
        "2",
        "2",
        "2",
        "2",
        "1.0%",
    ]
    assert "<td class=left>seconds</td>" in description._repr_html_()


def test_the_estimator_may_name_the_values():
    model = MultiTaskCTRCVRClassifier(value_tasks={2: 1})
    of_array = describe_impressions(X, Y.to_numpy(), estimator=model)
    expected = describe_impressions(X, Y, value_tasks=VALUE_TASKS)
    assert_allclose(of_array.values["mean"], expected.values["mean"])
    assert of_array.depths.equals(expected.depths)
    without = describe_impressions(X, Y.drop(columns="spend"))
    assert without.values is None
    assert without.columns.equals(expected.columns)
    assert without.notes == expected.notes[: len(without.notes)]


@pytest.mark.parametrize(
    ("amounts", "note"),
    [
        (lambda n: np.ones(n), None),
        (lambda n: np.r_[np.full(n - 3, 1.0), [2e6] * 3], "as well as 3 equal ones"),
        (
            lambda n: np.r_[np.full(n - 100, 1.0), np.full(100, 300.0)],
            "the largest 1% of the amounts are",
        ),
        (lambda n: np.zeros(n), "as well as 0 equal ones"),
    ],
)
def test_a_few_amounts_that_decide_are_noted(amounts, note):
    n = 10_000
    labels = pd.DataFrame({"click": np.arange(n) % 2, "spend": amounts(n)})
    table = pd.DataFrame({"a": np.random.default_rng(0).normal(size=n)})
    description = describe_impressions(table, labels, value_tasks={"spend": None})
    notes = [text for text in description.notes if "spend" in text]
    if note is None:
        assert notes == []
    else:
        [text] = notes
        assert note in text


def test_wrong_values_are_refused():
    with pytest.raises(TypeError, match="value_tasks must map columns of labels"):
        describe_impressions(X, Y, value_tasks=["spend"])
    with pytest.raises(ValueError, match="'revenue', which Y lacks"):
        describe_impressions(X, Y, value_tasks={"revenue": "conversion"})
