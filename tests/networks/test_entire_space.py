"""What the networks that correct ESMM share, and their losses over all rows."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from refusals import X, Y, small
from rewrites import RATES, batch, cross_entropy, funnel, make, row_losses

from sk_pwiser.networks import DCMT, DDPO, ESCM2, ESMM, Labels
from sk_pwiser.networks._entire_space import (
    counterfactual_loss,
    dual_propensity_loss,
    entire_space_loss,
    prior_loss,
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


UNITS = {"tower_units": (8, 7)}
every_network = pytest.mark.parametrize(
    ("kind", "params"),
    [(ESCM2, {}), (ESCM2, {"variant": "dr"}), (DCMT, {}), (DDPO, {})],
)


@every_network
def test_predicts_as_esmm_with_the_same_weights(kind, params):
    plain, network, inputs = (
        make(ESMM, 3, **UNITS),
        make(kind, 3, **params, **UNITS),
        batch(),
    )
    plain.load_state_dict(network.state_dict(), strict=False)
    assert torch.equal(plain(*inputs).logits, network(*inputs).logits)


@every_network
def test_one_task_needs_no_correction(kind, params):
    network = make(kind, 1, **params, **UNITS)
    assert network(*batch()).extra_losses == {}
    assert {name.partition(".")[0] for name in network.state_dict()} == {
        "input_layer",
        "towers",
    }


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("escm2", {}),
        ("dcmt", {"prior_weight": 0}),
        ("ddpo", {"teacher_weight": 0}),
    ],
)
def test_weights_of_zero_train_like_esmm(name, params):
    params["tower_units"] = (8,)
    plain = small(network="esmm", network_params={"tower_units": (8,)}).fit(X, Y)
    for weight, is_same in [(0, True), (1, False)]:
        params["correction_weight"] = weight
        found = small(network=name, network_params=params).fit(X, Y).predict_proba(X)
        assert np.allclose(found, plain.predict_proba(X), rtol=1e-5) == is_same


@pytest.mark.parametrize("kind", [DCMT, DDPO])
def test_propensities_are_limited_and_take_no_gradient(kind):
    network = make(kind, 3, scale=30, min_propensity=0.01, **UNITS)
    keywords = network(*batch(200)).extra_losses["correction"].keywords
    rates = np.array(RATES[:2])
    limits = 0.01 * np.array([rates, 1 - rates])
    assert_allclose(network.smallest_propensities, limits, rtol=1e-5)
    pairs = zip(keywords["propensities"], network.smallest_propensities, strict=True)
    for propensity, smallest in pairs:
        assert not propensity.requires_grad
        assert (propensity >= smallest).all()
        assert (propensity == smallest).any()
        assert propensity.max() <= 1


# The losses of labels, heads, the second towers, and propensities.
DUAL_LOSSES = {
    "mirrored": lambda labels, *args: counterfactual_loss(labels, *args),
    "observed": lambda labels, *args: counterfactual_loss(labels, *args, False),
    "prior": lambda labels, z, others, p: prior_loss(labels, z, others),
    "dual propensity": lambda labels, *args: dual_propensity_loss(labels, *args),
    "teacher": lambda labels, z, others, p: teacher_loss(labels, others),
}


@pytest.mark.parametrize("name", DUAL_LOSSES)
def test_dual_weights_count_as_repetitions_of_rows(name):
    heads, others, p = torch.randn(12, 2), torch.randn(12, 2), torch.rand(12, 2)
    p, y, counts = 0.1 + 0.8 * p, funnel(12, 3), torch.randint(0, 4, (12,))
    weights = counts / counts.float().mean()
    loss = DUAL_LOSSES[name]
    weighted = loss(Labels(y, weights, row_losses), heads, others, (p, 1 - p))
    y, heads, others, p = (
        t.repeat_interleave(counts, 0) for t in (y, heads, others, p)
    )
    repeated = loss(Labels(y, None, row_losses), heads, others, (p, 1 - p))
    torch.testing.assert_close(weighted, repeated)


@pytest.mark.parametrize("name", ["mirrored", "dual propensity"])
def test_dual_weights_per_task_are_those_of_the_label_that_is_used(name):
    heads, others, y = torch.randn(40, 2), torch.randn(40, 2), funnel(40, 3)
    half, weights = torch.full((40, 2), 0.5), torch.rand(40, 3)
    args = heads, others, (half, half)
    losses = DUAL_LOSSES[name](Labels(y, weights, row_losses), *args)
    for k in (1, 2):
        # The label of the task where the previous one happened, and else that label.
        used = torch.where(y[:, k - 1] == 1, weights[:, k], weights[:, k - 1])
        expected = DUAL_LOSSES[name](Labels(y, used, row_losses), *args)
        torch.testing.assert_close(losses[k], expected[k])


@pytest.mark.parametrize("z", [-1000.0, 1000.0])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_dual_losses_are_finite_without_rows_of_a_kind(z, sign, y):
    heads = torch.full((4, 1), z, requires_grad=True)
    others = torch.full((4, 1), sign * z, requires_grad=True)
    labels = Labels(torch.full((4, 2), y), None, row_losses)
    p = torch.full((4, 1), 0.05), torch.full((4, 1), 0.95)
    losses = torch.stack(
        [loss(labels, heads, others, p) for loss in DUAL_LOSSES.values()]
    )
    losses.sum().backward()
    assert losses.isfinite().all()
    assert heads.grad.isfinite().all()
    assert others.grad.isfinite().all()
