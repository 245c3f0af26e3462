"""A generator of impressions with known true probabilities."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.utils import Bunch, check_random_state

from sk_pwiser._utils._checks import check_boolean, check_integer, check_number
from sk_pwiser._utils._extras import import_extra

Floats = npt.NDArray[np.float64]

TASK_NAMES = ["click", "conversion"]
# Standard deviations of the scores of interest, conversion and accident. At low rates,
# the AUC of the true probability is about Phi(sd / sqrt(2)): with these values, every
# task can be learnt but none is trivial.
SCALES = np.array([0.95, 0.7, 1.0])
# Mean amount of the expected conversions.
MEAN_VALUE = 50.0
# Standard deviation of the logarithms of the true means of amounts.
VALUE_SCALE = 0.8


def make_ctr_cvr(
    n_samples: int = 10_000,
    *,
    n_numeric: int = 8,
    n_categorical: int = 4,
    n_categories: int | npt.ArrayLike = 50,
    ctr: float = 0.05,
    cvr: float = 0.1,
    click_noise: float = 0.0,
    value: bool = False,
    value_tail: float = 0.5,
    as_frame: bool = True,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Generate impressions with clicks, conversions and their true probabilities.

    An impression is clicked out of genuine interest or, without interest, by accident.
    Only a genuine click can convert. The probabilities of interest and of conversion
    are logistic functions of two scores. Both scores depend on a shared direction of
    the standard normal numeric features and on correlated effects of the categories,
    and both contain quadratic terms, which a linear model cannot represent. Accidents
    depend on another direction (with at least four numeric features) and on independent
    category effects.

    Parameters
    ----------
    n_samples : int, default=10_000
        Number of impressions.
    n_numeric : int, default=8
        Number of numeric features.
    n_categorical : int, default=4
        Number of categorical features.
    n_categories : int or array-like of int, default=50
        Number of values of each categorical feature, or one number per feature. The
        popularity of the values is long-tailed: the share of code k is proportional to
        1 / (k + 1).
    ctr : float, default=0.05
        Mean of the true click probability over the rows.
    cvr : float, default=0.1
        Expected number of conversions divided by the expected number of clicks,
        including accidental clicks. It must be less than `1 - click_noise`.
    click_noise : float, default=0.0
        Expected fraction of accidental clicks among the clicks, in [0, 1).
    value : bool, default=False
        Whether each conversion has an amount, such as money. Its true mean depends on
        the numeric features and on effects of the categories of its own, and its
        logarithm has a standard deviation of 0.8 over the rows. Without it, all else is
        the same.
    value_tail : float, default=0.5
        Standard deviation of the logarithms of the amounts around their true means: 0
        for no noise; with 1.5, a tenth of the conversions has most of the total. Only
        used if `value=True`.
    as_frame : bool, default=True
        Whether to return pandas objects instead of arrays.
    random_state : int, RandomState instance or None, default=None
        Seed of all random numbers. The features only depend on the seed and on the
        sizes, not on the other parameters.

    Returns
    -------
    sklearn.utils.Bunch
        Dictionary-like object with the following attributes.

        data : DataFrame or ndarray of shape (n_samples, n_features)
            The features `numeric_0`, ... as floats, then `category_0`, ... as
            `category`, whose values are the codes. In an array, all columns are floats,
            and the last `n_categorical` columns contain the codes 0, 1, ...
        target : DataFrame or ndarray of shape (n_samples, 2)
            The labels 0 and 1, columns `click` and `conversion`. Every converted row
            is also clicked. With `value=True`, a third column `value` has the amounts,
            0 without a conversion; an array then contains floats.
        ctr : ndarray of shape (n_samples,)
            True probability P(click | row), including accidents.
        cvr : ndarray of shape (n_samples,)
            True probability P(conversion | click, row), so `ctr * cvr` is
            P(conversion | row).
        interest : ndarray of shape (n_samples,)
            True probability P(genuine click | row), which is less than `ctr` with click
            noise and equal to it otherwise.
        value : ndarray of shape (n_samples,)
            True mean E[amount | conversion, row], so `ctr * cvr * value` is that per
            impression. Only with `value=True`.
        task_names : list of str
            `["click", "conversion"]`.
        feature_names : list of str
            Names of the columns of `data`.

    Raises
    ------
    ValueError
        If a parameter is out of range, if there is no feature, if `n_categories` does
        not contain one number per categorical feature, or if `cvr` is not less than
        `1 - click_noise`.

    Notes
    -----
    Scales and intercepts are solved for the generated rows, so that the mean
    probabilities equal `ctr`, `cvr` and `click_noise` exactly; the rates of the labels
    differ from them by sampling noise. The expected total of the amounts is exactly 50
    per expected conversion. Calls with different seeds use unrelated models
    of users, so training and test data must come from the same call.

    Examples
    --------
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> impressions = make_ctr_cvr(1000, ctr=0.2, as_frame=False, random_state=0)
    >>> impressions.data.shape, impressions.target.shape
    ((1000, 12), (1000, 2))
    >>> round(float(impressions.ctr.mean()), 6)
    0.2
    >>> impressions = make_ctr_cvr(1000, value=True, random_state=0)
    >>> list(impressions.target.columns)
    ['click', 'conversion', 'value']
    """
    check_integer("n_samples", n_samples, at_least=1)
    check_integer("n_numeric", n_numeric, at_least=0)
    check_integer("n_categorical", n_categorical, at_least=0)
    check_number("ctr", ctr, above=0, below=1)
    check_number("cvr", cvr, above=0, below=1)
    check_number("click_noise", click_noise, at_least=0, below=1)
    check_boolean("value", value)
    check_number("value_tail", value_tail, at_least=0)
    check_boolean("as_frame", as_frame)
    if n_numeric + n_categorical == 0:
        raise ValueError("n_numeric and n_categorical must not both be 0.")
    sizes = _check_sizes(n_categories, n_categorical)
    if cvr >= 1 - click_noise:
        raise ValueError(
            "cvr must be less than 1 - click_noise, since an accidental click never "
            f"converts; got cvr={cvr!r} and click_noise={click_noise!r}."
        )
    pandas = import_extra("pandas", "as_frame=True") if as_frame else None
    rng = check_random_state(random_state)
    directions = np.zeros((n_numeric, 4))
    if n_numeric:
        # Orthogonal directions, which repeat with fewer than four features.
        basis, _ = np.linalg.qr(rng.standard_normal((n_numeric, n_numeric)))
        directions = basis[:, np.arange(4) % n_numeric]
    # Popularities by Zipf's law: a few values have most of the rows, as in logs.
    popularities = [1 / np.arange(1, size + 1) for size in sizes]
    popularities = [share / share.sum() for share in popularities]
    effects = [_draw_effects(rng, share) for share in popularities]
    numeric = rng.standard_normal((n_samples, n_numeric))
    codes = [rng.choice(len(share), n_samples, p=share) for share in popularities]
    scores = _scores(numeric @ directions, codes, effects)
    interest, accident, propensity = _probabilities(
        scores, ctr=ctr, cvr=cvr, click_noise=click_noise
    )
    # The same random number decides about genuine and accidental clicks.
    chance = rng.uniform(size=n_samples)
    click = chance < interest + accident
    conversion = (chance < interest) & (rng.uniform(size=n_samples) < propensity)
    labels = {
        "click": click.astype(np.int64),
        "conversion": conversion.astype(np.int64),
    }
    if value:
        # Drawn last, so that all else is the same with and without amounts.
        mean_amounts = _draw_mean_amounts(
            rng, numeric, codes, popularities, weight=interest * propensity
        )
        noise = value_tail * rng.standard_normal(n_samples) - value_tail**2 / 2
        labels["value"] = np.where(conversion, mean_amounts * np.exp(noise), 0.0)
    numeric_names = [f"numeric_{i}" for i in range(n_numeric)]
    category_names = [f"category_{i}" for i in range(n_categorical)]
    if pandas is None:
        data = np.column_stack([numeric, *codes])
        target = np.column_stack([*labels.values()])
    else:
        target = pandas.DataFrame(labels)
        data = pandas.DataFrame(numeric, columns=numeric_names)
        for name, code, size in zip(category_names, codes, sizes, strict=True):
            data[name] = pandas.Categorical.from_codes(code, categories=range(size))
    values = {"value": mean_amounts} if value else {}
    return Bunch(
        data=data,
        target=target,
        **values,
        ctr=interest + accident,
        cvr=interest * propensity / (interest + accident),
        interest=interest,
        task_names=list(TASK_NAMES),
        feature_names=numeric_names + category_names,
    )


def _check_sizes(n_categories: Any, n_categorical: int) -> list[int]:
    """Return the number of values of each categorical feature."""
    is_one = isinstance(n_categories, Integral)
    sizes = [n_categories] * n_categorical if is_one else list(n_categories)
    are_valid = all(isinstance(size, Integral) and int(size) >= 1 for size in sizes)
    if len(sizes) != n_categorical or not are_valid:
        raise ValueError(
            "n_categories must be an int >= 1, or contain one per categorical feature, "
            f"n_categorical={n_categorical}; got {n_categories!r}."
        )
    return sizes


def _draw_effects(rng: np.random.RandomState, share: Floats) -> Floats:
    """Draw the effects of values; they have deviation 1 over rows, two correlate."""
    effect = rng.standard_normal((len(share), 3))
    effect[:, 1] = 0.5 * effect[:, 0] + np.sqrt(0.75) * effect[:, 1]
    effect -= share @ effect
    deviation = np.sqrt(share @ effect**2)
    # A single value has a deviation of 0.
    return effect / np.where(deviation > 0, deviation, 1)


def _scores(
    latent: Floats,
    codes: Sequence[npt.NDArray[np.integer[Any]]],
    effects: Sequence[Floats],
) -> Floats:
    """Return the scores of interest, conversion and accident, (3, n_samples)."""
    shared, for_interest, for_conversion, for_accident = latent.T
    # Products and squares, so that a linear model does not suffice; the shared
    # direction, so that clicks tell about conversions.
    interest = 0.7 * shared + 0.5 * for_interest + 0.5 * shared * for_interest
    conversion = 0.6 * shared + 0.7 * for_conversion + 0.3 * for_conversion**2
    scores = np.column_stack([interest, conversion, for_accident])
    for code, effect in zip(codes, effects, strict=True):
        # All categories together have slightly less weight than the numeric features.
        scores += 0.8 / np.sqrt(len(codes)) * effect[code]
    deviation = scores.std(axis=0)
    # Equal scores differ by rounding errors only.
    divisor = np.where(deviation > 1e-9, deviation, 1)
    return (SCALES * scores / divisor).T


def _solve(score: Floats, weight: Floats, total: float) -> Floats:
    """Return expit(score + b), where b is such that the weighted sum is `total`."""
    target = total / weight.sum()

    def excess(intercept: float) -> Any:
        return weight @ expit(score + intercept) / weight.sum() - target

    # The margin of 1 ensures a change of sign even if all scores are equal.
    lowest = logit(target) - score.max() - 1
    highest = logit(target) - score.min() + 1
    intercept = brentq(excess, lowest, highest, xtol=1e-13)
    probabilities: Floats = expit(score + intercept)
    return probabilities


def _probabilities(
    scores: Floats, *, ctr: float, cvr: float, click_noise: float
) -> tuple[Floats, Floats, Floats]:
    """Return P(genuine), P(accident) and P(conversion | genuine), of given means."""
    interest_score, conversion_score, accident_score = scores
    n_samples = len(interest_score)
    n_clicks = n_samples * ctr
    interest = _solve(interest_score, np.ones(n_samples), n_clicks * (1 - click_noise))
    propensity = _solve(conversion_score, interest, n_clicks * cvr)
    if not click_noise:
        return interest, np.zeros(n_samples), propensity
    # An accident can only happen without a genuine click.
    no_interest = 1 - interest
    accident = no_interest * _solve(accident_score, no_interest, n_clicks * click_noise)
    return interest, accident, propensity


def _draw_mean_amounts(
    rng: np.random.RandomState,
    numeric: Floats,
    codes: Sequence[npt.NDArray[np.integer[Any]]],
    popularities: Sequence[Floats],
    *,
    weight: Floats,
) -> Floats:
    """Draw the true means of amounts, whose weighted mean over rows is `MEAN_VALUE`."""
    scores = np.zeros(len(numeric))
    n_numeric = numeric.shape[1]
    if n_numeric:
        direction = rng.standard_normal(n_numeric)
        scores += numeric @ direction / np.linalg.norm(direction)
    for code, share in zip(codes, popularities, strict=True):
        # All categories together have the weight of the numeric features.
        effect = _draw_effects(rng, share)[:, 0]
        scores += effect[code] / np.sqrt(len(codes))
    deviation = scores.std()
    # Equal scores differ by rounding errors only.
    divisor = deviation if deviation > 1e-9 else 1.0
    multiples = np.exp(VALUE_SCALE * (scores - scores.mean()) / divisor)
    return MEAN_VALUE * multiples / np.average(multiples, weights=weight)
