import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sk_pwiser.losses import entire_space_loss

N = 7


@pytest.fixture
def table():
    """Logits, labels on all rows, propensities and imputed labels of one head."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, N)
    p, imputed = rng.uniform(0.1, 0.9, N), rng.uniform(0.1, 0.9, N)
    return rng.normal(size=N), labels, p, imputed


def column(values):
    return torch.tensor(list(values), dtype=torch.float64).unsqueeze(1)


def cross_entropy(z, y):
    return np.logaddexp(0, z) - y * z


def expectation(table, clicked_at, propensity, imputed=None):
    """Average the loss over all 2^n patterns of clicks, by their probabilities."""
    z, labels, *_ = table
    total = mass = 0.0
    for pattern in itertools.product([0, 1], repeat=N):
        o = np.array(pattern)
        probability = np.prod(np.where(o == 1, clicked_at, 1 - clicked_at))
        # The label is known where the row was clicked, and 0 elsewhere.
        y = torch.from_numpy(np.stack([o, o * labels], 1).astype(np.float64))
        given = None if imputed is None else column(imputed).logit()
        loss = entire_space_loss(column(z), y, column(propensity), given)
        total += probability * loss.item()
        mass += probability
    assert mass == pytest.approx(1)
    return total


def test_inverse_propensity_is_unbiased_where_the_propensity_is_right(table):
    z, labels, p, _ = table
    truth = cross_entropy(z, labels).mean()
    assert expectation(table, p, p) == pytest.approx(truth, rel=1e-12)
    assert expectation(table, p, p / 2) == pytest.approx(2 * truth, rel=1e-12)
    # And what clicked rows alone would give.
    assert expectation(table, p, np.ones(N)) < 0.9 * truth


def test_doubly_robust_is_unbiased_where_either_is_right(table):
    z, labels, p, wrong = table
    delta = cross_entropy(z, labels)
    # The term that trains the imputed labels is on top, and 0 where they are right.
    for propensity, imputed, is_right in [
        (p, wrong, True),
        (p[::-1], labels, True),
        (p, labels, True),
        (p[::-1], wrong, False),
    ]:
        error = delta - cross_entropy(z, imputed)
        training = np.mean(p / propensity * error**2)
        found = expectation(table, p, propensity, imputed) - training
        assert (found == pytest.approx(delta.mean(), rel=1e-12)) == is_right


@pytest.mark.parametrize("doubly_robust", [False, True])
def test_gradients(table, doubly_robust):
    z, labels, p, imputed = table
    o = np.array([1, 0, 1, 1, 0, 1, 0])
    y = torch.from_numpy(np.stack([o, o * labels], 1).astype(np.float64))
    tensors = [column(values).requires_grad_() for values in (z, p, imputed)]
    given = tensors[2].logit() if doubly_robust else None
    entire_space_loss(tensors[0], y, tensors[1], given).sum().backward()
    of_logits, of_propensity, of_imputed = (tensor.grad for tensor in tensors)
    assert of_propensity is None
    predicted = 1 / (1 + np.exp(-z))
    if doubly_robust:
        # Rows without a label pull the head as well, towards the imputed one.
        expected = predicted - imputed + o / p * (imputed - labels)
        pull = -2 * o / p * z**2 * (labels - imputed) / N
        assert_allclose(of_imputed[:, 0], pull, rtol=1e-12)
    else:
        expected = o / p * (predicted - labels)
        assert of_imputed is None
    assert_allclose(of_logits[:, 0], expected / N, rtol=1e-12)


def several_heads(n, n_tasks, doubly_robust):
    passed = (torch.rand(n, n_tasks) < 0.7).double().cumprod(dim=1)
    shape = (n, n_tasks - 1)
    imputed = torch.rand(shape).double() if doubly_robust else None
    return torch.randn(shape).double(), passed, torch.rand(shape) + 0.1, imputed


@pytest.mark.parametrize("doubly_robust", [False, True])
def test_every_head_reads_the_task_before_and_its_own(doubly_robust):
    z, y, p, imputed = several_heads(20, 4, doubly_robust)
    losses = entire_space_loss(z, y, p, imputed)
    assert losses.shape == (3,)
    for k in range(3):
        one = None if imputed is None else imputed[:, [k]]
        alone = entire_space_loss(z[:, [k]], y[:, k : k + 2], p[:, [k]], one)
        torch.testing.assert_close(losses[[k]], alone)


@pytest.mark.parametrize("doubly_robust", [False, True])
def test_weights_stand_for_repeated_rows(doubly_robust):
    tensors = several_heads(12, 3, doubly_robust)
    counts = torch.randint(0, 4, (12,))
    repeated = [t if t is None else t.repeat_interleave(counts, 0) for t in tensors]
    weights = counts.double() / counts.double().mean()
    weighted = entire_space_loss(*tensors, sample_weight=weights)
    torch.testing.assert_close(weighted, entire_space_loss(*repeated))


@pytest.mark.parametrize("doubly_robust", [False, True])
@pytest.mark.parametrize("z", [-1000.0, 1000.0])
def test_finite_at_extreme_logits(doubly_robust, z):
    y = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    logits = torch.full((4, 1), z, requires_grad=True)
    imputed = torch.full((4, 1), 0.3, requires_grad=True) if doubly_robust else None
    loss = entire_space_loss(logits, y, torch.full((4, 1), 1e-3), imputed)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
    if imputed is None:
        # Rows without the task before teach the head nothing.
        assert logits.grad[[0, 3]].tolist() == [[0.0], [0.0]]
    assert imputed is None or imputed.grad.isfinite().all()
