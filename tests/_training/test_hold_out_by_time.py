"""With a `time_column`, early stopping validates on the last rows in time."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from refusals import small
from sklearn.pipeline import make_pipeline

from sk_pwiser._training._early_stopping import held_by_time
from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr
from sk_pwiser.history import HistoryFeatures


@pytest.fixture(scope="module")
def log():
    """Rows in random order of their times, whose click rate doubles at the end."""
    data = make_ctr_cvr(1_500, ctr=0.3, random_state=0)
    time = np.random.default_rng(0).permutation(1_500) // 3
    return data.data.assign(time=time), data.target


def test_rows_are_held_from_a_time_on():
    times = np.array([5, 1, 4, 4, 2, 3, 4, 0, 1, 2], dtype=float)
    assert_array_equal(held_by_time(times, 0.1), times >= 5)
    assert_array_equal(held_by_time(times, 0.3), times >= 4)
    # Few distinct times: at least the last one, never the first.
    assert_array_equal(held_by_time(times > 1, 0.9), times > 1)
    assert not held_by_time(np.ones(5), 0.2).any()


def test_groups_are_whole_and_held_by_their_last_row():
    rng = np.random.default_rng(0)
    groups, times = rng.integers(0, 100, 2_000), rng.random(2_000)
    times += groups
    is_held = held_by_time(times, 0.1, groups)
    assert 0.08 < is_held.mean() < 0.12
    last = pd.Series(times).groupby(groups).max()
    held = set(groups[is_held])
    assert not held & set(groups[~is_held])
    assert last[list(held)].min() > last.drop(list(held)).max()


@pytest.mark.parametrize("in_files", [False, True])
@pytest.mark.parametrize("has_groups", [False, True])
def test_the_validation_rows_are_the_last_ones(log, in_files, has_groups, tmp_path):
    """All of the last rows are clicks, which early stopping by the AUC says."""
    X, Y = log
    Y = Y.mask(X["time"] >= 450, 1)
    X = X.assign(session=X["time"] // 2)
    params = {"encoding_params": {"time_column": "time"}, "early_stopping": "auc"}
    model = small(max_epochs=2, **params)
    name = "session" if has_groups else None
    if in_files:
        pytest.importorskip("pyarrow")
        X.join(Y).to_parquet(tmp_path / "a.parquet")
        log = ParquetImpressions(tmp_path, list(X), list(Y), groups=name)
        arguments = {"X": log}
    else:
        arguments = {"X": X, "Y": Y, "groups": X["session"] if has_groups else None}
    with pytest.warns(UserWarning, match="the 150 validation rows; 'click', 'conv"):
        model.fit(**arguments)


@pytest.mark.filterwarnings("ignore:The columns .'time'. have the same value")
def test_rows_of_one_time_are_held_out_at_random(log):
    X, Y = log
    params = {"encoding_params": {"time_column": "time"}, "early_stopping": True}
    model = small(max_epochs=1, **params).fit(X.assign(time=7.0), Y)
    assert np.isfinite(model.history_[-1, "valid_loss"])


RANDOM = r"'category_0__since_impression', but the validation rows .*'time_column'"


@pytest.mark.parametrize("in_files", [False, True])
def test_random_validation_rows_with_a_past_give_one_warning(log, in_files, tmp_path):
    X, Y = log
    table = X.assign(now=X["time"])
    history = HistoryFeatures(["category_0"], time="now")
    features = history.fit_transform(table, Y)
    model = small(max_epochs=1, early_stopping=True, target_encoding=False)
    if in_files:
        pytest.importorskip("pyarrow")
        features.join(Y).to_parquet(tmp_path / "a.parquet")
        arguments = (ParquetImpressions(tmp_path, list(features), list(Y)),)
    else:
        model, arguments = make_pipeline(history, model), (table, Y)
    with pytest.warns(UserWarning, match=RANDOM) as caught:
        model.fit(*arguments)
    assert len(caught) == 1
    own = model if in_files else model[-1]
    own.set_params(encoding_params={"time_column": "time"})
    model.fit(*arguments)  # no warning, which is an error


def test_fits_that_draw_no_validation_rows_do_not_warn(log):
    X, Y = log
    features = HistoryFeatures(["category_0"], time="time").fit_transform(X, Y)
    small(max_epochs=1).fit(features, Y)
    model = small(max_epochs=1, early_stopping=True, target_encoding=False)
    model.fit(features[:1_000], Y[:1_000], eval_set=(features[1_000:], Y[1_000:]))
    model.partial_fit(features[:100], Y[:100])
    model.fit(X, Y)


@pytest.mark.parametrize("in_files", [False, True])
def test_last_rows_without_an_event_of_a_task_are_named(log, in_files, tmp_path):
    X, Y = log
    Y = Y.assign(conversion=Y["conversion"].where(X["time"] < 440, 0))
    params = {"encoding_params": {"time_column": "time"}, "early_stopping": True}
    arguments = (X, Y)
    if in_files:
        pytest.importorskip("pyarrow")
        X.join(Y).to_parquet(tmp_path / "a.parquet")
        arguments = (ParquetImpressions(tmp_path, list(X), list(Y)),)
    with pytest.warns(UserWarning, match="no event of 'conversion', so"):
        small(**params).fit(*arguments)
