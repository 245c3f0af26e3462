"""Target statistics against their formula, computed row by row in Python."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from rows_with_statistics import fit_transform

from sk_pwiser._columns._codes import FIRST_VALUE
from sk_pwiser._columns._target_statistics import TargetStatistics
from sk_pwiser._rows._blocks import assign_blocks


def rows(n=600, n_values=12, seed=0):
    """Return codes of two columns, labels whose rates differ by value, and blocks."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_values + FIRST_VALUE, size=(n, 2))
    click = rng.random(n) < codes[:, 0] / (n_values + 4)
    conversion = click & (rng.random(n) < codes[:, 0] / (n_values + 2))
    return codes, np.c_[click, conversion].astype(float), assign_blocks(n, 5)


def formula(codes, y, weight, own, others, statistics, j):
    """Compute the standardised inputs of one row from the rows in `others`."""
    column, expected = statistics.columns[j], []
    same = others & (codes[:, column] == own)
    if own < FIRST_VALUE:
        same[:] = False
    for task in range(y.shape[1]):
        p, a = statistics.rates_[task], statistics.strengths_[j][task]
        n, k = weight[same, task].sum(), (weight * y)[same, task].sum()
        rate = (k + a * p) / (n + a)
        expected.append(np.log(rate / (1 - rate)) - np.log(p / (1 - p)))
    expected.append(np.log1p(weight[same, 0].sum()))
    return (np.array(expected) - statistics.means_[j]) / statistics.scales_[j]


def fit(codes, y, block, others=None, weight=None, n_values=12):
    statistics = TargetStatistics([0], [n_values + FIRST_VALUE])
    weight = np.ones_like(y) if weight is None else weight
    others = np.zeros(len(y), dtype=bool) if others is None else others
    return statistics, fit_transform(statistics, codes, y, weight, block, others)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_inputs_follow_the_formula(is_weighted):
    codes, y, block = rows()
    others = np.arange(len(y)) % 7 == 0
    weight = np.ones_like(y)
    if is_weighted:
        weight[:, 1] = y[:, 0]  # conditional: the second task over clicked rows
    statistics, inputs = fit(codes, y, block, others, weight)
    assert np.isfinite(statistics.strengths_).all()
    for row in range(0, len(y), 5):
        known = ~others if others[row] else ~others & (block != block[row])
        own = codes[row, 0]
        expected = formula(codes, y, weight, own, known, statistics, 0)
        assert_allclose(inputs[row], expected, rtol=1e-4, atol=1e-5)
    # New rows are encoded by all rows.
    everything = np.ones(len(y), dtype=bool)
    expected = [
        formula(codes, y, weight, own, everything, statistics, 0)
        for own in range(codes.max() + 1)
    ]
    new = np.arange(codes.max() + 1)[:, np.newaxis]
    assert_allclose(statistics.transform(new), expected, rtol=1e-4, atol=1e-5)


def test_labels_of_a_block_are_in_no_input_of_its_rows(monkeypatch):
    def fixed(self, counts):
        return np.full(self.n_tasks_, 10.0)

    monkeypatch.setattr(TargetStatistics, "_estimate_strengths", fixed)
    codes, y, block = rows()
    # In another order within the block, so that the base rates stay.
    changed = y.copy()
    changed[block == 2] = y[block == 2][::-1]
    raw = []
    for labels in (y, changed):
        statistics, inputs = fit(codes, labels, block)
        raw.append(inputs * statistics.scales_[0] + statistics.means_[0])
    assert_allclose(raw[0][block == 2], raw[1][block == 2], rtol=1e-4, atol=1e-5)
    assert np.abs(raw[0] - raw[1])[block != 2].max() > 0.05


def test_strength_is_that_of_the_method_of_moments():
    rng = np.random.default_rng(0)
    a, p, n_values, n_each = 20.0, 0.1, 3000, 40
    rates = rng.beta(a * p, a * (1 - p), size=n_values)
    codes = np.repeat(np.arange(n_values), n_each)[:, np.newaxis] + FIRST_VALUE
    y = (rng.random(len(codes)) < np.repeat(rates, n_each)).astype(float)[:, np.newaxis]
    statistics, _ = fit(codes, y, assign_blocks(len(y), 5), n_values=n_values)
    assert_allclose(statistics.strengths_[0], a, rtol=0.15)


@pytest.mark.parametrize("rate", [0.5, 0.02, 0.001])
def test_noise_gives_no_rates(rate):
    shares = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        codes = rng.integers(FIRST_VALUE, 202, size=(4000, 1))
        y = (rng.random((4000, 1)) < rate).astype(float)
        statistics, inputs = fit(codes, y, assign_blocks(4000, 5), n_values=200)
        shares.append(np.isfinite(statistics.strengths_[0]).mean())
        if not shares[-1]:
            assert_array_equal(inputs[:, 0], 0.0)
    assert np.mean(shares) <= 0.15


def test_a_column_of_unique_values_gives_nothing():
    codes = np.arange(500)[:, np.newaxis] + FIRST_VALUE
    y = (np.random.default_rng(0).random((500, 1)) < 0.3).astype(float)
    statistics, inputs = fit(codes, y, assign_blocks(500, 5), n_values=500)
    assert_array_equal(inputs, 0.0)
    assert_array_equal(statistics.transform(codes), 0.0)


@pytest.mark.parametrize(("deviation", "expected"), [(0.3, None), (3.0, 1.0)])
def test_rates_keep_their_log_odds_unless_they_deviate_by_more_than_one(
    deviation, expected
):
    rng = np.random.default_rng(0)
    effects = rng.normal(scale=deviation, size=20)
    effects -= effects.mean()
    values = rng.integers(0, 20, 40_000)
    p = 1 / (1 + np.exp(-effects[values]))
    y = (rng.random(len(p)) < p).astype(float)[:, np.newaxis]
    codes = values[:, np.newaxis] + FIRST_VALUE
    _, inputs = fit(codes, y, assign_blocks(len(y), 5), n_values=20)
    assert abs(inputs[:, 0].mean()) < 0.01
    if expected is None:  # a slope of 1
        expected = effects[values].std()
    assert inputs[:, 0].std() == pytest.approx(expected, rel=0.1)
    assert np.corrcoef(effects[values], inputs[:, 0])[0, 1] > 0.95


def test_missing_and_unseen_values_have_the_inputs_of_no_rows():
    codes, y, block = rows()
    statistics, _ = fit(codes, y, block)
    missing, unseen = statistics.transform(np.array([[0], [1]]))
    assert_allclose(missing, -statistics.means_[0] / statistics.scales_[0], rtol=1e-5)
    assert_array_equal(missing, unseen)


def test_unseen_values_are_not_far_from_equally_frequent_ones():
    codes, y, _ = rows(n=3_000)
    is_value = codes[:, 0] >= FIRST_VALUE
    codes, y = codes[is_value], y[is_value]
    counts = np.bincount(codes[:, 0])[FIRST_VALUE:]
    assert counts.std() / counts.mean() < 0.1
    statistics, inputs = fit(codes, y, assign_blocks(len(y), 5))
    unseen = statistics.transform(np.zeros((1, 1), dtype=int))
    # By all rows; those of training are encoded by the other blocks.
    assert_allclose(unseen[0, -1], -1, rtol=0.05)
    assert np.abs(inputs[:, -1]).max() < 0.5


def test_an_update_adds_rows():
    codes, y, block = rows()
    statistics, _ = fit(codes[:400], y[:400], block[:400])
    counts = statistics.counts_[0].copy()
    statistics.update(codes[400:], y[400:], np.ones_like(y[400:]), [])
    for code in range(FIRST_VALUE, codes.max() + 1):
        new = codes[400:, 0] == code
        added = statistics.counts_[0][..., code] - counts[..., code]
        assert_array_equal(added, [[new.sum()] * 2, y[400:][new].sum(axis=0)])
    table = statistics.tables_[0]
    # The frequencies are those of a table with as many rows as the first one.
    n = np.bincount(codes[:, 0]) * (400 / 600)
    frequency = (np.log1p(n) - statistics.means_[0][-1]) / statistics.scales_[0][-1]
    assert_allclose(table[FIRST_VALUE:, -1], frequency[FIRST_VALUE:], rtol=1e-5)
    assert_allclose(table, statistics._inputs(0, statistics.counts_[0]), rtol=1e-6)
    assert_array_equal(statistics.counts_[0][..., :FIRST_VALUE], 0.0)


def stream(n=12_000, n_values=300, seed=0, rates=(0.1, 0.4)):
    """Return codes of values of unequal frequency, and labels of a funnel."""
    rng = np.random.default_rng(seed)
    shares = np.random.default_rng(1).gamma(1.0, size=n_values)
    codes = rng.choice(n_values, size=n, p=shares / shares.sum())
    effects = np.random.default_rng(2).lognormal(0, 0.7, n_values)[codes]
    click = rng.random(n) < rates[0] * effects
    y = np.c_[click, click & (rng.random(n) < rates[1] * effects)].astype(float)
    return codes[:, np.newaxis] + FIRST_VALUE, y


def updated(codes, y, first, n_each=500, undo=None):
    """Fit statistics on the first rows, and add the others in several calls."""
    statistics, _ = fit(
        codes[:first], y[:first], assign_blocks(first, 10), n_values=300
    )
    for start in range(first, len(codes), n_each):
        rows = slice(start, start + n_each)
        log = [] if undo is None else undo
        statistics.update(codes[rows], y[rows], np.ones_like(y[rows]), log)
    return statistics


@pytest.mark.parametrize("rates", [(0.1, 0.4), (0.05, 0.02)])
def test_rates_that_were_off_are_learnt_from_later_rows(rates):
    """At 0.1 % conversions, 500 rows show no difference between the values."""
    codes, y = stream(n=40_000, rates=rates)
    first, _ = fit(codes[:500], y[:500], assign_blocks(500, 10), n_values=300)
    assert np.isinf(first.strengths_[0]).any()
    later = updated(codes, y, 500, n_each=2_000)
    whole, _ = fit(codes, y, assign_blocks(len(y), 10), n_values=300)
    assert np.isfinite(later.strengths_).all()
    assert_allclose(later.rates_, whole.rates_, rtol=0.6)
    found, expected = (each.transform(codes)[:, :-1] for each in (later, whole))
    for task in range(2):
        assert np.corrcoef(found[:, task], expected[:, task])[0, 1] > 0.9
        # Not far from mean 0 and deviation 1, even if learnt long before the last rows.
        assert 0.3 < found[:, task].std() < 4


def test_rates_that_the_first_rows_determine_stay_as_they_are():
    codes, y = stream()
    before = updated(codes[:6_000], y[:6_000], 6_000)
    after = updated(codes, y, 6_000)
    assert np.isfinite(before.strengths_).all()
    for name in ("rates_", "strengths_", "means_", "scales_"):
        assert_array_equal(getattr(after, name), getattr(before, name))


def test_frequencies_stay_comparable():
    codes, y = stream(n=40_000)
    statistics = updated(codes, y, 2_000)
    [frequency] = statistics.transform(codes)[:, -1:].T
    assert abs(frequency.mean()) < 0.12
    assert abs(frequency.std() - 1 / 3) < 0.07
    # As in the first rows, values that did not occur are at the same place.
    first, _ = fit(codes[:2_000], y[:2_000], assign_blocks(2_000, 10), n_values=300)
    unseen = np.zeros((1, 1), dtype=int)
    assert_allclose(statistics.transform(unseen)[:, -1], first.transform(unseen)[:, -1])


def test_a_failing_update_takes_back_what_it_learnt():
    codes, y = stream()
    statistics = updated(codes[:500], y[:500], 500)
    before, undo = copy.deepcopy(vars(statistics)), []
    statistics.update(codes, y, np.ones_like(y), undo)
    assert np.isfinite(statistics.strengths_).all()
    for restore in reversed(undo):
        restore()
    assert before.keys() == vars(statistics).keys()
    for name, value in before.items():
        pairs = zip(*map(np.atleast_1d, (vars(statistics)[name], value)), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs)


def test_another_fit_learns_rates_that_were_off():
    codes, y = stream()
    n = len(y)
    block, others = assign_blocks(n, 10), np.zeros(n, dtype=bool)
    first, _ = fit(codes[:500], y[:500], block[:500], n_values=300)
    is_off = np.append(np.isinf(first.strengths_[0]), False)
    assert is_off.any()
    again = TargetStatistics([0], [300 + FIRST_VALUE])
    inputs = fit_transform(again, codes, y, np.ones_like(y), block, others, first)
    fresh, expected = fit(codes, y, block, n_values=300)
    assert np.isfinite(again.scales_).all()
    for name in ("strengths_", "means_", "scales_"):
        own, new = getattr(again, name)[0], getattr(fresh, name)[0]
        assert_allclose(own[is_off[: len(own)]], new[is_off[: len(own)]], rtol=0.01)
    assert np.corrcoef(inputs[:, 1], expected[:, 1])[0, 1] > 0.99
    # The frequency has the scale of the first fit, of a table with fewer rows.
    assert abs(inputs[:, -1].mean()) < 0.3


def test_noise_gives_no_rates_in_later_calls():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        codes = rng.integers(FIRST_VALUE, 302, size=(8_000, 1))
        y = (rng.random((8_000, 2)) < [0.02, 0.002]).astype(float)
        found.append(np.isfinite(updated(codes, y, 500).strengths_[0]))
    assert np.mean(found) <= 0.15
