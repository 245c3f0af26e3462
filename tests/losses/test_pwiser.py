import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sk_pwiser.losses import BCE, PWiseR, pwiser_loss

SURROGATES = {
    "hinge": lambda u: np.maximum(u, 0),
    "squared_hinge": lambda u: np.maximum(u, 0) ** 2,
    "logistic": lambda u: np.logaddexp(0, u),
}


def by_hand(scores, y, margins, h, weight):
    """The definition, pair by pair, in float64."""
    n, n_tasks = y.shape
    depth = np.full(n, -1)
    for i in range(n):
        leading = 0
        while leading < n_tasks and y[i, leading]:
            leading += 1
        if y[i].sum() == leading:
            depth[i] = leading
    total = 0.0
    for level, margin in zip(range(n_tasks - 1, -1, -1), margins, strict=True):
        value, mass = 0.0, 0.0
        for v in np.flatnonzero(depth == n_tasks):
            for c in np.flatnonzero(depth == level):
                value += weight[v] * weight[c] * h(margin - (scores[v] - scores[c]))
                mass += weight[v] * weight[c]
        total += value / mass if mass else 0.0
    return total


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@given(
    n=st.integers(1, 14),
    n_tasks=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    weighted=st.booleans(),
    ties=st.booleans(),
)
def test_equals_the_definition(surrogate, n, n_tasks, seed, weighted, ties):
    rng = np.random.default_rng(seed)
    scores = rng.normal(scale=2, size=n)
    scores = np.round(scores) if ties else scores
    y = rng.integers(0, 2, size=(n, n_tasks))
    margins = rng.normal(size=n_tasks)
    weight = rng.uniform(0.1, 2, size=n) if weighted else np.ones(n)
    loss = pwiser_loss(
        torch.from_numpy(scores),
        torch.from_numpy(y),
        margins=margins.tolist(),
        surrogate=surrogate,
        sample_weight=torch.from_numpy(weight) if weighted else None,
    )
    expected = by_hand(scores, y, margins, SURROGATES[surrogate], weight)
    assert_allclose(loss.item(), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
def test_closed_form_where_a_depth_has_one_score(surrogate):
    y = torch.tensor([[1, 1]] * 3 + [[1, 0]] * 5 + [[0, 0]] * 7)
    scores = torch.tensor([0.3] * 3 + [0.1] * 5 + [-1.0] * 7, dtype=torch.float64)
    loss = pwiser_loss(scores, y, margins=(0.5, 2.0), surrogate=surrogate)
    h = SURROGATES[surrogate]
    assert loss.item() == pytest.approx(h(0.5 - 0.2) + h(2.0 - 1.3))
    twice = pwiser_loss(
        scores.repeat(2), y.repeat(2, 1), margins=(0.5, 2.0), surrogate=surrogate
    )
    assert twice.item() == pytest.approx(loss.item())


@pytest.mark.parametrize("rows", [[(0, 0), (1, 0)], [(1, 1)], [(0, 1), (0, 0)], []])
def test_no_pairs_no_loss_no_gradient(rows):
    scores = torch.randn(len(rows), requires_grad=True)
    loss = pwiser_loss(scores, torch.tensor(rows).reshape(-1, 2))
    loss.backward()
    assert loss.item() == 0
    assert (scores.grad == 0).all()


def test_gradients_raise_converted_rows_and_lower_the_others():
    y = torch.tensor([[1, 1], [1, 0], [0, 0], [0, 1]])
    scores = torch.zeros(4, requires_grad=True)
    pwiser_loss(scores, y).backward()
    assert scores.grad.sum() == 0
    assert scores.grad[0] < 0
    assert (scores.grad[1:3] > 0).all()
    assert scores.grad[3] == 0


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize(
    ("tasks", "heads"),
    [("all", [0, 1]), (["click"], [0]), ([-1], [1]), ("conversion", [1]), ([], [])],
)
def test_adds_the_weighted_term_to_the_chosen_heads(tasks, heads, score):
    names = ["click", "conversion"]
    logits = torch.randn(40, 2)
    click = torch.arange(40) % 2
    y = torch.stack([click, click * (torch.arange(40) % 3 == 0)], 1).float()
    loss = PWiseR(names, pwiser_weight=0.3, tasks=tasks, score=score, margins=(1, 2))
    expected = BCE(names)(logits, y)
    scores = logits if score == "logit" else logits.sigmoid()
    for k in heads:
        expected[k] += 0.3 * pwiser_loss(scores[:, k], y, margins=(1.0, 2.0))
    torch.testing.assert_close(loss(logits, y), expected)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"surrogate": "exponential"}, "surrogate .*'hinge'.* got 'exponential'"),
        ({"score": "rank"}, "score must be .* got 'rank'"),
        ({"margins": (1.0,)}, r"margins .* 2 here; got \(1.0,\)"),
        ({"margins": float("nan")}, "margins must be finite; got nan"),
        ({"tasks": ["buy"]}, r"tasks .*\['click', 'conversion'\]; got 'buy'"),
        ({"tasks": [2]}, "tasks .* got 2"),
        ({"pwiser_weight": -1.0}, "pwiser_weight must be finite and >= 0; got -1.0"),
    ],
)
def test_bad_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        PWiseR(["click", "conversion"], **params)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"got \(3,\) and \(2, 2\)"):
        pwiser_loss(torch.zeros(3), torch.zeros(2, 2))
