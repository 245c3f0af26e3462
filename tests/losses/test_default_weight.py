"""The default weight of the pairwise term follows the rate of the conversions."""

import numpy as np
import pytest
from sklearn.base import clone

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._pwiser_weight import default_weight
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


def rows_with(n, n_conversions, seed):
    log = make_ctr_cvr(n, ctr=0.3, random_state=seed)
    Y = np.zeros((n, 2), dtype=int)
    Y[: n // 3, 0], Y[:n_conversions, 1] = 1, 1
    return log.data.select_dtypes("number"), Y


@pytest.mark.parametrize(("n_conversions", "expected"), [(200, 0.1), (2, 0.3)])
def test_updates_learn_the_rate_that_a_small_first_call_cannot_tell(
    n_conversions, expected
):
    model = MultiTaskCTRCVRClassifier(random_state=0).partial_fit(*rows_with(100, 0, 0))
    assert weight_of(model) == 0.1
    for seed in (1, 2, 3):
        model.partial_fit(*rows_with(2_000, n_conversions, seed))
    assert weight_of(model) == expected


@pytest.mark.parametrize(("known", "expected"), [("random", 0.1), ("clicks", 0.185)])
@pytest.mark.filterwarnings("ignore:Task 'conversion' has a label in 100%")
@pytest.mark.filterwarnings("ignore:The rows are in an order that matters")
def test_rows_without_a_label_do_not_change_the_rate(known, expected):
    updated = MultiTaskCTRCVRClassifier(random_state=0, missing_labels="ignore")
    X, Y = rows_with(2_000, 100 if known == "random" else 10, 0)
    rows = np.arange(2_000)
    is_known = rows % 10 == 0 if known == "random" else rows < 666
    Y = np.where(is_known[:, np.newaxis] | [True, False], Y, np.nan)
    updated.partial_fit(X, Y).partial_fit(X, Y)
    fitted = clone(updated).fit(X, Y)
    for model, n_events in ((updated, 20), (fitted, 9)):  # without validation rows
        assert weight_of(model) == pytest.approx(expected, rel=0.06)
        assert model.net_.criterion_.n_events[1] == pytest.approx(n_events)


@pytest.mark.filterwarnings("ignore:The rows are in an order that matters")
def test_updates_after_a_weighted_fit_add_to_its_weights():
    X, Y = rows_with(2_000, 10, 0)
    weight = np.where(Y[:, 1] == 1, 10.0, 1.0)
    model = MultiTaskCTRCVRClassifier(random_state=0, max_epochs=1)
    model.fit(X, Y, sample_weight=weight)
    for rows in (slice(0, 100), slice(100, 200)):  # with all of the conversions
        model.partial_fit(X[rows], Y[rows], sample_weight=weight[rows])
        assert weight_of(model) == 0.1
    events, clicks = model.net_.criterion_.sums[:, 1]
    share = (weight * Y[:, 1]).sum() / (weight * Y[:, 0]).sum()
    assert 0.9 * share < float(events / clicks) < 2 * share


def test_a_warm_start_takes_the_rate_of_its_rows():
    """Later updates count its events, too."""
    params = {"early_stopping": False, "max_epochs": 1, "random_state": 0}
    model = MultiTaskCTRCVRClassifier(**params, warm_start=True)
    model.fit(*rows_with(2_000, 2, 0))
    assert weight_of(model) == 0.3
    model.fit(*rows_with(2_000, 200, 1))
    assert weight_of(model) == 0.1
    assert float(model.net_.criterion_.n_events[1]) == pytest.approx(202, abs=1)


def test_a_file_keeps_it(tmp_path):
    model, X, Y = fitted(10)
    model.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    assert weight_of(loaded) == weight_of(model)
    for each in (model, loaded):
        each.partial_fit(X, Y)
    assert 0.1 < weight_of(loaded) == weight_of(model) < 0.3


def test_a_failed_update_keeps_it(monkeypatch):
    model = MultiTaskCTRCVRClassifier(random_state=0).partial_fit(*rows_with(100, 0, 0))

    def fail(*args, **kwargs):
        raise RuntimeError("after the steps")

    with monkeypatch.context() as patch:
        patch.setattr("sk_pwiser._training._divergence.check_end", fail)
        with pytest.raises(RuntimeError, match="after the steps"):
            model.partial_fit(*rows_with(2_000, 2, 1))
    assert weight_of(model) == 0.1
    assert model.net_.criterion_.n_rows == 100
