"""Labels in another order than the rows, and tasks in another order than the funnel."""

import numpy as np
import pandas as pd
import pytest
from refusals import X, Y, refuses, small

from sk_pwiser.inspection import TaskRocCurveDisplay
from sk_pwiser.metrics import ctr_auc_scorer

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
