"""Impressions that are appended at once, and labels that come later."""

from itertools import pairwise

from history_by_loops import replayed
from history_logs import (
    TASKS,
    assert_equal,
    few,
    make,
    rows_of_log,
    settings_of_history,
    table,
)
from hypothesis import given
from hypothesis import strategies as st

from sk_pwiser.history import StoredHistory

FIELDS = "user", "item", "t"


def blank(row, known=None):
    """Return a row without its labels, but for that of one task."""
    labels = (y if k == known else None for k, y in enumerate(row["y"]))
    return {**row, "y": tuple(labels)}


def operate(rows, params, in_store):
    """Return the columns of the rows after the first, as they are served in operation.

    The rows are appended one at a time without labels, and each label is filled in
    when it is known.
    """
    delays = params["label_delay"]
    delays = delays if isinstance(delays, list) else [delays] * len(TASKS)
    first, *later = rows
    history = make(params).fit(*table([blank(first)]))
    server = StoredHistory.write(history, {}) if in_store else history
    waiting, found = [], []
    for before, row in pairwise([first, *later]):
        waiting += [(before["t"] + d, k, before) for k, d in enumerate(delays)]
        due = [each for each in waiting if each[0] < row["t"]]
        waiting = [each for each in waiting if each[0] >= row["t"]]
        for _, k, one in due:
            server.complete(*table([blank(one, k)]))
        found.append(server.transform_row({name: row[name] for name in FIELDS}))
        server.update(*table([blank(row)]))
    return found


@few
@given(
    rows=st.lists(rows_of_log, min_size=2, max_size=15),
    params=settings_of_history,
    in_store=st.booleans(),
)
def test_operation_equals_training(rows, params, in_store):
    """Labels as they become known, one impression at a time, as by `fit_transform`."""
    rows = sorted(rows, key=lambda r: r["t"])
    found = operate(rows, params, in_store)
    expected = replayed(rows, params, TASKS)
    for i, one in enumerate(found, 1):
        own = {name: [values[i]] for name, values in expected.items()}
        if any(r["t"] == rows[i]["t"] for r in rows[:i]):
            continue  # the state has rows of the same time
        assert_equal({name: [value] for name, value in one.items()}, own)
