import gc
import weakref

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import (
    RATES,
    batch,
    dense_input,
    funnel,
    make,
    row_losses,
    tower,
    weights_of,
)
from scipy.special import expit

from sk_pwiser.networks import ESCM2, Labels, NetworkSpec

UNITS = {"tower_units": (8, 7)}


@pytest.fixture(params=["ipw", "dr"])
def variant(request):
    return request.param


def correction(output):
    """Return the arguments of the correction, a partial function."""
    return output.extra_losses["correction"].keywords


@pytest.mark.parametrize("n_tasks", [2, 3])
def test_equals_the_formula_written_out_in_numpy(variant, n_tasks):
    params = {"correction_weight": 0.7, "task_space": "conditional", **UNITS}
    network = make(ESCM2, n_tasks, variant=variant, **params)
    codes, numeric = batch(40)
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    heads = np.stack([tower(x, p, k) for k in range(n_tasks)], 1)
    chain = np.cumprod(expit(heads), axis=1)
    # Half of the propensities are clipped.
    smallest = float(np.median(chain[:, :-1]))
    network.smallest_propensities.fill_(smallest)
    output = network(codes, numeric)
    assert_allclose(output.logits.sigmoid().detach(), chain, rtol=1e-4)
    assert_allclose(output.conditional_logits.detach(), heads, rtol=1e-4, atol=1e-5)
    clipped = np.maximum(chain[:, :-1], smallest)
    assert_allclose(correction(output)["propensity"], clipped, rtol=1e-4)
    y = funnel(40, n_tasks)
    losses = output.extra_losses["correction"](Labels(y, None, row_losses))
    labels, z, w = y[:, 1:].numpy(), heads[:, 1:], y[:, :-1].numpy() / clipped

    def average(values):
        return (w * values).sum(axis=0) / w.sum(axis=0)

    delta = np.logaddexp(0, z) - labels * z
    expected = average(delta)
    if variant == "dr":
        imputed = [tower(x, p, k, "imputation") for k in range(n_tasks - 1)]
        imputed = np.stack(imputed, 1)
        guessed = np.logaddexp(0, z) - expit(imputed) * z
        of_imputed = np.logaddexp(0, imputed) - labels * imputed
        expected = guessed.mean(axis=0) + average(delta - guessed + of_imputed)
    assert_allclose(losses.detach(), 0.7 * np.append(0, expected), rtol=1e-4)


def test_the_correction_is_not_kept_by_the_network(variant):
    network = make(ESCM2, 3, variant=variant, **UNITS)
    output = network(*batch())
    heads = weakref.ref(correction(output)["heads"])
    del output
    gc.collect()
    assert heads() is None


def test_propensity_takes_no_gradient(variant):
    parts = correction(make(ESCM2, 3, variant=variant, **UNITS)(*batch()))
    assert not parts["propensity"].requires_grad
    assert parts["heads"].requires_grad
    assert (parts["imputed"] is None) == (variant == "ipw")
    assert parts["imputed"] is None or parts["imputed"].requires_grad


def test_propensities_are_clipped_relative_to_the_base_rates(variant):
    network = make(ESCM2, 3, variant=variant, scale=30, min_propensity=0.2, **UNITS)
    propensity = correction(network(*batch(200)))["propensity"]
    assert_allclose(propensity.min(dim=0).values, 0.2 * np.array(RATES[:2]), rtol=1e-5)
    assert propensity.max() <= 1


def test_rare_clicks_keep_their_weights():
    # At 1 % clicks, a limit of 0.05 clipped nearly all rows; their weights added up to
    # 0.19 of the rows.
    rng = np.random.default_rng(0)
    logits = rng.normal(-5.1, 0.95, (50_000, 1))
    click = rng.random((50_000, 1)) < expit(logits)
    network = ESCM2(NetworkSpec([3], 2, 4, [click.mean(), 0.001]))
    both = torch.from_numpy(np.hstack([logits, logits - 3]))
    propensity = network._propensities(both)[0].numpy()
    assert (propensity > expit(logits) + 1e-6).mean() < 0.1
    assert (click / propensity).mean() == pytest.approx(1, abs=0.1)


def test_imputed_labels_start_at_the_rates():
    network = ESCM2(NetworkSpec([3], 2, 4, RATES), variant="dr")
    output = network(torch.randint(3, (500, 1)), torch.randn(500, 2))
    imputed = correction(output)["imputed"].detach().sigmoid()
    rates = np.array([RATES[1] / RATES[0], RATES[2] / RATES[1]])
    assert_allclose(imputed.mean(0), rates, rtol=0.1)
