"""The loss of conditional heads over rows with and without a label."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn.functional import binary_cross_entropy_with_logits

from sk_pwiser.networks import Labels
from sk_pwiser.networks._entire_space import (
    counterfactual_loss,
    dual_propensity_loss,
    entire_space_loss,
    teacher_loss,
)

N = 7


@pytest.fixture
def table():
    """Return logits, labels of all rows, propensities and imputed labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, N)
    p, imputed = rng.uniform(0.1, 0.9, N), rng.uniform(0.1, 0.9, N)
    return rng.normal(size=N), labels, p, imputed


def column(values):
    return torch.tensor(list(values), dtype=torch.float64).unsqueeze(1)


def cross_entropy(z, y):
    return np.logaddexp(0, z) - y * z


def row_losses(logits, targets):
    return binary_cross_entropy_with_logits(logits, targets, reduction="none")


def head_losses(heads, y, *args, sample_weight=None, row_losses=row_losses, **kwargs):
    """Return the losses of the heads after the first."""
    labels = Labels(y, sample_weight, row_losses)
    losses = entire_space_loss(labels, heads, *args, **kwargs)
    assert losses.shape == y.shape[1:]
    assert losses[0] == 0
    return losses[1:]


def expectation(table, clicked_at, propensity, imputed=None):
    """Return the loss at the expected sums over all 2^n patterns of clicks.

    The loss is the mean over all rows, plus the ratio of the sums of the weighted
    losses and of the weights.
    """
    z, labels, *_ = table
    means = numerator = denominator = mass = 0.0
    for pattern in itertools.product([0, 1], repeat=N):
        o = np.array(pattern)
        probability = np.prod(np.where(o == 1, clicked_at, 1 - clicked_at))
        # The label of a clicked row is known; that of other rows is 0.
        y = torch.from_numpy(np.stack([o, o * labels], 1).astype(np.float64))
        given = None if imputed is None else column(imputed).logit()
        loss = head_losses(column(z), y, column(propensity), given).item()
        mean = 0.0 if imputed is None else cross_entropy(z, imputed).mean()
        total = (o / propensity).sum()
        means += probability * mean
        numerator += probability * (loss - mean) * total
        denominator += probability * total
        mass += probability
    assert mass == pytest.approx(1)
    return means + numerator / denominator


def test_inverse_propensity_is_consistent_if_the_propensity_is_right(table):
    z, labels, p, _ = table
    delta = cross_entropy(z, labels)
    truth, p = delta.mean(), np.sort(p)[delta.argsort().argsort()]
    assert expectation(table, p, p) == pytest.approx(truth, rel=1e-12)
    # A common factor of the propensities does not matter.
    assert expectation(table, p, p / 2) == pytest.approx(truth, rel=1e-12)
    # Rows with a larger loss are clicked more often.
    assert expectation(table, p, np.ones(N)) > 1.05 * truth


def test_doubly_robust_is_consistent_if_either_is_right(table):
    z, labels, p, wrong = table
    delta, right = cross_entropy(z, labels), labels.clip(1e-9, 1 - 1e-9)
    for propensity, imputed, is_right in [
        (p, wrong, True),
        (p[::-1], right, True),
        (p, right, True),
        (p[::-1], wrong, False),
    ]:
        # The term that trains the imputation is added.
        training = -np.log(np.where(labels == 1, imputed, 1 - imputed))
        training = np.average(training, weights=p / propensity)
        found = expectation(table, p, propensity, imputed) - training
        assert (found == pytest.approx(delta.mean(), rel=1e-6)) == is_right


@pytest.mark.parametrize("doubly_robust", [False, True])
def test_gradients(table, doubly_robust):
    z, labels, p, imputed = table
    o = np.array([1, 0, 1, 1, 0, 1, 0])
    y = torch.from_numpy(np.stack([o, o * labels], 1).astype(np.float64))
    tensors = [column(values).requires_grad_() for values in (z, p, imputed)]
    given = tensors[2].logit() if doubly_robust else None
    head_losses(tensors[0], y, tensors[1], given).sum().backward()
    of_logits, of_propensity, of_imputed = (tensor.grad for tensor in tensors)
    assert of_propensity is None
    predicted, w = 1 / (1 + np.exp(-z)), o / p / (o / p).sum()
    if doubly_robust:
        # Rows without a label move the head towards the imputed label.
        expected = (predicted - imputed) / N + w * (imputed - labels)
        pull = w * (imputed - labels) / (imputed * (1 - imputed))
        assert_allclose(of_imputed[:, 0], pull, rtol=1e-10)
    else:
        expected = w * (predicted - labels)
        assert of_imputed is None
    assert_allclose(of_logits[:, 0], expected, rtol=1e-10)


@pytest.mark.parametrize("head", [-1000.0, -6.0, 0.0, 1000.0])
def test_the_imputation_learns_whatever_the_head_predicts(head):
    y = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    imputed = torch.full((3, 1), -2.0, requires_grad=True)
    args = torch.full((3, 1), head), y, torch.full((3, 1), 0.01)
    head_losses(*args, imputed).sum().backward()
    q = torch.sigmoid(torch.tensor(-2.0)).item()
    assert_allclose(imputed.grad[:, 0], [(q - 1) / 2, q / 2, 0], rtol=1e-5)


def several_heads(n, n_tasks, doubly_robust):
    passed = (torch.rand(n, n_tasks) < 0.7).double().cumprod(dim=1)
    shape = (n, n_tasks - 1)
    imputed = torch.rand(shape).double() if doubly_robust else None
    return torch.randn(shape).double(), passed, torch.rand(shape) + 0.1, imputed


@pytest.mark.parametrize("doubly_robust", [False, True])
def test_every_head_reads_the_previous_task_and_its_own(doubly_robust):
    z, y, p, imputed = several_heads(20, 4, doubly_robust)
    losses = head_losses(z, y, p, imputed)
    assert losses.shape == (3,)
    for k in range(3):
        one = None if imputed is None else imputed[:, [k]]
        alone = head_losses(z[:, [k]], y[:, k : k + 2], p[:, [k]], one)
        torch.testing.assert_close(losses[[k]], alone)


@pytest.mark.parametrize("doubly_robust", [False, True])
def test_weights_count_as_repetitions_of_rows(doubly_robust):
    tensors = several_heads(12, 3, doubly_robust)
    counts = torch.randint(0, 4, (12,))
    repeated = [t if t is None else t.repeat_interleave(counts, 0) for t in tensors]
    weights = counts.double() / counts.double().mean()
    weighted = head_losses(*tensors, sample_weight=weights)
    torch.testing.assert_close(weighted, head_losses(*repeated))


@pytest.mark.parametrize("doubly_robust", [False, True])
@pytest.mark.parametrize("z", [-1000.0, 1000.0])
def test_finite_at_extreme_logits(doubly_robust, z):
    y = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    logits = torch.full((4, 1), z, requires_grad=True)
    imputed = torch.full((4, 1), 0.3, requires_grad=True) if doubly_robust else None
    loss = head_losses(logits, y, torch.full((4, 1), 1e-3), imputed)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
    if imputed is None:
        # Rows without the previous task have no gradient.
        assert logits.grad[[0, 3]].tolist() == [[0.0], [0.0]]
    assert imputed is None or imputed.grad.isfinite().all()


def test_weights_per_task_are_those_of_the_label_that_is_used():
    z, y, p, imputed = several_heads(12, 3, True)
    weights = torch.rand(12, 3).double()
    losses = head_losses(z, y, p, sample_weight=weights)
    robust = head_losses(z, y, p, imputed, sample_weight=weights)
    for k in range(2):
        later = {"sample_weight": weights[:, k + 1]}
        per_row = head_losses(z, y, p, **later)
        torch.testing.assert_close(losses[k], per_row[k])
        # Imputed labels need no label of the later task.
        guessed = row_losses(z[:, k], imputed[:, k].sigmoid())
        change = (guessed * (weights[:, k] - weights[:, k + 1])).mean()
        per_row = head_losses(z, y, p, imputed, **later)
        torch.testing.assert_close(robust[k], per_row[k] + change)


def test_a_missing_label_changes_nothing_where_the_previous_task_did_not_happen():
    z, y, p, imputed = several_heads(12, 2, True)
    y[:4] = 0
    weights = torch.cat([torch.ones(12, 1).double(), y[:, :1]], dim=1)
    losses = head_losses(z, y, p, imputed, sample_weight=weights)
    torch.testing.assert_close(losses, head_losses(z, y, p, imputed))


@pytest.mark.parametrize("name", ["escm2", "escm2_dr", "ddpo", "dcmt"])
def test_probabilities_as_labels_count_as_the_rows_that_they_stand_for(name):
    """A row with P(click) and P(conversion) is a mixture of rows with labels."""
    torch.manual_seed(0)
    n, (z, extra) = 6, torch.randn(2, 6, 1).double().requires_grad_().unbind()
    propensities = tuple((torch.rand(2, n, 1) * 0.8 + 0.1).double())
    click = torch.rand(n, 1).double()
    conversion = click * torch.rand(n, 1).double()
    losses = {
        "escm2": lambda labels, z, _, p: entire_space_loss(labels, z, p[0]),
        "escm2_dr": lambda labels, z, t, p: entire_space_loss(labels, z, p[0], t),
        "ddpo": lambda labels, z, t, p: (
            dual_propensity_loss(labels, z, t, p) + teacher_loss(labels, t)
        ),
        "dcmt": counterfactual_loss,
    }[name]
    soft = Labels(torch.cat([click, conversion], dim=1), None, row_losses)
    # The rows without a click, with a click, and with a conversion, by their shares.
    hard = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]).double()
    shares = torch.cat([1 - click, click - conversion, conversion])[:, 0]
    hard = Labels(hard.repeat_interleave(n, 0), 3 * shares, row_losses)
    # The twins of "dcmt" learn from 1 - CVR instead of the labels without a click.
    read = (z,) if name in ("escm2", "dcmt") else (z, extra)
    one, two = (
        torch.autograd.grad(
            losses(
                labels,
                z.repeat(n_copies, 1),
                extra.repeat(n_copies, 1),
                [p.repeat(n_copies, 1) for p in propensities],
            ).sum(),
            read,
        )
        for labels, n_copies in ((soft, 1), (hard, 3))
    )
    torch.testing.assert_close(one, two)


def test_the_weight_multiplies_the_losses():
    z, y, p, imputed = several_heads(12, 3, True)
    expected = 0.3 * head_losses(z, y, p, imputed)
    torch.testing.assert_close(head_losses(z, y, p, imputed, weight=0.3), expected)


def brier(logits, targets):
    return (logits.sigmoid() - targets) ** 2


@pytest.mark.parametrize("doubly_robust", [False, True])
def test_the_loss_of_a_row_may_be_any(table, doubly_robust):
    z, labels, p, imputed = table
    o = np.array([1, 0, 1, 1, 0, 1, 0])
    y = torch.from_numpy(np.stack([o, o * labels], 1).astype(np.float64))
    tensors = [column(values).requires_grad_() for values in (z, p, imputed)]
    given = tensors[2].logit() if doubly_robust else None
    loss = head_losses(tensors[0], y, tensors[1], given, row_losses=brier).sum()
    loss.backward()
    f = 1 / (1 + np.exp(-z))
    delta, guessed = (f - labels) ** 2, (f - imputed) ** 2
    pull, guessed_pull = (2 * (f - v) * f * (1 - f) for v in (labels, imputed))
    w = o / p / (o / p).sum()
    if doubly_robust:
        of_imputed = (imputed - labels) ** 2
        expected = guessed.mean() + (w * (delta - guessed + of_imputed)).sum()
        slope = guessed_pull / N + w * (pull - guessed_pull)
        gradient = w * 2 * (imputed - labels)
        assert_allclose(tensors[2].grad[:, 0], gradient, rtol=1e-10, atol=1e-15)
    else:
        expected, slope = (w * delta).sum(), w * pull
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert_allclose(tensors[0].grad[:, 0], slope, rtol=1e-10)
