"""Blocks of rows: their sizes, and which orders of rows they do not follow."""

import os
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._columns._target_statistics import (
    TargetStatistics,
    make_target_statistics,
)
from sk_pwiser._rows._blocks import Blocks, assign_blocks
from sk_pwiser._rows._row_order import RowOrder, explained_share
from sk_pwiser._settings import ENCODING_PARAMS
from sk_pwiser.datasets import load_kuairand

N, TASKS = 20_000, ["click", "conversion"]
rng = np.random.default_rng(0)
DRAWN = rng.integers(0, 400, N)
LABELS = (rng.random(N) < 0.05 + 0.4 * (DRAWN % 2))[:, np.newaxis] & (
    rng.random((N, 2)) < (1.0, 0.1)
)


def choose_blocks(statistics, encoder, tasks, codes, y, used, n_blocks=10, **of_rows):
    """Return the blocks of rows, as a fit that encodes them all at once does."""
    times, groups = of_rows.get("times"), of_rows.get("groups")
    blocks, n_rows = Blocks(n_blocks, times is not None), len(codes)
    blocks.add(n_rows, times)
    blocks.finish()
    while True:
        block, found = blocks.assign(n_rows, times, groups), None
        if blocks.have_order:
            order = RowOrder(statistics.columns, encoder, blocks.n_blocks, y.shape[1])
            order.add(codes[used], block[used])
            order.add_labels(y[used], np.ones_like(y)[used], block[used])
            found = order.find(tasks)
        if not blocks.retry(found, statistics.block_seed):
            return block


def choose(values, labels=LABELS, times=None, groups=None, n_blocks=10, seed=0):
    """Return the blocks of rows with a category column, and the warnings."""
    X = pd.DataFrame({"key": pd.Series(values).astype("category")})
    encoder = TableEncoder()
    codes, *_ = encoder.fit_transform(X, None)
    statistics = TargetStatistics([0], [encoder.columns_[0].n_codes])
    statistics.block_seed = seed
    y, used = np.asarray(labels, dtype=float), np.ones(len(X), dtype=bool)
    used[:: len(X) // 100] = False
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        args = statistics, encoder, TASKS[: y.shape[1]], codes, y, used, n_blocks
        block = choose_blocks(*args, times=times, groups=groups)
    return block, [str(warning.message) for warning in found]


def assert_random(block, n_blocks=10):
    """Each block has an equal share of the rows, of both halves of them."""
    for half in np.array_split(block, 2):
        sizes = np.bincount(half, minlength=n_blocks) / len(block) * 2 * n_blocks
        assert sizes.min() > 0.8
        assert sizes.max() < 1.2


def test_groups_that_come_back_are_spread_over_the_blocks():
    """With times, their rows are in the blocks of these."""
    groups = np.random.default_rng(0).integers(0, 200, N)
    times = np.random.default_rng(1).random(N)
    for order in (None, times):
        block = assign_blocks(N, 10, times=order, groups=groups)
        sizes = np.bincount(block, minlength=10)
        assert sizes.min() > 0.9 * N / 10
        assert sizes.max() < 1.1 * N / 10
        n_pairs = len(set(zip(groups, block, strict=True)))
        assert n_pairs == (200 if order is None else 2_000)
    assert_array_equal(block, assign_blocks(N, 10, times=times))


def test_sessions_and_visits_on_one_day_are_in_one_block():
    session = np.arange(N) // 30
    moved = np.random.default_rng(0).permutation(N)
    block = assign_blocks(N, 10, times=moved * 1.0, groups=session[moved])
    assert len(set(zip(session[moved], block, strict=True))) == session[-1] + 1
    # The rows of a user on one of three days are together, wherever these are.
    user = np.random.default_rng(1).integers(0, 500, N)
    day = np.random.default_rng(2).integers(0, 3, N)
    block = assign_blocks(N, 10, times=day * 1.0, groups=user)
    n_visits = len(set(zip(user, day, strict=True)))
    assert len(set(zip(user, day, block, strict=True))) == n_visits
    assert len(set(zip(user, block, strict=True))) > 500


def test_consecutive_groups_have_the_block_of_their_first_row():
    groups = np.sort(np.random.default_rng(0).integers(0, 200, 3_000))
    rank = np.searchsorted(groups, groups)
    assert_array_equal(assign_blocks(3_000, 7, groups=groups), rank * 7 // 3_000)
    moved = np.random.default_rng(1).permutation(3_000)
    # The rows in another order, with their times.
    found = assign_blocks(3_000, 7, times=moved * 1.0, groups=groups[moved])
    assert_array_equal(found, (rank * 7 // 3_000)[moved])


def test_a_group_of_more_than_two_blocks_is_named():
    _, messages = choose(DRAWN, groups=np.where(np.arange(N) % 4 == 0, 0, np.arange(N)))
    assert len(messages) == 1
    assert "largest of the groups has 5000 of 20000 rows" in messages[0]
    assert choose(DRAWN, groups=np.arange(N) // 3_000)[1] == []


SORTED = {
    "by value": np.argsort(DRAWN, kind="stable"),
    "by value, falling": np.argsort(-DRAWN, kind="stable"),
    # As a join of 20 partitions leaves them.
    "by value in each of several files": np.lexsort((DRAWN, DRAWN % 20)),
    "by value, some rows first": np.r_[
        0:20, 20 + np.argsort(DRAWN[20:], kind="stable")
    ],
}


@pytest.mark.parametrize("name", SORTED)
def test_rows_sorted_by_a_column_have_random_blocks(name):
    order = SORTED[name]
    block, messages = choose(DRAWN[order], LABELS[order])
    assert len(messages) == 1
    assert "sorted by column 'key'" in messages[0]
    assert_random(block)
    assert_array_equal(block, choose(DRAWN[order], LABELS[order])[0])
    assert (block != choose(DRAWN[order], LABELS[order], seed=1)[0]).any()


def test_uneven_frequencies_hide_no_order():
    for power in (0, 1, 1.3):
        shares = np.arange(1, 101) ** -float(power)
        drawn = np.random.default_rng(0).choice(100, N, p=shares / shares.sum())
        assert len(choose(np.sort(drawn))[1]) == 1


def test_rows_sorted_by_another_column_have_random_blocks():
    """Campaigns of 400 advertisers, sorted by advertiser."""
    campaign = DRAWN * 1_000 + np.random.default_rng(0).integers(0, 3, N)
    X = pd.DataFrame({"advertiser": DRAWN, "campaign": campaign}).astype("category")
    order = np.argsort(DRAWN, kind="stable")
    encoder = TableEncoder()
    codes, *_ = encoder.fit_transform(X.iloc[order], None)
    found = RowOrder([0, 1], encoder, 10, 1)
    found.add(codes, assign_blocks(N, 10))
    assert found.find(["click"]) == ("advertiser", True, True)


def test_rows_sorted_by_lists_have_random_blocks():
    lists = np.empty(N, dtype=object)
    lists[:] = [[f"i{value:03}", "all"] for value in np.sort(DRAWN)]
    model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0)
    model.set_params(encoding_params={"list_target_encoding": ["items"]})
    with pytest.warns(UserWarning, match="rows are sorted by column 'items'"):
        model.fit(pd.DataFrame({"items": lists}), LABELS * 1)


def test_rare_values_between_them_hide_no_order():
    """Of 400 values, the 50 most frequent have a code."""
    X = pd.DataFrame({"key": pd.Series(np.sort(DRAWN)).astype(str).str.zfill(3)})
    model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0)
    model.set_params(encoding_params={"max_categories": 50}, target_encoding=["key"])
    with pytest.warns(UserWarning, match="rows are sorted by column 'key'"):
        model.fit(X, LABELS * 1)


def by_label(labels, n_files=1):
    """Return rows of several files, each sorted by labels, the positives first."""
    parts = np.array_split(np.arange(len(labels)), n_files)
    return np.concatenate([p[np.argsort(-labels[p], kind="stable")] for p in parts])


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.01, 0.001, 0.9])
@pytest.mark.parametrize("n_files", [1, 2])
@pytest.mark.parametrize("task", [0, 1])
def test_rows_sorted_by_labels_have_random_blocks(rate, n_files, task):
    rng = np.random.default_rng(0)
    labels = np.ones((N, 2), dtype=int)
    labels[:, task] = rng.random(N) < rate
    labels[:, 1 - task] = rng.random(N) < 0.3
    order = by_label(labels[:, task], n_files)
    for rows in (order, order[::-1]):
        block, messages = choose(DRAWN[rows], labels[rows])
        assert len(messages) == 1
        assert f"sorted by the labels of {TASKS[task]!r}" in messages[0]
        assert_random(block)


def in_time_order(lifetime, n_values=2_000):
    """Return the values of a log whose users come for a part of its time."""
    rng = np.random.default_rng(0)
    user = rng.integers(0, n_values, N)
    start = rng.random(n_values) * (1 + lifetime) - lifetime
    return user[np.argsort(start[user] + lifetime * rng.random(N))]


def one_user_at_a_time():
    """Return values like MovieLens in time order, where some users come back."""
    rng = np.random.default_rng(0)
    user = np.repeat(rng.permutation(500), N // 500)
    comes_back = rng.random(N) < 0.1
    user[comes_back] = rng.permutation(user[comes_back])
    return user


def growing(factor, rate):
    """Return labels whose rate grows over the log."""
    rates = factor ** np.linspace(0, 1, N)
    rates *= rate / rates.mean()
    return (np.random.default_rng(0).random(N) < rates)[:, np.newaxis]


OTHERS = {
    "drawn": (DRAWN, LABELS),
    "users of a day": (in_time_order(0.02), LABELS),
    "users who stay": (in_time_order(0.5), LABELS),
    "one user at a time": (one_user_at_a_time(), LABELS),
    "each of three months sorted": (np.tile(np.sort(DRAWN[: N // 3]), 3), None),
    "days": (
        np.datetime_as_string(np.datetime64("2025-01-01") + np.arange(N) // 100).astype(
            object
        ),
        LABELS,
    ),
    "rates grow tenfold": (DRAWN, growing(10, 0.1)),
    "rare events grow tenfold": (DRAWN, growing(10, 0.001)),
    "a day with a third of the sales": (
        DRAWN,
        (np.random.default_rng(0).random(N) < np.r_[[0.04] * 2_000, [0.01] * 18_000])[
            :, np.newaxis
        ],
    ),
    "only negatives": (DRAWN, np.zeros((N, 2))),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.filterwarnings("ignore:The category columns")
def test_rows_in_the_order_of_time_have_consecutive_blocks(name):
    values, labels = OTHERS[name]
    labels = LABELS[: len(values)] if labels is None else labels
    block, messages = choose(values, labels)
    assert messages == [] or messages[0].startswith("The category columns")
    assert len(messages) < 2
    assert_array_equal(block, assign_blocks(len(values), 10))


def test_pieces_in_another_order_are_named():
    """Visits one after the other, or rows sorted by something that is not in X."""
    values = np.random.default_rng(0).permutation(400)[np.sort(DRAWN)]
    block, messages = choose(values)
    assert len(messages) == 1
    assert "rows of each value of column 'key' are in one piece" in messages[0]
    assert_array_equal(block, assign_blocks(N, 10))
    # Nor is it a matter of the blocks if these do not split groups.
    groups = np.unique(values, return_inverse=True)[1]
    assert choose(values, groups=groups)[1] == []


def test_rows_sorted_by_a_prediction_have_random_blocks():
    rng = np.random.default_rng(0)
    logits = 1.3 * rng.normal(size=N) - 1
    order = np.argsort(logits)
    labels = (rng.random(N) < 1 / (1 + np.exp(-logits)))[:, np.newaxis]
    assert choose(DRAWN, labels)[1] == []
    assert "labels of 'click'" in choose(DRAWN[order], labels[order])[1][0]


def test_few_events_are_no_order():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n = np.full(10, 500)
        k = np.bincount(rng.integers(0, 10, rng.integers(1, 20)), minlength=10)
        assert explained_share(n, k) == 0
    assert explained_share(np.full(10, 500), np.r_[8, [0] * 9]) > 0.8
    assert explained_share(np.full(2_000, 1), np.arange(2_000) % 2) == 0


def test_parts_of_groups_stay_in_the_order_of_rows():
    """Random blocks of whole users do not help a column of users."""
    values, labels = np.sort(DRAWN), LABELS
    block, messages = choose(values, labels, groups=values)
    assert messages == []
    assert_array_equal(block, assign_blocks(N, 10, groups=values))
    # Sessions of a few rows are another matter; they are not split.
    sessions = np.arange(N) // 4
    block, messages = choose(values, labels, groups=sessions)
    assert len(messages) == 1
    assert len(set(zip(sessions, block, strict=True))) == N // 4
    assert_random(block)


def test_times_decide_on_blocks():
    order = np.argsort(DRAWN, kind="stable")
    times = np.random.default_rng(0).permutation(N) * 1.0
    block, messages = choose(DRAWN[order], times=times)
    assert messages == []
    assert_array_equal(block, times.astype(int) * 10 // N)
    # The rows of one week are sorted by labels: only they are shuffled.
    week = np.arange(N) // 5_000 * 1.0
    labels = LABELS[:, :1].astype(int)
    order = by_label(labels[:, 0], 4)
    block, messages = choose(DRAWN[order], labels[order], times=week)
    assert messages == []
    assert_array_equal(np.bincount(block), np.full(10, N / 10))
    for number in range(4):
        first, last = np.array([0, 4_999]) + 5_000 * number
        own = block[week == number]
        assert set(own) == {*range(first * 10 // N, last * 10 // N + 1)}
    assert np.ptp(np.bincount(block, labels[order, 0]) / np.bincount(block)) < 0.05


def read_oulad(folder):
    rows = pd.read_csv(f"{folder}/oulad/oulad_funnel.csv.gz")
    rows = rows[rows["code_presentation"] != "2014J"]
    stages = ["started", "submitted", "halfway", "passed", "distinction"]
    X = rows.drop(columns=["id_student", "code_presentation", *stages])
    texts = X.columns[
        X.dtypes.map(lambda kind: not pd.api.types.is_numeric_dtype(kind))
    ]
    return X.astype(dict.fromkeys(texts, "category")), rows[stages]


def read_engage(folder):
    data = load_kuairand(folder, "engage", subset="train")
    return data.data, data.target


@pytest.mark.parametrize("read", [read_engage, read_oulad])
@pytest.mark.filterwarnings("ignore:The (category|numeric) columns")
def test_real_logs_have_consecutive_blocks(read):
    folder = os.environ.get("SK_PWISER_DATA")
    if not folder:
        pytest.skip("SK_PWISER_DATA is not set")
    X, Y = read(folder)
    encoder = TableEncoder()
    codes, *_ = encoder.fit_transform(X, None)
    # All category columns, also those of few values.
    params = ENCODING_PARAMS | {"target_encoding_min_values": 2}
    statistics = make_target_statistics(True, encoder, len(X), params)
    y, used = Y.to_numpy(dtype=float), np.ones(len(X), dtype=bool)
    block = choose_blocks(statistics, encoder, list(Y), codes, y, used)
    assert_array_equal(block, assign_blocks(len(X), 10))


def test_rows_in_parts_are_judged_as_a_whole():
    order = np.argsort(DRAWN, kind="stable")
    encoder = TableEncoder()
    X = pd.DataFrame({"key": pd.Series(DRAWN[order]).astype("category")})
    codes, *_ = encoder.fit_transform(X, None)
    block, y = assign_blocks(N, 10), LABELS[order].astype(float)
    whole, parts = (RowOrder([0], encoder, 10, 2) for _ in range(2))
    for found, ends in ((whole, []), (parts, [0, 1, 2, 300, 7_001, 19_999])):
        for rows in np.split(np.arange(N), ends):
            found.add(codes[rows], block[rows])
            found.add_labels(y[rows], np.ones_like(y[rows]), block[rows])
    for name in ("n_known", "n_ones"):
        assert_array_equal(getattr(whole, name), getattr(parts, name))
    of_whole, of_parts = whole.runs[0], parts.runs[0]
    for name in ("n_rows", "n_steps", "n_up", "n_pieces", "is_present"):
        assert_array_equal(getattr(of_whole, name), getattr(of_parts, name))
