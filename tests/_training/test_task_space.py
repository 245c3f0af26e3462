"""Later tasks learn from rows where the task before happened, if so asked."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import expit

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.losses import BCE, MultiTaskLoss, PWiseR
from sk_pwiser.model_selection import funnel_depth
from sk_pwiser.networks import NetworkOutput, NetworkSpec, as_funnel
from sk_pwiser.weighting import Equal

NAMES = ["click", "cart", "conversion"]


def criterion(loss=BCE, n_tasks=3, **params):
    loss = loss(NAMES[:n_tasks], **params)
    return MultiTaskCriterion(loss, Equal(n_tasks), task_space="conditional")


def funnel(n, n_tasks=3, rate=0.6, seed=0):
    events = np.random.default_rng(seed).random((n, n_tasks)) < rate
    return torch.from_numpy(np.logical_and.accumulate(events, axis=1)).float()


@pytest.fixture
def heads():
    return torch.from_numpy(np.random.default_rng(1).normal(size=(200, 3)))


def test_cross_entropy_is_the_log_likelihood_of_the_depth(heads):
    y = funnel(200)
    p = np.hstack([np.ones((200, 1)), expit(heads.numpy()).cumprod(axis=1)])
    p_of_depth = np.hstack([p[:, :-1] - p[:, 1:], p[:, -1:]])
    depth = funnel_depth(y.numpy())
    expected = -np.log(p_of_depth[np.arange(200), depth]).mean()
    assert criterion()(as_funnel(NetworkOutput(heads)), y) == pytest.approx(expected)


def test_weights_of_rows_count_as_repetitions(heads):
    y, weights = funnel(200), torch.arange(200) % 3
    repeated = torch.arange(200).repeat_interleave(weights)
    weighted = criterion()(as_funnel(NetworkOutput(heads)), y, weights / weights.sum())
    plain = criterion()(as_funnel(NetworkOutput(heads[repeated])), y[repeated])
    assert weighted * 200 == pytest.approx(float(plain), rel=1e-5)


def test_rows_without_the_task_before_teach_a_head_nothing(heads):
    y = funnel(200)
    heads.requires_grad_()
    criterion()(as_funnel(NetworkOutput(heads)), y).backward()
    learns = torch.cat([torch.ones(200, 1), y[:, :-1]], dim=1).bool()
    assert torch.equal(heads.grad != 0, learns)


def test_pairs_are_made_of_rows_with_the_task_before():
    y = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    heads = torch.tensor([[0.0, 0.3], [0.0, 0.5], [0.0, 5.0]])
    output = as_funnel(NetworkOutput(heads))
    term = criterion(PWiseR, 2, pwiser_weight=1.0)(output, y)
    term = term - criterion(PWiseR, 2, pwiser_weight=0.0)(output, y)
    # One pair, converted against clicked only, in 2 of 3 rows.
    assert term == pytest.approx((1 - (0.3 - 0.5)) * 2 / 3, rel=1e-4)


def test_a_batch_without_any_is_a_loss_of_zero(heads):
    output = as_funnel(NetworkOutput(heads.requires_grad_()))
    loss = criterion()(output, torch.zeros(200, 3))
    loss.backward()
    expected = np.log1p(np.exp(heads[:, 0].detach().numpy())).mean()
    assert loss.item() == pytest.approx(expected)
    assert (heads.grad[:, 1:] == 0).all()


def test_a_chain_is_trained_by_its_own_heads(heads):
    y = funnel(200)
    output = as_funnel(NetworkOutput(heads))
    assert as_funnel(output) is output
    misleading = output._replace(logits=torch.zeros(200, 3))
    assert criterion()(misleading, y) == criterion()(output, y)


def test_biases_start_at_the_rates_of_rows_with_the_task_before():
    spec = NetworkSpec([], 1, 1, [0.5, 0.05, 0.04], task_space="conditional")
    assert_allclose(spec.base_logits().sigmoid(), [0.5, 0.1, 0.8], rtol=1e-5)


@pytest.fixture(scope="module")
def data():
    return make_ctr_cvr(3_000, ctr=0.3, cvr=0.3, random_state=0)


@pytest.mark.parametrize("network", ["shared_bottom", "esmm", "fdn"])
def test_predictions_are_over_impressions(network, data):
    model = MultiTaskCTRCVRClassifier(
        network=network, task_space="conditional", max_epochs=3, random_state=0
    )
    p = model.fit(data.data, data.target).predict_proba(data.data)
    assert (p[:, 1] <= p[:, 0]).all()
    assert_allclose(p.mean(axis=0), data.target.mean(), rtol=0.25)
    assert_allclose(model.predict_cvr(data.data), p[:, 1] / p[:, 0], rtol=1e-3)
    assert model.score(data.data, data.target) > 0.6


def test_one_task_is_the_same_in_both_spaces(data):
    p = [
        MultiTaskCTRCVRClassifier(task_space=space, max_epochs=2, random_state=0)
        .fit(data.data, data.target.iloc[:, :1])
        .predict_proba(data.data)
        for space in ("entire", "conditional")
    ]
    assert_allclose(*p, rtol=1e-4)


class Brier(MultiTaskLoss):
    def forward(self, logits, y, sample_weight=None, groups=None):
        return ((logits.sigmoid() - y) ** 2).mean(dim=0)


def test_an_own_loss_needs_nothing_for_it(heads):
    y = funnel(200)
    loss = criterion(Brier)(as_funnel(NetworkOutput(heads)), y)
    errors = (expit(heads.numpy()) - y.numpy()) ** 2
    errors[:, 1:] *= y[:, :-1].numpy()
    assert loss == pytest.approx(errors.mean(axis=0).sum())


def test_other_values_are_refused(data):
    with pytest.raises(ValueError, match="task_space"):
        MultiTaskCTRCVRClassifier(task_space="clicked").fit(data.data, data.target)
