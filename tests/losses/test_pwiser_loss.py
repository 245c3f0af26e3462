"""The mean over pairs against its definition, in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sk_pwiser.losses import pwiser_loss

SURROGATES = {
    "hinge": torch.relu,  # its gradient at the kink is 0, that of clamp is 1
    "squared_hinge": lambda u: torch.relu(u) ** 2,
    "logistic": lambda u: torch.logaddexp(u, torch.zeros_like(u)),
}


def by_hand(scores, y, margins, h, weight, pairs="conversion"):
    """Return the sum of the means from the matrices of pairs."""
    n, n_tasks = y.shape
    depth = np.full(n, -1)
    for i in range(n):
        leading = 0
        while leading < n_tasks and y[i, leading]:
            leading += 1
        if y[i].sum() == leading:
            depth[i] = leading
    total = 0 * scores.sum()
    for top in range(1, n_tasks + 1) if pairs == "funnel" else [n_tasks]:
        for level in range(top):
            v, c = np.flatnonzero(depth == top), np.flatnonzero(depth == level)
            if len(v) and len(c):
                u = margins[n_tasks - 1 - level] - (scores[v][:, None] - scores[c])
                mass = weight[v][:, None] * weight[c]
                total = total + (mass * h(u)).sum() / mass.sum()
    return total


@pytest.mark.parametrize("pairs", ["conversion", "funnel"])
@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@given(
    n=st.integers(1, 14),
    n_tasks=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    weighted=st.booleans(),
    ties=st.booleans(),
)
def test_equals_the_definition(surrogate, pairs, n, n_tasks, seed, weighted, ties):
    rng = np.random.default_rng(seed)
    scores = rng.normal(scale=2, size=n)
    scores = torch.from_numpy(np.round(scores) if ties else scores).requires_grad_()
    y = rng.integers(0, 2, size=(n, n_tasks))
    margins = np.round(rng.normal(size=n_tasks)) if ties else rng.normal(size=n_tasks)
    weight = torch.from_numpy(rng.uniform(0.1, 2, size=n))
    loss = pwiser_loss(
        scores,
        torch.from_numpy(y),
        margins=margins,
        surrogate=surrogate,
        pairs=pairs,
        sample_weight=weight if weighted else None,
    )
    weight = weight if weighted else torch.ones(n, dtype=torch.float64)
    expected = by_hand(scores, y, margins, SURROGATES[surrogate], weight, pairs)
    assert_allclose(loss.item(), expected.item(), rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(value, scores)[0] for value in (loss, expected)]
    assert_allclose(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
def test_closed_form_for_equal_scores_at_each_depth(surrogate):
    y = torch.tensor([[1, 1]] * 3 + [[1, 0]] * 5 + [[0, 0]] * 7)
    scores = torch.tensor([0.3] * 3 + [0.1] * 5 + [-1.0] * 7, dtype=torch.float64)
    loss = pwiser_loss(scores, y, margins=(0.5, 2.0), surrogate=surrogate)
    one, two = SURROGATES[surrogate](torch.tensor([0.5 - 0.2, 2.0 - 1.3]))
    assert loss.item() == pytest.approx((one + two).item())
    twice = pwiser_loss(
        scores.repeat(2), y.repeat(2, 1), margins=(0.5, 2.0), surrogate=surrogate
    )
    assert twice.item() == pytest.approx(loss.item())


@pytest.mark.parametrize("rows", [[(0, 0), (1, 0)], [(1, 1)], [(0, 1), (0, 0)], []])
def test_without_pairs_loss_and_gradient_are_0(rows):
    scores = torch.randn(len(rows), requires_grad=True)
    loss = pwiser_loss(scores, torch.tensor(rows).reshape(-1, 2))
    loss.backward()
    assert loss.item() == 0
    assert (scores.grad == 0).all()


def test_descent_raises_converted_rows_and_lowers_the_others():
    y = torch.tensor([[1, 1], [1, 0], [0, 0], [0, 1]])
    scores = torch.zeros(4, requires_grad=True)
    pwiser_loss(scores, y).backward()
    assert scores.grad.sum() == 0
    assert scores.grad[0] < 0
    assert (scores.grad[1:3] > 0).all()
    assert scores.grad[3] == 0


# Arguments.


class Series:
    """An array-like that is no sequence, such as a Series of pandas."""

    def __init__(self, values):
        self.values = values

    def tolist(self):
        return self.values


@pytest.mark.parametrize(
    "margins",
    [
        (0.5, 2),
        [np.float32(0.5), np.int64(2)],
        np.array([0.5, 2.0]),
        np.array([0.5, 2.0], dtype=np.float16),
        torch.tensor([0.5, 2.0]),
        Series([0.5, 2.0]),
        iter([0.5, 2.0]),
    ],
)
def test_margins_may_be_any_sequence_of_numbers(margins):
    scores, y = torch.zeros(3), torch.tensor([[1, 1], [1, 0], [0, 0]])
    assert pwiser_loss(scores, y, margins=margins).item() == 2.5


@pytest.mark.parametrize(
    "margin", [2, np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2.0)]
)
def test_one_margin_may_be_any_number(margin):
    scores, y = torch.zeros(3), torch.tensor([[1, 1], [1, 0], [0, 0]])
    assert pwiser_loss(scores, y, margins=margin).item() == 4.0


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"margins": (1.0,)}, ValueError, r"margins must .* 2 here; got \(1.0,\)"),
        ({"margins": np.ones(3)}, ValueError, r"2 here; got array\(\[1., 1., 1.\]\)"),
        ({"margins": float("nan")}, ValueError, "margins must be finite; got nan"),
        ({"margins": [1, np.inf]}, ValueError, r"margins\[1\] must be finite; got inf"),
        ({"margins": [1, "2"]}, TypeError, r"margins\[1\] must be a number; got '2'"),
        ({"margins": "1"}, TypeError, "margins must be a number or .*; got '1'"),
        ({"margins": None}, TypeError, "margins must be a number or .*; got None"),
        ({"margins": {1.0, 2.0}}, TypeError, "margins must be a number or .*; got {1"),
        ({"margins": {"a": 1, "b": 2}}, TypeError, "margins must .*; got {'a'"),
        ({"margins": np.ones((2, 2))}, TypeError, r"margins\[0\] must .*; got \[1.0, "),
        ({"margins": True}, TypeError, "margins must be a number; got True"),
        ({"surrogate": "ramp"}, ValueError, "surrogate must .*'hinge'.*; got 'ramp'"),
        ({"surrogate": None}, TypeError, "surrogate must .*; got None"),
        ({"pairs": "all"}, ValueError, "pairs must .*'funnel'.*; got 'all'"),
        ({"sample_weight": torch.ones(3, 1)}, ValueError, r"sample_weight .*\(3, 1\)"),
        ({"scores": torch.zeros(3, dtype=int)}, ValueError, "scores must be floats"),
        ({"y": torch.zeros(2, 2)}, ValueError, r"got \(3,\) and \(2, 2\)"),
    ],
)
def test_bad_arguments_are_named(params, error, message):
    given = {"scores": torch.zeros(3), "y": torch.zeros(3, 2), **params}
    with pytest.raises(error, match=message):
        pwiser_loss(given.pop("scores"), given.pop("y"), **given)
