"""Muon: orthogonal steps of hidden matrices, steps of Adam elsewhere."""

import numpy as np
import pandas as pd
import pytest
import torch
from small_model import X, Y, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._lazy_tables import LazyAdam, LazyMuon
from sk_pwiser._training._muon import COEFFICIENTS, N_ITERATIONS, Muon, orthogonalized

WIDE = {"network_params": {"bottom_units": (16, 8), "tower_units": (8,)}}


def polynomial(singular_values):
    a, b, c = COEFFICIENTS
    for _ in range(N_ITERATIONS):
        singular_values = (
            a * singular_values + b * singular_values**3 + c * singular_values**5
        )
    return singular_values


@pytest.mark.parametrize("shape", [(8, 8), (30, 12), (12, 30), (3, 16, 9)])
def test_singular_values_become_about_1_and_singular_vectors_stay(shape):
    matrices = np.random.default_rng(0).normal(size=shape)
    found = orthogonalized(torch.tensor(matrices)).numpy()
    u, s, vt = np.linalg.svd(matrices, full_matrices=False)
    s /= np.linalg.norm(s, axis=-1, keepdims=True)
    values = polynomial(s)
    np.testing.assert_allclose(found, (u * values[..., np.newaxis, :]) @ vt, atol=1e-9)
    assert (values[s > 0.05] > 0.6).all()
    assert (values < 1.3).all()


def trained(optimizer, parameters, n_steps=6):
    generator = torch.Generator().manual_seed(0)
    for _ in range(n_steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        gradients = [parameter.grad for parameter in parameters]
        optimizer.step()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            assert parameter.grad is gradient
    return [parameter.detach() for parameter in parameters]


def new_parameters():
    generator = torch.Generator().manual_seed(1)
    shapes = (24, 10), (10,), (1, 10), (20, 9)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes
    ]


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="from torch 2.9 on")
def test_matrices_have_steps_of_the_size_of_torchs_muon():
    ours, theirs = ([new_parameters()[0]] for _ in range(2))
    start = ours[0].detach().clone()
    ours = trained(Muon(ours, lr=0.01), ours)[0]
    reference = torch.optim.Muon(
        theirs, lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
    )
    theirs = trained(reference, theirs)[0]
    # torch computes in bfloat16, with other coefficients after the comma.
    difference = (ours - theirs).norm() / (theirs - start).norm()
    assert difference < 0.05


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_other_parameters_have_the_steps_of_adam(weight_decay):
    arguments = {"lr": 0.01, "weight_decay": weight_decay}
    ours, theirs = new_parameters(), new_parameters()
    groups = [{"params": ours[:3]}, {"params": ours[3:], "orthogonal": False}]
    ours = trained(Muon(groups, **arguments), ours)
    theirs = trained(torch.optim.Adam(theirs, **arguments), theirs)
    for own, other in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)
    assert not torch.equal(ours[0], theirs[0])


def test_hidden_matrices_alone_have_them():
    model = small(optimizer="muon", **WIDE).set_params(target_encoding=False)
    model.set_params(network_params__bottom_units=(16, 8)).fit(X, Y)
    optimizer = model.net_.optimizer_
    names = {
        name
        for name, parameter in model.net_.module_.named_parameters()
        if "momentum_buffer" in optimizer.state[parameter]
    }
    assert {"bottom.layers.0.weight", "bottom.layers.1.weight"} <= names
    assert all("output" not in name and "embeddings" not in name for name in names)
    assert all(name.endswith("weight") for name in names)


def log_with_ids(n=1_500):
    rng = np.random.default_rng(0)
    ids, x = rng.integers(0, 200, n), rng.normal(size=n)
    click = rng.random(n) < 1 / (1 + np.exp(1 - x - 0.5 * (ids % 3)))
    labels = pd.DataFrame({"click": click, "conversion": click & (x > 0)}).astype(int)
    return pd.DataFrame({"id": ids, "x": x}).astype({"id": "category"}), labels


def make(**params):
    defaults = {"optimizer": "muon", "max_epochs": 3, "random_state": 0, **WIDE}
    return MultiTaskCTRCVRClassifier(**{**defaults, **params})


def test_it_survives_files_updates_and_warm_starts(tmp_path):
    table, labels = log_with_ids()
    model = make(early_stopping=False).fit(table, labels)
    model.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    for _ in range(2):
        for each in (model, loaded):
            each.partial_fit(table[:300], labels[:300])
        np.testing.assert_array_equal(
            loaded.predict_proba(table), model.predict_proba(table)
        )
    for optimizer in ("adam", "muon"):
        model.set_params(optimizer=optimizer, warm_start=True).fit(table, labels)
        assert np.isfinite(model.predict_proba(table)).all()


def test_resumed_training_is_equal_to_the_bit(tmp_path):
    table, labels = log_with_ids()
    resumes = {"checkpoint_dir": tmp_path, "warm_start": True}
    params = {"early_stopping": False, "lr_schedule": None}
    make(max_epochs=2, **params, **resumes).fit(table, labels)
    resumed = make(max_epochs=4, **params, **resumes).fit(table, labels)
    whole = make(max_epochs=4, **params).fit(table, labels)
    np.testing.assert_array_equal(
        resumed.predict_proba(table), whole.predict_proba(table)
    )


def test_large_tables_are_updated_by_rows():
    table, labels = log_with_ids()
    params = {"optimizer_params": {"lazy_embeddings": True}, "early_stopping": False}
    model = make(**params).fit(table, labels)
    assert isinstance(model.net_.optimizer_, LazyMuon)
    model.partial_fit(table[:300], labels[:300])
    assert np.isfinite(model.predict_proba(table)).all()
    adam = make(optimizer="adam", **params).fit(table, labels)
    assert type(adam.net_.optimizer_) is LazyAdam


def test_momentum_is_checked():
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\); got 1"):
        make(optimizer_params={"momentum": 1.0}).fit(X, Y)
