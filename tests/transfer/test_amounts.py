"""Amounts in merged and distilled models."""

from copy import deepcopy

import numpy as np
import pytest
from numpy.testing import assert_allclose
from small_model import small

from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.transfer import distill, merge_estimators

SPEND = {"spend": "conversion"}
LOG = make_ctr_cvr(
    3_000, n_categorical=2, n_categories=(5, 3), ctr=0.5, cvr=0.5, random_state=0
)
X = LOG.data
BOUGHT = LOG.target["conversion"] == 1
AMOUNTS = np.random.default_rng(0).lognormal(3.0, size=len(X))
Y = LOG.target.assign(spend=np.where(BOUGHT, AMOUNTS, 0))


@pytest.fixture(scope="module")
def base():
    return small(value_tasks=SPEND).fit(X[:1_000], Y[:1_000])


@pytest.fixture(scope="module")
def parts(base):
    dearer = Y.assign(spend=3 * Y["spend"])
    return [
        deepcopy(base).partial_fit(X[1_000:2_000], labels[1_000:2_000])
        for labels in (Y, dearer)
    ]


def test_a_single_member_with_the_coefficient_1_is_merged_whole(base, parts):
    for part in parts:
        merged = merge_estimators(base, [part], X, objective=None, prior=1.0)
        assert_allclose(merged.predict_value(X), part.predict_value(X), rtol=1e-5)
        moves = [m.net_.criterion_.value_terms.log_moves for m in (merged, part)]
        assert_allclose(*moves, rtol=1e-5)


def test_the_level_is_between_those_of_the_members(base, parts):
    merged = merge_estimators(base, parts, X, Y, prior=0.5, objective=None)
    totals = [model.predict_value(X).sum() for model in (*parts, merged)]
    assert totals[0] < totals[2] < totals[1]


def test_a_base_without_a_level_takes_that_of_its_members(base, parts):
    without = deepcopy(base)
    without.net_.module_.value_offset = None
    without.net_.module_.value_slope = None
    merged = merge_estimators(without, parts[:1], X, objective=None, prior=1.0)
    assert_allclose(merged.predict_value(X), parts[0].predict_value(X), rtol=1e-5)


def test_distill_names_value_tasks(base):
    with pytest.raises(ValueError, match="student must have value_tasks=None"):
        distill([base], X, student=small(value_tasks=SPEND))
    student = distill([base], X, student=small(max_epochs=1))
    assert student.predict_proba(X).shape == (len(X), 2)
