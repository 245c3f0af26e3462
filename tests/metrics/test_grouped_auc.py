"""The AUC within groups, against the AUC of every group."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_auc_score

from sk_pwiser.metrics import grouped_auc


@pytest.mark.parametrize("decimals", [1, 6])  # with and without ties
@pytest.mark.parametrize("as_text", [False, True])
def test_mean_over_groups_of_both_classes(decimals, as_text):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    score = rng.normal(size=500).round(decimals)
    groups = rng.integers(0, 150, 500)
    aucs, sizes = [], []
    for group in np.unique(groups):
        rows = groups == group
        if len(np.unique(y[rows])) == 2:
            aucs.append(roc_auc_score(y[rows], score[rows]))
            sizes.append(rows.sum())
    assert len(aucs) < len(np.unique(groups))
    groups = groups.astype(str) if as_text else groups
    auc, share = grouped_auc(y, score, groups, return_share=True)
    assert auc == grouped_auc(y, score, groups)
    assert auc == pytest.approx(np.average(aucs, weights=sizes))
    assert share == pytest.approx(sum(sizes) / 500)


def test_one_group_is_the_ordinary_auc():
    rng = np.random.default_rng(0)
    y, score = rng.integers(0, 2, 50), rng.random(50)
    assert grouped_auc(y, score, ["a"] * 50) == pytest.approx(roc_auc_score(y, score))


def test_no_group_of_both_classes():
    with pytest.warns(UndefinedMetricWarning, match="no group has both classes"):
        auc, share = grouped_auc([0, 0, 1], [1, 2, 3], [0, 0, 1], return_share=True)
    assert np.isnan(auc)
    assert share == 0.0


@pytest.mark.parametrize(
    ("y", "score", "groups", "message"),
    [
        ([0, 0.5], [1, 2], [0, 0], "y_true must be 0 or 1, got 0.5"),
        ([0, 1], [1, np.nan], [0, 0], "y_score must not be NaN; row 1 is"),
        ([0, 1], [1, 2], ["a", None], "groups must not be missing; 1 .* in row 1"),
        ([0, 1], [1, 2], [np.nan, 1], "groups must not be missing; 1 .* in row 0"),
        (
            [0, 1],
            [1, 2],
            pd.Series(["a", pd.NA], dtype="string"),
            "groups must not be missing; 1 .* in row 1",
        ),
        ([0, 1], [1, 2], [0, 0, 0], "inconsistent"),
        ([], [], [], "at least one row"),
    ],
)
def test_bad_input(y, score, groups, message):
    with pytest.raises(ValueError, match=message):
        grouped_auc(y, score, groups)
