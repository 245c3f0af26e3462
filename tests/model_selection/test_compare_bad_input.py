"""Errors of the comparison of losses, which are raised before any fit."""

import numpy as np
import pytest
from fake_losses import ByLoss, rows
from refusals import small

from sk_pwiser.model_selection import compare_losses

X, Y = rows()


class NoLoss(ByLoss):
    def __init__(self, random_state=None):
        super().__init__(random_state=random_state)


class NoWeight(ByLoss):
    def __init__(self, loss="bce"):
        super().__init__(loss)


@pytest.mark.parametrize(
    ("model", "params", "error", "match"),
    [
        (
            small(),
            {"losses": ("bce", "bec")},
            ValueError,
            "candidate 'bec' is not: The",
        ),
        (
            small(),
            {"weights": ["strong"]},
            ValueError,
            r"'pwiser \(weight strong\)' is",
        ),
        (small(lr=-1.0), {}, ValueError, "The 'lr' parameter"),
        (ByLoss(), {"losses": "pwiser"}, TypeError, "must be a sequence .* 'pwiser'"),
        (ByLoss(), {"by": "market"}, ValueError, "by='market' is not a column of X; "),
        (ByLoss(), {"by": 0}, ValueError, "by=0 .* at most 100 values.*; it has 240"),
        (ByLoss(), {"losses": 3}, TypeError, "losses must be a sequence .* got 3"),
        (ByLoss(), {"losses": ("bce",)}, ValueError, r"at least two .* Got \['bce'\]"),
        (ByLoss(), {"losses": ()}, ValueError, r"at least two .* Got \[\]"),
        (
            ByLoss(),
            {"losses": ("bce", "bce")},
            ValueError,
            "distinct, got 'bce' 2 times",
        ),
        (
            ByLoss(),
            {"weights": (0.3, 0.3)},
            ValueError,
            r"distinct, got 'pwiser \(weight",
        ),
        (small(), {"weights": (0.1, -0.1)}, ValueError, "'pwiser_weight' .* Got -0.1"),
        (small(), {"weights": (np.nan,)}, ValueError, "'pwiser_weight' .* Got nan"),
        (
            ByLoss(),
            {"weights": ()},
            TypeError,
            r"weights must be a sequence .* got \(\)",
        ),
        (
            ByLoss(),
            {"weights": 0.3},
            TypeError,
            "weights must be a sequence .* got 0.3",
        ),
        (
            ByLoss(),
            {"losses": ("bce", "focal"), "weights": (0.3,)},
            ValueError,
            "weights must be None if no loss takes a weight",
        ),
        (
            NoWeight(),
            {"weights": (0.3,)},
            ValueError,
            "'pwiser_weight'.* with NoWeight",
        ),
        (NoLoss(), {}, ValueError, "one parameter 'loss'.* found none in NoLoss"),
        (ByLoss, {}, TypeError, "estimator must be an estimator object, got <class"),
        (None, {}, TypeError, "estimator must be an estimator object, got None"),
        (
            ByLoss(),
            {"cv": 1},
            ValueError,
            "cv must be an int >= 2 or a splitter, got 1",
        ),
        (ByLoss(), {"cv": True}, ValueError, "cv must be an int >= 2 .* got True"),
        (
            ByLoss(),
            {"cv": [(np.arange(9), np.arange(9, 20))]},
            ValueError,
            "cv must give at least 2 splits, got 1",
        ),
        (
            ByLoss(),
            {"scoring": {"a": "auc"}},
            ValueError,
            "'auc' is not a valid scoring",
        ),
        (ByLoss(), {"scoring": "auc"}, ValueError, "'scoring' parameter"),
    ],
)
def test_bad_input_raises_before_any_fit(monkeypatch, model, params, error, match):
    def fit(self, X, Y):
        raise AssertionError("fitted")

    monkeypatch.setattr(ByLoss, "fit", fit)
    monkeypatch.setattr(type(small()), "fit", fit)
    with pytest.raises(error, match=match):
        compare_losses(model, X, Y, **params)


def test_lengths_must_agree_and_errors_of_fit_are_raised():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        compare_losses(ByLoss(), X, Y[:-1])
    model = ByLoss(loss="bce", loss_params={"margins": 1})
    with pytest.raises(ValueError, match="bce has no loss_params"):
        compare_losses(model, X, Y)
