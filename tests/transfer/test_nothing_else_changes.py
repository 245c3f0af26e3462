"""Functions over fitted estimators change nothing else, and repeat their results."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from pools import assert_same_weights, frozen_bytes, with_noise
from small_model import X, Y, small

from sk_pwiser.transfer import (
    distill,
    fine_tune,
    fit_like,
    merge_estimators,
    merge_interference,
    named_parts,
    select_estimators,
)
from sk_pwiser.transfer._fine_tune import REGULARIZERS

MERGE = {"granularity": "layer", "freeze": "embedding", "realign": True}
CALLS = {
    "distill": lambda base, members: distill(members, X, student=base),
    **{
        f"fine_tune {name}": lambda base, _, name=name: fine_tune(
            base, X[:200], Y[:200], regularizer=name
        )
        for name in (None, *REGULARIZERS)
    },
    "fit_like": lambda base, members: fit_like(members[0], base, X[:200], Y[:200]),
    "named_parts": lambda base, members: named_parts(base),
    "merge_estimators": lambda base, members: merge_estimators(
        base, members, X, Y, random_state=0, **MERGE
    ),
    "merge_interference": lambda base, members: merge_interference(base, members, X),
    "select_estimators": lambda base, members: select_estimators(
        [base, *members], X, Y, n_select=1, n_iter=5, random_state=0
    ),
}
FAST = {"distill", "fine_tune None", "fit_like", "merge_estimators"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(value, marks=() if value in FAST else pytest.mark.slow)
        for value in CALLS
    ],
)
def test_estimators_and_generators_stay_as_they_were(name):
    base = small(max_epochs=2).fit(X, Y)
    members = [with_noise(base, 0.05, seed) for seed in range(2)]
    before = [frozen_bytes(each) for each in (base, *members)]
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = CALLS[name](base, members)
    assert [frozen_bytes(each) for each in (base, *members)] == before
    assert_array_equal(torch.get_rng_state(), states[0])
    assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    again = CALLS[name](base, members)
    if hasattr(first, "net_"):  # another model, and the same one on the second call
        assert not np.array_equal(first.predict_proba(X), base.predict_proba(X))
        assert_same_weights(first, again)
        assert not first.net_.module_._forward_hooks
    else:
        assert repr(first) == repr(again)
