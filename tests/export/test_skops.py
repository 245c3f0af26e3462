"""Files of skops: what comes back, and which classes they have."""

import importlib
import io
import json
import os
import re
import zipfile
from operator import methodcaller
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from serving_rows import HAS_CONSTANT, OTHER, X, Y
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer
from sklearn.utils.fixes import parse_version
from small_model import small
from torch.optim import Adam
from version_files import SKOPS_FOLDER, table_of

from sk_pwiser import MultiTaskCTRCVRClassifier, ValueView
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.callbacks import KeepOnInterrupt
from sk_pwiser.export import TRUSTED_TYPES
from sk_pwiser.history import HistoryFeatures
from sk_pwiser.linear_model import (
    CPMultiTaskLogistic,
    MultiTaskSparseLinear,
    MultiTaskSparseLinearCV,
)
from sk_pwiser.losses import BCE
from sk_pwiser.model_selection import (
    FunnelGroupKFold,
    FunnelStratifiedKFold,
    FunnelTimeSplit,
)

pytestmark = [
    pytest.mark.slow,
    HAS_CONSTANT,
    # Networks that have learnt nothing.
    pytest.mark.filterwarnings("ignore:In the calibration rows"),
]

skops = pytest.importorskip("skops.io")

NUMBERS = X[["price", "time", "hour"]].fillna(0).to_numpy()
ESTIMATOR = TRUSTED_TYPES[0]


def train(**params):
    return small(**{"network_params": None, "max_epochs": 1, **params}).fit(X, Y)


def through_skops(model):
    content = skops.dumps(model)
    assert set(skops.get_untrusted_types(data=content)) <= set(TRUSTED_TYPES)
    return skops.loads(content, trusted=TRUSTED_TYPES)


# The values of a file are those of `save`, whose tests have all components.
PARAMS = [
    {
        "target_encoding": ["shop", "area"],
        "optimizer_params": {"lazy_embeddings": True},
    },
    {"weighting": "ema", "embedding_dim": "auto"},
    {"early_stopping": True, "random_state": np.int64(3), "device": "cpu"},
]


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_a_loaded_estimator_predicts_and_continues_to_the_bit(params):
    model = train(**params)
    again = through_skops(model)
    assert again.get_params() == model.get_params()
    assert vars(again).keys() == vars(model).keys()
    for table in (X, OTHER):
        assert_array_equal(again.predict_proba(table), model.predict_proba(table))
    for each in (model, again):
        each.set_params(warm_start=True).fit(X, Y)
        each.partial_fit(X[:99], Y[:99]).partial_fit(X, Y)
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert not hasattr(clone(again), "net_")


# The file knows the version of scikit-learn that wrote it.
@pytest.mark.filterwarnings("ignore:Trying to unpickle estimator")
@pytest.mark.parametrize(
    "file", sorted(SKOPS_FOLDER.glob("*.skops")), ids=lambda file: file.stem
)
def test_files_of_all_releases_can_be_read(file):
    estimator = skops.load(file, trusted=TRUSTED_TYPES)
    _, _, name = file.stem.partition("_")
    expected = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    assert_allclose(estimator.predict_proba(table_of(name)), expected, atol=1e-5)


@pytest.mark.parametrize("release", ["0.1.0", "0.2.0"])
def test_the_releases_have_files(release):
    for name in ("calibrator", "cp_logistic", "sparse_linear"):
        assert (SKOPS_FOLDER / f"{release}_{name}.skops").exists()


def test_the_file_holds_one_class_and_arrays_of_numbers():
    content = skops.dumps(train())
    assert skops.get_untrusted_types(data=content) == [ESTIMATOR]
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        names = [name for name in file.namelist() if name != "schema.json"]
        for name in names:
            array = np.load(io.BytesIO(file.read(name)), allow_pickle=False)
            assert array.dtype.kind in "biuf"
        loaders = set(
            re.findall(r'"__loader__": "(\w+)"', str(file.read("schema.json")))
        )
    # TypeNode: the classes of the keys, str.
    kinds = {"ObjectNode", "DictNode", "ListNode", "TypeNode", "JsonNode"}
    assert loaders == {*kinds, "NdArrayNode"}


def test_of_estimators_that_are_not_fitted():
    model = small(lr=0.02, network_params={"tower_units": (8, 4)})
    again = through_skops(model)
    assert again.get_params() == model.get_params()
    assert vars(again).keys() == vars(model).keys()


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.7"),
    reason="skops does not know a type of scikit-learn 1.6's ColumnTransformer",
)
def test_pipelines():
    scaled = make_column_transformer(
        (QuantileTransformer(n_quantiles=10), ["price"]),
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    model = make_pipeline(scaled, small()).fit(X, Y)
    again = through_skops(model)
    assert_array_equal(again.predict_proba(OTHER), model.predict_proba(OTHER))
    assert_array_equal(again[-1].feature_names_in_, model[-1].feature_names_in_)


def test_requests_of_metadata_come_back():
    with sklearn.config_context(enable_metadata_routing=True):
        model = small().set_fit_request(sample_weight=True, groups="session")
        model.set_score_request(sample_weight=False)
    again = through_skops(model)
    for method in ("fit", "partial_fit", "score"):
        requests = getattr(again.get_metadata_routing(), method).requests
        assert requests == getattr(model.get_metadata_routing(), method).requests
    assert "_metadata_request" not in vars(through_skops(small()))


def calibrator(method, cv=None):
    return FunnelCalibrator(small() if cv else train(), method=method, cv=cv).fit(X, Y)


def calibrated_by(values):
    table = X.assign(market=pd.Series(np.array(values)[np.arange(len(X)) % 2]))
    model = small(max_epochs=1).fit(table, Y)
    model = FunnelCalibrator(model, method="sigmoid", by="market")
    return model.fit(table, Y), table


@pytest.mark.parametrize(
    "values", [(False, True), (0, 1), (0.5, 1.5), ("a", "b"), (None, True)], ids=str
)
def test_values_of_by(values):
    model, table = calibrated_by(values)
    again = through_skops(model)
    assert_array_equal([*again.shifts_], [*model.shifts_])
    assert_array_equal([*again.shifts_.values()], [*model.shifts_.values()])
    assert_array_equal(again.predict_proba(table), model.predict_proba(table))


def folds_in_time():
    cv = FunnelTimeSplit(2, time="time")
    # The rows of its folds are in the order of this time, which is named for that.
    model = small(encoding_params={"time_column": "time"})
    return FunnelCalibrator(model, method="sigmoid", cv=cv).fit(X, Y)


OTHERS = {
    "view": (lambda: train().task("conversion"), X),
    "trained view": (lambda: small().task(0).fit(X, Y), X),
    "isotonic": (lambda: calibrator("isotonic"), X),
    "sigmoid": (lambda: calibrator("sigmoid", FunnelStratifiedKFold(2)), X),
    "in time": (folds_in_time, X),
    "view of a calibrator": (lambda: calibrator("isotonic", 2), X),
    "tensor": (lambda: CPMultiTaskLogistic().fit(NUMBERS, Y), NUMBERS),
    "sparse": (lambda: MultiTaskSparseLinear().fit(NUMBERS, Y), NUMBERS),
    "sparse cv": (lambda: MultiTaskSparseLinearCV(cv=2).fit(NUMBERS, Y), NUMBERS),
}


@pytest.fixture(scope="module")
def others():
    return {name: make() for name, (make, _) in OTHERS.items()}


@pytest.mark.parametrize("name", OTHERS)
def test_other_estimators_of_the_package(others, name):
    model, rows = others[name], OTHERS[name][1]
    again = through_skops(model)
    predict = methodcaller(
        "predict_proba" if hasattr(model, "predict_proba") else "predict", rows
    )
    assert_array_equal(predict(again), predict(model))


def test_every_trusted_class_is_needed_and_documented(others):
    found = set()
    by_group = FunnelCalibrator(small(), cv=FunnelGroupKFold(2))
    log = X.assign(user=np.arange(len(X)) % 5, at=np.arange(len(X)))
    history = HistoryFeatures(
        ["user"], time="at", label_delay=1, lists=[{"column": "user", "n": 2}]
    )
    value = ValueView(small(value_tasks={"spend": "conversion"}), "spend")
    for model in [*others.values(), by_group, value, history.fit(log, Y)]:
        found |= set(skops.get_untrusted_types(data=skops.dumps(model)))
    assert sorted(found) == TRUSTED_TYPES
    page = Path(__file__).parents[2] / "docs" / "user_guide" / "serving.rst"
    for name in TRUSTED_TYPES:
        module, _, attribute = name.rpartition(".")
        cls = getattr(importlib.import_module(module), attribute)
        assert isinstance(cls, type)
        assert not issubclass(cls, (list, dict, tuple, bytes))
        assert name in page.read_text(encoding="utf-8")


class Own(BCE):
    pass


class OwnEstimator(MultiTaskCTRCVRClassifier):
    pass


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"loss": Own}, "A model with loss=.*Own.* cannot be saved"),
        ({"optimizer": Adam}, "A model with optimizer=.* cannot be saved"),
        ({"callbacks": [KeepOnInterrupt()]}, "callbacks=.* cannot be saved"),
    ],
)
@pytest.mark.parametrize("is_fitted", [False, True])
def test_what_needs_code_is_refused(params, message, is_fitted, tmp_path):
    model = train(**params) if is_fitted else small(**params)
    with pytest.raises(TypeError, match=message):
        skops.dump(make_pipeline(model), tmp_path / "model.skops")
    assert os.listdir(tmp_path) == []
    if "callbacks" in params:
        through_skops(model.set_params(callbacks=None))


def test_an_estimator_class_of_the_user_is_trusted_by_the_user():
    model = OwnEstimator(**small().get_params(deep=False)).fit(X, Y)
    content = skops.dumps(model)
    (name,) = skops.get_untrusted_types(data=content)
    assert name.endswith("test_skops.OwnEstimator")
    with pytest.raises(TypeError, match="Untrusted types"):
        skops.loads(content, trusted=TRUSTED_TYPES)
