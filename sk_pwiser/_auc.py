"""The AUC of weighted scores, and the mean AUC within groups, from checked arrays."""

import numpy as np
from scipy.stats import rankdata


def auc_of_weights(score, ones, zeros):
    """Return the AUC of scores with weights of ones and of zeros, NaN without either.

    It is several times as fast as that of scikit-learn, which checks its input.
    """
    if not len(score):
        return np.nan
    order = np.argsort(score)
    score = score[order]
    # Equal scores count as one step.
    last = np.append(np.flatnonzero(score[1:] != score[:-1]), len(score) - 1)
    ones = np.append(0, np.cumsum(ones[order])[last])
    zeros = np.append(0, np.cumsum(zeros[order])[last])
    area = np.diff(ones) @ (zeros[1:] + zeros[:-1]) / 2
    n_pairs = ones[-1] * zeros[-1]
    return area / n_pairs if n_pairs else np.nan


def auc_within(y, score, codes):
    """Return the mean AUC of groups with both classes, and their share of the rows.

    Groups have the weight of their rows. The AUC is NaN if none has both classes.
    """
    # Ranks over all rows have the same order and ties within each group as the scores.
    ranks = rankdata(score, method="dense")
    order = np.lexsort([ranks, codes])
    codes, ranks, y = codes[order], ranks[order], y[order]
    # Rows of a group with equal scores are consecutive, and share their mean position.
    starts = np.flatnonzero(np.r_[True, (np.diff(codes) != 0) | (np.diff(ranks) != 0)])
    lengths = np.diff(np.r_[starts, len(codes)])
    position = np.repeat(starts + (lengths - 1) / 2, lengths)
    size = np.bincount(codes)
    first = np.cumsum(size) - size
    positives = np.bincount(codes, weights=y)
    # The Mann-Whitney statistic, with positions in the group counted from 0.
    total = np.bincount(codes, weights=y * (position - first[codes]))
    total -= positives * (positives - 1) / 2
    mixed = (positives > 0) & (positives < size)
    share = float(size[mixed].sum() / size.sum())
    if not mixed.any():
        return np.nan, share
    aucs = total[mixed] / (positives * (size - positives))[mixed]
    return float(np.average(aucs, weights=size[mixed])), share
