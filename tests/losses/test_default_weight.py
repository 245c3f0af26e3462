"""The default weight of the pairwise term follows the rate of the conversions."""

import numpy as np
import pytest

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._components import default_weight
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.losses import PWiseR


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.5, 0.1), (0.01, 0.1), (0.005, 0.2), (0.004, 0.25), (1 / 300, 0.3), (0, 0.3)],
)
def test_the_weight_is_inverse_to_rates_below_one_percent(rate, expected):
    assert default_weight([0.4, rate]) == pytest.approx(expected)


class Own(PWiseR):
    """A user's loss with the parameter of the estimator."""


def fitted(n_conversions=20, **params):
    """Return a fit of 2,000 rows, of which 600 are clicked."""
    log = make_ctr_cvr(2_000, ctr=0.3, random_state=0)
    Y = np.zeros((2_000, 2), dtype=int)
    Y[:600, 0], Y[:n_conversions, 1] = 1, 1
    params = {"max_epochs": 1, "early_stopping": False, "random_state": 0} | params
    return MultiTaskCTRCVRClassifier(**params).fit(log.data, Y), log.data, Y


def weight_of(model):
    return model.net_.criterion_.loss.pwiser_weight


@pytest.mark.parametrize(("n", "expected"), [(40, 0.1), (10, 0.2), (5, 0.3)])
def test_a_fit_takes_the_rate_of_its_rows(n, expected):
    assert weight_of(fitted(n)[0]) == pytest.approx(expected, rel=0.1)
    assert weight_of(fitted(n, loss=Own)[0]) == pytest.approx(expected, rel=0.1)
    assert weight_of(fitted(n, pwiser_weight=0.7)[0]) == 0.7


def test_it_is_the_rate_of_the_heads_with_the_term():
    model, _, _ = fitted(5, loss_params={"tasks": ["click"]})
    assert weight_of(model) == 0.1


def test_an_update_and_a_file_keep_it(tmp_path):
    model, X, Y = fitted(10)
    model.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    assert weight_of(loaded) == weight_of(model)
    Y[:] = 1
    model.partial_fit(X, Y)
    assert weight_of(model) == weight_of(loaded)
