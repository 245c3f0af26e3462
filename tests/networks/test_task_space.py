"""The base class decides what a network's logits mean, and corrects them."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pools import Linear
from rewrites import RATES, batch, make
from scipy.special import logit

from sk_pwiser.networks import (
    ESMM,
    FDN,
    NETWORKS,
    NetworkOutput,
    NetworkSpec,
    chain_logits,
    full_log_logits,
)

CONDITIONAL_RATES = [RATES[0], RATES[1] / RATES[0], RATES[2] / RATES[1]]


class BareTensor(Linear):
    def forward(self, codes, numeric):
        return super().forward(codes, numeric).logits


class MisleadingChain(Linear):
    """Returns logits that are not those of the heads."""

    def forward(self, codes, numeric):
        heads = self.head(self.input_layer(codes, numeric))
        return NetworkOutput(torch.zeros_like(heads), conditional_logits=heads)


def test_in_conditional_space_heads_are_composed():
    network, inputs = make(Linear, 3, task_space="conditional"), batch()
    heads = network.forward(*inputs).logits
    output = network(*inputs)
    assert torch.equal(output.conditional_logits, heads)
    products = heads.detach().double().sigmoid().numpy().cumprod(axis=1)
    assert_allclose(output.logits.detach(), logit(products), rtol=1e-4, atol=1e-5)


def test_auxiliary_heads_stay_in_the_space_of_the_tasks():
    network, inputs = make(FDN, 3, task_space="conditional"), batch()
    found, expected = network(*inputs), network.forward(*inputs)
    torch.testing.assert_close(found.aux_logits, expected.aux_logits)


@pytest.mark.parametrize("kind", [ESMM, MisleadingChain])
def test_a_chain_of_heads_is_not_composed_again(kind):
    network, inputs = make(kind, 3, task_space="conditional"), batch()
    found, expected = network(*inputs), network.forward(*inputs)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.conditional_logits, expected.conditional_logits)


@pytest.mark.parametrize("kind", [Linear, ESMM, MisleadingChain])
def test_in_entire_space_a_network_is_trained_by_its_logits(kind):
    network, inputs = make(kind, 3), batch()
    output = network(*inputs)
    assert output.conditional_logits is None
    assert torch.equal(output.logits, network.forward(*inputs).logits)


def test_heads_are_composed_in_float32_under_autocast():
    network, inputs = make(Linear, 3, task_space="conditional"), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        heads = network.forward(*inputs).logits
        output = network(*inputs)
    assert heads.dtype == torch.bfloat16
    assert output.conditional_logits.dtype == output.logits.dtype == torch.float32
    torch.testing.assert_close(output.logits, chain_logits(heads.float()))


@pytest.mark.parametrize("task_space", ["entire", "conditional"])
def test_other_outputs_are_refused(task_space):
    network = make(BareTensor, task_space=task_space)
    with pytest.raises(TypeError, match="a NetworkOutput from forward; got Tensor"):
        network(*batch())


@pytest.mark.parametrize(
    ("task_space", "rates"), [("entire", RATES), ("conditional", CONDITIONAL_RATES)]
)
def test_output_biases_start_at_the_rates_of_the_task_space(task_space, rates):
    network = make(Linear, 3, task_space=task_space)
    assert_allclose(network.base_logits.sigmoid(), rates, rtol=1e-5)
    assert_allclose(
        network.conditional_base_logits.sigmoid(), CONDITIONAL_RATES, rtol=1e-5
    )


def test_rates_of_zero_and_one_have_finite_logits():
    network = Linear(NetworkSpec([], 1, 1, [0.0, 1.0]))
    assert network.base_logits.isfinite().all()
    assert network.base_logits.sign().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("rate", [1.0, 0.5, 0.01, 1e-6])
def test_equals_the_rule_of_bayes(rate):
    """Counts of the full log are thinned; both logs have known probabilities."""
    p = np.array([[0.3, 0.2, 0.1], [0.01, 0.005, 1e-5], [0.9, 0.9, 0.1]])
    kept = p[:, :1] + rate * (1 - p[:, :1])  # of all rows of the full log
    sampled = torch.logit(torch.tensor(p / kept))
    found = full_log_logits(sampled, rate)
    assert_allclose(found.sigmoid(), p, rtol=1e-9)
    log_odds = sampled[:, 0] + np.log(rate)
    torch.testing.assert_close(found[:, 0], log_odds)
    # P(later | earlier) is the same in both logs.
    ratio = found.sigmoid() / found.sigmoid()[:, :1]
    assert_allclose(ratio, p / p[:, :1], rtol=1e-9)


def test_finite_at_extreme_logits():
    logits = torch.tensor([[1e3, -1e3], [-1e3, 1e3], [1e3, 1e3], [0.0, -1e3]])
    logits.requires_grad_()
    found = full_log_logits(logits, 0.1)
    found.sum().backward()
    assert found.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("task_space", ["entire", "conditional"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network(name, task_space):
    def outputs(**params):
        torch.manual_seed(0)
        spec = NetworkSpec([3], 2, 4, [0.3, 0.1], task_space=task_space, **params)
        network = NETWORKS[name](spec).eval()
        return network(torch.tensor([[0], [1]]), torch.ones(2, 2))

    plain, corrected = outputs(), outputs(negative_sampling_rate=0.2)
    assert plain.sampled_logits is None
    torch.testing.assert_close(corrected.sampled_logits, plain.logits)
    expected = full_log_logits(plain.logits, 0.2)
    torch.testing.assert_close(corrected.logits, expected)
    if task_space == "conditional":
        torch.testing.assert_close(
            corrected.conditional_logits, plain.conditional_logits
        )
