"""Numeric columns: the three encodings against other ways to compute them."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from refusals import X, Y, refuses, small
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata
from sklearn.preprocessing import SplineTransformer

from sk_pwiser._table._encoder import TableEncoder
from sk_pwiser._table._numeric import (
    LARGEST_DEVIATION,
    N_BINS,
    N_QUANTILES,
    NUMERIC_ENCODINGS,
)
from sk_pwiser.networks._input import BinExpansion

NAMES = sorted(NUMERIC_ENCODINGS)
every_encoding = pytest.mark.parametrize("name", NAMES)


def fit(name, values, weight=None):
    """Return an encoder of one column and what it made of it."""
    encoder = TableEncoder(None, numeric_encoding=name)
    table = np.asarray(values, dtype=float).reshape(-1, 1)
    return encoder, encoder.fit_transform(table, weight)[1]


def place(encoder, values):
    return encoder.transform(np.asarray(values, dtype=float).reshape(-1, 1))[1][:, 0]


def normal_scores(values):
    scores = ndtri((rankdata(values) - 0.5) / len(values))
    return scores, scores.mean(), scores.std()


def test_quantile_encoding_against_ranks():
    values = np.random.default_rng(0).poisson(20, size=700) ** 3
    scores, mean, deviation = normal_scores(values)
    _, encoded = fit("quantile", values)
    assert_allclose(encoded[:, 0], (scores - mean) / deviation, rtol=1e-5, atol=1e-6)


def test_quantile_encoding_of_many_values_keeps_their_ranks():
    rng = np.random.default_rng(0)
    values = rng.lognormal(0, 3, size=20_000)
    values[rng.random(20_000) < 0.4] = 1.0
    _, mean, deviation = normal_scores(values)
    encoder, encoded = fit("quantile", values)
    assert len(encoder.columns_[0].values_) <= 2 * N_QUANTILES
    ranks = ndtr(encoded[:, 0] * deviation + mean)
    expected = (rankdata(values) - 0.5) / len(values)
    assert_allclose(ranks, expected, rtol=0, atol=1.01 / N_QUANTILES)


@pytest.mark.parametrize("weighted", [False, True])
def test_quantile_encoding_has_mean_0_and_deviation_1(weighted):
    rng = np.random.default_rng(0)
    weight = rng.random(3_000) if weighted else None
    _, encoded = fit("quantile", rng.exponential(size=3_000).round(2), weight)
    mean = np.average(encoded[:, 0], weights=weight)
    assert mean == pytest.approx(0, abs=1e-5)
    variance = np.average((encoded[:, 0] - mean) ** 2, weights=weight)
    assert variance == pytest.approx(1, abs=1e-5)


def expand(positions, n_bins):
    positions = torch.as_tensor(positions, dtype=torch.float32).reshape(-1, 1)
    return BinExpansion([n_bins])(positions).numpy()


def linear_splines(values, edges):
    """Components of the piecewise linear encoding, as sums of hat functions."""
    splines = SplineTransformer(
        degree=1, knots=edges.reshape(-1, 1), extrapolation="constant"
    )
    hats = splines.fit_transform(np.asarray(values, dtype=float).reshape(-1, 1))
    return hats[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]


def test_piecewise_linear_encoding_against_splines_between_quantiles():
    rng = np.random.default_rng(0)
    train, new = rng.lognormal(size=(2, 500))
    encoder, _ = fit("piecewise_linear", train)
    edges = np.quantile(train, np.arange(N_BINS + 1) / N_BINS, method="inverted_cdf")
    assert encoder.numeric_bins_ == [N_BINS]
    beyond = [*new, -1.0, train.max() + 1, *edges]
    assert_allclose(
        expand(place(encoder, beyond), N_BINS),
        linear_splines(beyond, edges),
        rtol=0,
        atol=2e-6,
    )


def test_few_values_are_told_apart_by_one_bin_a_step():
    encoder, _ = fit("piecewise_linear", [5, 1, 1, 2, 5, 5, 5, 5])
    assert encoder.numeric_bins_ == [2]
    assert place(encoder, [1, 2, 5]).tolist() == [0, 1, 2]
    assert_allclose(place(encoder, [0, 1.5, 3, 9]), [0, 0.5, 1 + 1 / 3, 2], rtol=1e-6)


def test_bins_are_left_to_values_beside_a_frequent_one():
    rare = np.random.default_rng(0).normal(size=150)
    encoder, _ = fit("piecewise_linear", np.append(rare, np.zeros(10_000)))
    edges = encoder.columns_[0].edges_
    assert 0 in edges
    assert len(edges) == N_BINS + 1
    counts, _ = np.histogram(rare, edges)
    # One bin of 16 is the zeros'; the bin that they end holds fewer of the others.
    assert sorted(counts)[1:] == pytest.approx([10] * (N_BINS - 1), abs=1)


@every_encoding
@given(st.integers(0, 2**32 - 1))
def test_weights_act_as_repetitions(name, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, rng.choice([5, 40, 1000]), size=60).astype(float)
    values[rng.random(60) < 0.1] = np.nan
    weight = rng.integers(1, 6, size=60)
    repeated, _ = fit(name, np.repeat(values, weight))
    new = np.append(rng.uniform(-10, 1010, size=50), np.nan)
    for scale in (1, 0.3, 1e6):
        weighted, _ = fit(name, values, weight * scale)
        assert weighted.numeric_bins_ == repeated.numeric_bins_
        assert_allclose(place(weighted, new), place(repeated, new), rtol=0, atol=1e-5)


@every_encoding
def test_missing_values_take_the_mean_and_have_an_indicator(name):
    values = np.array([3, np.nan, 1, 2, 2, 8, np.nan])
    encoder, encoded = fit(name, values)
    known = ~np.isnan(values)
    assert_array_equal(encoded[:, 1], ~known)
    n_bins = 3 if name == "piecewise_linear" else 0
    assert encoder.numeric_bins_ == [n_bins, 0]
    assert encoder.n_numeric_ == 2
    mean = encoded[known, 0].mean()
    assert_allclose(encoded[~known, 0], mean, rtol=1e-6, atol=1e-6)
    # Values that were never missing in fit have no indicator, but a mean.
    encoder, encoded = fit(name, values[known])
    assert encoder.n_numeric_ == 1
    assert place(encoder, [np.nan])[0] == pytest.approx(mean, abs=1e-6)


@every_encoding
@pytest.mark.parametrize("value", [7.0, np.nan, 1e-200])
def test_columns_of_one_value_give_0(name, value):
    encoder, encoded = fit(name, [value] * 3)
    assert_array_equal(encoded, np.zeros((3, 1)))
    assert_array_equal(place(encoder, [7, -1, np.nan, 1e300]), np.zeros(4))


@every_encoding
def test_wild_values_count_as_the_outermost(name):
    train = np.random.default_rng(0).normal(size=100)
    encoder, encoded = fit(name, train)
    low, high = place(encoder, [-1e300, 1e300])
    if name == "standard":
        assert (low, high) == (-LARGEST_DEVIATION, LARGEST_DEVIATION)
    else:
        assert (low, high) == (encoded.min(), encoded.max())
    # A single value among many is far off in every encoding, but not without end.
    _, encoded = fit(name, np.append(np.zeros(100_000), 1.0))
    assert 0 < encoded[-1, 0] - encoded[0, 0] <= LARGEST_DEVIATION + 0.1


@every_encoding
def test_weights_of_any_size_leave_inputs_finite(name):
    values = [1.0, 2.0, 3.0, 4.0]
    for weight in ([1e-300, 1, 1, 1], [1, 1, 1e300, 1], [1e-20, 1e-20, 1, 1e20]):
        encoder, encoded = fit(name, values, np.array(weight))
        assert np.isfinite(encoded).all()
        assert np.isfinite(place(encoder, [1.5, np.nan])).all()


FLOATS = st.floats(allow_infinity=False, allow_nan=False, allow_subnormal=True)
CLOSE = st.sampled_from([0.0, 5e-324, 1e-310, 1e-300, 1.0, 1 + 2**-52, -1e308, 1e308])


@every_encoding
@given(st.lists(FLOATS | CLOSE, min_size=1, max_size=60), st.lists(FLOATS | CLOSE))
def test_inputs_follow_the_order_of_values_within_bounds(name, train, new):
    encoder, encoded = fit(name, train)
    assert_array_equal(place(encoder, train), encoded[:, 0])
    everything = np.sort([*train, *new])
    placed = place(encoder, everything)
    assert np.isfinite(placed).all()
    rounding = 1e-6  # interpolation is exact at either end of a step, not within
    assert (np.diff(placed) >= -rounding).all()
    (n_bins,) = encoder.numeric_bins_
    if name == "piecewise_linear":
        assert 1 <= n_bins <= N_BINS
        assert -rounding <= placed[0] <= placed[-1] <= n_bins + rounding
    else:
        assert n_bins == 0
        assert np.abs(placed).max() <= LARGEST_DEVIATION + rounding


@every_encoding
def test_what_is_no_number_is_refused(name):
    encoder = TableEncoder(None, numeric_encoding=name)
    with pytest.raises(TypeError, match="Column 'n' cannot be read as numbers"):
        encoder.fit_transform(pd.DataFrame({"n": ["a", "b"]}))
    encoder.fit_transform(pd.DataFrame({"n": [1.0, 2.0]}))
    with pytest.raises(ValueError, match=r"infinity .* in column 'n'"):
        encoder.transform(pd.DataFrame({"n": [np.inf]}))


@every_encoding
def test_columns_stand_side_by_side(name):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "many": rng.normal(size=50),
            "gaps": np.where(rng.random(50) < 0.3, np.nan, rng.normal(size=50)),
            "category": pd.Categorical(rng.integers(3, size=50)),
            "two": rng.integers(2, size=50),
        }
    )
    encoder = TableEncoder(numeric_encoding=name)
    _, numeric = encoder.fit_transform(table)
    expected = [N_BINS, N_BINS, 0, 1] if name == "piecewise_linear" else [0] * 4
    assert encoder.numeric_bins_ == expected
    alone = [fit(name, table[column])[1] for column in ("many", "gaps", "two")]
    assert_array_equal(numeric, np.hstack(alone))


@every_encoding
@pytest.mark.parametrize("interaction", [None, "cross", "fm"])
def test_estimators_learn_from_frames_go_on_and_are_stored(name, interaction):
    gaps = X.mask(np.random.default_rng(0).random(X.shape) < 0.1)
    model = small(numeric_encoding=name, interaction=interaction, max_epochs=10)
    p = model.fit(gaps, Y).predict_proba(gaps)
    assert model.score(gaps, Y) > 0.6
    layer = model.net_.module_.input_layer
    assert (layer.bins is not None) == (name == "piecewise_linear")
    assert (layer.interaction is not None) == (interaction is not None)
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(gaps), p)
    # Going on keeps the encoding that was learnt, whatever the new rows hold.
    numbers = gaps.select_dtypes("number")
    wider = gaps.assign(**(10 * numbers))
    encoder = model._trained.encoder
    assert model.partial_fit(wider, Y)._trained.encoder is encoder
    assert not np.array_equal(model.predict_proba(gaps), p)


@pytest.mark.parametrize("parameter", ["numeric_encoding", "interaction"])
def test_unknown_values_are_refused(earlier, parameter):
    for unknown in ("deep", 5, True, ["cross"]):
        earlier.set_params(**{parameter: unknown})
        message = f"'{parameter}' parameter .* Got {re.escape(repr(unknown))}"
        refuses(earlier, ValueError, message)


def test_training_goes_on_with_the_same_interaction_alone(earlier):
    earlier.set_params(warm_start=True, interaction="fm")
    with pytest.raises(ValueError, match="parameters now describe another network"):
        earlier.fit(X, Y)
