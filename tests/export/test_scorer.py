"""Probabilities of single rows and small batches are those of a table."""

import datetime
import pickle
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from serving_rows import HAS_CONSTANT, OTHER, X, Y
from serving_rows import one_row_each as records
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from small_model import small

from sk_pwiser._columns._base import Column
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.export import Scorer, to_onnx

pytestmark = [pytest.mark.slow, HAS_CONSTANT]
PARAMS = {
    "without statistics": {"target_encoding": False},
    "statistics": {
        "target_encoding": ["shop", "area"],
        "encoding_params": {"min_frequency": {"shop": 6}},
    },
    "hashed": {
        "encoding_params": {"n_hash_buckets": {"shop": 7, "area": 3}},
        "target_encoding": True,
    },
    "some hashed": {
        "encoding_params": {"n_hash_buckets": {"shop": 7}, "max_categories": 10}
    },
}


@pytest.fixture(scope="module")
def model():
    return small(**PARAMS["statistics"]).fit(X, Y)


@pytest.fixture(scope="module")
def scorer(model):
    """One scorer, since an export takes as long as many tests."""
    return Scorer(model)


@pytest.mark.parametrize(
    "params",
    PARAMS.values(),
    ids=PARAMS.keys(),
)
def test_all_forms_of_rows_give_the_probabilities_of_the_table(params):
    model = small(**params).fit(X, Y)
    scorer = Scorer(model)
    for table in (X, OTHER):
        expected = model.predict_proba(table)
        rows = records(table)
        assert_allclose(scorer(rows), expected, atol=1e-6, rtol=0)
        one_by_one = [scorer.predict_proba(row) for row in rows[:40]]
        assert_allclose(np.vstack(one_by_one), expected[:40], atol=1e-6, rtol=0)
        columns = {name: column.to_numpy() for name, column in table.items()}
        assert_allclose(scorer(columns), expected, atol=1e-6, rtol=0)
        lists = {name: list(column) for name, column in table.items()}
        assert_allclose(scorer(lists), expected, atol=1e-6, rtol=0)
        assert_allclose(Scorer(model, runtime="torch")(rows), expected, atol=1e-6)


@pytest.fixture(scope="module")
def scorers(model, scorer):
    """The scorer, and that of a calibrator with shifts per value of a column."""
    calibrator = FunnelCalibrator(model, by="shop", method="sigmoid").fit(X, Y)
    return {None: scorer, "shop": Scorer(calibrator)}


@pytest.mark.parametrize("n_rows", [1, 3, 100])
@pytest.mark.parametrize("by", [None, "shop"])
def test_shared_values_are_those_of_every_row(scorers, by, n_rows):
    scorer = scorers[by]
    request = {**records(OTHER)[7], "shop": "shop 1", "price": None, "other": object()}
    items = [{"hour": r["hour"], "price": r["price"]} for r in records(X[:n_rows])]
    expected = scorer([{**request, **item} for item in items])
    assert_array_equal(scorer(items, request), expected)
    assert_array_equal(scorer.predict_proba(items, shared=request), expected)
    columns = {name: [item[name] for item in items] for name in ("hour", "price")}
    assert_array_equal(scorer(columns, request), expected)
    one = scorer(items[0], request)
    assert_allclose(one, expected[:1], atol=1e-6)
    assert_allclose(scorer({}, {**request, **items[0]}), one)


def test_shared_values_are_checked(scorer):
    first, second = records(X[:2])
    with pytest.raises(TypeError, match=r"shared must be a dictionary.*got list"):
        scorer([first], [second])
    del first["price"]
    with pytest.raises(ValueError, match="Row 0 has no field 'price'"):
        scorer([first, second], {"hour": 1})
    # A field of the first row belongs to all rows.
    with pytest.raises(ValueError, match="Row 1 has no field 'price'"):
        scorer([second, first], {"price": 1.0, "shop": None})
    # Its own price would be ignored.
    with pytest.raises(ValueError, match="Row 1 has the field 'price', which row 0"):
        scorer([first, second], {"price": 1.0})
    with pytest.raises(TypeError, match="Row 0 must be a dictionary; got int"):
        scorer([7], {"shop": None})
    with pytest.raises(TypeError, match=r"field 'price'.* text, such as '7'"):
        scorer([first], {"price": "7"})
    del first["shop"], second["shop"]
    with pytest.raises(ValueError, match=r"no field 'price'.* 1 of 5 fields"):
        scorer([second, first], {"shop": None})


def test_runtimes(model, scorer, monkeypatch):
    pytest.importorskip("onnxruntime")
    rows = records(OTHER)
    expected = Scorer(model, runtime="torch")(rows)
    saved = pickle.dumps(scorer), pickle.dumps(Scorer(model, runtime="onnx"))
    for each in saved:
        scorer = pickle.loads(each)
        assert scorer.runtime == "onnx"
        assert_allclose(scorer(rows), expected, atol=1e-6)
    with pytest.raises(ValueError, match="runtime must be"):
        Scorer(model, runtime="tensorrt")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    scorer = pickle.loads(saved[0])
    assert scorer.runtime == "torch"
    assert_array_equal(scorer(rows), expected)
    with pytest.raises(ImportError, match="Scorer needs onnxruntime: pip install onnx"):
        pickle.loads(saved[1])
    # It goes back to ONNX Runtime where that is installed.
    again = pickle.dumps(scorer)
    monkeypatch.undo()
    assert pickle.loads(again).runtime == "onnx"


def test_threads_share_a_scorer_and_nothing_global_changes(model):
    before = torch.get_num_threads(), torch.get_rng_state(), list(warnings.filters)
    drawn = np.random.get_state()[1]  # noqa: NPY002
    with ThreadPoolExecutor(4) as pool:
        scorers = list(pool.map(Scorer, [model] * 2))
        rows = records(OTHER)
        expected = scorers[0](rows[:9]), scorers[0](rows[9])
        assert len({scorer.runtime for scorer in scorers}) == 1
        for scorer in scorers:
            parts = list(pool.map(scorer, [rows[:9], rows[9]] * 50))
            for found, wanted in zip(parts, expected * 50, strict=True):
                assert_array_equal(found, wanted)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert_array_equal(np.random.get_state()[1], drawn)  # noqa: NPY002
    assert list(warnings.filters) == before[2]


def test_a_request_without_rows(model, scorer):
    columns = {name: column[:0].to_numpy() for name, column in X.items()}
    lists = {name: [] for name in columns}
    for score in (scorer, Scorer(model, runtime="torch")):
        shared = records(X)[0]
        found = [score(columns), score(lists), score([]), score([], shared=shared)]
        for each in [*found, score({"hour": []}, shared)]:
            assert each.shape == (0, 2)
            assert each.dtype == score(shared).dtype
    one = Scorer(small(max_epochs=1).fit(X, Y[:, 0]), runtime="torch")
    assert one([]).shape == (0, 2)
    several = small(max_epochs=1).fit(X, np.c_[Y, Y[:, 1]])
    several = Scorer(several, runtime="torch")
    assert several([]).shape == (0, 3)


def test_of_a_fit_on_an_array_has_indices_as_fields():
    numbers = X[["hour", "price", "time"]].to_numpy()
    model = small(max_epochs=1, categorical_features=[0]).fit(numbers, Y)
    scorer = Scorer(model, runtime="torch")
    assert scorer.field_names == [0, 1, 2]
    row = dict(enumerate(numbers[3].tolist()))
    expected = model.predict_proba(numbers[3:4])
    assert_allclose(scorer(row), expected, atol=1e-6, rtol=0)


def test_order_of_fields_and_further_fields_do_not_matter(scorer):
    row = records(X)[0]
    other = {"session": [1, 2], **dict(reversed(row.items()))}
    assert_array_equal(scorer(other), scorer(row))


def test_does_not_change_with_the_estimator(model):
    model = pickle.loads(pickle.dumps(model))
    scorer, rows = Scorer(model, runtime="torch"), records(X)
    before = scorer(rows)
    model.partial_fit(X, Y)
    assert_array_equal(scorer(rows), before)
    assert not np.array_equal(model.predict_proba(X), before)


def test_pickle_predicts_the_same_without_pandas(model, tmp_path):
    scorer, rows = Scorer(model), records(X[:3])
    path = tmp_path / "scorer.pickle"
    path.write_bytes(pickle.dumps((scorer, rows)))
    assert_array_equal(pickle.loads(path.read_bytes())[0](rows), scorer(rows))
    code = (
        "import pickle, sys; sys.modules['pandas'] = None\n"
        "scorer, rows = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(scorer(rows).tolist())"
    )
    command = [sys.executable, "-c", code, str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # The sums of a batch may differ by rounding between processes.
    assert_allclose(np.array(eval(output)), scorer(rows), atol=1e-6, rtol=0)


def broken(**values):
    """Return valid rows, the second of them with other values."""
    rows = records(X[:3])
    rows[1].update(values)
    return rows


def without(name):
    rows = records(X[:3])
    del rows[1][name]
    return rows


COLUMNS = {name: list(column) for name, column in X[:3].items()}
BAD_ROWS = {
    "absent category": (without("shop"), ValueError, "Row 1 has no field 'shop'"),
    "absent number": (without("price"), ValueError, "Row 1 has no field 'price'"),
    "text": (broken(price="7"), TypeError, "Row 1, field 'price'.* text, such as '7'"),
    "list": (broken(price=[7.0]), TypeError, "Row 1, field 'price'.*lists"),
    "date": (broken(price=datetime.datetime(2024, 1, 1)), TypeError, "Row 1.*'price'"),
    "huge": (broken(price=10**400), ValueError, "Row 1, field 'price'"),
    "infinite": (broken(price=-np.inf), ValueError, "Row 1, field 'price'.*finite"),
    "number": (broken(shop=3), ValueError, "Row 1, field 'shop'.*text.*numbers"),
    "text of number": (broken(area="3"), ValueError, "Row 1, field 'area'.*numbers"),
    "list as category": (broken(shop=["a"]), TypeError, "Row 1, field 'shop'.*list"),
    "infinite category": (broken(area=np.inf), ValueError, "Row 1.*'area'.*infinity"),
    "no dict": ([*records(X[:1]), 7], TypeError, "Row 1 must be a dictionary; got int"),
    "a table": (X, TypeError, "a dict or a list of dicts; got DataFrame"),
    "absent column": ({"shop": ["a"]}, ValueError, "'hour' must be a list.*None"),
    "scalar column": ({**COLUMNS, "price": 1.0}, ValueError, "'price' must be a list"),
    "column in a row": (
        {**records(X[:1])[0], "shop": ["a"]},
        ValueError,
        r"'shop' must be a single value like other fields.*\['a'\]",
    ),
    "short column": (
        {**COLUMNS, "price": [1.0]},
        ValueError,
        "equally many values.*'price': 1",
    ),
}


@pytest.mark.parametrize(("rows", "error", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_errors_name_the_row_and_the_field(scorer, rows, error, message):
    with pytest.raises(error, match=message):
        scorer(rows)


def test_a_value_of_another_kind_in_an_array_is_named(scorer):
    columns = {name: np.array(values) for name, values in COLUMNS.items()}
    columns["price"] = np.array([1.0, np.inf, 2.0])
    with pytest.raises(ValueError, match="Row 1, field 'price'"):
        scorer(columns)


@pytest.mark.parametrize("setting", ["own", "shared", "hashed"])
def test_lists_are_checked_row_by_row(setting):
    """A list whose elements no list of fit can have, alone and beside others."""
    lists = [["a"], ["b", None], None, ["a", "c"], []] * 20
    table = X[:100].assign(seen=lists, shop=["a", "b", "c", "d"] * 25)
    params = {"shared": {"shared_embeddings": {"seen": "shop"}}}
    params["hashed"] = {"n_hash_buckets": {"seen": 3}}
    model = small(max_epochs=1, encoding_params=params.get(setting, {}))
    model.fit(table, Y[:100])
    scorer = Scorer(model, runtime="torch")
    valid = {**records(X[:1])[0], "shop": "a", "seen": ["a", None, "b"]}
    refused = {**valid, "seen": [1, None]}
    for rows, place in ((refused, 0), ([valid, refused, valid], 1), ([refused] * 2, 0)):
        with pytest.raises(ValueError, match=f"Row {place}, field 'seen': .*text in f"):
            scorer(rows)
    columns = {name: [valid[name], refused[name]] for name in valid}
    with pytest.raises(ValueError, match=r"Row 1, field 'seen': .* such as 1"):
        scorer(columns)
    with pytest.raises(ValueError, match="Row 0, field 'seen'"):
        scorer([{"shop": "a"}, {"shop": "b"}], shared=refused)
    # With an element of the kind, as in a table: the other one is an unseen value.
    mixed = [valid, {**valid, "seen": [1, "a", float("nan")]}]
    alone = np.concatenate([scorer(row) for row in mixed])
    assert_allclose(scorer(mixed), alone, rtol=1e-6)
    assert_allclose(model.predict_proba(pd.DataFrame(mixed)[list(table)]), alone, 1e-5)


@pytest.mark.parametrize(
    ("of_fit", "of_row"), [(int, float), (float, int), (float, Decimal)]
)
def test_integers_that_became_floats_are_refused_as_in_a_table(of_fit, of_row):
    """They may equal another category."""
    codes = X["area"].astype("category").cat.codes.tolist()
    ids = [None if code < 0 else of_fit(2**54 + 2**40 * code) for code in codes]
    model = small(max_epochs=1).fit(X.assign(area=pd.Categorical(ids)), Y)
    scorer = Scorer(model, runtime="torch")
    row = {**records(X)[0], "area": of_row(2**54)}
    with pytest.raises(ValueError, match=r"above 2\^53 in fit") as refusal:
        model.predict_proba(pd.DataFrame([row]))
    message = f"field 'area': {refusal.value}"
    row_of_fit = {**row, "area": of_fit(2**54)}
    columns = {name: [row_of_fit[name], value] for name, value in row.items()}
    arrays = {**columns, "area": np.array([5, row["area"]])}
    unseen = {**row, "area": of_row(2**60)}
    for rows, place in ((row, 0), ([row_of_fit, row], 1), (columns, 1), (arrays, 1)):
        with pytest.raises(ValueError, match=re.escape(f"Row {place}, {message}")):
            scorer(rows)
    with pytest.raises(ValueError, match=r"above 2\^53 in fit"):
        scorer(unseen)
    # Up to 2^53 both are equal.
    assert_array_equal(scorer({**row, "area": of_row(5)}), scorer({**row, "area": 5}))
    assert (scorer(row_of_fit) != scorer({**row, "area": None})).any()


@pytest.mark.parametrize("export", [Scorer, lambda model: to_onnx(model, "file")])
def test_refuses_what_is_not_a_fitted_estimator_of_a_table(export):
    with pytest.raises(TypeError, match="estimator must be a fitted Multi"):
        export("model")
    with pytest.raises(TypeError, match=r"such as pipeline\[-1\]"):
        export(make_pipeline(small()))
    with pytest.raises(NotFittedError):
        export(small())
    with pytest.raises(ValueError, match="A sparse table cannot be exported"):
        export(small(max_epochs=1).fit(csr_array(X[["price"]].fillna(0)), Y))


class SeenShops(Column):
    """A kind of column that cannot be exported."""

    name = "seen shops"
    is_exportable = False


@pytest.mark.parametrize("inputs", ["encoded", "raw"])
def test_columns_of_other_kinds_are_refused_by_name(inputs, tmp_path):
    model = small(max_epochs=1).fit(X, Y)
    model._result.schema.encoder.columns_[1] = SeenShops()
    for export in (Scorer, lambda m: to_onnx(m, tmp_path / "model", inputs=inputs)):
        with pytest.raises(ValueError, match="Column 'seen shops' cannot be exported"):
            export(model)
    assert not list(tmp_path.iterdir())


def test_dates_in_arrays_are_those_of_a_table():
    pl = pytest.importorskip("polars")
    rng = np.random.default_rng(0)
    days = [datetime.date(2026, 1, 1 + day) for day in rng.integers(0, 4, 400)]
    table = pl.DataFrame({"date": days, "x": rng.normal(size=400)})
    late = np.array([day.day > 2 for day in days])
    click = rng.random(400) < np.where(late, 0.7, 0.2)
    model = small(categorical_features=["date"], max_epochs=4).fit(
        table, np.column_stack([click, click & (rng.random(400) < 0.4)]).astype(int)
    )
    scorer, expected = Scorer(model, runtime="torch"), model.predict_proba(table)
    for convert in (lambda c: c, lambda c: c.to_numpy(), lambda c: c.to_list()):
        columns = {name: convert(table[name]) for name in table.columns}
        assert_allclose(scorer(columns), expected, rtol=1e-5)
