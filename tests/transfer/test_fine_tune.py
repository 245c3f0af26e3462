"""Training from the weights of another estimator."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from markets import SECOND, fit_source, rows
from numpy.testing import assert_allclose, assert_array_equal
from pools import Linear, assert_same_weights, weights_of
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import roc_auc_score
from small_model import X as OTHER
from small_model import Y as OTHER_Y
from small_model import small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.networks import NETWORKS
from sk_pwiser.transfer import _fine_tune, check_compatible, fine_tune
from sk_pwiser.transfer._fine_tune import REGULARIZERS, features_of

X, Y = rows(SECOND)
TABLE = "input_layer.embeddings.0.weight"
# So small that no float32 weight changes.
STILL = {"lr": 1e-30, "max_epochs": 1}


@pytest.fixture(scope="module")
def source():
    return fit_source()


def features(model, of=None):
    """Return features of the network of `model`, of rows encoded by `of`."""
    rows = (of or model)._result.schema.transform(X)
    inputs = rows.codes.long(), rows.numeric
    device = next(model.net_.module_.parameters()).device
    network = model.net_.module_.eval()
    return features_of(network, tuple(i.to(device) for i in inputs)).cpu().numpy()


def test_training_starts_from_the_weights_of_the_source(source):
    model = fine_tune(source, X, Y, extend=False, **STILL)
    assert_allclose(model.predict_proba(X), source.predict_proba(X), rtol=1e-5)
    check_compatible([source, model])
    assert_same_weights(source, model)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_a_weight_of_0_is_a_plain_warm_start(source, regularizer):
    plain = fine_tune(source, X, Y)
    model = fine_tune(source, X, Y, regularizer=regularizer, regularizer_weight=0)
    assert_same_weights(plain, model)
    other = fine_tune(source, X, Y, regularizer=regularizer, regularizer_weight=1)
    assert not np.array_equal(other.predict_proba(X), plain.predict_proba(X))


def test_tred_pulls_features_to_the_relevant_part(source, monkeypatch, device):
    start = features(source)
    gates = np.where(np.arange(start.shape[1]) % 2, 0.0, 1.0).astype(np.float32)
    on_device = torch.from_numpy(gates).to(device)
    monkeypatch.setattr(_fine_tune, "separate", lambda *_: on_device)
    params = {"extend": False, "max_epochs": 20, "lr": 0.002}
    plain = features(fine_tune(source, X, Y, **params))
    tred = features(
        fine_tune(source, X, Y, regularizer="tred", regularizer_weight=8.0, **params)
    )
    assert abs(plain - gates * start).mean() > 0.2
    assert abs(tred - gates * start).mean() < 0.02
    assert abs(start[:, 1::2]).mean() > 0.1


@pytest.mark.parametrize("early_stopping", [False, True])
def test_tred_separates_the_features_of_the_training_rows(
    source, monkeypatch, early_stopping
):
    taken = []

    def separate(read, y, *_):
        taken.append((read(torch.arange(len(y))), y.cpu().numpy()))
        return torch.ones(taken[0][0].shape[1], device=taken[0][0].device)

    monkeypatch.setattr(_fine_tune, "separate", separate)
    params = {"extend": False, "max_epochs": 1, "early_stopping": early_stopping}
    fine_tune(source, X, Y, regularizer="tred", **params)
    found, labels = taken[0][0].cpu().numpy(), taken[0][1]
    assert (len(found) < len(X)) == early_stopping
    distances = abs(found[:, None] - features(source)[None]).max(axis=2)
    # Rows with equal features may have different labels.
    is_own = (labels[:, None] == Y.to_numpy()).all(axis=2)
    assert ((distances < 1e-5) & is_own).any(axis=1).all()


def test_embeddings_of_absent_values_stay(source):
    kept = (X["category_1"] != 2).to_numpy()
    column = source._result.schema.encoder.columns_[9]
    place = source._result.schema.encoder.cardinalities_[0] + column.codes_[2]
    model = fine_tune(source, X[kept], Y[kept], weight_decay=0.1, extend=False)
    before, after = weights_of(source)[TABLE], weights_of(model)[TABLE]
    assert_array_equal(after[place], before[place])
    assert not np.array_equal(after[place + 1], before[place + 1])


def test_new_values_get_embeddings_that_start_from_the_unseen_one(source):
    new, _ = rows(SECOND, new_value="new")
    # The values are then of two kinds, text beside numbers.
    model = fine_tune(source, new, Y, **STILL)
    old, column = (m._result.schema.encoder.columns_[8] for m in (source, model))
    assert set(column.codes_) - set(old.codes_) == {"new"}
    before, after = weights_of(source)[TABLE], weights_of(model)[TABLE]
    first, grown = old.cardinality, column.cardinality
    assert grown == first + 1
    assert_array_equal(after[:first], before[:first])
    assert_array_equal(after[column.codes_["new"]], before[1])
    assert_array_equal(after[grown:], before[first:])
    trained = fine_tune(source, new, Y)
    table = weights_of(trained)[TABLE]
    assert not np.allclose(table[column.codes_["new"]], table[1])
    assert np.isfinite(trained.predict_proba(new)).all()
    # The penalty does not hold a new row at its start: nobody has learnt it.
    free = fine_tune(
        source, new, Y, regularizer="l2_sp", regularizer_weight=1e4, max_epochs=5
    )
    moved = abs(weights_of(free)[TABLE] - after).max(axis=1)
    assert moved[column.codes_["new"]] > 10 * moved[column.codes_[1]]
    # Without extension the new value stays an unseen one.
    kept = fine_tune(source, new, Y, extend=False)
    check_compatible([source, kept])


@pytest.mark.filterwarnings("ignore:Task '", "error:Training diverged")
@pytest.mark.parametrize("max_epochs", [1, 2])
def test_a_few_epochs_on_a_market_without_events(max_epochs):
    source = fit_source(target_encoding=False)
    X, none = OTHER, Y.iloc[[0] * len(OTHER)].reset_index(drop=True) * 0
    model = fine_tune(source, X, none, max_epochs=max_epochs)
    assert model.best_epoch_ == max_epochs
    again = fine_tune(model, X, none, max_epochs=1)
    assert again.set_params(warm_start=True, max_epochs=1).fit(X, none).n_iter_ == 2
    again.partial_fit(X, none)
    with pytest.warns(ConvergenceWarning, match="Training diverged"):
        fine_tune(source, X, OTHER_Y, lr=3e4)


@pytest.mark.parametrize(
    "kind",
    [
        "numbers",
        pytest.param("array column", marks=pytest.mark.slow),
        pytest.param("sparse", marks=pytest.mark.slow),
    ],
)
def test_numbers_that_were_constant_in_the_source_are_learnt(kind):
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 3_000))
    z[:500] = 0.0
    click = (rng.random(3_000) < 1 / (1 + np.exp(-2 * z))).astype(int)
    labels = np.stack([click, click * (rng.random(3_000) < 0.4)], axis=1)
    tables = {
        "numbers": pd.DataFrame({"x": x, "z": z}),
        "array column": pd.DataFrame({"v": list(np.stack([x, z], axis=1))}),
        "sparse": csr_matrix(np.stack([x, z], axis=1)),
    }
    table = tables[kind]
    start = MultiTaskCTRCVRClassifier(random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The columns .* have the same value")
        start.fit(table[:500], labels[:500])
    model = fine_tune(start, table[500:], labels[500:])
    p = model.predict_proba(table[500:])[:, 0]
    assert roc_auc_score(click[500:], p) > 0.8
    # Merging needs the encoder of the source.
    kept = fine_tune(start, table[500:], labels[500:], extend=False)
    check_compatible([start, kept])


def test_statistics_include_new_rows_and_leave_out_seen_ones(source):
    new = fine_tune(source, X, Y)
    seen = fine_tune(source, *rows(slice(100, 300)), seen=True)
    counts = [m._result.schema.statistics.counts_[1] for m in (source, new, seen)]
    assert counts[1][0, 0, 2:].sum() == 900
    assert counts[0][0, 0, 2:].sum() == 500
    assert_array_equal(counts[2], counts[0])
    check_compatible([source, seen])
    with pytest.raises(ValueError, match=r"estimators\[1\] differs .*statistics"):
        check_compatible([source, new])


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(value, marks=() if value in {"esmm"} else pytest.mark.slow)
        for value in NETWORKS
    ],
)
def test_every_network_has_features(network):
    source = small(network=network, network_params=None, max_epochs=1).fit(X, Y)
    model = fine_tune(source, X[:150], Y[:150], regularizer="tred", extend=False)
    assert features(model).shape[0] == len(X)
    assert not np.array_equal(model.predict_proba(X), source.predict_proba(X))


@pytest.mark.slow
def test_other_settings_of_training(source):
    model = fine_tune(
        source,
        X,
        Y,
        np.linspace(0.5, 1.5, len(X)),
        regularizer="tred",
        early_stopping=True,
        weighting="nash",
        eval_set=(X[:80], Y[:80]),
        max_epochs=3,
    )
    assert "valid_auc_mean" in model.history_[0]
    assert model.get_params()["max_epochs"] == 3
    lazy = fit_source(optimizer_params={"lazy_embeddings": True})
    tuned = fine_tune(lazy, X, Y, regularizer="l2_sp")
    assert tuned.predict_proba(X).shape == (len(X), 2)
    half = fine_tune(source, X, Y, regularizer="tred", precision="bfloat16")
    assert np.isfinite(half.predict_proba(X)).all()
    updated = half.partial_fit(X, Y)
    assert updated.n_iter_ == half.n_iter_


class Named(Linear):
    towers_name = "head"


class Shifted(Named):
    def forward(self, codes, numeric):
        return super().forward(codes, numeric - 1.0)


class ShiftedInPlace(Named):
    """The same network, which changes its arguments."""

    def forward(self, codes, numeric):
        return super().forward(codes, numeric.sub_(1.0))


@pytest.mark.parametrize("regularizer", [None, *REGULARIZERS])
def test_networks_that_change_their_inputs(regularizer):
    weight = None if regularizer is None else 50.0
    penalty = {"regularizer": regularizer, "regularizer_weight": weight}
    params = {"network_params": None, "max_epochs": 1}
    found, expected = (
        fine_tune(small(network=kind, **params).fit(X, Y), X, Y, **penalty)
        for kind in (ShiftedInPlace, Shifted)
    )
    assert_array_equal(found.predict_proba(X), expected.predict_proba(X))


class Counting(Named):
    """A network with a tensor that depends on the columns in its own way."""

    def __init__(self, spec):
        super().__init__(spec)
        self.bias = torch.nn.Parameter(torch.zeros(sum(spec.cardinalities)))


def test_networks_of_users():
    params = {"network_params": None, "max_epochs": 1}
    model = small(network=Linear, **params).fit(X, Y)
    with pytest.raises(ValueError, match="Linear has no module 'towers'"):
        fine_tune(model, X, Y, regularizer="tred")
    assert fine_tune(model, X, Y, regularizer="l2_sp").n_iter_ == 1
    model = small(network=Named, **params).fit(X, Y)
    assert fine_tune(model, X, Y, regularizer="tred").n_iter_ == 1
    model = small(network=Counting, **params).fit(X, Y)
    new, _ = rows(SECOND, new_value="new")
    with pytest.raises(ValueError, match=r"weights of the source do not fit.* extend="):
        fine_tune(model, new, Y)
    assert fine_tune(model, new, Y, extend=False).n_iter_ == 1


def test_automatic_widths_of_embeddings():
    model = fit_source(embedding_dim="auto")
    p = fine_tune(model, X, Y, extend=False, **STILL).predict_proba(X)
    assert_allclose(p, model.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"regularizer": "l3"}, ValueError, r"regularizer must be one of \['l2_sp'"),
        (
            {"regularizer": "delta"},
            ValueError,
            "'delta' was removed. Use 'l2_sp'.*'tred'",
        ),
        ({"regularizer": 2}, TypeError, "regularizer must be one of"),
        (
            {"regularizer": "tred", "regularizer_weight": -1},
            ValueError,
            "regularizer_weight must be finite and >= 0; got -1",
        ),
        (
            {"regularizer_weight": 0.1},
            ValueError,
            "regularizer_weight=0.1 has no effect without a regularizer",
        ),
        ({"network": "mmoe"}, ValueError, "network must be that of the source, 'sha"),
        ({"embedding_dim": 3}, ValueError, "embedding_dim must be that of the source"),
        ({"target_encoding": False}, ValueError, "target_encoding must be that of"),
        (
            {"categorical_features": [0]},
            ValueError,
            "l_features must be that",
        ),
        ({"encoding_params": {"min_frequency": 1}}, ValueError, r"that .* 2; got 1"),
        ({"encoding_params": {"target_encoding_min_values": 5}}, ValueError, "; got 5"),
        ({"encoding_params": {"max_bin": 1}}, ValueError, "Each key of encoding_par"),
        ({"numeric_encoding": "standard"}, ValueError, "numeric_encoding='standard'"),
        ({"lr": 0}, ValueError, "The 'lr' parameter"),
        ({"epochs": 3}, ValueError, "Invalid parameter 'epochs'"),
        (
            {"regularizer": "tred", "compile": True},
            ValueError,
            "regularizer='tred' requires compile=False; got compile=True",
        ),
        (
            {"seen": True},
            ValueError,
            "seen=True, but the source was not fitted on all rows",
        ),
    ],
)
def test_errors_name_the_parameter(source, params, error, message):
    many = (np.tile(np.arange(len(X)), 3),)
    with pytest.raises(error, match=message):
        fine_tune(source, X.iloc[many], Y.iloc[many], **params)


def test_the_source_must_be_fitted():
    with pytest.raises(NotFittedError, match=r"source.* is not fitted"):
        fine_tune(small(), X, Y)
    with pytest.raises(TypeError, match="source must be a MultiTask"):
        fine_tune("source", X, Y)
