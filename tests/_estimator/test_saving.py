"""Files, copies and pickles: what comes back, and what files refuse."""

import copy
import io
import json
import os
import pickle
import uuid
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from skorch.callbacks import EpochScoring
from small_model import X, Y, small
from version_files import FOLDER, amounts_of, tables_of_file

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._model_files import read_file, write_file
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.callbacks import KeepOnInterrupt
from sk_pwiser.losses import BCE
from sk_pwiser.metrics import ctr_auc_scorer
from sk_pwiser.networks import NETWORKS
from sk_pwiser.transfer import distill
from sk_pwiser.weighting import WEIGHTINGS

load = MultiTaskCTRCVRClassifier.load
MODELS = [
    {"network": name, "network_params": None}
    for name in NETWORKS
    if name != "shared_bottom"
]
MODELS += [
    {"weighting": name}
    for name in WEIGHTINGS
    if name not in ("equal", "fixed", "torchjd")
]
MODELS += [
    {},
    {"weighting": "fixed", "weighting_params": {"weights": [1, 2]}},
    {"numeric_encoding": "quantile", "embedding_dim": "auto"},
    {"numeric_encoding": "standard", "random_state": np.int64(3)},
    {"target_encoding": True, "encoding_params": {"max_categories": 4}},
    {"encoding_params": {"n_hash_buckets": {"category_0": 3}}, "device": "cpu"},
    {"optimizer_params": {"lazy_embeddings": True}, "loss_params": {"margins": (1, 2)}},
    {"optimizer": "sgd", "optimizer_params": {"momentum": 0.9}, "early_stopping": True},
]


def reloaded(model, folder):
    model.save(folder / "model")
    return load(folder / "model")


@pytest.mark.filterwarnings("ignore:Early stopping may decide on rows that the earlier")
@pytest.mark.parametrize(
    "params",
    [
        pytest.param(
            value, marks=() if value in [MODELS[0], *MODELS[-8:]] else pytest.mark.slow
        )
        for value in MODELS
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "method", ["fit", pytest.param("partial_fit", marks=pytest.mark.slow)]
)
def test_a_loaded_estimator_predicts_and_continues_to_the_bit(params, method, tmp_path):
    model = getattr(small(**params), method)(X, Y)
    again = reloaded(model, tmp_path)
    assert again.get_params() == model.get_params()
    for name in [n for n in vars(model) if n.endswith("_") and n != "net_"]:
        assert_array_equal(getattr(again, name), getattr(model, name), strict=False)
        assert type(getattr(again, name)) is type(getattr(model, name))
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert not hasattr(clone(again), "net_")
    for each in (model, again):
        each.partial_fit(X[:99], Y[:99]).partial_fit(X, Y)
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    for each in (model, again):
        each.set_params(warm_start=True).fit(X, Y)
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    losses = [each.history_[:, "train_loss"] for each in (model, again)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "table",
    [
        X.assign(vector=[np.array([row % 3, 1.5]) for row in range(len(X))]),
        sp.csr_array(X.select_dtypes("number").fillna(0)),
    ],
    ids=["arrays of numbers", "sparse"],
)
def test_columns_of_several_numbers(table, tmp_path):
    model = small().partial_fit(table, Y)
    again = reloaded(model, tmp_path)
    for each in (model, again):
        each.partial_fit(table, Y)
    assert_array_equal(again.predict_proba(table), model.predict_proba(table))


def test_kinds_of_large_numbers(tmp_path):
    exact = X.assign(category_0=2**60 + np.arange(len(X)) % 5)
    rounded = exact.astype({"category_0": float})
    params = {"categorical_features": ["category_0"], "warm_start": True}
    model = small(**params, encoding_params={"n_hash_buckets": 3}).fit(exact, Y)
    expected = model.predict_proba(exact)
    again = reloaded(model, tmp_path)
    for each in (model, again):
        calls = (each.predict_proba, rounded), (each.fit, rounded, Y)
        for method, *args in (*calls, (each.partial_fit, rounded, Y)):
            with pytest.raises(ValueError, match=r"'category_0' .* floats above 2\^53"):
                method(*args)
        assert_array_equal(each.predict_proba(exact), expected)


def test_a_distilled_model(tmp_path):
    student = distill([small().fit(X, Y)], X, student=small())
    again = reloaded(student, tmp_path)
    assert_array_equal(again.predict_proba(X), student.predict_proba(X))


def test_no_random_number_is_drawn(parts):
    state = torch.random.get_rng_state()
    load(parts[0])
    assert torch.equal(torch.random.get_rng_state(), state)


class Own(BCE):
    pass


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"loss": Own}, "A model with loss=.*Own.* cannot be saved"),
        ({"optimizer": torch.optim.Adam}, "A model with optimizer="),
        ({"callbacks": [KeepOnInterrupt()]}, "callbacks=.* cannot be saved"),
        ({"random_state": np.random.RandomState(0)}, "random_state=RandomState"),
        ({"early_stopping": ctr_auc_scorer}, "early_stopping=.*cannot be saved"),
    ],
)
def test_what_needs_code_is_refused_before_writing(params, message, tmp_path):
    model = small(**params).fit(X, Y)
    with pytest.raises(TypeError, match=message):
        model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []
    if "callbacks" in params:
        again = reloaded(model.set_params(callbacks=None), tmp_path)
        assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("kind", [pd.Index, pd.Series])
def test_parameters_that_are_objects_of_pandas_become_arrays(kind, tmp_path):
    names = kind([column for column in X if X[column].dtype == "category"])
    model = small(categorical_features=names, target_encoding=names).fit(X, Y)
    again = reloaded(model, tmp_path)
    assert_array_equal(again.categorical_features, names)
    for each in (model, again):
        each.partial_fit(X, Y)
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_an_estimator_that_is_not_fitted(tmp_path):
    with pytest.raises(NotFittedError):
        small().save(tmp_path / "model")


class Other(MultiTaskCTRCVRClassifier):
    pass


def test_files_of_another_class(parts):
    with pytest.raises(ValueError, match="of a Other: it is a model of 'MultiTask"):
        Other.load(parts[0])


@pytest.fixture(scope="module")
def fitted(_estimators_on_device):
    return small(early_stopping=False, random_state=3).fit(X, Y)


@pytest.fixture
def parts(fitted, tmp_path):
    """Return a file, and its values, which a test may change."""
    file = tmp_path / "model"
    fitted.save(file)
    return file, *read_file(file), fitted


def _alter(values, path, new):
    *parents, last = path
    for key in parents:
        values = values[key]
    values[last] = new


SETTINGS = ("result", "settings", "items")


@pytest.mark.parametrize(
    ("path", "new"),
    [
        (("class",), ["MultiTaskCTRCVRClassifier"]),
        (("params", "unknown"), 1),
        (("params",), None),
        (("result", "schema"), None),
        (("result", "schema", "class"), "Popen"),
        (("result", "settings"), {}),
        ((*SETTINGS, "network"), "os.system"),
        ((*SETTINGS, "network"), "mmoe"),
        ((*SETTINGS, "lr"), "__import__('os')"),
        ((*SETTINGS, "embedding_dim"), 3),
        (("result", "network"), {}),
        (("result", "optimizer"), []),
        (("result", "generators"), {"seed": "x"}),
    ],
    ids=str,
)
def test_hostile_contents_with_a_right_checksum_are_refused(path, new, parts):
    file, values, arrays, _ = parts
    _alter(values, path, new)
    write_file(file, values, arrays)
    with pytest.raises(ValueError, match=r"model' is not a valid file of a MultiTask"):
        load(file)


def settings_of(values):
    return values["result"]["settings"]["items"]


@pytest.mark.parametrize("name", ["precision", "lr", "encoding_params"])
def test_settings_missing_in_an_older_file_have_their_defaults(parts, name):
    file, values, arrays, model = parts
    del settings_of(values)[name], values["params"][name]
    # Keys of dictionaries may be missing as well.
    del settings_of(values)["optimizer_params"]["lazy_embeddings"]
    write_file(file, values, arrays)
    again = load(file)
    default = MultiTaskCTRCVRClassifier().get_params()[name]
    assert again.get_params()[name] == default
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    again.partial_fit(X, Y).set_params(warm_start=True).fit(X, Y)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (lambda v: settings_of(v), r"its settings have \['new_setting'\].* unknown"),
        (lambda v: v["params"], r"its parameters \['new_setting'\] are unknown"),
        (lambda v: settings_of(v)["encoding_params"], "got 'new_setting'"),
    ],
)
def test_unknown_settings_are_refused_by_name_and_version(parts, place, message):
    file, values, arrays, _ = parts
    place(values)["new_setting"] = 1
    values["sk_pwiser"] = "7.1"
    write_file(file, values, arrays)
    with pytest.raises(ValueError, match=f"{message}.*written by version 7.1 of sk_"):
        load(file)


def test_a_file_does_not_choose_where_checkpoints_are_written(tmp_path):
    small(checkpoint_dir=tmp_path / "checkpoints").fit(X, Y).save(tmp_path / "model")
    assert load(tmp_path / "model").checkpoint_dir is None
    values, arrays = read_file(tmp_path / "model")
    assert "checkpoint_dir" not in values["params"]
    values["params"]["checkpoint_dir"] = str(tmp_path)
    write_file(tmp_path / "model", values, arrays)
    assert load(tmp_path / "model").checkpoint_dir is None


@pytest.mark.parametrize(
    "file", sorted(FOLDER.glob("*.safetensors")), ids=lambda file: file.stem
)
def test_files_of_all_releases_can_be_read(file):
    x, y = tables_of_file(file)
    again = load(file)
    expected = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    assert_allclose(again.predict_proba(x), expected, atol=1e-5)
    if amounts_of(file).exists():
        amounts = json.loads(amounts_of(file).read_text(encoding="utf-8"))
        assert_allclose(again.predict_value(x), amounts, rtol=1e-4)
    assert again.partial_fit(x, y).n_iter_ == 4
    again.set_params(warm_start=True, max_epochs=2).fit(x, y)
    assert again.n_iter_ == 6


@pytest.mark.parametrize("name", ["0.1.0", "0.2.0", "0.2.0_value"])
def test_the_releases_have_files(name):
    assert (FOLDER / f"{name}.safetensors").exists()


def test_weights_of_another_shape_are_refused(parts):
    file, values, arrays, _ = parts
    name = next(n for n in arrays if n.startswith("model.result.network."))
    write_file(file, values, {**arrays, name: arrays[name][:-1]})
    with pytest.raises(ValueError, match="its weights do not fit its parameters"):
        load(file)


def test_a_device_that_is_not_present(parts):
    if torch.cuda.is_available():
        pytest.skip("CUDA is present")
    file, values, arrays, model = parts
    _alter(values, (*SETTINGS, "device"), "cuda:1")
    write_file(file, values, arrays)
    with pytest.warns(UserWarning, match="Loading on the CPU instead"):
        again = load(file)
    assert_allclose(again.predict_proba(X), model.predict_proba(X), atol=1e-7)


DAYS = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(X)) % 5, unit="D")
OTHER_VALUES = {
    "bins": pd.cut(X["numeric_0"], 5),
    "open bins": pd.cut(X["numeric_0"], [-np.inf, 0, np.inf]),
    "intervals": pd.arrays.IntervalArray(pd.cut(X["numeric_0"], 5)),
    "days": pd.Series(DAYS).astype("category"),
    "days with a zone": pd.Series(DAYS.tz_localize("UTC")).astype("category"),
    "dates": pd.Series(DAYS.date).astype("category"),
    "bytes": pd.Series([b"a", b"b"] * (len(X) // 2)),
}


@pytest.mark.parametrize("kind", OTHER_VALUES)
def test_categories_that_are_neither_text_nor_numbers(kind, tmp_path):
    table = X.assign(other=pd.Series(OTHER_VALUES[kind]).to_numpy(dtype=object))
    if kind != "bytes":
        table["other"] = table["other"].astype("category")
    if kind == "intervals":  # a dtype of its own
        table["other"] = OTHER_VALUES[kind]
    model = small().fit(table, Y)
    assert model.column_encodings_["other"].kind == "category"
    again = reloaded(model, tmp_path)
    assert_array_equal(again.encode(table).codes, model.encode(table).codes)
    assert_array_equal(again.predict_proba(table), model.predict_proba(table))


def test_categories_that_no_file_can_hold_are_named(tmp_path):
    table = X.assign(place=[uuid.UUID(int=row % 2) for row in range(len(X))])
    model = small(categorical_features=["place"]).fit(table, Y)
    message = r"column 'place' contains UUID\(.* cannot be saved.*astype\(str\)"
    with pytest.raises(TypeError, match=message):
        model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


class Noted(MultiTaskCTRCVRClassifier):
    """Counts its states, and has an attribute that copies leave out."""

    states = 0

    def __getstate__(self):
        Noted.states += 1
        state = dict(super().__getstate__())
        state.pop("note", None)
        return state


def through_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


def through_pickle(model, protocol):
    return pickle.loads(pickle.dumps(model, protocol))


PROTOCOLS = 0, pickle.HIGHEST_PROTOCOL
COPIES = {
    **{f"pickle {n}": partial(through_pickle, protocol=n) for n in PROTOCOLS},
    "joblib": through_joblib,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_copies_keep_callbacks_and_own_classes(duplicate):
    scoring = EpochScoring(ctr_auc_scorer, name="ctr", lower_is_better=False)
    model = small(
        loss=Own,
        optimizer=torch.optim.Adam,
        callbacks=[("scoring", scoring), KeepOnInterrupt()],
        early_stopping=True,
    ).fit(X, Y)
    again = duplicate(model)
    assert vars(again).keys() == vars(model).keys()
    assert again.loss is Own
    assert again.callbacks[0][1].name == "ctr"
    assert dict(again.net_.callbacks_).keys() == dict(model.net_.callbacks_).keys()
    assert again.net_ is again._result.net
    assert again.history_ == model.history_
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    again = copy.deepcopy(again) if duplicate is copy.copy else again
    for each in (model, again):
        each.partial_fit(X, Y)
        each.partial_fit(X, Y)
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_pickles_of_estimators_that_are_not_fitted():
    model = small(loss=Own, callbacks=[KeepOnInterrupt()], lr=0.02)
    again = pickle.loads(pickle.dumps(model))
    assert again.loss is Own
    assert again.lr == 0.02
    assert vars(again).keys() == vars(model).keys()


def test_a_model_in_a_file_that_is_only_read_takes_updates(tmp_path):
    """As joblib's workers receive models with large arrays."""
    model = small(target_encoding=["category_0"]).partial_fit(X, Y)
    joblib.dump(model, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r").partial_fit(X, Y)
    model.partial_fit(X, Y)
    assert_array_equal(mapped.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_the_state_of_a_subclass_is_respected(duplicate):
    model = Noted(**small().get_params(deep=False)).fit(X, Y)
    model.note = "of this object alone"
    Noted.states = 0
    again = duplicate(model)
    assert Noted.states == 1
    assert not hasattr(again, "note")
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def calibrated(model):
    return FunnelCalibrator(model, method="sigmoid").fit(X, Y)


@pytest.mark.parametrize(
    "wrap", [lambda model: model, lambda model: model.task(1), calibrated]
)
def test_the_hash_of_a_fitted_estimator_stays_the_same(wrap, tmp_path):
    model = small(early_stopping=True).fit(X, Y)
    wrapped, calls = wrap(model), []

    def predict(estimator, table):
        calls.append(len(table))
        return estimator.predict_proba(table)

    expected = wrapped.predict_proba(X)
    cached = joblib.Memory(tmp_path, verbose=0).cache(predict)
    for _ in range(3):
        assert_array_equal(cached(wrapped, X), expected)
    assert calls == [len(X)]
    assert pickle.dumps(wrapped) == pickle.dumps(wrapped)
    before = joblib.hash(wrapped)
    model.partial_fit(X, Y)
    assert joblib.hash(wrapped) != before
