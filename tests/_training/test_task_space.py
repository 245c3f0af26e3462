"""In conditional task space, later tasks learn from rows with the previous task."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pools import Brier
from scipy.special import expit
from small_model import X, Y, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.losses import BCE, LOSSES, PWiseR
from sk_pwiser.model_selection import funnel_depth
from sk_pwiser.networks import NetworkOutput
from sk_pwiser.weighting import Equal

NAMES = ["click", "cart", "conversion"]
CONDITIONAL = {"task_space": "conditional"}


def criterion(loss=BCE, n_tasks=3, **params):
    return MultiTaskCriterion(loss(NAMES[:n_tasks], **params), Equal(n_tasks))


def output_of(heads):
    """Return an output as the base class of the networks composes it from heads."""
    logits = torch.logit(heads.double().sigmoid().cumprod(dim=1))
    return NetworkOutput(logits.to(heads.dtype), conditional_logits=heads)


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
    assert criterion()(output_of(heads), y).item() == pytest.approx(expected)


def test_weights_of_rows_equal_repetitions(heads):
    y, counts = funnel(200), torch.arange(200) % 3
    repeated = torch.arange(200).repeat_interleave(counts)
    weights = (counts / counts.sum()).float()
    weighted = criterion()(output_of(heads), y, weights)
    plain = criterion()(output_of(heads[repeated]), y[repeated])
    assert weighted.item() * 200 == pytest.approx(plain.item(), rel=1e-5)


def test_heads_have_no_gradient_in_rows_without_the_previous_task(heads):
    y = funnel(200)
    heads.requires_grad_()
    criterion()(output_of(heads), y).backward()
    learns = torch.cat([torch.ones(200, 1), y[:, :-1]], dim=1).bool()
    assert torch.equal(heads.grad != 0, learns)


def test_pairs_consist_of_rows_with_the_previous_task():
    y = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    heads = torch.tensor([[0.0, 0.3], [0.0, 0.5], [0.0, 5.0]])
    term = criterion(PWiseR, 2, pwiser_weight=1.0)(output_of(heads), y)
    term = term - criterion(PWiseR, 2, pwiser_weight=0.0)(output_of(heads), y)
    # A single pair, converted against clicked only; one row of three is converted.
    assert term.item() == pytest.approx((1 - (0.3 - 0.5)) / 3, rel=1e-4)


def test_a_batch_without_clicks_has_a_loss_of_zero_for_later_tasks(heads):
    loss = criterion()(output_of(heads.requires_grad_()), torch.zeros(200, 3))
    loss.backward()
    expected = np.log1p(np.exp(heads[:, 0].detach().numpy())).mean()
    assert loss.item() == pytest.approx(expected)
    assert (heads.grad[:, 1:] == 0).all()


def test_conditional_heads_are_trained_themselves(heads):
    y = funnel(200)
    output = output_of(heads)
    misleading = output._replace(logits=torch.zeros(200, 3))
    assert criterion()(misleading, y) == criterion()(output, y)


@pytest.mark.parametrize("loss", LOSSES)
def test_one_call_with_weights_equals_one_call_per_task(heads, loss):
    """Compare with a criterion that computes all losses once per task and uses one."""
    y = funnel(200)
    kind = LOSSES[loss](NAMES)
    happened = torch.cat([torch.ones(200, 1), y[:, :-1]], dim=1)
    expected = sum(kind(heads, y, happened[:, k])[k].item() for k in range(3))
    value = MultiTaskCriterion(kind, Equal(3))(output_of(heads), y).item()
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def data():
    return make_ctr_cvr(3_000, ctr=0.3, cvr=0.3, random_state=0)


@pytest.mark.parametrize("network", ["shared_bottom", "esmm", "fdn"])
def test_predictions_are_over_impressions(network, data):
    model = MultiTaskCTRCVRClassifier(
        network=network, network_params=CONDITIONAL, max_epochs=3, random_state=0
    )
    p = model.fit(data.data, data.target).predict_proba(data.data)
    assert (p[:, 1] <= p[:, 0]).all()
    assert_allclose(p.mean(axis=0), data.target.mean(), rtol=0.25)
    assert_allclose(model.predict_cvr(data.data), p[:, 1] / p[:, 0], rtol=1e-3)
    assert model.score(data.data, data.target) > 0.6


def test_one_task_is_the_same_in_both_spaces(data):
    p = [
        MultiTaskCTRCVRClassifier(
            network_params={"task_space": space}, max_epochs=2, random_state=0
        )
        .fit(data.data, data.target.iloc[:, :1])
        .predict_proba(data.data)
        for space in ("entire", "conditional")
    ]
    assert_allclose(*p, rtol=1e-4)


class Counting(BCE):
    """Counts its calls, by the mode of the module."""

    def __init__(self, task_names):
        super().__init__(task_names)
        self.calls = {True: 0, False: 0}

    def forward(self, *args, **kwargs):
        self.calls[self.training] += 1
        return super().forward(*args, **kwargs)


def test_the_loss_is_called_once_per_batch():
    model = small(loss=Counting, network_params=CONDITIONAL, early_stopping=True)
    loss = model.fit(X, Y).net_.criterion_.loss
    # 270 rows in batches of at most 100 and 30 validation rows, in two epochs.
    assert loss.calls == {True: 2 * 3, False: 2 * 1}


class TaskBrier(Brier):
    takes_task_weights = True


def test_a_loss_of_the_user_takes_weights_per_row_and_task(heads):
    y = funnel(200)
    loss = criterion(TaskBrier)(output_of(heads), y)
    errors = (expit(heads.numpy()) - y.numpy()) ** 2
    errors[:, 1:] *= y[:, :-1].numpy()
    assert loss.item() == pytest.approx(errors.mean(axis=0).sum())


def test_a_loss_without_weights_per_task_is_refused_before_encoding(encodings):
    message = (
        "task_space='conditional' require .* loss Brier takes weights per row only.* "
        "takes_task_weights = True"
    )
    with pytest.raises(ValueError, match=message):
        small(loss=Brier, network_params=CONDITIONAL).fit(X, Y)
    base = {"base": Brier}
    with pytest.raises(ValueError, match="loss PWiseR takes weights per row only"):
        small(loss_params=base, network_params=CONDITIONAL).fit(X, Y)
    assert encodings == []
    small(loss=Brier).fit(X, Y)
    small(loss=TaskBrier, network_params=CONDITIONAL).fit(X, Y)
    assert len(encodings) == 2
