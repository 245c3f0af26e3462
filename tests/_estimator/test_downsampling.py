"""A log that has kept a share of the rows without a click."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from small_model import X, Y, refuses, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

RATE = 0.1


@pytest.fixture(scope="module")
def log():
    data = make_ctr_cvr(60_000, ctr=0.03, cvr=0.2, random_state=0)
    clicked = data.target["click"].to_numpy() == 1
    return data, clicked | (np.random.default_rng(0).random(len(clicked)) < RATE)


def fit(log, task_space="entire", sample_weight=None, **params):
    data, kept = log
    units = {"bottom_units": (32,), "tower_units": (16,)}
    model = MultiTaskCTRCVRClassifier(
        loss="bce",
        network_params={"task_space": task_space, **units},
        max_epochs=8,
        early_stopping=False,
        random_state=0,
        **params,
    )
    return model.fit(data.data[kept], data.target[kept], sample_weight=sample_weight)


@pytest.mark.slow
@pytest.mark.parametrize("task_space", ["entire", "conditional"])
def test_probabilities_are_those_of_the_full_log(log, task_space):
    data, kept = log
    p = fit(log, task_space, negative_sampling_rate=RATE).predict_proba(data.data)
    rates = data.target.mean().to_numpy()
    assert_allclose(p.mean(axis=0), rates, rtol=0.12)
    # Uncorrected, the rates are those of the sampled log, several times as high.
    sampled = data.target[kept].mean()
    assert (sampled / rates > 5).all()
    plain = fit(log, task_space).predict_proba(data.data)
    assert (plain.mean(axis=0) > 4 * rates).all()


def test_everything_that_predicts_is_corrected():
    plain, corrected = small().fit(X, Y), small(negative_sampling_rate=0.2).fit(X, Y)
    odds = [m.predict_logits(X)[:, 0] for m in (plain, corrected)]
    assert_allclose(odds[0] + np.log(0.2), odds[1], atol=1e-4)
    assert_allclose(plain.predict_cvr(X), corrected.predict_cvr(X), rtol=1e-4)
    single = small(negative_sampling_rate=0.2).fit(X, Y["click"])
    assert_allclose(single.predict_proba(X)[:, 1].mean(), 0.12, atol=0.05)
    one = small(negative_sampling_rate=1).fit(X, Y)
    assert_array_equal(one.predict_proba(X), plain.predict_proba(X))


def test_wrong_rates(earlier):
    for rate in (0, 1.1, -0.5, np.nan, "0.1"):
        earlier.set_params(negative_sampling_rate=rate)
        refuses(earlier, ValueError, "'negative_sampling_rate' parameter")
    earlier.set_params(negative_sampling_rate=0.5, warm_start=True)
    message = "cannot continue with negative_sampling_rate=0.5: .* used 1.0"
    refuses(earlier, ValueError, message)
