"""Rows sorted by labels or by a key give the model of shuffled rows, and a warning."""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import small_model
from checkpointed import interrupt, resume
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.transfer import fit_like

pytest.importorskip("pyarrow")

# A log of users and items, and the orders in which warehouses export it.
EFFECTS = np.random.default_rng(7)
USERS, ITEMS = EFFECTS.normal(size=1_500), 0.7 * EFFECTS.normal(size=400)
SORTED = "The rows are sorted by"


def make_sorted_log(n_rows, seed):
    """Return rows in the order of time, of users and items with rates of their own."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 1_500, n_rows), rng.integers(0, 400, n_rows)
    x, late = rng.normal(size=n_rows), np.linspace(-0.5, 0.5, n_rows)
    logits = USERS[user] + ITEMS[item] + 0.5 * x - 1.5 + 0.6 * late
    click = rng.random(n_rows) < 1 / (1 + np.exp(-logits))
    conversion = click & (rng.random(n_rows) < 1 / (1 + np.exp(0.5 - ITEMS[item])))
    names = [f"u{k:04d}" for k in user], [f"i{k:03d}" for k in item]
    X = pd.DataFrame({"user": names[0], "item": names[1], "x": x})
    return X, pd.DataFrame({"click": click, "conversion": conversion}).astype(int)


# Functions of the features and the labels: the order of the rows, and what sorts them.
ORDERS = {
    "shuffled": (lambda X, Y: np.random.default_rng(0).permutation(len(X)), None),
    "by label": (
        lambda X, Y: np.argsort(-Y["click"], kind="stable"),
        "the labels of 'click'",
    ),
    "by user": (lambda X, Y: np.argsort(X["user"], kind="stable"), "column 'user'"),
    "by item": (lambda X, Y: np.argsort(X["item"], kind="stable"), "column 'item'"),
    "by time": (lambda X, Y: np.arange(len(X)), None),
}


def in_order(name, X, Y):
    """Return the rows in one of the orders."""
    order = np.asarray(ORDERS[name][0](X, Y))
    return X.iloc[order].reset_index(drop=True), Y.iloc[order].reset_index(drop=True)


LOG = make_sorted_log(8_000, seed=0)


PARAMS = {"loss": "bce", "embedding_dim": 2, "batch_size": 1_000, "max_epochs": 1}
small = partial(small_model.small, **PARAMS)


def write(X, Y, folder):
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(X)), 3)):
        table = X.join(Y).iloc[rows]
        table.to_parquet(folder / f"part-{number}.parquet", index=False)
    return ParquetImpressions(folder, list(X), list(Y))


def fit(model, name, log, folder=None):
    """Fit in memory or, with a folder, on files; return the model and the warnings."""
    X, Y = in_order(name, *log)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model.fit(*((X, Y) if folder is None else (write(X, Y, folder),)))
    return model, [str(warning.message) for warning in found]


def statistics_of(model):
    return model._result.schema.statistics


@pytest.mark.parametrize("on_files", [False, True])
@pytest.mark.parametrize("name", ORDERS)
def test_inputs_are_distributed_as_those_of_shuffled_rows(name, on_files, tmp_path):
    folder = tmp_path / "log" if on_files else None
    model, messages = fit(small(), name, LOG, folder)
    found, expected = map(statistics_of, (model, fit(small(), "shuffled", LOG)[0]))
    chosen = [0, 2]  # those of few conversions are noise
    for j in range(2):
        scales, means = found.scales_[j][chosen], found.means_[j][chosen]
        assert_allclose(scales, expected.scales_[j][chosen], rtol=0.1)
        assert_allclose(means, expected.means_[j][chosen], atol=0.05)
    reason = ORDERS[name][1]
    assert len(messages) == (reason is not None)
    assert all(f"{SORTED} {reason}" in message for message in messages)


@pytest.mark.parametrize("has_times", [False, True])
def test_inputs_with_groups_that_come_back_are_those_without_groups(has_times):
    X, Y = LOG
    X = X[["item", "x"]].assign(order=np.arange(len(X)))
    params = {"encoding_params": {"time_column": "order"}} if has_times else {}
    groups = LOG[0]["user"].str[:4]  # 150 of them
    found, expected = (
        statistics_of(small(**params).fit(X, Y, groups=given))
        for given in (groups, None)
    )
    assert_allclose(found.scales_[0], expected.scales_[0], rtol=0.1)
    assert_allclose(found.means_[0], expected.means_[0], atol=0.05)


def test_a_column_without_statistics_may_sort_the_rows():
    X, Y = in_order("by user", *LOG)
    small(target_encoding=["item"]).fit(X, Y)
    small().fit(X[["item", "x"]], Y)


@pytest.mark.filterwarnings(f"ignore:{SORTED}")
def test_equal_seeds_give_equal_blocks():
    X, Y = in_order("by user", *LOG)
    p = small().fit(X, Y).predict_proba(X)
    assert_array_equal(p, small().fit(X, Y).predict_proba(X))
    seeds = {statistics_of(small(random_state=k).fit(X, Y)).block_seed for k in (0, 1)}
    assert len(seeds) == 2


@pytest.mark.filterwarnings(f"ignore:{SORTED}")
@pytest.mark.parametrize("random_state", [0, None])
def test_later_calls_have_the_blocks_of_the_first(random_state, tmp_path):
    X, Y = in_order("by user", *LOG)
    model = small(warm_start=True, random_state=random_state).fit(X, Y)
    seed, tables = statistics_of(model).block_seed, statistics_of(model).tables_
    assert statistics_of(model.fit(X, Y)).block_seed == seed
    for own, first in zip(statistics_of(model).tables_, tables, strict=True):
        assert_array_equal(own, first)
    model.save(tmp_path / "model")
    model = type(model).load(tmp_path / "model").fit(X, Y)
    assert statistics_of(model).block_seed == seed
    model.partial_fit(X[:100], Y[:100])
    assert statistics_of(model.fit(X, Y)).block_seed == seed
    assert statistics_of(model.fit(write(X, Y, tmp_path / "log"))).block_seed == seed


@pytest.mark.filterwarnings(f"ignore:{SORTED}")
def test_calls_with_a_warm_start_are_epochs_of_one_fit():
    X, Y = in_order("by label", *LOG)
    params = {"optimizer_params": {"average_decay": 0}}
    whole = small(max_epochs=2, **params).fit(X, Y)
    model = small(warm_start=True, **params).fit(X, Y).fit(X, Y)
    assert_array_equal(model.predict_proba(X), whole.predict_proba(X))


@pytest.mark.filterwarnings(f"ignore:{SORTED}")
def test_a_resumed_fit_has_the_blocks_of_the_interrupted_one(tmp_path):
    X, Y = in_order("by user", *LOG)
    params = {**PARAMS, "max_epochs": 3}
    whole = small(**params).fit(X, Y)
    interrupt(tmp_path, 2, x=X, y=Y, **params)
    resumed = resume(tmp_path, X, Y, **params)
    assert_array_equal(resumed.predict_proba(X), whole.predict_proba(X))


def test_the_first_rows_of_a_stream_may_be_sorted():
    X, Y = in_order("by user", *LOG)
    model = small()
    with pytest.warns(UserWarning, match=f"{SORTED} column 'user'"):
        model.partial_fit(X[:4_000], Y[:4_000])
    # Later ones are encoded by the earlier rows.
    rows = in_order("by label", X[:4_000], Y[:4_000])
    model.partial_fit(*rows)


def test_rows_that_are_encoded_by_a_source_may_be_sorted():
    source = small().fit(*LOG)
    X, Y = make_sorted_log(4_000, seed=1)
    fit_like(small(), source, *in_order("by user", X, Y), seen=False)
    with pytest.warns(UserWarning, match=f"{SORTED} column 'user'"):
        fit_like(small(), source, *in_order("by user", *LOG), seen=True)


@pytest.mark.filterwarnings("ignore:Task")
@pytest.mark.filterwarnings("ignore:The encoding of the columns:UserWarning")
@pytest.mark.parametrize("n_rows", [1, 2, 5, 9])
def test_a_stream_may_begin_with_fewer_rows_than_blocks(n_rows):
    X, Y = LOG
    model = small(target_encoding=["item"])
    model.partial_fit(X[:n_rows], Y[:n_rows])
    assert np.isfinite(model.predict_proba(X)).all()
    if n_rows == 1:  # a single row has no others
        assert np.isinf(statistics_of(model).scales_[0]).all()
    counts = statistics_of(model).counts_[0]
    assert counts[0].sum() == 2 * n_rows
    fitted = small(target_encoding=["item"], warm_start=True).fit(X, Y)
    assert np.isfinite(fitted.fit(X[:n_rows], Y[:n_rows]).predict_proba(X)).all()
    with pytest.raises(ValueError, match=f"requires as many rows; X has {n_rows}"):
        small(target_encoding=["item"]).fit(X[:n_rows], Y[:n_rows])
