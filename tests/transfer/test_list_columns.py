"""Functions over fitted estimators whose tables have lists, or are sparse."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.transfer import fine_tune, merge_estimators, named_parts

N = 80
RNG = np.random.default_rng(0)
Y = (RNG.random((N, 2)) < [0.5, 0.6]).astype(int).cumprod(axis=1)
LISTS = [RNG.integers(5, size=1 + i % 3).tolist() for i in range(N)]
TABLES = {
    "lists": pd.DataFrame({"items": LISTS, "other": LISTS[::-1], "n": np.arange(N)}),
    "sparse": sp.csr_array(sp.random(N, 6, density=0.3, random_state=0)),
}


@pytest.fixture(params=TABLES)
def table(request):
    return TABLES[request.param]


def test_fine_tuning_and_merging(table):
    base = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0).fit(table, Y)
    assert next(iter(named_parts(base))) == "embedding"
    members = [
        fine_tune(base, table, Y, regularizer=name, random_state=0, extend=False)
        for name in (None, "l2_sp", "bss")
    ]
    merged = merge_estimators(base, members, table, Y)
    probabilities = merged.predict_proba(table)
    assert np.isfinite(probabilities).all()
    assert (probabilities != base.predict_proba(table)).all()
    for name in ("delta", "tred"):
        with pytest.raises(ValueError, match=f"{name}.* does not support sparse X"):
            fine_tune(base, table, Y, regularizer=name)
