"""Labels in another order than the rows, and tasks in another order than the funnel."""

import numpy as np
import pandas as pd
import pytest
from small_model import X, Y, refuses, small

from sk_pwiser._tasks._row_match import check_match
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.inspection import TaskRocCurveDisplay
from sk_pwiser.metrics import ctr_auc_scorer
from sk_pwiser.model_selection import compare_models

ORDER = np.random.default_rng(0).permutation(len(X))
SHUFFLED, LABELS = X.iloc[ORDER], Y.iloc[ORDER]
MEND = r"same index labels .* row 0 is \d+ in X and 0 in Y. Pass Y.loc\[X.index\]"


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_labels_sorted_by_their_index_are_refused(method):
    refuses(small(), ValueError, MEND, SHUFFLED, LABELS.sort_index(), method)
    refuses(small(), ValueError, MEND, SHUFFLED, LABELS["click"].sort_index(), method)
    getattr(small(max_epochs=1), method)(SHUFFLED, LABELS.sort_index().loc[ORDER])


@pytest.mark.parametrize("name", ["sample_weight", "groups"])
def test_weights_and_groups_in_another_order_are_refused(name):
    values = pd.Series(np.arange(len(X)) + 1.0)
    message = rf"Pass {name}.loc\[X.index\] or, .*, {name}.to_numpy\(\)"
    refuses(small(), ValueError, message, SHUFFLED, LABELS, **{name: values})


def test_validation_rows_and_rows_of_a_score_are_checked():
    model = small(max_epochs=1).fit(X, Y)
    pair = SHUFFLED, Y
    refuses(small(), ValueError, f"In eval_set: .* {MEND}", eval_set=pair)
    for score in (model.score, lambda *rows: ctr_auc_scorer(model, *rows)):
        assert score(SHUFFLED, LABELS) == pytest.approx(score(X, Y))
        with pytest.raises(ValueError, match=MEND):
            score(SHUFFLED, Y)
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=MEND):
        TaskRocCurveDisplay.from_estimator(model, SHUFFLED, Y)


def test_repeated_index_labels_are_compared_by_position():
    day = np.repeat([1, 2, 3], len(X) // 3)
    by_day = X.set_axis(day), Y.set_axis(day)
    small(max_epochs=1).fit(*by_day)
    refuses(small(), ValueError, "Pass equal orders or", by_day[0], by_day[1][::-1])


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (SHUFFLED, LABELS.to_numpy()),
        (SHUFFLED[:200], LABELS[:200].reset_index(drop=True)),
        (SHUFFLED.to_numpy(dtype=object), LABELS),
        (X.set_axis([f"row {k}" for k in range(len(X))]), Y),
    ],
)
def test_indices_that_have_nothing_in_common_are_matched_by_position(rows, labels):
    small(max_epochs=1).fit(rows, labels)


def test_swapped_tasks_are_named_in_the_warning():
    with pytest.warns(UserWarning, match=r"\['click', 'conversion'\] only 0 rows"):
        small(max_epochs=1).fit(X, Y[["conversion", "click"]])


def test_tasks_without_a_better_order_get_no_hint():
    labels = np.random.default_rng(0).integers(0, 2, size=(len(X), 2))
    with pytest.warns(
        UserWarning, match=r"pairwise term\. \d+% .* set task_parents\.$"
    ):
        small(max_epochs=1).fit(X, labels)


def test_a_table_of_arrow_has_no_index_that_labels_could_contradict():
    """The index of the table that it becomes is not the user's."""
    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_pandas(SHUFFLED, preserve_index=False)
    weights = pd.Series(np.arange(len(X)) + 1.0)[ORDER]
    expected = small(max_epochs=1).fit(
        SHUFFLED, LABELS, sample_weight=weights, eval_set=(SHUFFLED, LABELS)
    )
    model = small(max_epochs=1)
    model.fit(table, LABELS, sample_weight=weights, eval_set=(table, LABELS))
    np.testing.assert_array_equal(
        model.predict_proba(table), expected.predict_proba(SHUFFLED)
    )
    model.partial_fit(table, LABELS, sample_weight=weights)
    assert model.score(table, LABELS) == pytest.approx(model.score(SHUFFLED, LABELS))
    # Labels as a table of Arrow, and parts of both in folds.
    labels = pa.Table.from_pandas(LABELS, preserve_index=False)
    small(max_epochs=1).fit(SHUFFLED, labels)
    for pair in ((table, LABELS), (SHUFFLED, labels)):
        comparison = compare_models(
            *pair, models=["bce", "pwiser"], estimator=small(max_epochs=1), cv=2
        )
        assert len(comparison.candidates) == 2
    calibrated = FunnelCalibrator(small(max_epochs=1).fit(X, Y), method="sigmoid")
    calibrated.fit(table, LABELS)


NAMES = np.array([f"row {number}" for number in range(len(X))])
DAYS = pd.date_range("2026-03-01", periods=len(X))


@pytest.mark.parametrize(
    ("labels_of_x", "labels_of_y", "n_moved"),
    [
        # All rows but the first, and all but the last.
        (np.r_[1 : len(X)], np.r_[0 : len(X) - 1], len(X) - 2),
        (NAMES[1:], NAMES[:-1], len(X) - 2),
        (DAYS[2:], DAYS[:-2], len(X) - 4),
        # Two random parts, as of two calls of train_test_split.
        (NAMES[ORDER[:250]], NAMES[ORDER[::-1][:250]], None),
    ],
)
def test_shifted_tables_are_named(labels_of_x, labels_of_y, n_moved):
    n_rows = len(labels_of_x)
    indices = [pd.Index(labels) for labels in (labels_of_x, labels_of_y)]
    if indices[0].dtype.kind == "i":
        indices = [pd.RangeIndex(one[0], one[-1] + 1) for one in indices]
    rows, labels = X[:n_rows].set_axis(indices[0]), Y[:n_rows].set_axis(indices[1])
    if n_moved is None:
        is_common = np.isin(labels_of_x, labels_of_y)
        n_moved = int((is_common & (labels_of_x != labels_of_y)).sum())
        assert n_moved > 150
    message = rf"{n_moved:,} of {n_rows:,} rows of X .* that Y has in another row"
    with pytest.warns(UserWarning, match=message):
        small(max_epochs=1).fit(rows, labels)
    small(max_epochs=1).fit(rows, labels.to_numpy())


KEPT = np.flatnonzero(np.arange(len(X)) % 10)


@pytest.mark.parametrize(
    ("labels_of_x", "labels_of_y"),
    [
        # Rows that a filter left, and labels that were numbered again.
        (KEPT, range(len(KEPT))),
        # The same in a fold.
        (KEPT[50:], range(50, len(KEPT))),
        # The later part of a log, and labels that were numbered again.
        (range(100, len(X)), range(len(X) - 100)),
        (ORDER[:200], range(200)),
        # Labels that name no row.
        (np.repeat(NAMES[:100], 2), np.repeat(NAMES[1:101], 2)),
        # One name in ten is common.
        (NAMES[:100], NAMES[90:190]),
    ],
)
def test_labels_that_were_numbered_again_are_no_shift(labels_of_x, labels_of_y):
    n_rows = min(len(labels_of_x), len(labels_of_y))
    check_match(
        X[:n_rows].set_axis(pd.Index(labels_of_x[:n_rows])),
        n_rows,
        Y=Y[:n_rows].set_axis(pd.Index(labels_of_y[:n_rows])),
    )
