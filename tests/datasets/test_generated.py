"""Rates, probabilities and labels of the generator, checked against each other."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logit
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import PolynomialFeatures

from sk_pwiser.datasets import make_ctr_cvr

pandas = pytest.importorskip("pandas")


def largest_z(labels, probability, order, n_bins=20):
    """Return the largest standardised gap of labels and probabilities over bins."""
    worst = 0.0
    for rows in np.array_split(np.argsort(order, kind="stable"), n_bins):
        p = probability[rows]
        gap = labels[rows].sum() - p.sum()
        worst = max(worst, abs(gap) / np.sqrt((p * (1 - p)).sum()))
    return worst


def test_default_layout():
    bunch = make_ctr_cvr(500, random_state=0)
    names = [f"numeric_{i}" for i in range(8)] + [f"category_{i}" for i in range(4)]
    assert list(bunch.data.columns) == bunch.feature_names == names
    assert list(bunch.target.columns) == bunch.task_names == ["click", "conversion"]
    assert all(bunch.data.dtypes.iloc[:8] == "float64")
    assert all(dtype == "category" for dtype in bunch.data.dtypes.iloc[8:])
    assert all(bunch.target.dtypes == "int64")
    assert len(bunch.data) == len(bunch.target) == 500
    assert bunch.ctr.shape == bunch.cvr.shape == bunch.interest.shape == (500,)
    # The default size, as in the signature.
    assert len(make_ctr_cvr(random_state=0).data) == 10_000


def test_array_and_frame_hold_the_same():
    frame = make_ctr_cvr(300, click_noise=0.2, random_state=3)
    array = make_ctr_cvr(300, click_noise=0.2, random_state=3, as_frame=False)
    assert array.data.dtype == np.float64
    assert array.target.dtype.kind == "i"
    codes = frame.data.iloc[:, 8:].apply(lambda column: column.cat.codes)
    assert_array_equal(array.data[:, :8], frame.data.iloc[:, :8])
    assert_array_equal(array.data[:, 8:], codes)
    assert_array_equal(array.data[:, 8:], frame.data.iloc[:, 8:].astype("int64"))
    assert_array_equal(array.target, frame.target)
    for key in ("ctr", "cvr", "interest"):
        assert_array_equal(array[key], frame[key])
    assert array.feature_names == frame.feature_names


@pytest.mark.parametrize(
    ("ctr", "cvr", "click_noise"),
    [(0.05, 0.1, 0.0), (0.3, 0.4, 0.5), (0.001, 0.002, 0.9), (0.97, 0.98, 0.0)],
)
def test_mean_probabilities_and_label_rates(ctr, cvr, click_noise):
    n_samples = 20_000
    rates = {"ctr": ctr, "cvr": cvr, "click_noise": click_noise}
    bunch = make_ctr_cvr(n_samples, **rates, as_frame=False, random_state=1)
    assert_allclose(bunch.ctr.mean(), ctr, rtol=1e-8)
    assert_allclose((bunch.ctr * bunch.cvr).mean(), ctr * cvr, rtol=1e-8)
    assert_allclose(bunch.interest.mean(), ctr * (1 - click_noise), rtol=1e-8)
    for p in (bunch.ctr, bunch.cvr, bunch.interest):
        assert np.all((p > 0) & (p < 1))
    for labels, rate in zip(bunch.target.T, (ctr, ctr * cvr), strict=True):
        deviation = np.sqrt(n_samples * rate * (1 - rate))
        assert abs(labels.sum() - n_samples * rate) < 4.5 * deviation


@pytest.mark.parametrize("click_noise", [0.0, 0.4])
def test_true_probabilities_are_calibrated(click_noise):
    rates = {"ctr": 0.2, "cvr": 0.3, "click_noise": click_noise}
    bunch = make_ctr_cvr(100_000, **rates, as_frame=False, random_state=2)
    click, conversion = bunch.target.T
    assert set(np.unique(bunch.target)) == {0, 1}
    assert (conversion <= click).all()
    if click_noise == 0:  # all clicks are genuine
        assert_array_equal(bunch.interest, bunch.ctr)
    joint = bunch.ctr * bunch.cvr
    assert largest_z(click, bunch.ctr, bunch.ctr) < 4.5
    assert largest_z(conversion, joint, joint) < 4.5
    clicked = click == 1
    cvr = bunch.cvr[clicked]
    assert largest_z(conversion[clicked], cvr, cvr) < 4.5
    # A wrong probability with the same mean fails this check.
    assert largest_z(click, np.full(len(click), click.mean()), bunch.ctr) > 10


def test_accidental_clicks_never_convert():
    # With `cvr` just below its bound every genuine click converts, so that the clicks
    # without conversion are the accidents.
    rates = {"ctr": 0.4, "cvr": 0.5 - 1e-7, "click_noise": 0.5}
    bunch = make_ctr_cvr(100_000, **rates, as_frame=False, random_state=4)
    click, conversion = bunch.target.T
    assert_allclose(bunch.ctr * bunch.cvr, bunch.interest, atol=1e-4)
    assert np.all(bunch.ctr * bunch.cvr <= bunch.interest)
    accident = bunch.ctr - bunch.interest
    assert largest_z(conversion, bunch.interest, accident) < 4.5
    assert largest_z(click - conversion, accident, accident) < 4.5
    assert roc_auc_score(click - conversion, accident) > 0.65


@pytest.mark.parametrize("seed", range(3))
def test_tasks_are_learnable_and_not_trivial(seed):
    bunch = make_ctr_cvr(100_000, as_frame=False, random_state=seed)
    click, conversion = bunch.target.T
    assert 0.7 < roc_auc_score(click, bunch.ctr) < 0.85
    assert 0.7 < roc_auc_score(conversion, bunch.ctr * bunch.cvr) < 0.87
    clicked = click == 1
    assert 0.6 < roc_auc_score(conversion[clicked], bunch.cvr[clicked]) < 0.8
    assert 0.1 < np.corrcoef(logit(bunch.ctr), logit(bunch.cvr))[0, 1] < 0.7


def test_scores_are_quadratic_in_the_numeric_features():
    bunch = make_ctr_cvr(
        3000, n_categorical=0, click_noise=0.3, as_frame=False, random_state=6
    )
    quadratic = PolynomialFeatures(2).fit_transform(bunch.data)
    # No conversion without interest: the propensity is P(conversion | genuine click).
    propensity = bunch.ctr * bunch.cvr / bunch.interest
    accident = (bunch.ctr - bunch.interest) / (1 - bunch.interest)
    slopes = {}
    for name, p in [("interest", bunch.interest), ("conversion", propensity)]:
        line = LinearRegression().fit(bunch.data, logit(p))
        assert 0.5 < line.score(bunch.data, logit(p)) < 0.95
        curve = LinearRegression().fit(quadratic, logit(p))
        assert curve.score(quadratic, logit(p)) > 1 - 1e-9
        slopes[name] = curve.coef_[1:9]
    line = LinearRegression().fit(bunch.data, logit(accident))
    assert line.score(bunch.data, logit(accident)) > 1 - 1e-9
    unit = {name: slope / np.linalg.norm(slope) for name, slope in slopes.items()}
    assert 0.2 < unit["interest"] @ unit["conversion"] < 0.9
    for name in unit:
        assert_allclose(unit[name] @ line.coef_, 0, atol=1e-6)


def test_category_effects_on_interest_and_conversion_are_correlated():
    sizes = {"n_numeric": 0, "n_categorical": 1, "n_categories": 1000}
    options = {"click_noise": 0.3, "as_frame": False, "random_state": 7}
    bunch = make_ctr_cvr(50_000, **sizes, **options)
    _, first = np.unique(bunch.data[:, 0], return_index=True)
    interest, ctr, cvr = bunch.interest[first], bunch.ctr[first], bunch.cvr[first]
    propensity = ctr * cvr / interest
    accident = (ctr - interest) / (1 - interest)
    correlation = np.corrcoef(logit([interest, propensity, accident]))
    # The standard error over 1,000 values is about 0.03.
    assert_allclose(correlation[0, 1], 0.5, atol=0.13)
    assert_allclose(correlation[2, :2], 0, atol=0.13)


def test_categories_are_long_tailed_and_declared_in_full():
    n_samples, sizes = 50_000, [2, 10, 100_000]
    bunch = make_ctr_cvr(n_samples, n_categorical=3, n_categories=sizes, random_state=8)
    for i, size in enumerate(sizes):
        column = bunch.data[f"category_{i}"]
        assert_array_equal(column.cat.categories, np.arange(size))
        harmonic = sum(1 / (k + 1) for k in range(size))
        counts = np.bincount(column.cat.codes, minlength=size)
        for k in range(min(size, 5)):
            share = 1 / (k + 1) / harmonic
            deviation = np.sqrt(n_samples * share * (1 - share))
            assert abs(counts[k] - n_samples * share) < 4.5 * deviation
    assert bunch.data["category_2"].nunique() < 20_000


def test_same_seed_same_result():
    first = make_ctr_cvr(200, click_noise=0.1, random_state=9)
    again = make_ctr_cvr(200, click_noise=0.1, random_state=9)
    state = make_ctr_cvr(200, click_noise=0.1, random_state=np.random.RandomState(9))
    other = make_ctr_cvr(200, click_noise=0.1, random_state=10)
    for same in (again, state):
        pandas.testing.assert_frame_equal(first.data, same.data)
        pandas.testing.assert_frame_equal(first.target, same.target)
        assert_array_equal(first.ctr, same.ctr)
        assert_array_equal(first.cvr, same.cvr)
    assert not first.data.equals(other.data)


def test_features_depend_neither_on_rates_nor_on_the_global_generator():
    before = np.random.get_state()[1].copy()  # noqa: NPY002, the state itself is tested
    first = make_ctr_cvr(200, random_state=0)
    other = make_ctr_cvr(200, ctr=0.3, cvr=0.3, click_noise=0.5, random_state=0)
    pandas.testing.assert_frame_equal(first.data, other.data)
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_all_else_is_the_same_with_amounts():
    options = {"click_noise": 0.1, "random_state": 9}
    plain = make_ctr_cvr(500, **options)
    valued = make_ctr_cvr(500, **options, value=True)
    events = valued.target[["click", "conversion"]]
    pandas.testing.assert_frame_equal(valued.data, plain.data)
    pandas.testing.assert_frame_equal(events, plain.target)
    for key in ("ctr", "cvr", "interest"):
        assert_array_equal(valued[key], plain[key])
    assert "value" not in plain
    assert valued.task_names == plain.task_names
    array = make_ctr_cvr(500, **options, value=True, as_frame=False)
    assert_array_equal(array.target, valued.target)
    assert_array_equal(array.value, valued.value)


@pytest.mark.parametrize("tail", [0.0, 0.5, 1.5])
def test_true_means_of_amounts(tail):
    options = {"ctr": 0.5, "cvr": 0.5, "as_frame": False, "random_state": 11}
    bunch = make_ctr_cvr(100_000, **options, value=True, value_tail=tail)
    conversion = bunch.target[:, 1] == 1
    amounts = bunch.target[:, 2]
    assert (amounts[~conversion] == 0).all()
    assert (amounts[conversion] > 0).all()
    expected = (bunch.ctr * bunch.cvr * bunch.value).sum()
    assert_allclose(expected, 50 * 0.25 * 100_000, rtol=1e-8)
    assert_allclose(np.log(bunch.value).std(), 0.8, rtol=1e-8)
    noise = np.log(amounts[conversion] / bunch.value[conversion])
    assert_allclose(noise.std(), tail, atol=0.02)
    # Totals agree with the true means at every level of these.
    order = np.argsort(bunch.value[conversion])
    for rows in np.array_split(order, 10):
        means = bunch.value[conversion][rows]
        deviation = np.sqrt((np.expm1(tail**2) * means**2).sum())
        gap = abs(amounts[conversion][rows].sum() - means.sum())
        assert gap < 4.5 * deviation + 1e-6


def test_amounts_depend_on_numbers_and_on_categories():
    bunch = make_ctr_cvr(20_000, value=True, as_frame=False, random_state=12)
    logarithms = np.log(bunch.value)
    numeric = LinearRegression().fit(bunch.data[:, :8], logarithms)
    assert 0.3 < numeric.score(bunch.data[:, :8], logarithms) < 0.7
    columns = bunch.data[:, 8:].astype(int).T
    one_hot = np.hstack([bunch.data[:, :8], *(np.eye(50)[codes] for codes in columns)])
    every = LinearRegression().fit(one_hot, logarithms)
    assert every.score(one_hot, logarithms) > 1 - 1e-9
    # Amounts are no function of the probabilities.
    for probability in (bunch.ctr, bunch.cvr):
        assert abs(np.corrcoef(logit(probability), logarithms)[0, 1]) < 0.6


def test_a_heavy_tail_is_in_a_tenth_of_the_conversions():
    options = {"ctr": 0.5, "cvr": 0.5, "as_frame": False, "random_state": 13}
    shares = []
    for tail in (0.5, 1.5):
        bunch = make_ctr_cvr(50_000, **options, value=True, value_tail=tail)
        amounts = np.sort(bunch.target[bunch.target[:, 1] == 1, 2])
        shares.append(amounts[-len(amounts) // 10 :].sum() / amounts.sum())
    assert shares[0] < 0.45
    assert 0.55 < shares[1] < 0.8


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_samples": 1},
        {"n_numeric": 0},
        {"n_categorical": 0},
        {"n_numeric": 1},
        {"n_numeric": 2, "n_categorical": 1, "n_categories": 1},
        {"n_categories": np.array([1, 2, 3, 4])},
    ],
)
@pytest.mark.parametrize("as_frame", [True, False])
def test_small_sizes(parameters, as_frame):
    parameters = {"n_samples": 50, "click_noise": 0.3, "value": True, **parameters}
    bunch = make_ctr_cvr(**parameters, as_frame=as_frame, random_state=0)
    assert bunch.data.shape == (parameters["n_samples"], len(bunch.feature_names))
    assert_allclose(bunch.ctr.mean(), 0.05, rtol=1e-8)
    assert_allclose(bunch.interest.mean(), 0.035, rtol=1e-8)
    assert_allclose((bunch.ctr * bunch.cvr).mean(), 0.005, rtol=1e-8)
    assert_allclose((bunch.ctr * bunch.cvr * bunch.value).mean(), 0.25, rtol=1e-8)


@pytest.mark.parametrize("seed", range(10))
def test_equal_rows(seed):
    # With two values, some of these draws give five equal rows.
    sizes = {"n_numeric": 0, "n_categorical": 1, "n_categories": 2}
    bunch = make_ctr_cvr(5, **sizes, as_frame=False, random_state=seed)
    if np.ptp(bunch.data) == 0:
        assert_allclose(bunch.ctr, 0.05, rtol=1e-8)
        assert_allclose(bunch.cvr, 0.1, rtol=1e-8)
    assert_allclose(bunch.ctr.mean(), 0.05, rtol=1e-8)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_samples": 0}, "n_samples must be"),
        ({"n_samples": 10.0}, "n_samples must be"),
        ({"n_numeric": -1}, "n_numeric must be"),
        ({"n_categorical": -1}, "n_categorical must be"),
        ({"n_categories": 0}, "n_categories must be"),
        ({"n_categories": [3, 4]}, r"n_categories .*n_categorical=4; got \[3, 4\]"),
        ({"n_categories": [3, 4, 0, 5]}, r"n_categories .* got \[3, 4, 0, 5\]"),
        ({"n_categories": [3, 4, 2.5, 5]}, r"n_categories .* got \[3, 4, 2.5, 5\]"),
        ({"n_numeric": 0, "n_categorical": 0}, "n_numeric and n_categorical"),
        ({"ctr": 0.0}, "ctr must be"),
        ({"ctr": 1.0}, "ctr must be"),
        ({"cvr": 1.0}, "cvr must be"),
        ({"click_noise": 1.0}, "click_noise must be"),
        ({"click_noise": -0.1}, "click_noise must be"),
        ({"cvr": 0.5, "click_noise": 0.5}, r"cvr must .*cvr=0\.5.*click_noise=0\.5"),
        ({"value": 1}, "value must be"),
        ({"value_tail": -0.5}, "value_tail must be"),
        ({"value_tail": np.inf}, "value_tail must be"),
        ({"as_frame": "yes"}, "as_frame must be"),
        ({"random_state": "seed"}, "cannot be used to seed"),
    ],
)
def test_generator_raises(parameters, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make_ctr_cvr(**parameters)


def test_generator_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        ImportError, match=r"pip install pandas pyarrow \(extra \[pandas\]"
    ):
        make_ctr_cvr(10, random_state=0)
    assert make_ctr_cvr(10, as_frame=False, random_state=0).data.shape == (10, 12)
