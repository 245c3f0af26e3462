"""Columns of exposure with networks of the user, updates, counts, and two processes."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from pools import Linear
from small_model import small

from sk_pwiser import MultiTaskCTRCVRClassifier

N = 2_400
RNG = np.random.default_rng(0)
ITEM = RNG.integers(0, 130, N)
X = pd.DataFrame(
    {
        "item": np.char.add("i", ITEM.astype(str)),
        "x": RNG.normal(size=N),
        "position": 1 + (ITEM % 4 + RNG.integers(0, 3, N)),
    }
)
CLICK = RNG.random(N) < 1 / (1 + np.exp(-(1 + X["x"] - 0.6 * X["position"])))
Y = pd.DataFrame({"click": CLICK, "conversion": CLICK & (RNG.random(N) < 0.5)})
Y = Y.astype(int)
AMOUNTS = Y.assign(spend=np.where(Y["conversion"], 1.0 + ITEM % 5, np.nan))


def shown(**params):
    return small(**{"exposure_features": ["position"], "lr": 0.02, **params})


@pytest.mark.parametrize("space", ["entire", "conditional"])
def test_a_network_of_the_user_has_the_terms(space):
    class Own(Linear):
        task_space = space

    model = shown(network=Own, network_params=None).fit(X, Y)
    terms = model.net_.module_.exposure_terms
    codes = torch.from_numpy(model._result.schema.encoder.exposure_codes(X))
    change = model.as_shown().predict_logits(X)[:, 0] - model.predict_logits(X)[:, 0]
    assert_allclose(change, terms(codes)[:, 0].detach(), atol=1e-5)
    assert np.ptp(change) > 0.05
    rows = X.drop(columns="position")
    assert_array_equal(model.predict_proba(rows), model.predict_proba(X))
    model.partial_fit(X[:500], Y[:500])
    assert np.isfinite(model.predict_proba(rows)).all()


def test_updates_of_a_saved_model_are_those_of_the_model(tmp_path):
    encoding_params = {"grow_vocabulary": True, "forget_after": 2}
    model = shown(encoding_params=encoding_params)
    for day in range(5):
        rows = slice(day * 400, (day + 1) * 400)
        # Each day has items of its own beside those of others.
        table = X[rows].assign(item=X["item"][rows] + str(day % 3))
        if day == 2:
            model.save(tmp_path / "model")
            other = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
        if day >= 2:
            other.partial_fit(table, Y[rows])
        model.partial_fit(table, Y[rows])
    assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    assert_array_equal(
        other.as_shown().predict_proba(X), model.as_shown().predict_proba(X)
    )


@pytest.mark.parametrize("exposure", [None, ["position"]])
def test_counts_of_rows_with_amounts_are_rows_in_statistics(exposure):
    counts = 1 + np.arange(N) % 3
    repeated = np.repeat(np.arange(N), counts)
    params = {
        "exposure_features": exposure,
        "value_tasks": {"spend": "conversion"},
        "max_epochs": 1,
    }
    weighted = small(**params).fit(X, AMOUNTS, sample_weight=counts)
    rows = small(**params).fit(
        X.iloc[repeated].reset_index(drop=True),
        AMOUNTS.iloc[repeated].reset_index(drop=True),
    )
    ours, theirs = (m._result.schema.statistics for m in (weighted, rows))
    assert ours.n_values == (1 if exposure is None else 2)
    for values, expected in zip(ours.counts_, theirs.counts_, strict=True):
        assert_allclose(values, expected, atol=1e-6)
    assert_allclose(ours.totals_, theirs.totals_, rtol=1e-9)
    assert_allclose(ours.squares_, theirs.squares_, rtol=1e-6)


SECOND_PROCESS = """
import sys
import numpy as np
import pandas as pd
from sk_pwiser import MultiTaskCTRCVRClassifier

model = MultiTaskCTRCVRClassifier.load("model")
for day in (1, 2, 3):
    model.partial_fit(pd.read_pickle(f"X{day}"), pd.read_pickle(f"Y{day}"))
np.save("p.npy", model.predict_proba(pd.read_pickle("X0")))
np.save("shown.npy", model.as_shown().predict_proba(pd.read_pickle("X0")))
model.save("updated")
"""


@pytest.mark.slow
def test_a_second_process_continues_as_the_first_one(tmp_path):
    model = shown(
        encoding_params={"grow_vocabulary": True, "forget_after": 2},
        value_tasks={"spend": "conversion"},
    )
    tables = []
    for day in range(4):
        rows = slice(day * 600, (day + 1) * 600)
        table = X[rows].assign(item=X["item"][rows] + str(day % 2))
        tables.append((table, AMOUNTS[rows]))
        table.to_pickle(tmp_path / f"X{day}")
        AMOUNTS[rows].to_pickle(tmp_path / f"Y{day}")
    model.partial_fit(*tables[0]).save(tmp_path / "model")
    for table, labels in tables[1:]:
        model.partial_fit(table, labels)
    command = [sys.executable, "-W", "ignore", "-c", SECOND_PROCESS]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    first = tables[0][0]
    p = np.load(tmp_path / "p.npy")
    assert_array_equal(p, model.predict_proba(first))
    as_shown = np.load(tmp_path / "shown.npy")
    assert_array_equal(as_shown, model.as_shown().predict_proba(first))
    # The updated file continues again.
    again = MultiTaskCTRCVRClassifier.load(tmp_path / "updated")
    again.partial_fit(*tables[0])
    model.partial_fit(*tables[0])
    assert_array_equal(again.predict_value(first), model.predict_value(first))
