"""`score` and the scorers reject the labels and weights that `fit` rejects.

The errors are the same, to the letter.
"""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_array_equal
from refusals import Fuse, N, X, Y, small
from sklearn.utils.fixes import parse_version

from sk_pwiser.metrics import (
    ctcvr_log_loss_scorer,
    ctr_auc_scorer,
    cvr_auc_scorer,
    mean_auc_scorer,
)

SCORERS = [ctr_auc_scorer, cvr_auc_scorer, mean_auc_scorer, ctcvr_log_loss_scorer]


def same_errors(model, Y, message, **weights):
    """Check that `fit`, `score` and the scorers raise the same error."""
    calls = [small(callbacks=[Fuse()]).fit, model.score]
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
def test_labels(trained_once, labels, message):
    same_errors(trained_once[0], labels, message)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.r_[np.ones(N - 1), -2], "must be >= 0; it is -2.0 in row 299"),
        (np.r_[np.ones(N - 1), np.nan], "one finite number .* nan in row 299"),
        (np.ones(N - 1), r"must have shape \(300,\).* got \(299,\)"),
        (["1"] * 7 + ["heavy"] * (N - 7), "'heavy'. Found in row 7"),
        (pd.date_range("2026-01-01", periods=N), "its dtype is datetime64"),
        (np.full(N, 1j), "Complex data .* sample_weight .* 1j in row 0"),
        ([1.0] * 5 + [1j] * (N - 5), "Found in row 5"),
        (torch.ones(N).bfloat16(), r"Pass sample_weight\.detach"),
        (2.0, "one finite number per row.* got scalar"),
        (
            np.c_[np.ones(N), np.r_[1, -3, np.ones(N - 2)]],
            "it is -3.0 in row 1 for task 'conversion'",
        ),
        (
            pd.DataFrame({"click": np.ones(N), "conversion": ["x"] * N}),
            "'x'. Found in column 'conversion'",
        ),
    ],
)
def test_weights(trained_once, weights, message):
    same_errors(trained_once[0], Y, message, sample_weight=weights)


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
