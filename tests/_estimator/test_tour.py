"""One tour through every feature: copies, files, serving, Parquet, transfer.

Each station takes every configuration. A new feature is one more configuration.
"""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from author_lists import ATTENTION, author_lists
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from small_model import small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.export import Scorer, to_onnx
from sk_pwiser.transfer import fine_tune, fit_like, merge_estimators

N = 240
TASKS = ["click", "like", "conversion", "return"]


def make_log(seed=0, n=N, first=0):
    """Return rows and labels; another `first` gives values that fit has not seen."""
    rng = np.random.default_rng(seed)
    table = author_lists(rng, n, first)
    table.insert(1, "market", pd.Categorical(rng.choice(["nl", "fr", "us"], n)))
    table["weight"] = [rng.random(len(v)).tolist() for v in table["also"]]
    table["n"] = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n))
    click = rng.random(n) < 0.5
    like, conversion = (click & (rng.random(n) < 0.5) for _ in range(2))
    back = conversion & (rng.random(n) < 0.5)
    labels = np.column_stack([click, like, conversion, back]).astype(int)
    return table, pd.DataFrame(labels, columns=TASKS)


FLAT, LISTS = ["author", "market", "n"], ["author", "last", "also", "n"]
TREE = {"like": "click", "conversion": "click", "return": "conversion"}
STATISTICS = {
    "list_target_encoding": True,
    "shared_embeddings": {"last": "author"},
    "target_encoding_min_values": 5,
    "target_encoding_blocks": 5,
}
# Columns, tasks and parameters.
CONFIGURATIONS = {
    "flat": (FLAT, 2, {}),
    "text": (FLAT, "text", {}),
    "statistics": (FLAT, 2, {"encoding_params": {"target_encoding_min_values": 3}}),
    "buckets": (FLAT, 2, {"encoding_params": {"n_hash_buckets": {"author": 5}}}),
    "lists": (LISTS, 2, {}),
    "attention": (None, 2, {"encoding_params": ATTENTION, "network_params": None}),
    "list statistics": (LISTS, 2, {"encoding_params": STATISTICS}),
    "tree": (
        FLAT,
        4,
        {"task_parents": TREE, "network_params": {"task_space": "conditional"}},
    ),
    "siblings": (FLAT, 4, {"task_parents": None}),
    "domains": (FLAT, 2, {"network_params": {"domain_features": ["market"]}}),
    "missing labels": (FLAT, "missing", {"missing_labels": "ignore"}),
    "sampled": (FLAT, 2, {"negative_sampling_rate": 0.5}),
    "quantile": (FLAT, 2, {"numeric_encoding": "quantile", "embedding_dim": "auto"}),
}


class Tour:
    """A fitted model, its rows, and later ones with new values."""

    def __init__(self, name):
        columns, tasks, params = CONFIGURATIONS[name]
        self.name, self.tasks, self.columns = name, tasks, columns
        self.X, self.Y = self.read(0, N, 0)
        self.later = self.read(2, 60, 3)
        self.model = small(batch_size=60, lr=0.01, **params).fit(self.X, self.Y)
        self.expected = self.model.predict_proba(self.later[0])

    def read(self, *args):
        table, Y = make_log(*args)
        if self.tasks == "text":
            Y = np.where(Y["click"], "yes", "no")
        elif self.tasks != 4:
            Y = Y[["click", "conversion"]]
        if self.tasks == "missing":
            Y = Y.mask((Y == [2, 1]) & (np.arange(len(Y)) % 3 == 0)[:, np.newaxis])
        return table if self.columns is None else table[self.columns], Y


@pytest.fixture(scope="module")
def tours(_estimators_on_device):
    return {}


def stations(*fast):
    """Run a station with each configuration, those in `fast` in the fast suite."""
    return pytest.mark.parametrize(
        "tour",
        [
            pytest.param(value, marks=() if value in fast else pytest.mark.slow)
            for value in CONFIGURATIONS
        ],
        indirect=True,
    )


@pytest.fixture
def tour(request, tours):
    """Return the tour of a configuration, whose model no station may change."""
    if request.param not in tours:
        tours[request.param] = Tour(request.param)
    tour = tours[request.param]
    yield tour
    assert_array_equal(tour.model.predict_proba(tour.later[0]), tour.expected)


pytestmark = [
    pytest.mark.filterwarnings("ignore:Rows with new category values"),
    pytest.mark.filterwarnings("ignore:Labels of 'conversion' are missing"),
    pytest.mark.filterwarnings("ignore:In the calibration rows:UserWarning"),
    pytest.mark.filterwarnings("ignore:seen=False, but the source may have been"),
]


@stations("attention", "list statistics", "tree")
def test_copies_continue_to_the_bit(tour, tmp_path):
    model, (X, Y) = tour.model, tour.later
    model.save(tmp_path / "model")
    copies = [
        MultiTaskCTRCVRClassifier.load(tmp_path / "model"),
        pickle.loads(pickle.dumps(model)),
        clone(model).fit(tour.X, tour.Y),
    ]
    for copy in copies:
        assert_array_equal(copy.predict_proba(X), tour.expected)
        assert_array_equal(copy.predict(X), model.predict(X))
        assert_array_equal(copy.classes_, model.classes_)
        assert copy.task_parents_ == model.task_parents_
        assert repr(copy.get_params()) == repr(model.get_params())
        assert repr(copy.column_encodings_) == repr(model.column_encodings_)
        copy.set_params(warm_start=True).fit(tour.X, tour.Y)
        assert copy.n_iter_ == 4
        copy.partial_fit(X, Y)
    first, *others = [copy.predict_proba(X) for copy in copies]
    assert (first != tour.expected).all()
    for other in others:
        assert_array_equal(other, first)


@stations("attention", "text")
def test_rows_do_not_depend_on_each_other_nor_on_their_container(tour):
    X, _ = tour.later
    single = [tour.model.predict_proba(X[i : i + 1]) for i in range(0, 60, 5)]
    assert_allclose(np.vstack(single), tour.expected[::5], atol=1e-6)
    tables = [
        pl.DataFrame(
            {
                name: pl.Series(name, column.astype(object).tolist(), strict=False)
                for name, column in table.items()
            }
        ).fill_nan(None)
        for table in (tour.X, X)
    ]
    assert_array_equal(tour.model.predict_proba(tables[1]), tour.expected)
    found = clone(tour.model).fit(tables[0], tour.Y)
    assert_array_equal(found.predict_proba(tables[1]), tour.expected)


def records(table):
    return table.astype(object).where(table.notna(), None).to_dict("records")


@stations("attention", "list statistics", "tree", "text", "domains")
def test_a_scorer_predicts_the_same(tour):
    rows, scorer = records(tour.later[0]), Scorer(tour.model, runtime="torch")
    assert_allclose(scorer(rows), tour.expected, atol=1e-6, rtol=0)
    assert_allclose(scorer(rows[7]), tour.expected[7:8], atol=1e-6, rtol=0)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    assert_allclose(scorer(columns), tour.expected, atol=1e-6, rtol=0)


@stations()  # an export takes a second or two
def test_onnx_predicts_the_same(tour, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    (X, Y), path = tour.later, tmp_path / "model.onnx"
    models = [tour.model]
    if tour.name in ("tree", "siblings", "text"):
        models.append(FunnelCalibrator(tour.model, method="sigmoid").fit(X, Y))
    for model in models:
        to_onnx(model, path)
        session = onnxruntime.InferenceSession(path)
        for part in (X, X[3:4]):
            found = tour.model.encode(part)
            inputs = {"codes": found.codes.astype(np.int64), "numeric": found.numeric}
            inputs |= found.bag_inputs
            inputs = {each.name: inputs[each.name] for each in session.get_inputs()}
            (output,) = session.run(["probabilities"], inputs)
            assert_allclose(output, model.predict_proba(part), atol=1e-6, rtol=0)
    if "last" in X:
        with pytest.raises(ValueError, match="contains lists; use inputs"):
            to_onnx(tour.model, path, inputs="raw")


@stations("attention", "tree")
def test_parquet_files_are_read_as_the_table(tour, tmp_path):
    pytest.importorskip("pyarrow")
    texts = {name: str for name in ("author", "market") if name in tour.X}
    frame = tour.X.astype(texts)
    # Labels in files are 0 and 1.
    Y = tour.Y if tour.tasks != "text" else pd.DataFrame({"y": tour.Y == "yes"})
    frame.join(Y.astype(float)).to_parquet(tmp_path / "log.parquet", row_group_size=100)
    dataset = ParquetImpressions(
        tmp_path / "log.parquet", [*frame], [*Y], cache_dir=tmp_path
    )
    found, expected = clone(tour.model).fit(dataset), tour.model
    ours, theirs = found.encode(frame), expected.encode(tour.X)
    assert_array_equal(ours.codes, theirs.codes)
    assert_allclose(ours.numeric, theirs.numeric, atol=0.15)
    for name, array in theirs.bag_inputs.items():
        assert_allclose(ours.bag_inputs[name], array, rtol=1e-5)
    if tour.tasks != "text":
        assert found.task_parents_ == expected.task_parents_
    assert np.isfinite(found.predict_proba(tour.later[0])).all()
    # Files are predicted as the table, too.
    p = expected.predict_proba(dataset)
    assert_allclose(p, expected.predict_proba(tour.X), atol=1e-6)


@stations("attention", "domains")
def test_transfer_takes_new_values_and_keeps_the_rest(tour):
    model, (X, Y) = tour.model, tour.later
    tuned = fine_tune(model, X, Y, max_epochs=1)
    like = fit_like(clone(model), model, X, Y)
    own = tour.X, tour.Y
    members = [fine_tune(model, *own, extend=False, lr=lr) for lr in (0.01, 0.02)]
    merged = merge_estimators(model, members, *own)
    for each in (tuned, like, merged):
        assert each.task_parents_ == model.task_parents_
        assert_array_equal(each.classes_, model.classes_)
        p = each.predict_proba(X)
        assert np.isfinite(p).all()
        assert (p != tour.expected).any()
    if tour.name != "buckets":
        assert "a12" in tuned.category_embeddings("author").index
    same = fit_like(clone(model), model, *own, seen=True).encode(X)
    assert_array_equal(same.codes, model.encode(X).codes)
    assert_allclose(same.numeric, model.encode(X).numeric)


@stations("tree", "attention")
@pytest.mark.filterwarnings("ignore:Too few events for method='isotonic'")
def test_a_calibrator_is_saved_and_served(tour, tmp_path):
    X, Y = tour.later
    method, by = "sigmoid", "author"  # whose shifts are of few authors
    if tour.name in ("lists", "tree", "siblings"):
        method, by = "isotonic", None
    calibrated = FunnelCalibrator(tour.model, method=method, by=by).fit(X, Y)
    X = pd.concat([X, tour.X[:9]])
    p = calibrated.predict_proba(X)
    assert calibrated.task_parents_ == tour.model.task_parents_
    if p.shape[1] == 4:
        for task, parent in calibrated.task_parents_.items():
            if parent is not None:
                first, last = TASKS.index(parent), TASKS.index(task)
                assert (p[:, last] <= p[:, first]).all()
    found = Scorer(calibrated, runtime="torch").predict_proba(records(X))
    assert_allclose(found, p, rtol=1e-5, atol=1e-6)
    calibrated.save(tmp_path / "calibrated")
    loaded = FunnelCalibrator.load(tmp_path / "calibrated")
    assert_array_equal(loaded.predict_proba(X), p)
    assert loaded.get_params(deep=False).keys() == calibrated.get_params(False).keys()
    assert (loaded.method, loaded.by) == (method, by)
    loaded.fit(*tour.later).estimator_.partial_fit(*tour.later)
