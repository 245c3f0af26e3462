"""Weights against conversions that are still to come."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser.delayed_feedback import delay_distribution, delayed_feedback_weights


def test_distribution_by_brute_force():
    rng = np.random.default_rng(0)
    elapsed = rng.integers(1, 20, 200).astype(float)
    delay = rng.integers(0, 15, 200).astype(float)
    delay, elapsed = delay[delay <= elapsed], elapsed[delay <= elapsed]
    delays, probabilities = delay_distribution(delay, elapsed=elapsed)
    for t, found in zip(delays, probabilities, strict=True):
        expected = 1.0
        for d in np.unique(delay[delay > t]):
            at_risk = ((delay <= d) & (d <= elapsed)).sum()
            expected *= 1 - (delay == d).sum() / at_risk
        assert found == pytest.approx(expected)


def censored(n_samples, ctr, cvr, rng):
    """Return true and seen labels, elapsed times and delays."""
    click = rng.random(n_samples) < ctr
    conversion = click & (rng.random(n_samples) < cvr)
    elapsed = rng.uniform(0, 4, n_samples)
    delay = rng.exponential(1.0, n_samples)
    seen = conversion & (delay <= elapsed)
    Y = np.column_stack([click, conversion]).astype(int)
    delay = np.where(seen, delay, np.nan)
    return Y, np.column_stack([click, seen]).astype(int), elapsed, delay


@pytest.mark.parametrize(
    ("n", "ctr", "cvr"),
    [
        pytest.param(400_000, 0.3, 0.3, id="frequent"),
        pytest.param(2_000_000, 0.02, 0.05, id="2 % clicks, 0.1 % conversions"),
    ],
)
@pytest.mark.parametrize("space", ["entire", "conditional"])
def test_weighted_rates_are_those_of_all_conversions(space, n, ctr, cvr):
    """The rates that minimise the weighted cross-entropy, in closed form."""
    rng = np.random.default_rng(0)
    Y, seen, elapsed, delay = censored(n, ctr, cvr, rng)
    weight = delayed_feedback_weights(seen, delay=delay, elapsed=elapsed)
    assert_array_equal(weight[:, 0], 1)
    rows = slice(None) if space == "entire" else Y[:, 0] == 1
    w, y = weight[rows, 1], seen[rows, 1]
    truth = Y[rows, 1].mean()
    # Two standard deviations of the number of conversions, and 1 %.
    noise = 2 / np.sqrt(seen[:, 1].sum())
    assert (w * y).sum() / w.sum() == pytest.approx(truth, rel=0.01 + noise)
    assert y.mean() < 0.8 * truth
    # The weights of rows of one age have the same property.
    for low in (0.5, 1.0, 3.0):
        age = (elapsed[rows] > low) & (elapsed[rows] < low + 0.5)
        found = (w[age] * y[age]).sum() / w[age].sum()
        assert found == pytest.approx(truth, rel=0.03 + 4 * noise)


def test_conversions_without_a_click_leave_the_rate_of_clicks():
    rng = np.random.default_rng(0)
    Y, seen, elapsed, delay = censored(200_000, 0.1, 0.2, rng)
    late, others = rng.exponential(1.0, len(Y)), np.arange(len(Y)) < 100_000
    others &= (Y[:, 0] == 0) & (late <= elapsed)
    seen[others, 1], delay[others] = 1, late[others]
    weight = delayed_feedback_weights(seen, delay=delay, elapsed=elapsed)[:, 1]
    clicks = Y[:, 0] == 1
    found = np.average(seen[clicks, 1], weights=weight[clicks])
    assert found == pytest.approx(Y[clicks, 1].mean(), rel=0.05)


def test_one_stale_conversion_does_not_decide_over_the_others():
    """A delay of 25, where all other impressions are younger than 20."""
    rng = np.random.default_rng(0)
    _, seen, elapsed, delay = censored(30_000, 0.3, 0.1, rng)
    expected = delayed_feedback_weights(seen, delay=delay, elapsed=elapsed)
    stale = {"delay": np.append(delay, 25.0), "elapsed": np.append(elapsed, 30.0)}
    with pytest.warns(
        UserWarning, match=r"of 1 conversion\(s\), .* 25, cannot"
    ) as found:
        weight = delayed_feedback_weights(np.vstack([seen, [1, 1]]), **stale)
    assert len(found) == 1
    assert found[0].filename == __file__
    assert_allclose(weight[:-1], expected, rtol=1e-3)
    assert weight[-1, 1] == 1
    # Two of equal delay are alone as well, in a risk set of two.
    stale = {name: np.append(times, times[-1]) for name, times in stale.items()}
    with pytest.warns(UserWarning, match=r"delays of 2 conversion\(s\)"):
        again = delayed_feedback_weights(np.vstack([seen, [1, 1], [1, 1]]), **stale)
    assert_allclose(again[:-2], expected, rtol=1e-3)


@pytest.mark.parametrize("value", [np.inf, -1.0, 9.0])
def test_delays_of_rows_without_a_conversion_are_not_read(value):
    expected = delayed_feedback_weights(LABELS, **TIMES)
    others = TIMES | {"delay": [1.0, value, value]}
    assert_array_equal(delayed_feedback_weights(LABELS, **others), expected)


def test_labels_are_accepted_as_y_and_as_Y():
    expected = delayed_feedback_weights(LABELS, **TIMES)
    assert_array_equal(delayed_feedback_weights(y=LABELS, **TIMES), expected)
    assert_array_equal(delayed_feedback_weights(Y=LABELS, **TIMES), expected)
    with pytest.raises(TypeError, match="positional"):
        delayed_feedback_weights(LABELS, TIMES["delay"], TIMES["elapsed"])


@pytest.mark.parametrize(
    "form", ["numpy", "pandas", "arrow", "polars", "objects", "mixed"]
)
def test_durations_of_any_unit_are_numbers_of_seconds(form):
    rng = np.random.default_rng(0)
    elapsed, delay = rng.uniform(0, 4, 2_000), rng.exponential(1.0, 2_000)
    click = rng.random(2_000) < 0.5
    seen = click & (rng.random(2_000) < 0.5) & (delay <= elapsed)
    Y, delay = np.column_stack([click, seen]).astype(int), np.where(seen, delay, np.nan)
    expected = delayed_feedback_weights(Y, delay=delay, elapsed=elapsed)

    def durations(days, unit):
        values = pd.to_timedelta(pd.Series(days), unit="D").dt.as_unit(unit)
        if form == "arrow":
            return values.astype(f"duration[{unit}][pyarrow]")
        if form == "polars":
            return pytest.importorskip("polars").Series(values)
        if form == "objects":
            return [None if pd.isna(value) else value for value in values]
        if form == "mixed":  # numpy's own objects, in several units
            own = values.to_numpy().astype(object)
            own[:] = [np.timedelta64(v) for v in values.to_numpy()]
            own[::2] = [v.astype("m8[ns]") for v in own[::2]]
            return own
        return values if form == "pandas" else values.to_numpy()

    for units in ("us", "ns"), ("ns", "us"):
        own, other = map(durations, (delay, elapsed), units)
        found = delayed_feedback_weights(Y, delay=own, elapsed=other)
        assert_allclose(found, expected, rtol=1e-6)
    for missing in None, np.nan:
        found = delayed_feedback_weights(
            Y * [1, 0], delay=np.full(2_000, missing), elapsed=durations(elapsed, "ns")
        )
        assert_array_equal(found, 1)
    delays, _ = delay_distribution(
        durations([1, 2], "us"), elapsed=durations([2, 2], "ns")
    )
    assert_array_equal(delays, [86_400, 2 * 86_400])
    with pytest.raises(ValueError, match="delay is durations, but elapsed is numbers"):
        delay_distribution(durations([1, 2], "us"), elapsed=[2, 2])
    dates = pd.Series(pd.date_range("2026", periods=2))
    with pytest.raises(ValueError, match=r"delay must be .* but it contains dates"):
        delay_distribution(dates, elapsed=durations([1, 2], "us"))


LABELS = np.array([[1, 1], [1, 0], [0, 0]])
TIMES = {"elapsed": [3.0, 1.0, 2.0], "delay": [1.0, np.nan, np.nan]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Y": LABELS[:, 0]}, r"at least two columns; its shape is \(3,\)"),
        ({"Y": LABELS * 2}, "must be 0 or 1; column 0 of Y contains 2 in row 0"),
        ({"elapsed": [1.0, 2.0]}, r"elapsed must have shape \(3,\); got \(2,\)"),
        ({"elapsed": ["a", "b", "c"]}, "elapsed must contain one number per row"),
        ({"elapsed": [0.5, 1.0, 2.0]}, "within 0 and elapsed; it is 1.0"),
        ({"elapsed": [3.0, 1.0, -2.0]}, "elapsed must be >= 0; it is -2.0 in row 2"),
        ({"delay": [-1.0, np.nan, 0]}, "within 0 and elapsed; it is -1"),
        ({"delay": [np.nan, 1.0, 1.0]}, "known for converted rows, .* nan in row 0"),
        ({"Y": LABELS[::-1], "delay": [1, 1, 9]}, "it is 9.0 in row 2, with .* 2.0"),
        ({"cvr": [0.1, 0.2, 1.5]}, r"cvr must be in \[0, 1\]; it is 1.5 in row 2"),
        (
            {"Y": pd.DataFrame(LABELS), "elapsed": pd.Series([3.0, 1, 2], [2, 1, 0])},
            r"Y and elapsed .* different orders: .* Pass elapsed.loc\[Y.index\]",
        ),
        ({"min_probability": 0}, "min_probability must be .* > 0 and <= 1; got 0"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        delayed_feedback_weights(**{"Y": LABELS, **TIMES, **change})
