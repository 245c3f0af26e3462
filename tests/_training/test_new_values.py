"""Values that are new in the last rows set the category dropout of their column."""

import numpy as np
import pandas as pd
import pytest
import torch
from impressions_in_files import in_a_file
from numpy.testing import assert_allclose, assert_array_equal
from small_model import small

from sk_pwiser._columns._codes import UNSEEN
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._columns._new_values import LEAST_DROPOUT, NewValues
from sk_pwiser.datasets import ParquetImpressions

N = 2_000


def log(seed=0):
    """Return rows in the order of time: users in sessions, and ten items."""
    rng = np.random.default_rng(seed)
    # Ten users at a time, who do not come back; eight of the last ten are new.
    users = np.arange(N) // 80 * 10 + rng.integers(0, 10, N)
    users = rng.permutation(N)[users]
    X = pd.DataFrame(
        {
            "user": pd.Categorical(users),
            "item": pd.Categorical(rng.integers(0, 10, N)),
            "once": pd.Categorical(rng.permutation(N)),
            "order": np.arange(N, dtype=float),
        }
    )
    click = rng.random(N) < 0.4
    Y = pd.DataFrame({"click": click, "conversion": click & (rng.random(N) < 0.3)})
    return X, Y.astype(int)


def dropouts(model):
    return dict(
        zip(
            model._result.schema.encoder.category_names_,
            model._result.schema.category_dropout,
            strict=True,
        )
    )


def expected_dropout(values, is_late, min_frequency=2):
    """Return the dropout by loops over rows."""
    values = list(values)
    before = {v for v, late in zip(values, is_late, strict=True) if not late}
    last = [v for v, late in zip(values, is_late, strict=True) if late]
    new = sum(v not in before for v in last) / len(last)
    rare = sum(values.count(v) < min_frequency for v in values) / len(values)
    return max(0.05, (new - rare) / max(1 - rare, 1 / len(values)) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_shares_agree_with_a_count_of_rows_in_any_order(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 60, 400) + np.arange(400) // 2
    X = pd.DataFrame({"a": pd.Categorical(values), "b": pd.Categorical(values % 7)})
    encoder = TableEncoder()
    codes, _ = encoder.fit_transform(X)
    is_late = np.arange(400) >= 360
    found = NewValues(encoder)
    for rows in np.array_split(rng.permutation(400), 5):
        found.add(codes[rows], is_late[rows])
    expected = [expected_dropout(X[name], is_late) for name in X]
    assert_allclose(found.dropouts(), expected)
    assert expected[0] > LEAST_DROPOUT
    assert expected[1] == LEAST_DROPOUT


def test_ids_in_the_order_of_time_and_in_random_order():
    X, Y = log()
    found = dropouts(small(max_epochs=1).fit(X, Y))
    assert found["user"] == pytest.approx(0.4, abs=0.01)
    # Values of one row have the code of unseen values anyway.
    assert found["item"] == found["once"] == 0.05
    order = np.random.default_rng(0).permutation(N)
    X, Y = X.iloc[order], Y.iloc[order]
    assert dropouts(small(max_epochs=1).fit(X, Y))["user"] == 0.05
    by_time = small(max_epochs=1, encoding_params={"time_column": "order"}).fit(X, Y)
    assert dropouts(by_time)["user"] == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("is_file", [False, True])
def test_rows_sorted_by_ids_do_not_tell_of_later_rows(tmp_path, is_file):
    """Neither for this column nor for another one with values of its own."""
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, 200, N))
    item = 10 * user + rng.integers(0, 10, N)
    X = pd.DataFrame({"user": user, "item": item}).astype(str)
    X = X.assign(user=X["user"].str.zfill(3))
    _, Y = log()
    data = X, Y
    if is_file:
        data = (in_a_file(X, Y, tmp_path, row_group_size=500),)
    params = {"max_epochs": 1, "target_encoding": False}
    with pytest.warns(UserWarning, match="sorted by column 'user', so that the last"):
        model = small(**params).fit(*data)
    assert dropouts(model) == {"user": 0.05, "item": pytest.approx(0.05, abs=0.05)}
    # Numbers of weeks are sorted in the order of time as well.
    weeks = X.assign(user=[f"{n // 50:02}" for n in range(N)])
    if not is_file:
        small(**params).fit(weeks, Y)
    # A given number needs no other pass, and no warning.
    small(**params, encoding_params={"category_dropout": 0.1}).fit(*data)


@pytest.mark.parametrize("has_times", [False, True])
def test_files_have_the_dropout_of_a_table(tmp_path, has_times):
    pytest.importorskip("pyarrow")
    X, Y = log()
    if has_times:
        order = np.random.default_rng(0).permutation(N)
        X, Y = X.iloc[order], Y.iloc[order]
    X = X.astype({"user": str, "item": str, "once": str})
    for part in range(4):
        rows = slice(part * 500, part * 500 + 500)
        X[rows].join(Y[rows]).to_parquet(tmp_path / f"{part}.parquet")
    params = {"encoding_params": {"time_column": "order"}} if has_times else {}
    dataset = ParquetImpressions(tmp_path, list(X), list(Y))
    found = [small(max_epochs=1, **params).fit(*rows) for rows in ((dataset,), (X, Y))]
    assert_allclose(*(list(dropouts(model).values()) for model in found))
    assert dropouts(found[0])["user"] == pytest.approx(0.4, abs=0.01)


def test_one_number_replaces_the_measured_shares():
    X, Y = log()
    model = small(max_epochs=1, encoding_params={"category_dropout": 0.2}).fit(X, Y)
    assert_allclose(model.net_.module_.input_layer.dropout.cpu(), 0.2)
    with pytest.raises(ValueError, match=r"category_dropout must be .*'often'"):
        small(encoding_params={"category_dropout": "often"}).fit(X, Y)
    with pytest.raises(TypeError, match="category_dropout must be a number; got"):
        small(encoding_params={"category_dropout": [0.2]}).fit(X, Y)


def test_training_sees_unseen_values_with_their_statistics():
    X, Y = log()
    model = small(max_epochs=1, target_encoding=["user", "item"]).fit(X, Y)
    layer, schema = model.net_.module_.cpu().input_layer, model._result.schema
    known = schema.transform(X[:500])
    codes, numeric = known.codes.long(), known.numeric
    whole = layer.eval()(codes, numeric)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropped = layer.train()(codes, numeric)
    layer.eval()
    new = X[:500].assign(user=pd.Categorical([-1] * 500))
    unseen = schema.transform(new)
    assert (unseen.codes[:, 0] == UNSEEN).all()
    of_new = layer(unseen.codes.long(), unseen.numeric)
    spec = model.net_.module_.spec
    owners = torch.tensor(layer.owners)
    first = len(spec.cardinalities)
    places = [place for place, column, _ in spec.unseen_inputs if column == 0]
    own = [0, *(first + place for place in places)]
    is_own = torch.isin(owners, torch.tensor(own))
    is_new = (dropped[:, is_own] == of_new[:, is_own]).all(dim=1)
    is_known = (dropped[:, is_own] == whole[:, is_own]).all(dim=1)
    assert (is_new | is_known).all()
    assert 0.3 < is_new.float().mean() < 0.5


def test_files_keep_the_dropout(tmp_path):
    X, Y = log()
    model = small(max_epochs=1, warm_start=True).fit(X, Y)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    for each in (loaded, model):
        assert dropouts(each)["user"] == pytest.approx(0.4, abs=0.01)
        # The first fit decides, as for all that is learnt of columns.
        order = np.random.default_rng(0).permutation(N)
        each.fit(X.iloc[order], Y.iloc[order])
        assert dropouts(each)["user"] == pytest.approx(0.4, abs=0.01)
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_a_stream_begins_with_the_least_dropout():
    X, Y = log()
    model = small().partial_fit(X[:100], Y[:100])
    assert_allclose(model.net_.module_.input_layer.dropout.cpu(), 0.05)


def test_updates_replace_the_statistics_that_they_have_learnt():
    """The first rows have no event, and later ones have more of some items."""
    X, Y = log()
    X = X[["item", "order"]]
    Y["click"] = (np.random.default_rng(1).random(N) < 0.09 * X["item"].astype(int)) * 1
    Y["conversion"] *= Y["click"]
    model = small(target_encoding=["item"]).partial_fit(X[:100], Y[:100] * 0)
    for rows in (slice(100, 1_000), slice(1_000, 1_900), slice(1_900, N)):
        expected = model._result.schema.unseen_inputs()
        model.partial_fit(X[rows], Y[rows])
        layer = model.net_.module_.input_layer
        found = [layer.unseen_inputs[index].item() for index, *_ in expected]
        assert_allclose(found, [value for *_, value in expected])
    assert found[0] != 0
