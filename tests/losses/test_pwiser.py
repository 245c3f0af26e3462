"""PWiseR and its term against sums over all pairs, and the strength of the term."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pairs_by_hand import SURROGATES, over_pairs

from sk_pwiser.losses import BCE, MultiTaskLoss, PWiseR, _pairwise, pwiser_loss

NAMES = ["click", "conversion"]

every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)
every_pairs = pytest.mark.parametrize("pairs", ["conversion", "funnel"])


def random_labels(rng, n, n_tasks):
    """Return labels and the depths of the rows; a few rows break the funnel."""
    y = rng.integers(0, 2, size=(n, n_tasks))
    keeps = rng.random(n) < 0.8
    y[keeps] = np.minimum.accumulate(y[keeps], axis=1)
    leading = np.cumprod(y, axis=1).sum(axis=1)
    return y.astype(float), np.where(leading == y.sum(axis=1), leading, -1)


def means_by_hand(f, depth, n_tasks, margins, weight, surrogate, pairs):
    """Yield the share of the higher rows, the mean and its gradient, per two depths."""
    for top in range(1, n_tasks + 1) if pairs == "funnel" else [n_tasks]:
        for level in range(top):
            v, c = np.flatnonzero(depth == top), np.flatnonzero(depth == level)
            mean, *slopes = over_pairs(
                f[v],
                f[c],
                margins[n_tasks - 1 - level],
                surrogate,
                weight[v],
                weight[c],
            )
            gradient = np.zeros(len(f))
            gradient[v], gradient[c] = slopes
            yield weight[v].sum() / len(f), mean, gradient


def loss_and_gradient(loss, logits, y, weight=None):
    logits = torch.as_tensor(logits).clone().requires_grad_()
    losses = loss(logits, torch.as_tensor(y), weight)
    losses.sum().backward()
    return losses.detach().numpy(), logits.grad.numpy()


def depth_is_known(labels, weights):
    """Return whether no label before the first 0, or at it, has a weight of 0."""
    for label, weight in zip(labels, weights, strict=True):
        if weight == 0:
            return False
        if label == 0:
            break
    return True


@every_pairs
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
        patch.setattr(_pairwise, "SELECTING", ("cpu",) if selects else ())
        losses, gradient = loss_and_gradient(loss, logits, y, given_weight)
    for k in range(n_tasks):
        args = logits[:, k], depth, n_tasks, margins, weight[:, k], surrogate, pairs
        means = list(means_by_hand(*args))
        value = sum(share * mean for share, mean, _ in means)
        slope = sum(share * gradient for share, _, gradient in means)
        p = 1 / (1 + np.exp(-logits[:, k]))
        entropy = -np.where(y[:, k] == 1, np.log(p), np.log1p(-p))
        expected = (weight[:, k] * entropy).mean() + 0.7 * value
        assert_allclose(losses[k], expected, rtol=1e-9, atol=1e-12)
        expected = weight[:, k] * (p - y[:, k]) / n + 0.7 * slope
        assert_allclose(gradient[:, k], expected, rtol=1e-9, atol=1e-12)
        if weights == "per task":
            continue
        # The function is the sum of the means, of one score per row.
        scores = torch.tensor(logits[:, k], requires_grad=True)
        params["sample_weight"] = given_weight
        total = pwiser_loss(scores, torch.from_numpy(y), **params)
        total.backward()
        values, slopes = zip(*(each[1:] for each in means), strict=True)
        assert_allclose(total.item(), sum(values), rtol=1e-9, atol=1e-12)
        assert_allclose(scores.grad, sum(slopes), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rows", [[(0, 0), (1, 0)], [(1, 1)], [(0, 1), (0, 0)], []])
def test_without_pairs_loss_and_gradient_are_0(rows):
    scores = torch.randn(len(rows), requires_grad=True)
    loss = pwiser_loss(scores, torch.tensor(rows).reshape(-1, 2))
    loss.backward()
    assert loss.item() == 0
    assert (scores.grad == 0).all()


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize(
    ("tasks", "heads"),
    [
        *(("all", [0, 1]), (["click"], [0]), ("conversion", [1]), ([1], [1]), (0, [0])),
        *((np.int64(1), [1]), (np.array([0, 1]), [0, 1]), (("conversion", 1), [1])),
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
    # The two rows have weights for different heads.
    loss = PWiseR(["click", "conversion"], tasks="all")
    loss.observe(torch.tensor([[1.0, 1], [0, 0]]), torch.eye(2))
    assert loss.pop_epoch_record() == {"batches_without_pairs": 1}


@pytest.mark.parametrize(
    ("tasks", "weight", "count"),
    [
        ("conversion", [1.0, 1.0, 0.0, 0.0], 0),
        ("conversion", [0.0, 1.0, 1.0, 1.0], 1),
        ("conversion", [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], 1),
        # The term is that of one head, which leaves the converted row out.
        ("conversion", [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], 1),
        # Without the label of one task, its depth is unknown to every head.
        ("all", [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], 1),
        ("all", [[0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], 1),
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


@every_pairs
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
    monkeypatch.setattr(_pairwise, "SELECTING", ())
    for found, known in zip(loss_and_gradient(loss, logits, y), expected, strict=True):
        assert_allclose(found, known, rtol=1e-9, atol=1e-12)


class Series:
    """An array-like that is no sequence, such as a Series of pandas."""

    def __init__(self, values):
        self.values = values

    def tolist(self):
        return self.values


@pytest.mark.parametrize(
    ("margins", "expected"),
    [
        ((0.5, 2), 2.5),
        ([np.float32(0.5), np.int64(2)], 2.5),
        (np.array([0.5, 2.0], dtype=np.float16), 2.5),
        (torch.tensor([0.5, 2.0]), 2.5),
        (Series([0.5, 2.0]), 2.5),
        *((one(2), 4.0) for one in (int, np.float32, np.array, torch.tensor)),
    ],
)
def test_margins_are_numbers_or_sequences_of_any_kind(margins, expected):
    scores, y = torch.zeros(3), torch.tensor([[1, 1], [1, 0], [0, 0]])
    assert pwiser_loss(scores, y, margins=margins).item() == expected


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"margins": (1.0,)}, ValueError, r"margins must .* 2 here; got \(1.0,\)"),
        ({"margins": float("nan")}, ValueError, "margins must be finite; got nan"),
        ({"margins": [1, np.inf]}, ValueError, r"margins\[1\] must be finite; got inf"),
        ({"margins": [1, "2"]}, TypeError, r"margins\[1\] must be a number; got '2'"),
        ({"margins": "1"}, TypeError, "margins must be a number or .*; got '1'"),
        ({"margins": {1.0, 2.0}}, TypeError, "margins must be a number or .*; got {1"),
        ({"margins": {"a": 1, "b": 2}}, TypeError, "margins must .*; got {'a'"),
        ({"margins": np.ones((2, 2))}, TypeError, r"margins\[0\] must .*; got \[1.0, "),
        ({"margins": True}, TypeError, "margins must be a number; got True"),
        ({"surrogate": None}, TypeError, "surrogate must .*; got None"),
        ({"sample_weight": torch.ones(3, 1)}, ValueError, r"sample_weight .*\(3, 1\)"),
        ({"y": torch.zeros(2, 2)}, ValueError, r"got \[\(3,\), \(2, 2\)\]"),
    ],
)
def test_bad_arguments_of_the_function_are_named(params, error, message):
    given = {"scores": torch.zeros(3), "y": torch.zeros(3, 2), **params}
    with pytest.raises(error, match=message):
        pwiser_loss(given.pop("scores"), given.pop("y"), **given)
