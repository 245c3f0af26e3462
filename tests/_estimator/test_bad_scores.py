"""Wrong labels and weights: `fit`, `partial_fit`, `score` and the scorers reject them.

The errors are the same, to the letter, and are raised before training. An earlier fit
stays unchanged.
"""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_array_equal
from refusals import Fuse, N, X, Y, refuses, small
from sklearn.utils.fixes import parse_version

from sk_pwiser.metrics import (
    ctcvr_log_loss_scorer,
    ctr_auc_scorer,
    cvr_auc_scorer,
    mean_auc_scorer,
)

SCORERS = [ctr_auc_scorer, cvr_auc_scorer, mean_auc_scorer, ctcvr_log_loss_scorer]


def same_errors(model, Y, message, **weights):
    """Check that all of them raise the same error."""
    model.set_params(callbacks=[Fuse()])
    calls = [small(callbacks=[Fuse()]).fit, model.fit, model.partial_fit, model.score]
    calls += [lambda *args, s=s, **kw: s(model, *args, **kw) for s in SCORERS]
    texts = set()
    for call in calls:
        with pytest.raises((ValueError, TypeError), match=message) as caught:
            call(X, Y, **weights)
        texts.add((caught.type, str(caught.value)))
    assert len(texts) == 1


FIRST_ROWS = np.arange(N) < 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Y * 2, "Labels must be 0 or 1; column 'click' of Y contains 2 in row"),
        (-Y.to_numpy(), "Labels must be 0 or 1; column 0 of Y contains -1 in row"),
        (
            Y.replace({0: "seen", 1: "sold"}),
            "'click' of Y contains 'sold' in row 0. With several .* Y = .Y == 'sold'",
        ),
        (Y.to_numpy() * np.nan, "Y contains NaN: 300 in column 0"),
        (Y.to_numpy()[:, :, np.newaxis], "dim 3"),
        ((Y * 2).astype(str), "column 'click' of Y contains '2' in row 0"),
        ((Y * 2).astype("category"), "column 'click' of Y contains 2 in row 0"),
        ((Y / 2).astype("category"), "column 'click' of Y contains 0.5 in row 0"),
        (Y.assign(conversion=2), "column 'conversion' of Y contains 2 in row 0"),
        (
            Y.assign(conversion=np.where(FIRST_ROWS, np.nan, 0)),
            "NaN: 3 in column 'conversion', the first in row 0",
        ),
        (
            Y.assign(click=np.where(FIRST_ROWS, np.inf, 0)),
            "infinity .*: 3 in column 'click', the first in row 0",
        ),
        (Y.to_numpy() * 1j, r"complex128; it contains 1j in row 0 of column 0\.$"),
        (Y.assign(conversion=1j), "Complex data .* in column 'conversion'"),
        (pd.DataFrame([[1, 2j]] * N, columns=Y.columns), "column 'conversion'"),
        pytest.param(
            pl.DataFrame(Y.to_dict("list")).with_columns(
                pl.col("conversion").cast(pl.Int128)
            ),
            "Y cannot be read as labels: .* Found in column 'conversion'",
            marks=pytest.mark.skipif(
                parse_version(pl.__version__) < parse_version("2.1"),
                reason="polars before 2.1 panics instead of raising an error",
            ),
        ),
        (torch.ones((N, 2)).bfloat16(), r"Pass Y\.detach\(\)\.cpu"),
        (torch.ones((N, 2), requires_grad=True), r"Pass Y\.detach\(\)\.cpu"),
        (sp.csr_array(Y), "Sparse data was passed for Y"),
        (Y[:-1], "X has 300 rows, Y has 299"),
        (None, "the target y is None"),
    ],
)
def test_labels(earlier, labels, message):
    same_errors(earlier, labels, message)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.r_[np.ones(N - 1), -2], "must be >= 0; it is -2.0 in row 299"),
        (np.r_[np.ones(N - 1), np.nan], "one finite number .* nan in row 299"),
        (np.r_[np.ones(N - 1), np.inf], "one finite number .* inf in row 299"),
        (np.ones(N - 1), r"must have shape \(300,\), or .*; got \(299,\)"),
        (np.ones((N, 1)), r"must have shape .*; got \(300, 1\)"),
        (np.ones((N, 3)), r"or \(300, 2\) for weights per task; got \(300, 3\)"),
        (["1"] * 7 + ["heavy"] * (N - 7), "'heavy'. Found in row 7"),
        (pd.date_range("2026-01-01", periods=N), "its dtype is datetime64"),
        (np.full(N, 1j), "1j in row 0"),
        ([1.0] * 5 + [1j] * (N - 5), "Found in row 5"),
        (torch.ones(N).bfloat16(), r"Pass sample_weight\.detach"),
        (2.0, "one finite number per row.* got scalar"),
        (
            np.c_[np.ones(N), np.r_[1, -3, np.ones(N - 2)]],
            "it is -3.0 in row 1 for task 'conversion'",
        ),
        (
            np.c_[np.full(N, np.nan), np.ones(N)],
            "one finite number .* nan in row 0 for task 'click'",
        ),
        (
            pd.DataFrame({"click": np.ones(N), "conversion": ["x"] * N}),
            "'x'. Found in column 'conversion'",
        ),
    ],
)
def test_weights(earlier, weights, message):
    same_errors(earlier, Y, f"sample_weight.*{message}", sample_weight=weights)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("labels", "weights", "message"),
    [
        (Y[:0], None, "0 sample"),
        (Y, np.zeros(N), "must not be zero"),
        (
            Y,
            pd.DataFrame({"conversion": np.ones(N), "click": np.ones(N)}),
            "must be in the order of the tasks",
        ),
    ],
)
def test_what_training_alone_refuses(earlier, labels, weights, message, method):
    more = {"Y": labels, "sample_weight": weights, "method": method}
    refuses(earlier, ValueError, message, **more)


@pytest.mark.parametrize("labels", [["no", "yes"], [-1, 1], [False, True], [3.0, 7.0]])
def test_any_two_labels_of_a_single_task_are_scored(labels):
    y = np.array(labels)[Y["click"].to_numpy()]
    model = small().fit(X, y)
    expected = small().fit(X, Y["click"]).score(X, Y["click"])
    assert model.score(X, y) == ctr_auc_scorer(model, X, y) == expected
    assert model.score(X, y[:, np.newaxis]) == expected
    assert model.task(0).score(X, y) == expected
    other = np.where(np.arange(N) == 4, "maybe", y)
    message = r"expected the classes \[.*\], got the labels .* column 0 of Y, in row"
    with pytest.raises(ValueError, match=message):
        model.score(X, other)


def test_a_lazy_table_is_scored():
    table = pl.DataFrame(X.to_dict("list"))
    model = small().fit(table, Y)
    assert model.score(table.lazy(), Y) == model.score(table, Y)


def test_lazy_labels_are_fitted():
    labels = pl.DataFrame(Y.to_dict("list"))
    fitted = [small().fit(X, each) for each in (labels, labels.lazy())]
    assert_array_equal(*(model.predict_proba(X) for model in fitted))
