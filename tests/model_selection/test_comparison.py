"""Intervals, verdicts, table and plot of a comparison against scipy."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from sk_pwiser.model_selection import ModelComparison

BCE = [0.70, 0.72, 0.71, 0.69, 0.73]
SCORES = {
    "ahead": [BCE, [0.75, 0.78, 0.75, 0.74, 0.78]],
    "behind": [BCE, [0.65, 0.66, 0.67, 0.64, 0.68]],
    "equal": [BCE, [0.71, 0.71, 0.72, 0.68, 0.73]],
}
values = st.floats(-10, 10).map(lambda x: round(x, 3))


def table_of(scores, ratio, candidates=("bce", "pwiser")):
    comparison = ModelComparison(list(candidates), scores, test_train_ratio=ratio)
    return comparison.table.set_index(["metric", "candidate"])


@given(st.integers(2, 12).flatmap(lambda n: arrays(float, (3, n), elements=values)))
def test_without_overlap_the_interval_is_that_of_the_paired_t_test(scores):
    table = table_of({"m": scores}, 0.0, ("a", "b", "c"))
    for candidate, of_candidate in zip("abc", scores, strict=True):
        row = table.loc["m", candidate]
        differences = of_candidate - scores[0]
        np.testing.assert_allclose(row["mean"], of_candidate.mean(), atol=1e-12)
        np.testing.assert_allclose(row.difference, differences.mean(), atol=1e-12)
        np.testing.assert_allclose(row.std_error, stats.sem(differences), atol=1e-12)
        if differences.std() > 1e-9:
            interval = stats.ttest_rel(of_candidate, scores[0]).confidence_interval()
            np.testing.assert_allclose([row.low, row.high], interval, atol=1e-9)


@pytest.mark.parametrize(("n_folds", "n_repeats"), [(5, 1), (10, 1), (5, 4)])
def test_the_correction_of_nadeau_and_bengio(n_folds, n_repeats):
    n = n_folds * n_repeats
    scores = np.random.default_rng(0).normal(size=(2, n))
    ratio = 1 / (n_folds - 1)
    plain = table_of({"m": scores}, 0.0).loc["m", "pwiser"]
    row = table_of({"m": scores}, ratio).loc["m", "pwiser"]
    # Bouckaert and Frank (2004): the variance grows from 1/n to 1/n + n_test/n_train.
    factor = np.sqrt(1 + n * ratio)
    assert row.difference == plain.difference
    assert row.std_error == pytest.approx(plain.std_error * factor)
    assert row.high - row.low == pytest.approx((plain.high - plain.low) * factor)


def test_folds_without_a_finite_score_are_left_out():
    with_gaps = [[*BCE, np.nan, 0.5], [0.71, 0.75, 0.70, 0.69, 0.77, np.nan, np.inf]]
    without = [BCE, [0.71, 0.75, 0.70, 0.69, 0.77]]
    columns = ["difference", "std_error", "low", "high", "n_splits"]
    found = table_of({"m": with_gaps}, 0.25).loc["m", "pwiser"][columns]
    assert found.equals(table_of({"m": without}, 0.25).loc["m", "pwiser"][columns])


def test_one_or_no_fold_gives_no_interval():
    nan = np.nan
    scores = {"one": [[0.5, nan], [0.75, nan]], "none": [[nan, nan], [1, nan]]}
    comparison = ModelComparison(["a", "b"], scores, test_train_ratio=1)
    table = table_of(scores, 1, ("a", "b"))
    assert table.loc[("one", "b"), "difference"] == 0.25
    assert np.isnan(table.loc[("none", "b"), "difference"])
    assert table.loc[:, ["std_error", "low", "high"]].isna().all(axis=None)
    assert table["n_splits"].tolist() == [1, 1, 0, 0]
    assert set(comparison.verdicts.values()) == {
        "no interval for b, because fewer than two folds have a score"
    }
    assert "+0.2500  [+nan, +nan]" in str(comparison)


def test_verdicts_follow_the_intervals():
    comparison = ModelComparison(["bce", "pwiser"], SCORES, test_train_ratio=0.25)
    rows = table_of(SCORES, 0.25).xs("pwiser", level="candidate")
    ahead, behind = rows.loc["ahead"], rows.loc["behind"]
    assert ahead.low > 0 > behind.high
    assert comparison.verdicts == {
        "ahead": "pwiser is ahead of bce by "
        f"{ahead.difference:.4f} [{ahead.low:.4f}, {ahead.high:.4f}]",
        "behind": "pwiser is behind bce by "
        f"{-behind.difference:.4f} [{-behind.high:.4f}, {-behind.low:.4f}]",
        "equal": "no difference between bce and pwiser that these folds can show",
    }


def test_a_verdict_names_who_is_behind_on_every_fold():
    # The differences of 0.01 to 0.10 are too unequal for the interval of three folds.
    base, unsure = np.array([0.70, 0.66, 0.67]), np.array([0.69, 0.67, 0.66])
    steps = np.array([0.01, 0.02, 0.10])
    scores = {"m": [base, base - steps, base + steps, unsure]}
    comparison = ModelComparison(["a", "b", "c", "d"], scores, test_train_ratio=0.5)
    behind, ahead, similar = comparison.verdicts["m"].split("; ")
    folds = "on all 3 folds, by 0.0433 in the mean, but these are too few folds"
    assert behind == f"b is behind a {folds} to be sure"
    assert ahead == f"c is ahead of a {folds} to be sure"
    assert similar == "no difference between a and d that these folds can show"
    table = table_of(scores, 0.5, "abcd")
    assert table["n_ahead"].tolist() == [0, 0, 3, 1]
    assert table["n_behind"].tolist() == [0, 3, 0, 2]
    unsure = np.array([0.71, 0.64])
    scores = {"m": [base[:2], base[:2] - [0.01, 0.10], unsure]}
    comparison = ModelComparison(["a", "b", "c"], scores, test_train_ratio=1)
    behind, similar = comparison.verdicts["m"].split("; ")
    folds = "on both folds, by 0.0550 in the mean, but these are too few folds"
    assert behind == f"b is behind a {folds} to be sure"
    assert similar == "no difference between a and c that these folds can show"


def test_a_loss_is_printed_as_such():
    scores = {"AUC": [[0.7, 0.7], [0.8, 0.8]], "minus log loss": [[-0.5, -0.6]] * 2}
    scores["minus log loss"][1] = [-0.4, -0.5]
    text = str(ModelComparison(["a", "b"], scores, test_train_ratio=1))
    title, _, *rows, of_auc, of_loss = text.splitlines()
    assert title.endswith("larger scores and smaller losses are better.")
    assert rows[2].split() == ["log", "loss", "a", "0.5500"]
    assert rows[3].split()[:5] == ["log", "loss", "b", "0.4500", "-0.1000"]
    assert of_auc.startswith("AUC: b is ahead of a by 0.1000")
    assert of_loss.startswith("log loss: b is ahead of a by 0.1000")


def test_a_verdict_lists_every_candidate():
    equal, ahead = SCORES["equal"][1], SCORES["ahead"][1]
    missing = [np.nan] * 5
    comparison = ModelComparison(
        ["a", "b", "c", "d", "e"],
        {"m": [BCE, equal, ahead, equal[::-1], missing]},
        test_train_ratio=0.25,
    )
    first, second, third = comparison.verdicts["m"].split("; ")
    assert first.startswith("c is ahead of a by")
    assert second == "no difference between a and b or d that these folds can show"
    assert third.startswith("no interval for e, because")


def test_small_differences_of_small_scores_have_more_digits():
    """As those of a log loss at 0.1 % of conversions."""
    scores = {"loss": [[-0.0074, -0.0075, -0.0073], [-0.00742, -0.00751, -0.00731]]}
    comparison = ModelComparison(["a", "b"], scores, test_train_ratio=0.0)
    assert "-0.000013  [-0.000028, +0.000001]" in str(comparison)
    comparison.scores["loss"][1] = comparison.scores["loss"][0] - [1e-5, 1.1e-5, 1.2e-5]
    assert comparison.verdicts["loss"] == (
        "b is behind a by 0.000011 [0.000009, 0.000013]"
    )
    # A rounded zero has no minus sign.
    scores = {"m": [[0.5, 0.5], [0.5, 0.5 - 1e-9]]}
    text = str(ModelComparison(["a", "b"], scores, test_train_ratio=1))
    assert "+0.0000  [+0.0000, +0.0000]" in text


def test_without_pandas_the_table_is_a_dict_of_the_same_columns(monkeypatch):
    comparison = ModelComparison(["bce", "pwiser"], SCORES, test_train_ratio=0.25)
    frame = comparison.table
    monkeypatch.setitem(sys.modules, "pandas", None)
    columns = comparison.table
    assert isinstance(columns, dict)
    assert list(columns) == list(frame.columns)
    for name, column in columns.items():
        np.testing.assert_array_equal(column, frame[name])


def test_the_plot_shows_the_intervals():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    scores = {name: [a, b, b[::-1]] for name, (a, b) in SCORES.items()}
    comparison = ModelComparison(["bce", "p", "q"], scores, test_train_ratio=0.25)
    table = table_of(scores, 0.25, ("bce", "p", "q"))
    _, ax = pyplot.subplots()
    assert comparison.plot(ax=ax) is ax
    assert comparison.plot() is not ax
    for candidate, (points, _, (bars,)) in zip("pq", ax.containers, strict=True):
        rows = table.xs(candidate, level="candidate")
        np.testing.assert_array_equal(points.get_xdata(), rows["difference"])
        ends = [segment[:, 0] for segment in bars.get_segments()]
        np.testing.assert_allclose(ends, rows[["low", "high"]])


def test_the_plot_needs_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    comparison = ModelComparison(["bce", "pwiser"], SCORES, test_train_ratio=0.25)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install m.*\[plot\]"):
        comparison.plot()


@pytest.mark.parametrize(
    ("candidates", "scores", "ratio", "match"),
    [
        (["a"], {"m": [[1, 2]]}, 1, r"two or more distinct names, got \['a'\]"),
        (["a", "a"], {"m": [[1, 2], [1, 2]]}, 1, "two or more distinct names"),
        (["a", "b"], {"m": [[1, 2]]}, 1, r"n_candidates=2, got {'m': \(1, 2\)}"),
        (["a", "b"], {"m": [1, 2]}, 1, "must map each metric"),
        (["a", "b"], {"m": [[1], [2]], "n": [[1, 2], [2, 3]]}, 1, "must map each"),
        (["a", "b"], {}, 1, "must map each metric"),
        (["a", "b"], {"m": [[1], [2]]}, -0.1, "finite and >= 0; got -0.1"),
        (["a", "b"], {"m": [[1], [2]]}, np.nan, "finite and >= 0; got nan"),
        (["a", "b"], {"m": [[1], [2]]}, "1", "must be a number; got '1'"),
    ],
)
def test_bad_input(candidates, scores, ratio, match):
    with pytest.raises((ValueError, TypeError), match=match):
        ModelComparison(candidates, scores, test_train_ratio=ratio)


def test_seconds_need_times():
    given = {"candidates": ["a", "b"], "scores": {"m": [[1], [2]]}}
    timed = ModelComparison(
        **given, test_train_ratio=1, fit_times=[[1], [3]], score_times=[[0], [2]]
    )
    assert "b: 3.00 s per fit, 2.00 s to predict" in timed.seconds
    with pytest.raises(ValueError, match="seconds needs fit_times and score_times"):
        ModelComparison(**given, test_train_ratio=1).seconds  # noqa: B018
