"""The loss with the term: its value, strength, and independence of the sampling."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sk_pwiser.losses import (
    BCE,
    MultiTaskLoss,
    PWiseR,
    _weighted_scores,
    pwiser_loss,
)

NAMES = ["click", "conversion"]

# h(u) and its derivative.
SURROGATES = {
    "hinge": (lambda u: np.maximum(u, 0), lambda u: (u > 0) * 1.0),
    "squared_hinge": (lambda u: np.maximum(u, 0) ** 2, lambda u: 2 * np.maximum(u, 0)),
    "logistic": (lambda u: np.logaddexp(0, u), lambda u: 1 / (1 + np.exp(-u))),
}

every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)


def random_labels(rng, n, n_tasks):
    """Return labels and the depths of the rows; a few rows break the funnel."""
    y = rng.integers(0, 2, size=(n, n_tasks))
    keeps = rng.random(n) < 0.8
    y[keeps] = np.minimum.accumulate(y[keeps], axis=1)
    leading = np.cumprod(y, axis=1).sum(axis=1)
    return y.astype(float), np.where(leading == y.sum(axis=1), leading, -1)


def term_by_hand(f, depth, n_tasks, margins, weight, surrogate, pairs):
    """Return the term and its gradient from the definition, a double sum over rows."""
    h, slope = SURROGATES[surrogate]
    n, value, gradient = len(f), 0.0, np.zeros(len(f))
    for top in range(1, n_tasks + 1) if pairs == "funnel" else [n_tasks]:
        for level in range(top):
            lower = np.flatnonzero(depth == level)
            mass = weight[lower].sum()
            if mass == 0:
                continue
            for v in np.flatnonzero(depth == top):
                u = margins[n_tasks - 1 - level] - (f[v] - f[lower])
                share = weight[v] / n * weight[lower] / mass
                value += (share * h(u)).sum()
                gradient[v] -= (share * slope(u)).sum()
                gradient[lower] += share * slope(u)
    return value, gradient


def loss_and_gradient(loss, logits, y, weight=None):
    logits = torch.as_tensor(logits).clone().requires_grad_()
    losses = loss(logits, torch.as_tensor(y), weight)
    losses.sum().backward()
    return losses.detach().numpy(), logits.grad.numpy()


def depth_is_known(labels, weights):
    """Return whether no label before the first 0, or at it, has a weight of 0."""
    for k, (label, weight) in enumerate(zip(labels, weights, strict=True)):
        if k and weight == 0:
            return False
        if label == 0:
            break
    return True


@pytest.mark.parametrize("pairs", ["conversion", "funnel"])
@every_surrogate
@given(
    n=st.integers(1, 14),
    n_tasks=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    weights=st.sampled_from(["none", "per row", "per task"]),
    selects=st.booleans(),
)
def test_equals_the_definition(surrogate, pairs, n, n_tasks, seed, weights, selects):
    rng = np.random.default_rng(seed)
    y, depth = random_labels(rng, n, n_tasks)
    logits, margins = rng.normal(scale=2, size=(n, n_tasks)), rng.normal(size=n_tasks)
    weight = rng.uniform(0, 2, size=(n, n_tasks)) * (rng.random((n, n_tasks)) < 0.8)
    if weights != "per task":
        weight[:] = weight[:, [0]] if weights == "per row" else 1
    if weights == "per task":
        known = [depth_is_known(*row) for row in zip(y, weight, strict=True)]
        depth = np.where(known, depth, -1)
    given_weight = {"none": None, "per row": weight[:, 0], "per task": weight}[weights]
    names = [f"task_{k}" for k in range(n_tasks)]
    params = {"margins": margins, "surrogate": surrogate, "pairs": pairs}
    loss = PWiseR(names, pwiser_weight=0.7, tasks="all", **params)
    if given_weight is not None:
        given_weight = torch.from_numpy(given_weight)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_weighted_scores, "selects_without_sync", lambda device: selects)
        losses, gradient = loss_and_gradient(loss, logits, y, given_weight)
    for k in range(n_tasks):
        value, slope = term_by_hand(
            logits[:, k], depth, n_tasks, margins, weight[:, k], surrogate, pairs
        )
        p = 1 / (1 + np.exp(-logits[:, k]))
        entropy = -np.where(y[:, k] == 1, np.log(p), np.log1p(-p))
        expected = (weight[:, k] * entropy).mean() + 0.7 * value
        assert_allclose(losses[k], expected, rtol=1e-9, atol=1e-12)
        expected = weight[:, k] * (p - y[:, k]) / n + 0.7 * slope
        assert_allclose(gradient[:, k], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize(
    ("tasks", "heads"),
    [
        ("all", [0, 1]),
        (["click"], [0]),
        ("conversion", [1]),
        ([-1], [1]),
        (-1, [1]),
        (0, [0]),
        (np.int64(1), [1]),
        (np.array([0, -1]), [0, 1]),
        ((-1, "conversion", 1), [1]),
        ([], []),
    ],
)
def test_the_term_is_added_to_the_chosen_heads(tasks, heads, score):
    logits = torch.randn(40, 2)
    click = torch.arange(40) % 2
    y = torch.stack([click, click * (torch.arange(40) % 3 == 0)], 1).float()
    loss = PWiseR(NAMES, pwiser_weight=0.3, tasks=tasks, score=score, margins=(1, 2))
    expected = BCE(NAMES)(logits, y)
    scores = logits if score == "logit" else logits.sigmoid()
    share = y[:, 1].mean()
    for k in heads:
        mean = pwiser_loss(scores[:, k], y, margins=(1.0, 2.0))
        expected[k] += 0.3 * share * mean
    torch.testing.assert_close(loss(logits, y), expected)


def test_weight_0_is_the_base_loss():
    logits, y = torch.randn(20, 2), torch.ones(20, 2)
    y[10:] = 0
    loss = PWiseR(NAMES, pwiser_weight=0)
    assert loss(logits, y).equal(BCE(NAMES)(logits, y))


# The strength of the term.


def pull_of_converted_rows(n, n_converted, weight=None, **params):
    """Return the gradient of the last head's converted rows from term and from BCE.

    All logits are 0, so that all pairs violate the margin.
    """
    y = torch.zeros(n, 2, dtype=torch.float64)
    y[:n_converted] = 1
    y[n_converted : n_converted + n // 4, 0] = 1
    loss, gradients = PWiseR(NAMES, pwiser_weight=0.3, **params), []
    for each in (loss, loss.base):
        logits = torch.zeros(n, 2, dtype=torch.float64)
        gradients.append(loss_and_gradient(each, logits, y, weight)[1])
    both, base = (g[:n_converted, 1] for g in gradients)
    return both - base, base


@pytest.mark.parametrize("rate", [0.5, 0.05, 0.001])
@pytest.mark.parametrize("n", [1000, 4000])
def test_the_pull_on_a_converted_row_does_not_depend_on_rate_and_batch_size(rate, n):
    term, cross_entropy = pull_of_converted_rows(n, round(n * rate))
    # Two lower depths, each with pwiser_weight times the largest pull of
    # cross-entropy, which is twice its pull at a probability of 1/2.
    assert_allclose(term, 2 * 0.3 * -1 / n, rtol=1e-9)
    assert_allclose(term, 2 * 0.3 * 2 * cross_entropy, rtol=1e-9)


def test_the_pull_on_a_converted_row_is_proportional_to_its_weight():
    weight = torch.rand(1000, dtype=torch.float64)
    term, cross_entropy = pull_of_converted_rows(1000, 50, weight)
    assert_allclose(term, 2 * 0.3 * -weight[:50] / 1000, rtol=1e-9)
    assert_allclose(term, 2 * 0.3 * 2 * cross_entropy, rtol=1e-9)


@given(seed=st.integers(0, 10**6), n_tasks=st.integers(1, 3))
def test_the_pull_of_the_hinge_lies_between_its_bounds(seed, n_tasks):
    rng = np.random.default_rng(seed)
    y, depth = random_labels(rng, 30, n_tasks)
    weight = torch.from_numpy(rng.uniform(size=30))
    logits = rng.normal(scale=2, size=(30, n_tasks))
    loss = PWiseR([f"task_{k}" for k in range(n_tasks)], pwiser_weight=0.3)
    gradients = [
        loss_and_gradient(each, logits, y, weight)[1] for each in (loss, loss.base)
    ]
    pull = (gradients[0] - gradients[1])[depth == n_tasks, -1]
    n_lower = len(set(depth) - {-1, n_tasks})
    largest = n_lower * 0.3 * weight.numpy()[depth == n_tasks] / 30
    assert (pull <= 1e-15).all()
    assert (pull >= -largest - 1e-15).all()


def test_with_funnel_pairs_each_depth_has_its_own_share():
    # Equal scores, so that each mean over pairs is the margin of 1.
    n_rows = {3: 2, 2: 10, 1: 30, 0: 58}
    y = torch.cat(
        [torch.tensor([[1.0] * d + [0.0] * (3 - d)] * n) for d, n in n_rows.items()]
    )
    loss = PWiseR(["a", "b", "c"], pwiser_weight=1.0, pairs="funnel")
    term = (loss(torch.zeros(100, 3), y) - loss.base(torch.zeros(100, 3), y))[2]
    assert term.item() == pytest.approx(0.02 * 3 + 0.10 * 2 + 0.30 * 1, rel=1e-5)


# Independence of how often converted rows are drawn.


@every_surrogate
def test_a_row_given_twice_with_half_the_weight_changes_nothing(surrogate):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(12, 2))
    y = np.array([[1.0, 1.0]] * 4 + [[1.0, 0.0]] * 3 + [[0.0, 0.0]] * 5)
    # In place of the last converted row the first one stands twice.
    weight = np.array([1, 1, 1, 0] + [1] * 8, dtype=float)
    expected = loss_and_gradient(
        PWiseR(NAMES, surrogate=surrogate), logits, y, torch.from_numpy(weight)
    )
    repeated = logits.copy()
    repeated[3] = logits[0]
    weight[[0, 3]] = 0.5
    losses, gradient = loss_and_gradient(
        PWiseR(NAMES, surrogate=surrogate), repeated, y, torch.from_numpy(weight)
    )
    gradient[0] += gradient[3]
    gradient[3] = 0
    assert_allclose(losses, expected[0], rtol=1e-12)
    assert_allclose(gradient, expected[1], rtol=1e-9, atol=1e-15)


def batches(lower, converted, n, chances):
    """Yield all batches of n rows with their probabilities.

    A batch has v converted rows with probability `chances[v]`, drawn without
    replacement like its other rows.
    """
    for n_converted, chance in chances.items():
        choices = list(
            itertools.product(
                itertools.combinations(converted, n_converted),
                itertools.combinations(lower, n - n_converted),
            )
        )
        for v, c in choices:
            yield [*v, *c], chance / len(choices)


@every_surrogate
def test_the_expected_gradient_does_not_depend_on_the_rate_in_the_batches(surrogate):
    # Three rows convert and five do not; batches have four rows.
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(8, 1))
    y = np.array([[1.0]] * 3 + [[0.0]] * 5)
    loss = PWiseR(["conversion"], pwiser_weight=1.0, surrogate=surrogate)

    def expected_term(chances):
        """Average the gradient of the term over all batches, weighted to be unbiased.

        A converted row has the weight of its expected number of appearances in a
        batch under uniform sampling, divided by that under `chances`.
        """
        rate = sum(v * chance for v, chance in chances.items()) / 4
        weights = {1: (3 / 8) / rate, 0: (5 / 8) / (1 - rate)}
        total = np.zeros((8, 1))
        for rows, chance in batches(range(3, 8), range(3), 4, chances):
            w = torch.tensor([weights[y[i, 0]] for i in rows], dtype=torch.float64)
            both, base = (
                loss_and_gradient(each, logits[rows], y[rows], w)[1]
                for each in (loss, loss.base)
            )
            total[rows] += chance * (both - base)
        return total

    uniform = expected_term({0: 5 / 70, 1: 30 / 70, 2: 30 / 70, 3: 5 / 70})
    assert abs(uniform).max() > 0.01
    for chances in ({1: 1.0}, {2: 1.0}, {1: 0.5, 3: 0.5}, {0: 0.9, 1: 0.1}):
        assert_allclose(expected_term(chances), uniform, rtol=1e-9, atol=1e-15)


# The base loss, and the history.


FUNNEL = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])


class Base(MultiTaskLoss):
    """A loss that counts the batches it observes and takes no weights per task."""

    n_observed = 0

    def forward(self, logits, y, sample_weight=None, groups=None):
        return (logits * 0).sum(0)

    def row_losses(self, logits, targets):
        return logits - targets

    def observe(self, y, sample_weight=None):
        assert sample_weight is not None
        self.n_observed += 1

    def pop_epoch_record(self):
        count, self.n_observed = self.n_observed, 0
        return {"observed": count}


def test_the_base_loss_decides_on_weights_per_task_and_row_losses():
    loss = PWiseR(NAMES, base=Base)
    assert PWiseR(NAMES).takes_task_weights
    assert not loss.takes_task_weights
    assert not loss.asks_for_groups
    logits, targets = torch.randn(4, 2), torch.rand(4, 2)
    assert loss.row_losses(logits, targets).equal(logits - targets)


def test_the_base_loss_observes_each_batch():
    loss = PWiseR(NAMES, base=Base)
    for _ in range(3):
        loss.observe(FUNNEL, torch.ones(4))
        loss(torch.zeros(4, 2), FUNNEL)
    assert loss.pop_epoch_record() == {"observed": 3, "batches_without_pairs": 0}
    assert loss.pop_epoch_record() == {"observed": 0, "batches_without_pairs": 0}


def test_batches_without_pairs_are_counted_until_the_record_is_taken():
    loss = PWiseR(NAMES)
    for rows in ([0, 1, 2], [1, 2], [0], [0, 3]):
        loss.observe(FUNNEL[rows])
        # Auxiliary heads call forward again, which does not count.
        loss(torch.zeros(len(rows), 2), FUNNEL[rows])
        loss(torch.zeros(len(rows), 2), FUNNEL[rows])
    assert loss.pop_epoch_record() == {"batches_without_pairs": 2}
    assert loss.pop_epoch_record() == {"batches_without_pairs": 0}


@pytest.mark.parametrize(
    ("tasks", "weight", "count"),
    [
        ("conversion", [1.0, 1.0, 0.0, 0.0], 0),
        ("conversion", [0.0, 1.0, 1.0, 1.0], 1),
        ("conversion", [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], 1),
        # The term is that of one head, which leaves the converted row out.
        ("conversion", [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], 1),
        # Without the label of the conversion, its depth is unknown to every head.
        ("all", [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], 1),
        ("all", [[0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], 0),
    ],
)
def test_rows_of_weight_0_join_no_pairs(tasks, weight, count):
    loss = PWiseR(NAMES, tasks=tasks)
    loss.observe(FUNNEL, torch.tensor(weight))
    assert loss.pop_epoch_record() == {"batches_without_pairs": count}


def test_with_funnel_pairs_two_lower_depths_are_enough():
    for pairs, count in (("conversion", 1), ("funnel", 0)):
        loss = PWiseR(NAMES, pairs=pairs)
        loss.observe(FUNNEL[1:])
        assert loss.pop_epoch_record() == {"batches_without_pairs": count}


@pytest.mark.parametrize("pairs", ["conversion", "funnel"])
@pytest.mark.parametrize("surrogate", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("n_converted", [0, 1, 5000])
def test_selected_and_weighted_rows_agree_at_a_low_rate(
    surrogate, pairs, n_converted, monkeypatch
):
    """Also for large scores, ties at the kink, and a batch without pairs."""
    rng = np.random.default_rng(0)
    y = np.zeros((5000, 2))
    y[:n_converted], y[:150, 0] = 1, 1
    logits = torch.from_numpy(rng.integers(-4, 5, size=(5000, 2)) / 2.0)
    logits[::10] = 1000.0
    params = {"surrogate": surrogate, "pairs": pairs, "tasks": "all"}
    loss = PWiseR(NAMES, pwiser_weight=0.3, **params)
    expected = loss_and_gradient(loss, logits, y)
    monkeypatch.setattr(_weighted_scores, "selects_without_sync", lambda device: False)
    for found, known in zip(loss_and_gradient(loss, logits, y), expected, strict=True):
        assert_allclose(found, known, rtol=1e-9, atol=1e-12)
