"""The encodings of numeric columns, compared with independent computations."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from column_kinds import KINDS, arrow, series
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import SplineTransformer, StandardScaler
from small_model import refuses, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._columns._number import LARGEST_DEVIATION
from sk_pwiser._columns._piecewise_linear import MAX_BINS, N_BINS, ROWS_PER_BIN
from sk_pwiser._columns._quantile import N_QUANTILES
from sk_pwiser._columns._registry import NUMERIC_ENCODINGS
from sk_pwiser._columns._standard import StandardColumn
from sk_pwiser.networks._numeric_inputs import BinExpansion

NAMES = sorted(NUMERIC_ENCODINGS)
WITH_BINS = {name for name, kind in NUMERIC_ENCODINGS.items() if kind.n_bins_}
every_encoding = pytest.mark.parametrize("name", NAMES)


def fit(name, values, weight=None, **params):
    """Return an encoder that is fitted to one column, and its encoded values."""
    encoder = TableEncoder(None, numeric_encoding=name, **params)
    table = np.asarray(values, dtype=float).reshape(-1, 1)
    return encoder, encoder.fit_transform(table, weight)[1]


def encode(encoder, values):
    return encoder.transform(np.asarray(values, dtype=float).reshape(-1, 1))[1][:, 0]


def normal_scores(values):
    scores = ndtri((rankdata(values) - 0.5) / len(values))
    return scores, scores.mean(), scores.std()


def test_quantile_encoding_against_ranks():
    values = np.random.default_rng(0).poisson(20, size=700) ** 3
    scores, mean, deviation = normal_scores(values)
    _, encoded = fit("quantile", values)
    assert_allclose(encoded[:, 0], (scores - mean) / deviation, rtol=1e-5, atol=1e-6)


def test_quantile_encoding_of_many_values_approximates_their_ranks():
    rng = np.random.default_rng(0)
    values = rng.lognormal(0, 3, size=20_000)
    values[rng.random(20_000) < 0.4] = 1.0
    _, mean, deviation = normal_scores(values)
    encoder, encoded = fit("quantile", values)
    assert len(encoder.columns_[0].values_) <= 2 * N_QUANTILES
    ranks = ndtr(encoded[:, 0] * deviation + mean)
    expected = (rankdata(values) - 0.5) / len(values)
    assert_allclose(ranks, expected, rtol=0, atol=1.01 / N_QUANTILES)


def expand(positions, n_bins):
    positions = torch.as_tensor(positions, dtype=torch.float32).reshape(-1, 1)
    return BinExpansion([n_bins], (), [0])(positions).numpy()


def linear_splines(values, edges):
    """Components of the piecewise linear encoding, as sums of hat functions."""
    splines = SplineTransformer(
        degree=1, knots=edges.reshape(-1, 1), extrapolation="constant"
    )
    hats = splines.fit_transform(np.asarray(values, dtype=float).reshape(-1, 1))
    return hats[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]


def test_piecewise_linear_encoding_against_splines_between_quantiles():
    train, new = np.random.default_rng(0).lognormal(size=(2, 500))
    encoder, _ = fit("piecewise_linear", train)
    edges = np.quantile(train, np.arange(N_BINS + 1) / N_BINS, method="inverted_cdf")
    assert encoder.numeric_bins_ == [N_BINS]
    new = np.maximum(new, train.min() - 0.01)
    beyond = [*new, train.min() - 0.01, train.max() + 1, *edges]
    assert_allclose(
        expand(encode(encoder, beyond), N_BINS),
        linear_splines(beyond, edges),
        rtol=0,
        atol=2e-6,
    )


@every_encoding
def test_far_values_have_the_mean_input_of_the_outer_rows(name):
    values = np.random.default_rng(0).gamma(2, size=1_000)
    encoder, encoded = fit(name, values)
    order = np.argsort(values)
    ordered = values[order]
    outer = {
        "below": (ordered[0], ordered[99], encoded[order[:100], 0].mean()),
        "above": (ordered[-1], ordered[900], encoded[order[900:], 0].mean()),
    }
    for last, first, mean in outer.values():
        distance = last - first
        shares = np.array([0.0, 0.2, 0.5, 0.75, 1.0, 3.0, 1e9])
        edge = encode(encoder, [last]).item()
        expected = np.interp(shares, [0.5, 1.0], [edge, mean])
        found = encode(encoder, last + shares * distance)
        assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        field = encoder.columns_[0].row_field()
        rows = [field.encode_one(last + share * distance)[0] for share in shares]
        assert_allclose(rows, found, rtol=1e-5, atol=1e-5)


@every_encoding
def test_outer_rows_are_counted_by_their_weights(name):
    rng = np.random.default_rng(0)
    values = rng.normal(size=200).round(1)
    counts = rng.integers(1, 4, 200)
    far = [-100.0, 100.0]
    by_weight, _ = fit(name, values, counts)
    by_rows, _ = fit(name, np.repeat(values, counts))
    assert_allclose(encode(by_weight, far), encode(by_rows, far), rtol=1e-5)


@every_encoding
def test_columns_of_earlier_versions_keep_the_outermost_input(name):
    values = np.random.default_rng(0).normal(size=500)
    encoder, _ = fit(name, values)
    (column,) = encoder.columns_
    column.beyond_ = None  # no attribute of theirs
    ends = encode(encoder, [values.min(), values.max()])
    assert_array_equal(encode(encoder, [-1e9, 1e9]), ends)
    field = column.row_field()
    rows = [field.encode_one(value)[0] for value in (-1e9, 1e9)]
    assert_allclose(rows, ends, rtol=1e-6)


@every_encoding
def test_a_value_of_many_rows_bounds_those_beyond_it(name):
    encoder, _ = fit(name, np.repeat([0.0, 1.0, 2.0], 100))
    assert_allclose(
        encode(encoder, [-9, -1, 3, 9]), encode(encoder, [0, 0, 2, 2]), rtol=1e-6
    )


def test_positions_also_give_normal_scores():
    n_bins, scales = [0, 4, 1, 16], [1.0, 0.5, 1.0, 2.0]
    positions = np.random.default_rng(0).random((9, 4)) * [1, 4, 1, 16]
    positions[0], positions[1] = 0, [1, 4, 1, 16]
    positions = torch.as_tensor(positions, dtype=torch.float32)
    found = BinExpansion(n_bins, scales, range(len(n_bins)))(positions).numpy()
    components = BinExpansion(n_bins, (), range(len(n_bins)))(positions).numpy()
    assert found.shape == (9, 1 + 2 + 4 + 1 + 16)
    assert_array_equal(found[:, 0], positions[:, 0])
    for column, index in ((1, 1), (2, 3)):
        n = n_bins[index]
        scores = ndtri(np.clip(np.arange(n + 1) / n, 0.01, 0.99))
        expected = np.interp(positions[:, index], np.arange(n + 1), scores)
        assert_allclose(found[:, column], expected, rtol=0, atol=2e-6)
    factors = np.repeat([0.5, 1.0, 2.0], [4, 1, 16])
    assert_allclose(found[:, 3:], components[:, 1:] * factors)


def test_components_of_quantiles_count_half():
    rng = np.random.default_rng(0)
    columns = {
        "continuous": rng.normal(size=4_000),
        "gaps": np.where(rng.random(4_000) < 0.1, np.nan, rng.normal(size=4_000)),
        "day": rng.integers(1, 32, 4_000),
        "few": rng.integers(5, size=4_000),
        "prices": np.where(
            rng.random(4_000) < 0.5, rng.random(4_000), 9 * rng.integers(1, 9, 4_000)
        ),
        "constant": np.ones(4_000),
    }
    encoder = TableEncoder(None, numeric_encoding="bins_and_scores")
    encoder.fit_transform(pd.DataFrame(columns))
    assert encoder.numeric_bins_ == [16, 16, 0, 30, 4, 24, 1]
    inputs = [each for column in encoder.columns_ for each in column.inputs]
    assert [each.scale for each in inputs] == [0.5, 0.5, 1, 1, 1, 1, 1]
    model = small(numeric_encoding="piecewise_linear", max_epochs=1)
    model.fit(pd.DataFrame(columns)[["continuous", "day"]], rng.integers(2, size=4_000))
    assert model.net_.module_.spec.bin_scales == ()


def test_few_distinct_values_have_one_bin_between_neighbours():
    encoder, _ = fit("piecewise_linear", [5, 1, 1, 2, 5, 5, 5, 5])
    assert encoder.numeric_bins_ == [2]
    assert encode(encoder, [1, 2, 5]).tolist() == [0, 1, 2]
    assert_allclose(encode(encoder, [0, 1.5, 3, 9]), [0, 0.5, 1 + 1 / 3, 2], rtol=1e-6)


def test_a_frequent_value_leaves_bins_for_the_others():
    rare = np.random.default_rng(0).normal(size=150)
    encoder, _ = fit("piecewise_linear", np.append(rare, np.zeros(10_000)))
    edges = encoder.columns_[0].edges_
    assert 0 in edges
    assert encoder.numeric_bins_ == [N_BINS + 1]
    counts, _ = np.histogram(rare, edges)
    # The zeros count as one of the 17 bins; two bins adjoin them.
    assert sorted(counts)[2:] == pytest.approx([150 / N_BINS] * (N_BINS - 1), abs=1)


def test_frequent_values_have_bins_of_their_own():
    rng = np.random.default_rng(0)
    frequent, rare = np.arange(1, 6) / 6, rng.random(10_000)
    values = np.array([*rare, *np.repeat(frequent, 200), *np.repeat([0.25, 0.35], 100)])
    encoder, _ = fit("piecewise_linear", values)
    edges = encoder.columns_[0].edges_
    assert encoder.numeric_bins_ == [N_BINS + 5]
    assert np.isin(frequent, edges).all()
    # Outside the bins that end at a frequent value, the others are spread equally.
    counts, _ = np.histogram(rare, edges)
    assert counts[~np.isin(edges[1:], frequent)].max() <= 10_200 / N_BINS + 1
    # With a limit of 16 only the share of a bin counts.
    encoder, _ = fit("piecewise_linear", values, max_bins=N_BINS)
    expected = np.quantile(
        values, np.arange(N_BINS + 1) / N_BINS, method="inverted_cdf"
    )
    assert_array_equal(encoder.columns_[0].edges_, expected)


@pytest.mark.parametrize("max_bins", [1, 5, MAX_BINS, 300])
def test_at_most_max_bins(max_bins):
    for n_distinct in (max_bins + 1, max_bins + 2, 2 * max_bins):
        counts = ROWS_PER_BIN * (np.arange(n_distinct) % 5 + 1)
        values = np.repeat(np.arange(n_distinct), counts)
        encoder, _ = fit("piecewise_linear", values, max_bins=max_bins)
        (n_bins,) = encoder.numeric_bins_
        assert n_bins <= max_bins
        if n_distinct <= max_bins + 1:
            assert_array_equal(encoder.columns_[0].edges_, np.arange(n_distinct))


@pytest.mark.parametrize(
    ("n_rows", "n_bins"),
    [(39 * ROWS_PER_BIN - 1, N_BINS), (39 * ROWS_PER_BIN, 39), (10_000, 39)],
)
def test_bins_need_rows(n_rows, n_bins):
    encoder, _ = fit("piecewise_linear", np.arange(n_rows) % 40)
    assert encoder.numeric_bins_ == [n_bins]


@pytest.mark.parametrize(
    ("max_bins", "error"), [(0, ValueError), (2.5, TypeError), (True, TypeError)]
)
def test_numbers_of_bins_are_checked(earlier, max_bins, error):
    earlier.set_params(encoding_params={"max_bins": max_bins})
    refuses(earlier, error, f"max_bins must be an integer >= 1; got {max_bins}")


@every_encoding
@given(st.integers(0, 2**32 - 1))
def test_weights_are_equivalent_to_repeated_rows(name, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, rng.choice([5, 40, 1000]), size=60).astype(float)
    values[rng.random(60) < 0.1] = np.nan
    weight = rng.integers(1, 6, size=60)
    repeated, _ = fit(name, np.repeat(values, weight))
    new = np.append(rng.uniform(-10, 1010, size=50), np.nan)
    for scale in (1, 0.3, 1e6):
        weighted, _ = fit(name, values, weight * scale)
        assert weighted.numeric_bins_ == repeated.numeric_bins_
        assert_allclose(encode(weighted, new), encode(repeated, new), rtol=0, atol=1e-5)


@every_encoding
def test_missing_values_give_the_mean_and_an_indicator(name):
    values = np.array([3, np.nan, 1, 2, 2, 8, np.nan])
    encoder, encoded = fit(name, values)
    known = ~np.isnan(values)
    assert_array_equal(encoded[:, 1], ~known)
    n_bins = 3 if name in WITH_BINS else 0
    assert encoder.numeric_bins_ == [n_bins, 0]
    assert len(encoder.numeric_bins_) == 2
    mean = encoded[known, 0].mean()
    assert_allclose(encoded[~known, 0], mean, rtol=1e-6, atol=1e-6)
    # Without missing values in fit there is no indicator, but the same mean.
    encoder, encoded = fit(name, values[known])
    assert len(encoder.numeric_bins_) == 1
    assert encode(encoder, [np.nan])[0] == pytest.approx(mean, abs=1e-6)


@every_encoding
@pytest.mark.parametrize("column", [[7.0], [np.nan], [1e-200], [0.1, np.nan]])
def test_columns_of_one_value_give_0(name, column):
    encoder, encoded = fit(name, column * 6)
    assert_array_equal(encoded[:, 0], np.zeros(6 * len(column)))
    # Missing values have an indicator if there are others.
    assert encoded.shape[1] == len(column)
    if len(column) == 2:
        assert_array_equal(encoded[:, 1], [0, 1] * 6)
    assert_array_equal(encode(encoder, [7, -1, np.nan, 1e300]), np.zeros(4))


@every_encoding
def test_extreme_values_give_inputs_of_outer_rows(name):
    encoder, encoded = fit(name, np.random.default_rng(0).normal(size=100))
    low, high = encode(encoder, [-1e300, 1e300])
    first_share, last_share = np.quantile(encoded, [0.1, 0.9])
    assert encoded.min() <= low <= first_share
    assert last_share <= high <= encoded.max()
    # A value that differs from all others is far from them, but within the bounds.
    _, encoded = fit(name, np.append(np.zeros(100_000), 1.0))
    assert 0 < encoded[-1, 0] - encoded[0, 0] <= LARGEST_DEVIATION + 0.1
    if name == "standard":
        assert encoded[-1, 0] == LARGEST_DEVIATION


@every_encoding
@pytest.mark.parametrize("weight", [5e-324, 1e-300, 1e-17])
def test_weights_that_leave_almost_nothing_to_most_rows(name, weight):
    weights = np.r_[np.full(3_997, weight), 1.0, 1.0, 1.0]
    _, encoded = fit(name, np.arange(4_000), weights)
    assert np.isfinite(encoded).all()
    assert encoded[-1, 0] > encoded[-3, 0]
    for uneven in ([weight, 1, 1, 1], [1, 1, 1e300, 1], [weight, weight, 1, 1e20]):
        encoder, encoded = fit(name, [1.0, 2.0, 3.0, 4.0], np.array(uneven))
        assert np.isfinite(encoded).all()
        assert np.isfinite(encode(encoder, [1.5, np.nan])).all()


FLOATS = st.floats(allow_infinity=False, allow_nan=False, allow_subnormal=True)
CLOSE = st.sampled_from([0.0, 5e-324, 1e-310, 1e-300, 1.0, 1 + 2**-52, -1e308, 1e308])


@every_encoding
@given(st.lists(FLOATS | CLOSE, min_size=1, max_size=60), st.lists(FLOATS | CLOSE))
def test_inputs_are_monotonic_and_bounded(name, train, new):
    encoder, encoded = fit(name, train)
    assert_array_equal(encode(encoder, train), encoded[:, 0])
    values = np.sort([*train, *new])
    encoded = encode(encoder, values)
    assert np.isfinite(encoded).all()
    rounding = 1e-6  # interpolation is exact only at the ends of a step
    is_inside = (values >= min(train)) & (values <= max(train))
    inside = encoded[is_inside]
    assert (np.diff(inside) >= -rounding).all()
    assert inside[0] - rounding <= encoded.min()
    assert encoded.max() <= inside[-1] + rounding
    (n_bins,) = encoder.numeric_bins_
    if name in WITH_BINS:
        assert 1 <= n_bins <= MAX_BINS
        assert -rounding <= inside[0] <= inside[-1] <= n_bins + rounding
    else:
        assert n_bins == 0
        assert np.abs(encoded).max() <= LARGEST_DEVIATION + rounding


@every_encoding
def test_several_columns_are_encoded_as_each_one_alone(name):
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
    expected = [N_BINS, N_BINS, 0, 1] if name in WITH_BINS else [0] * 4
    assert encoder.numeric_bins_ == expected
    alone = [fit(name, table[column])[1] for column in ("many", "gaps", "two")]
    assert_array_equal(numeric, np.hstack(alone))


@pytest.mark.parametrize("name", NUMERIC_ENCODINGS)
def test_inputs_are_linear_between_the_nodes(name):
    values = np.random.default_rng(0).lognormal(size=400)
    column = NUMERIC_ENCODINGS[name]("price").fit(values)
    others = np.concatenate([values, [-1e100, 0, 1e100], np.linspace(-9, 99, 50)])
    (expected,) = column.transform(others)
    assert_allclose(np.interp(others, *column.nodes), expected, atol=1e-6)


def test_nodes_of_a_constant_column_give_0():
    column = NUMERIC_ENCODINGS["quantile"]("price").fit(np.ones(5))
    assert_array_equal(np.interp([0.0, 1.0, 2.0], *column.nodes), np.zeros(3))


NUMBERS = [3.0, None, 1.0, 2.0, None, 7.0]
NUMERIC_KINDS = {
    **KINDS["floats"],
    "Int64": series("Int64"),
    "object": series(object),
    "arrow int64": arrow(pa.int64()),
    "sparse": lambda v: pd.Series(pd.arrays.SparseArray(np.array(v, float))),
    "polars Int32": lambda v: pl.Series(v, dtype=pl.Float64).cast(pl.Int32),
    "polars nan": lambda v: pl.Series([float("nan") if x is None else x for x in v]),
    "polars Decimal": lambda v: pl.Series(v, dtype=pl.Float64).cast(pl.Decimal(9, 2)),
    "numpy float32": lambda v: np.array(v, dtype=np.float32),
}


@pytest.mark.parametrize("kind", NUMERIC_KINDS)
def test_standardisation_of_every_kind_of_column(kind):
    encoder = StandardColumn("column")
    column = NUMERIC_KINDS[kind](NUMBERS)
    scaled, missing = encoder.fit(column).transform(column)
    reference = StandardScaler().fit(np.array(NUMBERS, dtype=float)[:, None])
    expected = reference.transform(np.array(NUMBERS, dtype=float)[:, None])[:, 0]
    assert scaled.dtype == np.float32
    assert_allclose(scaled, np.nan_to_num(expected), rtol=1e-6)
    assert_array_equal(missing, np.isnan(expected))
    assert len(encoder.inputs) == 2
    new = [4.0, None, 3.0]
    expected = reference.transform(np.array(new, dtype=float)[:, None])[:, 0]
    for make in NUMERIC_KINDS.values():
        scaled, missing = encoder.transform(make(new))
        assert_allclose(scaled, np.nan_to_num(expected), rtol=1e-6)
        assert_array_equal(missing, [0, 1, 0])


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([True, False, True]),
        pd.Series([True, False, True], dtype="boolean"),
        pl.Series([True, False, True]),
        np.array([True, False, True]),
        pd.Series([1, 0, 1], dtype="uint8"),
        np.array([1.7e9 + 1, 1.7e9, 1.7e9 + 1]),
        np.array([1e12 + 1, 1e12, 1e12 + 1]),
        np.array([3e-100, 1e-100, 3e-100]),
    ],
)
def test_standardisation_of_two_values(column):
    [scaled] = StandardColumn("column").fit(column).transform(column)
    # The mean is 2/3 of the way from the lower to the higher value, the standard
    # deviation sqrt(2)/3 of it.
    assert_allclose(scaled, [0.5**0.5, -(2**0.5), 0.5**0.5], rtol=1e-3)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["1", "2"]),
        pd.Series(["1", "2"], dtype="string"),
        pd.Series(["one", "2"], dtype=object),
        pd.Series(pd.Categorical(["one", "2"])),
        arrow(pa.string())(["1", "2"]),
        pl.Series(["1", "2"]),
        pl.Series(["1", "2"], dtype=pl.Categorical),
        np.array(["1", "2"]),
        np.array([b"1", b"2"]),
        pd.Series([[1], [2]], dtype=object),
        pl.Series([[1], [2]]),
        pd.Series([10**400, 1], dtype=object),
        pd.Series([1j, 2j]),
    ],
)
def test_values_that_are_not_numbers_are_an_error(column):
    encoder = StandardColumn("price")
    with pytest.raises((TypeError, ValueError), match="Column 'price' cannot be read"):
        encoder.fit(column)
    encoder.fit(np.array([1.0, 2.0]))
    with pytest.raises((TypeError, ValueError), match="Column 'price' cannot be read"):
        encoder.transform(column)


N_TRAIN, N_TEST = 3_000, 1_500


def table():
    """Return a column on which both labels depend, and the labels."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(N_TRAIN + N_TEST)
    click = rng.random(len(x)) < 1 / (1 + np.exp(-4 * x))
    converts = rng.random(len(x)) < 0.5 / (1 + np.exp(-4 * x))
    return x, np.column_stack([click, click & converts]).astype(int)


def aucs(x, Y):
    """Return the AUC of a default fit on later rows, per task."""
    X = x[:, None]
    model = MultiTaskCTRCVRClassifier(max_epochs=5, random_state=0)
    p = model.fit(X[:N_TRAIN], Y[:N_TRAIN]).predict_proba(X[N_TRAIN:])
    return [roc_auc_score(Y[N_TRAIN:, k], p[:, k]) for k in range(2)]


SENTINELS = np.random.default_rng(1).random(N_TRAIN + N_TEST) < 0.01


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.where(SENTINELS, -999.0, x),
        lambda x: np.where(SENTINELS, 1e30, x),
        lambda x: np.sign(x) * np.exp(10 * np.abs(x)),
    ],
    ids=["-999", "1e30", "both tails"],
)
def test_the_default_survives_sentinels_and_heavy_tails(change):
    x, Y = table()
    # The labels of the rows with a sentinel cannot be told: 1 % of the rows.
    assert np.subtract(aucs(x, Y), aucs(change(x), Y)).max() < 0.02
