"""Statistics that are continued with further rows, against loops over rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from rows_with_statistics import fit_transform

from sk_pwiser._columns._target_statistics import ExtendedStatistics, TargetStatistics
from sk_pwiser._rows._blocks import assign_blocks

N_CODES = 9
ORIGINS = [np.arange(N_CODES)]


def draw(n, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, N_CODES, (n, 1))
    p = np.linspace(0.1, 0.9, N_CODES)[codes]
    y = (rng.random((n, 2)) < p * np.array([1.0, 0.5])).astype(np.float32)
    return codes, y, np.ones_like(y)


def fit(codes, y, weight):
    source = TargetStatistics([0], [N_CODES])
    block = assign_blocks(len(codes), 5)
    fit_transform(source, codes, y, weight, block, np.zeros(len(codes), bool))
    return source


POOLED, NEW = draw(400, 0), draw(100, 1)
SOURCE = fit(*POOLED)
# Among the pooled rows.
SEEN = tuple(array[150:250] for array in POOLED)
BLOCK = assign_blocks(100, 4)
VALID = np.arange(100) % 7 == 0


def encode(rows, kind, adds=False, origins=ORIGINS):
    statistics = ExtendedStatistics(SOURCE, origins, kind, adds)
    return statistics, fit_transform(statistics, *rows, BLOCK, VALID)


def expected(rows, kind):
    """Compute the inputs by one loop per row."""
    codes, y, _ = rows
    n_before, n_new = len(POOLED[0]), np.count_nonzero(~VALID)
    ratio = 1 if kind == "seen" else n_before / (n_before + n_new)
    base = list(zip(POOLED[0][:, 0], POOLED[1], strict=True))
    if kind == "seen":
        base = base[:150] + base[250:]
    result = []
    for i in range(len(codes)):
        others = [
            (codes[j, 0], y[j])
            for j in range(len(codes))
            if not VALID[j] and (VALID[i] or BLOCK[j] != BLOCK[i])
        ]
        labels = [label for code, label in base + others if code == codes[i, 0]]
        n = len(labels) if codes[i, 0] >= 2 else 0
        k = np.sum(labels, axis=0) if n else np.zeros(2)
        p, a = SOURCE.rates_, SOURCE.strengths_[0]
        logit = np.log((k + a * p) / (n - k + a * (1 - p))) - np.log(p / (1 - p))
        values = np.append(logit, np.log(n * ratio + 1))
        result.append((values - SOURCE.means_[0]) / SOURCE.scales_[0])
    return np.array(result)


@pytest.mark.parametrize(("rows", "kind"), [(SEEN, "seen"), (NEW, "new")])
def test_inputs_equal_those_of_a_loop(rows, kind):
    assert np.isfinite(SOURCE.strengths_[0]).all()
    _, inputs = encode(rows, kind, adds=True)
    assert_allclose(inputs, expected(rows, kind), rtol=1e-5, atol=1e-6)


def test_seen_rows_leave_the_statistics_of_the_source():
    statistics, _ = encode(SEEN, "seen", adds=True)
    assert_array_equal(statistics.counts_[0], SOURCE.counts_[0])
    assert_array_equal(statistics.transform(NEW[0]), SOURCE.transform(NEW[0]))


def test_new_rows_are_added_for_predictions():
    statistics, _ = encode(NEW, "new", adds=True)
    both = fit(*(np.concatenate(pair) for pair in zip(POOLED, NEW, strict=True)))
    assert_allclose(statistics.counts_[0], both.counts_[0])
    assert_array_equal(statistics.rates_, SOURCE.rates_)


def test_new_rows_may_be_encoded_like_predictions():
    statistics, inputs = encode(NEW, "new", adds=False)
    assert_array_equal(inputs, SOURCE.transform(NEW[0]))
    assert_array_equal(statistics.counts_[0], SOURCE.counts_[0])


def test_the_label_of_a_new_row_is_not_in_its_input():
    codes, y, weight = NEW
    row = int(np.flatnonzero(~VALID & (codes[:, 0] > 1) & (y[:, 0] == 1))[0])
    flipped = y.copy()
    flipped[row] = 0
    _, before = encode(NEW, "new", adds=True)
    _, after = encode((codes, flipped, weight), "new", adds=True)
    assert_array_equal(before[row], after[row])
    # The inputs of other blocks change: the comparison can fail.
    assert not np.array_equal(before, after)


def test_a_label_of_seen_rows_is_removed_with_its_row():
    """The same flip in the source and in its rows does not change the row's input."""
    row = int(np.flatnonzero(~VALID & (SEEN[0][:, 0] > 1) & (SEEN[1][:, 0] == 1))[0])
    codes, y, weight = POOLED
    flipped = y.copy()
    flipped[150 + row] = 0
    source = fit(codes, flipped, weight)
    # The scales are those of a fit, which the label is part of: they are kept equal.
    for name in ("rates_", "strengths_", "means_", "scales_"):
        setattr(source, name, getattr(SOURCE, name))
    statistics = ExtendedStatistics(source, ORIGINS, "seen", False)
    after = fit_transform(statistics, SEEN[0], flipped[150:250], SEEN[2], BLOCK, VALID)
    _, before = encode(SEEN, "seen")
    assert_allclose(before[row], after[row], rtol=1e-6)


def test_new_codes_have_no_rows_before():
    origins = [np.array([0, 1, 8, -1, 2, 3, 4, 5, 6, 7])]
    statistics = ExtendedStatistics(SOURCE, origins, "new", True)
    counts = SOURCE.counts_[0]
    assert_array_equal(statistics.counts_[0][..., 2], counts[..., 8])
    assert_array_equal(statistics.counts_[0][..., 3], 0)
    assert_array_equal(statistics.counts_[0][..., 4:], counts[..., 2:8])
    new = statistics.transform(np.array([[3], [1]]))
    assert_array_equal(new[0], new[1])


def test_rows_that_the_source_has_not_seen_are_refused():
    many = tuple(np.concatenate([array] * 4) for array in POOLED)
    statistics = ExtendedStatistics(SOURCE, ORIGINS, "seen", False)
    block, valid = assign_blocks(1600, 4), np.zeros(1600, bool)
    with pytest.raises(ValueError, match="seen=True, but the source was not fitted on"):
        fit_transform(statistics, *many, block, valid)


def test_weights_are_remembered():
    codes, y, weight = (np.concatenate([array] * 2) for array in POOLED)
    assert fit(codes, y, weight).counts_rows
    # Each sum of these weights is a whole number.
    weight[:400], weight[400:] = 0.5, 1.5
    weighted = fit(codes, y, weight)
    assert (weighted.counts_[0] % 1 == 0).all()
    extended = ExtendedStatistics(weighted, ORIGINS, "new", True)
    assert not weighted.counts_rows
    assert not extended.counts_rows
    known = TargetStatistics([0], [N_CODES])
    fit_transform(known, *NEW, BLOCK, VALID, earlier_fit=weighted)
    assert not known.counts_rows
    # Those of an earlier version lack the attribute.
    weighted = fit(codes, y, weight * 0.9)
    del weighted.is_weighted
    assert not weighted.counts_rows
    updated, undo = fit(*POOLED), []
    updated.update(*NEW[:2], NEW[2] * 2, undo)
    assert not updated.counts_rows
    for change in undo[::-1]:
        change()
    assert updated.counts_rows


def test_rows_that_are_probably_not_new_give_a_warning():
    seen, block = tuple(array[:300] for array in POOLED), assign_blocks(300, 4)
    valid = np.zeros(300, bool)
    for adds in (False, True):
        statistics = ExtendedStatistics(SOURCE, ORIGINS, "new", adds)
        with pytest.warns(UserWarning, match="seen=False, but the source may have"):
            fit_transform(statistics, *seen, block, valid)
    # As many other rows, and probabilities, give none.
    codes, y, weight = draw(300, 2)
    for labels in (y, 0.5 * y):
        statistics = ExtendedStatistics(SOURCE, ORIGINS, "new", False)
        fit_transform(statistics, codes, labels, weight, block, valid)
