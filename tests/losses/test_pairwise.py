"""Means over all pairs against the matrix of pairs, in numpy's float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pairs_by_hand import over_pairs

from sk_pwiser.losses import _pairwise
from sk_pwiser.losses._pairwise import SURROGATES, WeightedScores, pairwise_mean

# The number of pairs up to which their matrix is used: always, and never.
PATHS = {"pairs": 10**9, "near-linear": 0}

every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)
every_path = pytest.mark.parametrize("path", PATHS)


def evaluate(
    higher,
    lower,
    margin,
    surrogate,
    higher_weight=None,
    lower_weight=None,
    *,
    path=None,
    dtype=torch.float64,
):
    """Return the mean and its two gradients from the function under test."""
    scores = [
        torch.as_tensor(np.asarray(s, dtype=np.float64)).to(dtype).requires_grad_()
        for s in (higher, lower)
    ]
    weights = [
        None if w is None else torch.as_tensor(np.asarray(w, dtype=np.float64))
        for w in (higher_weight, lower_weight)
    ]
    with pytest.MonkeyPatch.context() as patch:
        if path is not None:
            patch.setattr(_pairwise, "BRUTE_FORCE_PAIRS", PATHS[path])
        sides = map(WeightedScores, scores, weights)
        mean = pairwise_mean(*sides, margin, surrogate)
    mean.backward()
    return mean.item(), *(s.grad.double().numpy() for s in scores)


def refuse(*args):
    """Stand in for the path that a test must not take."""
    raise AssertionError


def assert_same(actual, expected, *, rtol=1e-9, atol=0.0):
    for name, a, e in zip(("value", "higher", "lower"), actual, expected, strict=True):
        assert_allclose(a, e, rtol=rtol, atol=atol, err_msg=name)


# Multiples of 1/4 often give ties and kinks; the others come close to these.
SCORES = st.one_of(
    st.integers(-12, 12).map(lambda i: i / 4),
    st.sampled_from([0.1, 0.3, 0.7, 1e-20, -1e-20, 1 - 2**-53, 1 + 2**-52, 5e-324]),
    st.floats(-30, 30),
)
MARGINS = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.25, 0.1]), st.floats(-5, 5))
WEIGHTS = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 5))


@st.composite
def sides(draw):
    """Draw the scores of two sides, with or without weights."""
    scores = [draw(st.lists(SCORES, min_size=1, max_size=9)) for _ in range(2)]
    weights = [
        draw(st.none() | st.lists(WEIGHTS, min_size=len(s), max_size=len(s)))
        for s in scores
    ]
    return scores, weights


@every_path
@every_surrogate
@settings(max_examples=60)
@given(sides=sides(), margin=MARGINS)
@example(sides=([[1.0], [1e-20, 0.0, -1e-20]], [None, None]), margin=1.0)
@example(sides=([[0.0], [1.0, 0.0, -1.0]], [None, [0.0, 0.0, 0.0]]), margin=1.0)
@example(sides=([[700.0] * 3, [-1.0, 0.0]], [None, None]), margin=0.0)
@example(sides=([[0.0], [0.25]], [None, [2.0**-1040]]), margin=0.0)
def test_equals_all_pairs(surrogate, path, sides, margin):
    scores, weights = sides
    expected = over_pairs(*scores, margin, surrogate, *weights)
    actual = evaluate(*scores, margin, surrogate, *weights, path=path)
    # The rounding error of one score, in a difference that may cancel to 0.
    assert_same(actual, expected, atol=1e-13)


FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(
    higher=st.lists(SCORES | FINITE, min_size=1, max_size=5),
    lower=st.lists(SCORES | FINITE, min_size=6, max_size=9),
    margin=SCORES | FINITE,
    mirrored=st.booleans(),
)
@example(
    higher=[2.0**-53], lower=[-1.0, -1 - 2**-52] * 3, margin=1 + 2**-52, mirrored=0
)
@example(higher=[1.0], lower=[5e-324, 0.0, -5e-324] * 2, margin=1.0, mirrored=0)
@example(higher=[0.0], lower=[5e-324, 0.0, -5e-324] * 2, margin=-5e-324, mirrored=1)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_the_kink_is_that_of_float64_arithmetic(higher, lower, margin, mirrored):
    if mirrored:
        higher, lower = [-c for c in lower], [-v for v in higher]
    # The slopes are counts, which are exact: each wrong pair changes them.
    active = margin - np.subtract.outer(higher, lower) > 0
    _, higher_slope, lower_slope = evaluate(
        higher, lower, margin, "hinge", path="near-linear"
    )
    assert_array_equal(higher_slope, -active.sum(axis=1) / active.size)
    assert_array_equal(lower_slope, active.sum(axis=0) / active.size)


@every_surrogate
@pytest.mark.parametrize("n_higher", [30, 1_000, 100_000])
@pytest.mark.parametrize("weighted", [False, True])
def test_many_equal_scores_match_few_with_large_weights(surrogate, n_higher, weighted):
    rng = np.random.default_rng(n_higher)
    values = rng.normal(scale=3, size=(2, 40))
    kinds = [rng.integers(40, size=n) for n in (n_higher, 100_030 - n_higher)]
    weights = [
        rng.uniform(size=len(kind)) if weighted else np.ones(len(kind))
        for kind in kinds
    ]
    mass = [
        np.bincount(kind, weights=w, minlength=40)
        for kind, w in zip(kinds, weights, strict=True)
    ]
    value, *slopes = over_pairs(*values, 0.5, surrogate, *mass)
    each = [
        np.divide(slope, m, out=np.zeros(40), where=m > 0)[kind] * w
        for slope, m, kind, w in zip(slopes, mass, kinds, weights, strict=True)
    ]
    actual = evaluate(
        *(v[kind] for v, kind in zip(values, kinds, strict=True)),
        0.5,
        surrogate,
        *(weights if weighted else (None, None)),
    )
    assert_same(actual, (value, *each))


@every_path
@every_surrogate
@pytest.mark.parametrize(
    ("higher", "lower", "weights"),
    [
        ([], [1.0, 2.0], (None, None)),
        ([1.0, 2.0], [], (None, None)),
        ([], [], ([], [])),
        ([1.0, 2.0], [3.0], ([0.0, 0.0], None)),
        ([1.0], [3.0, 4.0], ([1.0], [0.0, 0.0])),
        ([1.0], [3.0, 4.0], ([0.0], [0.0, 0.0])),
    ],
)
def test_without_pairs_or_weight_the_mean_is_0(surrogate, path, higher, lower, weights):
    actual = evaluate(higher, lower, 1.0, surrogate, *weights, path=path)
    # `evaluate` has called backward, so the 0 is part of the graph.
    assert actual[0] == 0
    assert_array_equal(actual[1], np.zeros(len(higher)))
    assert_array_equal(actual[2], np.zeros(len(lower)))


@every_path
@every_surrogate
@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e200])
def test_the_scale_of_the_weights_does_not_matter(surrogate, path, scale):
    scores = [0.0, 1.0, 2.5], [0.5, 1.0]
    weights = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5])
    expected = over_pairs(*scores, 1.0, surrogate, *weights)
    scaled = [w * scale for w in weights]
    assert_same(evaluate(*scores, 1.0, surrogate, *scaled, path=path), expected)


@every_path
@every_surrogate
@pytest.mark.parametrize("offset", [0.0, 1000.0, -1000.0])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 1000.0])
def test_large_scores(surrogate, path, offset, spread):
    rng = np.random.default_rng(1)
    # With 16 fractional bits the differences are exact at any offset.
    base = np.round(rng.normal(scale=spread, size=(2, 60)) * 2**16) / 2**16
    higher, lower = base[0][:25] + offset, base[1] + offset
    margin = spread / 4
    expected = over_pairs(higher, lower, margin, surrogate)
    assert_same(evaluate(higher, lower, margin, surrogate, path=path), expected)
    if spread <= 1:  # the two sides far apart, in either order
        for gap in (500.0, -200.0, -2000.0):
            actual = evaluate(higher, lower + gap, margin, surrogate, path=path)
            expected = over_pairs(higher, lower + gap, margin, surrogate)
            assert_same(actual, expected, atol=1e-300)


@every_path
@every_surrogate
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("extreme", [1.0, 1000.0])
def test_floats_of_lower_precision(surrogate, path, dtype, extreme, monkeypatch):
    monkeypatch.setattr(_pairwise, "BRUTE_FORCE_PAIRS", PATHS[path])
    rng = np.random.default_rng(2)
    scores = [
        torch.tensor(rng.normal(size=n) * extreme).to(dtype).requires_grad_()
        for n in (7, 12)
    ]
    mean = pairwise_mean(*map(WeightedScores, scores), 1.0, surrogate)
    mean.backward()
    assert mean.dtype == torch.float32
    expected = over_pairs(*(s.detach().double().numpy() for s in scores), 1, surrogate)
    assert_allclose(mean.item(), expected[0], rtol=1e-6)
    for s, slope in zip(scores, expected[1:], strict=True):
        assert s.grad.dtype == dtype
        # The gradient in float32, rounded to the scores' own precision.
        tiny = torch.finfo(dtype).smallest_normal
        assert_allclose(
            s.grad.double().numpy(), slope, rtol=torch.finfo(dtype).eps, atol=tiny
        )


@pytest.mark.parametrize("spread", [20.0, 50.0, 80.0, 110.0, 150.0])
def test_the_grid_of_the_logistic_surrogate_has_any_number_of_blocks(
    spread, monkeypatch
):
    # Blocks are 32 wide, and those at a distance of two or more are added separately.
    monkeypatch.setattr(_pairwise, "brute_force_sums", refuse)
    rng = np.random.default_rng(8)
    sides = rng.uniform(0, spread, size=40), rng.uniform(0, spread, size=50)
    actual = evaluate(*sides, 0.5, "logistic", path="near-linear")
    assert_same(actual, over_pairs(*sides, 0.5, "logistic"))


@pytest.mark.parametrize("spread", [1e6, 1e12, 1e30])
def test_logistic_evaluates_all_pairs_if_the_grid_would_be_too_large(
    spread, monkeypatch
):
    monkeypatch.setattr(_pairwise, "_node_sums", refuse)
    rng = np.random.default_rng(3)
    higher = rng.normal(size=12) + np.repeat([0.0, -spread, spread], 4)
    lower = rng.normal(size=15) + np.repeat([0.0, -spread, 3 * spread], 5)
    for sides in ((higher, lower), (higher[4:8], lower[:5]), (higher[8:], lower[:10])):
        actual = evaluate(*sides, 0.3, "logistic", path="near-linear")
        assert_same(actual, over_pairs(*sides, 0.3, "logistic"), atol=1e-300)


@every_surrogate
def test_the_size_of_chunks_does_not_matter(surrogate, monkeypatch):
    rng = np.random.default_rng(4)
    sides = rng.normal(scale=40, size=23), rng.normal(scale=40, size=19)
    expected = over_pairs(*sides, 0.5, surrogate)
    monkeypatch.setattr(_pairwise, "CHUNK_PAIRS", 41)
    monkeypatch.setattr(_pairwise, "CHUNK_SCORES", 5)
    for path in PATHS:
        assert_same(evaluate(*sides, 0.5, surrogate, path=path), expected)


@every_path
@every_surrogate
def test_nan_scores_give_nan(surrogate, path):
    for sides in (([math.nan, 1.0], [0.5, 2.0]), ([0.5, 2.0], [0.1, math.nan, 1.0])):
        assert math.isnan(evaluate(*sides, 1.0, surrogate, path=path)[0])


@every_surrogate
def test_an_accelerator_equals_the_cpu(accelerator, surrogate):
    generator = torch.Generator().manual_seed(6)
    cpu = [torch.randn(n, generator=generator).double() for n in (700, 9_000)]
    results = []
    for device in ("cpu", accelerator):
        scores = [s.detach().to(device).requires_grad_() for s in cpu]
        mean = pairwise_mean(*map(WeightedScores, scores), 1.0, surrogate)
        mean.backward()
        results.append((mean.item(), *(s.grad.cpu().numpy() for s in scores)))
    assert_same(results[1], results[0])


@every_surrogate
def test_second_derivatives_raise(surrogate):
    higher, lower = (torch.tensor([s], requires_grad=True) for s in (0.0, 0.5))
    mean = pairwise_mean(*map(WeightedScores, (higher, lower)), 1.0, surrogate)
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(mean, higher, create_graph=True)


def test_weights_get_no_gradient():
    scores = torch.tensor([0.0, 1.0], requires_grad=True)
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    side = WeightedScores(scores, weight)
    pairwise_mean(side, side, 1.0, "hinge").backward()
    assert weight.grad is None
