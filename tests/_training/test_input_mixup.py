"""Interpolation of inputs and labels in training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from refusals import X, Y, small
from scipy.stats import kstest

from sk_pwiser._training import InputMixup
from sk_pwiser._utils import Generators, active


def batch(n_rows=6, weighted=False):
    rng = np.random.default_rng(0)
    inputs = {"codes": torch.zeros(n_rows, 1), "numeric": torch.zeros(n_rows, 0)}
    if weighted:
        inputs["sample_weight"] = torch.from_numpy(rng.random(n_rows, dtype=np.float32))
    return inputs, torch.from_numpy(rng.random((n_rows, 2), dtype=np.float32))


def mixed(mixup, rows, seed=0):
    with active(Generators(seed)):
        mixup.on_batch_begin(None, batch=rows, training=True)
    return rows


def test_inputs_are_mixed_with_those_of_the_partners():
    mixup = InputMixup(alpha=0.5, share=1.0)
    mixed(mixup, batch())
    inputs = torch.rand(6, 3)
    own, partner = inputs.numpy(), inputs.numpy()[mixup.partners]
    expected = (1 - mixup.lam) * own + mixup.lam * partner
    assert_allclose(mixup.mix_inputs(None, None, inputs), expected, rtol=1e-6)
    tables = torch.stack([inputs, inputs])
    for found in mixup.mix_inputs(None, None, tables):
        assert_allclose(found, expected, rtol=1e-6)


def test_a_lam_of_0_gives_the_own_features_and_one_of_1_the_partners():
    mixup, inputs = InputMixup(alpha=0.5, share=1.0), torch.rand(6, 3)
    mixed(mixup, batch())
    mixup.lam = 0.0
    assert_array_equal(mixup.mix_inputs(None, None, inputs), inputs)
    mixup.lam = 1.0
    assert_array_equal(mixup.mix_inputs(None, None, inputs), inputs[mixup.partners])


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_a_mixed_row_is_the_mean_of_both_losses(weighted):
    before = batch(weighted=weighted)
    mixup, (inputs, y) = InputMixup(0.5, 1.0), batch(weighted=weighted)
    mixed(mixup, (inputs, y))
    logits = torch.randn(6, 2)

    def losses(y, inputs):
        rows = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, y, reduction="none"
        )
        weight = inputs.get("sample_weight", torch.ones(6))
        return rows * weight.unsqueeze(1)

    partner = {"sample_weight": before[0].get("sample_weight", torch.ones(6))}
    partner = {name: value[mixup.partners] for name, value in partner.items()}
    expected = (1 - mixup.lam) * losses(before[1], before[0])
    expected += mixup.lam * losses(before[1][mixup.partners], partner)
    assert_allclose(losses(y, inputs), expected, rtol=1e-5)


def test_the_drawn_lam_has_a_beta_distribution():
    mixup = InputMixup(alpha=0.4, share=1.0)
    with active(Generators(0)):
        drawn = []
        for _ in range(2_000):
            mixup.on_batch_begin(None, batch=batch(), training=True)
            drawn.append(mixup.lam)
    assert kstest(drawn, "beta", args=(0.4, 0.4)).pvalue > 0.01


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_batches_is_mixed(share):
    mixup, n_mixed = InputMixup(alpha=0.5, share=share), 0
    with active(Generators(0)):
        for _ in range(1_000):
            mixup.on_batch_begin(None, batch=batch(), training=True)
            n_mixed += mixup.partners is not None
    assert abs(n_mixed - 1_000 * share) <= 4.5 * np.sqrt(1_000 * share * (1 - share))


def test_validation_batches_are_not_mixed():
    mixup, rows = InputMixup(alpha=0.5, share=1.0), batch()
    mixed(mixup, batch())
    mixup.on_batch_begin(None, batch=rows, training=False)
    inputs = torch.rand(6, 3)
    assert mixup.mix_inputs(None, None, inputs) is inputs
    assert_array_equal(rows[1], batch()[1])


def test_the_hook_is_there_in_training_only():
    mixup, layer = InputMixup(alpha=0.5, share=1.0), torch.nn.Linear(2, 2)
    net = SimpleNamespace(module_=SimpleNamespace(input_layer=layer))
    mixup.on_train_begin(net)
    assert layer._forward_hooks
    mixup.on_train_end(net)
    assert not layer._forward_hooks


def test_training_mixes_copies_of_the_rows():
    Y_before = Y.copy()
    plain = small(loss="bce").fit(X, Y)
    model = small(loss="bce", callbacks=[InputMixup(0.5, 1.0)]).fit(X, Y)
    assert_array_equal(Y, Y_before)
    assert not np.allclose(plain.predict_proba(X), model.predict_proba(X))
    assert not model.net_.module_.input_layer._forward_hooks
