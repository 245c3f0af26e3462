"""Errors of the comparison of losses, which are raised before any fit."""

import numpy as np
import pandas as pd
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


VALUE_ERRORS = [
    (small(), {"losses": ("bce", "bec")}, "candidate 'bec' is not: The"),
    (small(), {"weights": ["strong"]}, r"'pwiser \(weight strong\)' is"),
    (small(), {"weights": (0.1, -0.1)}, "'pwiser_weight' .* Got -0.1"),
    (small(), {"weights": (np.nan,)}, "'pwiser_weight' .* Got nan"),
    (small(lr=-1.0), {}, "The 'lr' parameter"),
    (ByLoss(), {"by": "market"}, "by='market' is not a column of X; "),
    (ByLoss(), {"by": 0}, "by=0 .* at most 100 values.*; it has 240"),
    (ByLoss(), {"losses": ("bce",)}, r"at least two .* Got \['bce'\]"),
    (ByLoss(), {"losses": ()}, r"at least two .* Got \[\]"),
    (ByLoss(), {"losses": ("bce", "bce")}, "distinct, got 'bce' 2 times"),
    (ByLoss(), {"weights": (0.3, 0.3)}, r"distinct, got 'pwiser \(weight"),
    (
        ByLoss(),
        {"losses": ("bce", "focal"), "weights": (0.3,)},
        "None if no loss takes",
    ),
    (NoWeight(), {"weights": (0.3,)}, "'pwiser_weight'.* with NoWeight"),
    (NoLoss(), {}, "one parameter 'loss'.* found none in NoLoss"),
    (ByLoss(), {"cv": 1}, "cv must be an int >= 2 or a splitter, got 1"),
    (ByLoss(), {"cv": True}, "cv must be an int >= 2 .* got True"),
    (
        ByLoss(),
        {"cv": [(range(9), range(9, 20))]},
        "cv must give at least 2 splits, got 1",
    ),
    (ByLoss(), {"scoring": {"a": "auc"}}, "'auc' is not a valid scoring"),
    (ByLoss(), {"scoring": "auc"}, "'scoring' parameter"),
]
TYPE_ERRORS = [
    (ByLoss(), {"losses": "pwiser"}, "must be a sequence .* 'pwiser'"),
    (ByLoss(), {"losses": 3}, "losses must be a sequence .* got 3"),
    (ByLoss(), {"weights": ()}, r"weights must be a sequence .* got \(\)"),
    (ByLoss(), {"weights": 0.3}, "weights must be a sequence .* got 0.3"),
    (ByLoss, {}, "estimator must be an estimator object, got <class"),
    (None, {}, "estimator must be an estimator object, got None"),
]


@pytest.mark.parametrize(
    ("error", "model", "params", "match"),
    [(ValueError, *case) for case in VALUE_ERRORS]
    + [(TypeError, *case) for case in TYPE_ERRORS],
)
def test_bad_input_raises_before_any_fit(monkeypatch, error, model, params, match):
    def fit(self, X, Y):
        raise AssertionError("fitted")

    monkeypatch.setattr(ByLoss, "fit", fit)
    monkeypatch.setattr(type(small()), "fit", fit)
    with pytest.raises(error, match=match):
        compare_losses(model, X, Y, **params)


def test_lengths_must_agree_and_errors_of_fit_are_raised():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        compare_losses(ByLoss(), X, Y[:-1])
    weight = {"sample_weight": pd.Series(np.ones(len(X)))[::-1]}
    with pytest.raises(ValueError, match="X and sample_weight have the same index"):
        compare_losses(ByLoss(), pd.DataFrame(X), Y, params=weight)
    model = ByLoss(loss="bce", loss_params={"margins": 1})
    with pytest.raises(ValueError, match="bce has no loss_params"):
        compare_losses(model, X, Y)
