"""What is learnt part by part, against what all rows at once give."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser._streaming._chunks import GroupNumbers
from sk_pwiser._table._blocks import RowSample
from sk_pwiser._table._labels import check_targets
from sk_pwiser._table._weights_and_groups import (
    RowSummary,
    base_rates,
    combine_weights,
    scale_weights,
)

PARTS = [slice(0, 30), slice(30, 31), slice(31, 200), slice(200, 300)]


def draw(kind):
    """Return labels and weights; of some parts all weights are equal."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (300, 3)).astype(float)
    y[:, 1] *= y[:, 0]
    weights = None
    if kind == "rows":
        weights = rng.random(300) + 0.1
    elif kind == "large":  # whose sum is infinite
        weights = (rng.random(300) + 0.1) * 1.5e308
        weights[:31] /= 1e5
    elif kind == "equal":
        weights = np.full(300, 2.0)
    elif kind == "tasks":
        weights = rng.integers(0, 3, (300, 3)).astype(float)
        weights[:, 0] = 1
        weights[:30] = 2
    elif kind == "missing":
        y[100:150, 1:] = np.nan
    return y, weights


@pytest.mark.parametrize("kind", ["none", "rows", "large", "equal", "tasks", "missing"])
def test_labels_and_weights_are_summed_up_as_a_whole(kind):
    y, given = draw(kind)
    summary, parts = RowSummary(), []
    for rows in PARTS:
        targets = check_targets(y[rows], missing_labels="ignore")
        own = None if given is None else given[rows]
        targets, weights = combine_weights(targets, own, is_part=True)
        summary.add(targets, weights)
        parts.append(weights)
    targets, weights = combine_weights(check_targets(y, missing_labels="ignore"), given)
    scaled = None if weights is None else scale_weights(weights)
    assert summary.n_rows == 300
    assert_allclose(summary.base_rates(), base_rates(targets.values, scaled), rtol=1e-6)
    sizes = [len(y[rows]) for rows in PARTS]
    found = [summary.scale(w, n) for w, n in zip(parts, sizes, strict=True)]
    if scaled is None:
        assert found == [None] * 4
    else:
        assert_allclose(np.concatenate(found), scaled, rtol=1e-6)
    assert summary.targets().problems() == targets.problems() != []


def test_selected_labels_are_found_as_a_whole():
    y = np.zeros((400, 2))
    y[:100, 0] = 1
    y[100:390, 1] = np.nan
    summary = RowSummary()
    for rows in np.split(np.arange(400), 4):
        targets = check_targets(y[rows], missing_labels="ignore")
        summary.add(*combine_weights(targets, None, is_part=True))
    whole = check_targets(y, missing_labels="ignore")
    found = summary.targets().problems()
    assert found == whole.problems()
    assert "has a label in" in found[-1]


def test_a_sample_of_all_rows_is_in_their_order():
    sample = RowSample(300, np.random.default_rng(0))
    table = pa.table({"a": np.arange(300)})
    for rows in PARTS:
        sample.add(table.slice(rows.start, rows.stop - rows.start), None)
    found, weights = sample.finish()
    assert_array_equal(found["a"], np.arange(300))
    assert_array_equal(weights, np.ones((300, 1)))


def test_every_row_has_the_same_chance_to_be_in_the_sample():
    counts = np.zeros(300)
    for seed in range(400):
        sample = RowSample(30, np.random.default_rng(seed))
        for start in range(0, 300, 20):
            part = pa.table({"a": np.arange(start, start + 20)})
            sample.add(part, np.arange(start, start + 20, dtype=float))
        found, weights = sample.finish()
        weights = weights[:, 0]
        assert_array_equal(found["a"], weights)
        assert len(set(weights)) == 30
        counts[weights.astype(int)] += 1
    # 400 draws with a chance of 0.1 each: a standard deviation of 6.
    assert counts.min() > 40 - 5 * 6
    assert counts.max() < 40 + 5 * 6
    thirds = counts.reshape(3, 100).sum(axis=1) / counts.sum()
    assert_allclose(thirds, 1 / 3, atol=0.02)


def test_groups_keep_their_numbers_over_the_border_of_parts():
    numbers = GroupNumbers()
    first = numbers.of(pd.DataFrame({"s": ["a", "a", "b"]}))
    second = numbers.of(pd.DataFrame({"s": ["b", "c", "c", "d"]}))
    assert_array_equal(first, [0, 0, 1])
    assert_array_equal(second, [1, 2, 2, 3])
    with pytest.raises(ValueError, match="'s' has no value in row 1"):
        numbers.of(pd.DataFrame({"s": ["b", None]}))
