"""With a `time_column`, early stopping validates on the last rows in time."""

import numpy as np
import pytest
from impressions_in_files import in_a_file
from numpy.testing import assert_array_equal
from sklearn.pipeline import make_pipeline
from small_model import small

from sk_pwiser._fit import _encoded_parts
from sk_pwiser._rows._hold_out import held_by_time, hold_out
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.history import HistoryFeatures


@pytest.fixture(scope="module")
def log():
    """Rows in random order of their times, whose click rate doubles at the end."""
    data = make_ctr_cvr(1_500, ctr=0.3, random_state=0)
    time = np.random.default_rng(0).permutation(1_500) // 3
    return data.data.assign(time=time), data.target


TIMES = np.array([5, 1, 4, 4, 2, 3, 4, 0, 1, 2], dtype=float)


@pytest.mark.parametrize(("share", "first"), [(0.1, 5), (0.3, 4), (0.4, 4), (0.8, 1)])
def test_rows_are_held_from_a_time_on(share, first):
    is_held, edge, _ = held_by_time(TIMES, share)
    assert_array_equal(is_held, [time >= first for time in TIMES])
    assert not len(edge)


@pytest.mark.parametrize(
    ("times", "share", "first"),
    [
        (np.arange(1_000) >= 100, 0.1, 1),
        (np.arange(1_000) >= 500, 0.7, 1),  # half of the share suffices
        (np.arange(1_000) >= 950, 0.1, 1),
        (np.arange(1_000) >= 951, 0.1, 0),
        (np.arange(1_000) * 7 // 1_000, 0.1, 6),
        (np.ones(1_000), 0.1, 1),
    ],
)
def test_many_rows_of_one_time_are_divided(times, share, first):
    is_held, edge, drawn = held_by_time(times.astype(float), share)
    n_held = is_held.sum() + drawn * len(edge)
    assert share / 2 <= n_held / 1_000 <= min(2 * share, (1 + share) / 2)
    if len(edge):
        assert n_held == pytest.approx(1_000 * share)
        assert_array_equal(edge, np.flatnonzero(times == first))
    assert is_held[times > first].all()
    assert not is_held[times < first].any()


@pytest.mark.parametrize("size", [1, 20])
def test_a_part_of_a_day_is_drawn_in_whole_groups(log, size, monkeypatch):
    X, Y = log
    X = X.assign(day=X["time"] >= 240).astype({"day": float})
    groups = X["time"] // size
    found = []
    monkeypatch.setattr(
        _encoded_parts,
        "hold_out",
        lambda *args, **options: found.append(hold_out(*args, **options)) or found[-1],
    )
    params = {"encoding_params": {"time_column": "day"}, "early_stopping": True}
    model = small(max_epochs=1, warm_start=True, **params)
    for _ in range(2):
        model.fit(X, Y, groups=groups if size > 1 else None)
    (is_held, _), (again, _) = found
    assert_array_equal(again, is_held)
    train, valid = np.flatnonzero(~is_held), np.flatnonzero(is_held)
    assert len(valid) == pytest.approx(150, abs=2 * 3 * size)
    assert X["day"].iloc[valid].all()
    if size > 1:
        assert not set(groups.iloc[train]) & set(groups.iloc[valid])


@pytest.mark.parametrize("in_files", [False, True])
def test_a_share_that_the_times_do_not_allow_is_named(log, in_files, tmp_path):
    X, Y = log
    # One session has a fifth of the rows, at one time, which is not divided.
    day = np.repeat([0.0, 1.0, 2.0], [1_150, 290, 60])
    session = np.where(day == 1, -1, np.arange(1_500))
    X = X.assign(day=day, session=session)
    params = {
        "encoding_params": {"time_column": "day"},
        "early_stopping": True,
        "max_epochs": 1,
    }
    arguments = {"X": X, "Y": Y, "groups": session}
    if in_files:
        arguments = {"X": in_a_file(X, Y, tmp_path, groups="session")}
    message = "time_column='day', the last 350 of 1500 rows .*=0.1 asks for about 150"
    with pytest.warns(UserWarning, match=message):
        small(**params).fit(**arguments)


def test_sessions_that_begin_among_the_last_rows_are_held_out_as_a_whole():
    rng = np.random.default_rng(0)
    begins = rng.random(1_000)
    groups = np.repeat(np.arange(1_000), 3)
    times = np.repeat(begins, 3) + np.tile([0.0, 1e-3, 2e-3], 1_000)
    is_held, _, _ = held_by_time(times, 0.1, groups)
    edge = np.quantile(times, 0.9, method="higher")
    assert_array_equal(is_held, np.repeat(begins >= edge, 3))
    assert 0 < np.count_nonzero((times >= edge) & ~is_held) < 10


def test_users_who_come_back_are_parted_by_time():
    """The last row of an active user is always late, and the others are not."""
    rng = np.random.default_rng(0)
    users = rng.choice(
        200, 5_000, p=(activity := 1 / np.arange(1, 201)) / activity.sum()
    )
    times = rng.permutation(5_000).astype(float)
    is_held, _, _ = held_by_time(times, 0.1, users)
    assert_array_equal(is_held, times >= 4_500)


@pytest.mark.parametrize("in_files", [False, True])
@pytest.mark.parametrize("has_groups", [False, True])
def test_the_validation_rows_are_the_last_ones(log, in_files, has_groups, tmp_path):
    """All of the last rows are clicks, which early stopping by the AUC says."""
    X, Y = log
    Y = Y.mask(X["time"] >= 450, 1)
    X = X.assign(session=X["time"] // 2)
    params = {"encoding_params": {"time_column": "time"}, "early_stopping": "auc"}
    model = small(max_epochs=2, **params)
    arguments = {"X": X, "Y": Y, "groups": X["session"] if has_groups else None}
    if in_files:
        name = "session" if has_groups else None
        arguments = {"X": in_a_file(X, Y, tmp_path, groups=name)}
    with pytest.warns(UserWarning, match="the 150 rows lack them for 'click', 'conv"):
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
        arguments = (in_a_file(features, Y, tmp_path),)
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


def test_random_rows_after_the_last_ones_may_have_been_trained_on(log):
    X, Y = log
    model = small(
        early_stopping=True, warm_start=True, encoding_params={"time_column": "time"}
    ).fit(X, Y)
    model.set_params(encoding_params=None)
    with pytest.warns(UserWarning, match="it held out its last rows in time"):
        model.fit(X.drop(columns="time"), Y)
