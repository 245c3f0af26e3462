import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sk_pwiser.losses import BCE, PWiseR, pwiser_loss

SURROGATES = {
    "hinge": torch.relu,  # its gradient at the kink is 0, that of clamp is 1
    "squared_hinge": lambda u: torch.relu(u) ** 2,
    "logistic": lambda u: torch.logaddexp(u, torch.zeros_like(u)),
}


def by_hand(scores, y, margins, h, weight, pairs="conversion"):
    """The definition, with the matrix of pairs, in float64."""
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
        margins=margins.tolist(),
        surrogate=surrogate,
        pairs=pairs,
        sample_weight=weight if weighted else None,
    )
    weight = weight if weighted else torch.ones(n, dtype=torch.float64)
    expected = by_hand(scores, y, margins, SURROGATES[surrogate], weight, pairs)
    assert_allclose(loss.item(), expected.item(), rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(value, scores)[0] for value in (loss, expected)]
    assert_allclose(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pairs", ["conversion", "funnel"])
@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@pytest.mark.parametrize("n", [3, 60, 800])
def test_rows_are_weighted_in_place_of_chosen_where_the_host_would_wait(
    monkeypatch, n, surrogate, pairs
):
    generator = np.random.default_rng(n)
    y = torch.from_numpy(np.minimum.accumulate(generator.integers(0, 2, (n, 3)), 1))
    scores = torch.from_numpy(generator.normal(size=n)).requires_grad_()
    weight = torch.from_numpy(generator.uniform(0, 2, size=n))

    def value_and_gradient(sample_weight):
        params = {"margins": (1.0, 0.5, 1.0), "surrogate": surrogate, "pairs": pairs}
        loss = pwiser_loss(scores, y, sample_weight=sample_weight, **params)
        return loss.item(), torch.autograd.grad(loss, scores)[0]

    chosen = [value_and_gradient(w) for w in (None, weight)]
    monkeypatch.setattr(
        "sk_pwiser.losses._pwiser_term.host_knows", lambda device: False
    )
    weighted = [value_and_gradient(w) for w in (None, weight)]
    for (value, gradient), (expected, expected_gradient) in zip(
        weighted, chosen, strict=True
    ):
        assert value == pytest.approx(expected, rel=1e-8)
        assert_allclose(gradient, expected_gradient, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
def test_closed_form_where_a_depth_has_one_score(surrogate):
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
        ({"pairs": "all"}, r"pairs .*\['conversion', 'funnel'\]; got 'all'"),
        ({"memory": -1}, "memory must be an integer >= 0; got -1"),
        ({"base": "pwiser"}, "base must be a loss without the term; got 'pwiser'"),
        ({"base": "bcd"}, r"base must be one of .*'bce'.*; got 'bcd'"),
        ({"pwiser_weight": -1.0}, "pwiser_weight must be finite and >= 0; got -1.0"),
    ],
)
def test_bad_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        PWiseR(["click", "conversion"], **params)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"got \(3,\) and \(2, 2\)"):
        pwiser_loss(torch.zeros(3), torch.zeros(2, 2))


FUNNEL = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])


def term_of(loss, logits, y, sample_weight=None):
    """The pairwise part of the last task's loss."""
    both = loss(logits, y, sample_weight)[1]
    return both - loss.base(logits, y, sample_weight)[1]


def test_memory_lets_converted_rows_of_earlier_batches_take_part():
    loss = PWiseR(["click", "conversion"], pwiser_weight=1.0, memory=3).train()
    first = torch.tensor([[0.0, 1.0], [0.0, 0.5], [0.0, 0.0], [0.0, -1.0]])
    assert term_of(loss, first, FUNNEL) == pytest.approx(0.5 + (0 + 0) / 2)
    # No row converts here: the score 1 of the first batch stands against these.
    later = torch.tensor([[0.0, 0.2], [0.0, 0.6]], requires_grad=True)
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    term = term_of(loss, later, y)
    assert term.item() == pytest.approx(0.2 + 0.6)
    term.backward()
    assert later.grad[:, 1].tolist() == pytest.approx([1.0, 1.0])
    assert loss.pop_epoch_record() == {"batches_without_pairs": 0}


def test_memory_is_bounded_keeps_the_newest_and_rests_in_evaluation():
    loss = PWiseR(["click", "conversion"], pwiser_weight=1.0, memory=2).train()
    converted = torch.ones(1, 2)
    for score in (9.0, 3.0, 2.0):
        loss(torch.full((1, 2), score), converted)
    lower = torch.tensor([[1.0, 0.0]])
    # Scores 2 and 3 are left: hinges of 1 - (2 - 1.5) and of 1 - (3 - 1.5).
    term = term_of(loss, torch.full((1, 2), 1.5), lower)
    assert term.item() == pytest.approx((0.5 + 0.0) / 2)
    loss.eval()
    assert term_of(loss, torch.full((1, 2), 1.5), lower).item() == 0
    assert loss.pop_epoch_record() == {"batches_without_pairs": 4}


def test_memory_keeps_weights():
    loss = PWiseR(["click", "conversion"], pwiser_weight=1.0, memory=5).train()
    y = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    logits = torch.tensor([[0.0, 0.5], [0.0, 0.5]])
    loss(logits, y, torch.tensor([3.0, 1.0]))
    later = torch.tensor([[0.0, 1.0], [0.0, 0.5]])
    # Hinges of 1 and 0.5 with the weights 3, from the memory, and 1.
    term = term_of(loss, later, y, torch.tensor([1.0, 2.0]))
    assert term.item() == pytest.approx((3 * 1.0 + 1 * 0.5) / 4)


def test_batches_without_pairs_are_counted_until_asked():
    loss = PWiseR(["click", "conversion"])
    for rows in ([0, 1, 2], [1, 2], [0], [0, 3]):
        loss(torch.zeros(len(rows), 2), FUNNEL[rows])
    assert loss.pop_epoch_record() == {"batches_without_pairs": 2}
    assert loss.pop_epoch_record() == {"batches_without_pairs": 0}
