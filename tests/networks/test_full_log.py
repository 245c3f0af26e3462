"""The correction of logits from a sampled log to the full log."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sk_pwiser.networks import NETWORKS, NetworkSpec, full_log_logits


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


@pytest.mark.parametrize("rate", [0.0, 1.5, -1.0, float("nan")])
def test_wrong_rates(rate):
    with pytest.raises(ValueError, match="negative_sampling_rate"):
        NetworkSpec([3], 2, 4, [0.3], negative_sampling_rate=rate)
