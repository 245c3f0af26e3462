"""Weights for logs in which conversions of recent impressions are still to come."""

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import assert_all_finite

from sk_pwiser._columns._frames import is_missing, refuse_unreadable
from sk_pwiser._tasks._labels import read_array, read_labels, zero_one_labels
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._utils._checks import accept_any_case_of_y, check_number
from sk_pwiser._utils._warnings import warn_user

__all__ = ["delay_distribution", "delayed_feedback_weights"]

# A rate of 1 would make the weight of a click without a conversion 0 / 0.
LARGEST_RATE = 1 - 1e-6

Floats = npt.NDArray[np.float64]
# What is passed in may be a column of any library.
Column = Any


def delay_distribution(delay: Column, *, elapsed: Column) -> tuple[Floats, Floats]:
    r"""Estimate the distribution of the delay of conversions.

    A conversion is in the log only if its delay d is at most the time e that has
    elapsed since its impression, so that the log has too many short delays. The
    product-limit estimate for such data is

    .. math:: F(t) = \prod_{d_j > t} \Big(1 - \frac{n_j}{R_j}\Big), \qquad
        R_j = \#\{i : d_i \le d_j \le e_i\}

    with the number :math:`n_j` of conversions of delay :math:`d_j`. It is 1 from the
    largest delay in the log on: later conversions count as none. Delays with
    :math:`n_j = R_j`, where no impression with a shorter delay is old enough to be
    compared, are left out of the product: a single such conversion would make F zero at
    all shorter delays.

    Parameters
    ----------
    delay : array-like of shape (n_conversions,)
        Time from the impression to the conversion: durations, or numbers in any unit.
    elapsed : array-like of shape (n_conversions,)
        Time from the impression to the end of the log, at least the delay: durations,
        or numbers in the same unit.

    Returns
    -------
    delays : float64 ndarray of shape (n_delays,)
        The distinct delays, in increasing order; of durations, in seconds.
    probabilities : float64 ndarray of shape (n_delays,)
        F at these delays.

    Raises
    ------
    ValueError
        If the shapes differ, if there is no conversion, if a delay is negative or
        above its elapsed time, if one of both are durations and the other is numbers,
        or if they are dates.

    Warns
    -----
    UserWarning
        If delays are left out of the product.

    References
    ----------
    Lynden-Bell (1971), "A method of allowing for known observational selection in small
    samples applied to 3CR quasars", Monthly Notices of the Royal Astronomical Society
    155. :doi:`10.1093/mnras/155.1.95`

    Examples
    --------
    >>> from sk_pwiser.delayed_feedback import delay_distribution
    >>> delays, probabilities = delay_distribution([1, 1, 2], elapsed=[1, 3, 3])
    >>> delays.tolist(), probabilities.tolist()
    ([1.0, 2.0], [0.5, 1.0])
    """
    delay, elapsed = _columns_of_times(delay, elapsed)
    _check_delays(delay, elapsed)
    delays, counts = np.unique(delay, return_counts=True)
    shorter = np.searchsorted(np.sort(delay), delays, side="right")
    # Impressions that are too young to have had this delay.
    younger = np.searchsorted(np.sort(elapsed), delays, side="left")
    factors = 1 - counts / (shorter - younger)
    # The first factor is not in any product.
    is_alone = (factors == 0) & (np.arange(len(delays)) > 0)
    if is_alone.any():
        warn_user(
            f"The delays of {counts[is_alone].sum()} conversion(s), the longest of "
            f"{delays[is_alone].max():g}, cannot be compared with shorter ones: no "
            "conversion with a shorter delay has an elapsed time as long. They do not "
            "influence the distribution of shorter delays."
        )
        factors[is_alone] = 1.0
    # F at a delay is the product over the delays above it.
    factors_above = np.append(factors[1:], 1.0)
    return delays, np.cumprod(factors_above[::-1])[::-1]


@accept_any_case_of_y
def delayed_feedback_weights(
    Y: Any,
    *,
    delay: Column,
    elapsed: Column,
    cvr: Column | None = None,
    min_probability: float = 0.05,
) -> Floats:
    r"""Compute weights that remove the bias of conversions that are still to come.

    In a log that ends now, a label of 0 of the last task may become 1. With the
    probability F(e) that a conversion is seen within the elapsed time e, the weights of
    the last task are

    .. math:: w = \frac{1}{F(e)} \ \text{(converted)}, \quad
        w = \frac{1 - p}{1 - p\,F(e)} \ \text{(clicked, not converted)}, \quad
        w = 1 \ \text{(others)}

    with the conversion rate p of clicks, or of the previous task in a longer funnel.
    The expected loss is then that of a log with all conversions. Rows with F(e) below
    `min_probability`, clicked or not, have the weight 0: their label counts as missing.

    Parameters
    ----------
    Y : array-like of shape (n_samples, n_tasks)
        Labels, 0 or 1, at least two tasks. The labels of the last one are those at the
        end of the log.
    delay : array-like of shape (n_samples,)
        Time from the impression to the conversion: durations, or numbers in any unit.
        It is read for the converted rows only, and may be missing elsewhere.
    elapsed : array-like of shape (n_samples,)
        Time from the impression to the end of the log: durations, or numbers in the
        same unit.
    cvr : array-like of shape (n_samples,), default=None
        The conversion rate p of each row, such as `predict_cvr` of an earlier fit. By
        default one rate for all rows, the sum of 1 / F(e) over the clicked and
        converted rows divided by the number of clicks.
    min_probability : float, default=0.05
        Smallest F(e) of a row with a label, in (0, 1].

    Returns
    -------
    float64 ndarray of shape (n_samples, n_tasks)
        Weights for `sample_weight` of
        :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`; 1 for the tasks before the last.

    Raises
    ------
    ValueError
        If the labels, times or rates are invalid.

    Warns
    -----
    UserWarning
        If delays do not influence the estimate of F; see :func:`delay_distribution`.

    See Also
    --------
    delay_distribution : The estimate of F.

    Notes
    -----
    F is assumed to be the same for all rows, and no delay to exceed the longest one in
    the log. With `cvr=None`, the weight of a click without a conversion is exact if all
    clicks have the same conversion rate. If rates are small, it is close to 1 in any
    case.

    The weights are those of the feedback shift correction (Yasui et al. 2020), where F
    and p are two further models instead of the estimates above. See
    :ref:`delayed_conversions` for other methods.

    References
    ----------
    Yasui et al. (2020), "A feedback shift correction in predicting conversion rates
    under delayed feedback", WWW. :doi:`10.1145/3366423.3380032`

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.delayed_feedback import delayed_feedback_weights
    >>> Y = np.array([[1, 1], [1, 1], [1, 1], [1, 0], [0, 0]])
    >>> elapsed = np.array([1, 3, 3, 1, 1])
    >>> delay = np.array([1, 1, 2, np.nan, np.nan])
    >>> weights = delayed_feedback_weights(
    ...     Y, delay=delay, elapsed=elapsed, cvr=np.full(5, 0.4)
    ... )
    >>> weights.round(2).tolist()
    [[1.0, 2.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.75], [1.0, 1.0]]
    """
    values, _, columns = read_labels(Y)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(
            f"Y must have at least two columns; its shape is {values.shape}."
        )
    labels = zero_one_labels(values, columns)
    n_samples = len(labels)
    check_match(Y, n_samples, input_name="Y", delay=delay, elapsed=elapsed, cvr=cvr)
    delay, elapsed = _columns_of_times(delay, elapsed, n_samples)
    if (row := _first(elapsed < 0)) is not None:
        raise ValueError(f"elapsed must be >= 0; it is {elapsed[row]} in row {row}.")
    check_number("min_probability", min_probability, above=0, at_most=1)
    clicked = labels[:, -2] == 1
    converted = labels[:, -1] == 1
    _check_delays(delay, elapsed, converted)
    # F(e), the probability that a conversion is seen within the elapsed time.
    seen = np.ones(n_samples)
    if converted.any():
        delays, probabilities = delay_distribution(
            delay[converted], elapsed=elapsed[converted]
        )
        position = np.searchsorted(delays, elapsed, side="right")
        seen = np.append(0.0, probabilities)[position]
    is_known = seen >= min_probability
    seen = np.where(is_known, seen, 1.0)
    rate = _rates(cvr, clicked & is_known, clicked & converted & is_known, seen)
    unconverted = (1 - rate) / (1 - rate * seen)
    weights = np.ones(labels.shape)
    weights[:, -1] = np.where(clicked, unconverted, 1.0)
    weights[converted, -1] = 1 / seen[converted]
    weights[~is_known, -1] = 0.0
    return weights


def _check_delays(
    delay: Floats, elapsed: Floats, is_read: npt.NDArray[np.bool_] | bool = True
) -> None:
    wrong = is_read & ~((delay >= 0) & (delay <= elapsed))
    if (row := _first(wrong)) is not None:
        raise ValueError(
            "delay must be known for converted rows, and within 0 and elapsed; it is "
            f"{delay[row]} in row {row}, with elapsed {elapsed[row]}."
        )


def _first(wrong: npt.NDArray[np.bool_]) -> int | None:
    """Return the first row that is wrong, or None."""
    return int(wrong.argmax()) if wrong.any() else None


def _rates(
    cvr: Column | None,
    clicked: npt.NDArray[np.bool_],
    converted: npt.NDArray[np.bool_],
    seen: Floats,
) -> Floats:
    """Return the conversion rate of each row, below 1."""
    if cvr is not None:
        rate = _column("cvr", cvr, len(seen))
        if (row := _first(~((rate >= 0) & (rate <= 1)))) is not None:
            raise ValueError(f"cvr must be in [0, 1]; it is {rate[row]} in row {row}.")
    else:
        expected_conversions = (1 / seen[converted]).sum()
        rate = np.full(len(seen), expected_conversions / max(clicked.sum(), 1))
    return np.minimum(rate, LARGEST_RATE)


def _columns_of_times(
    delay: Column, elapsed: Column, n_samples: int | None = None
) -> tuple[Floats, Floats]:
    """Return both as numbers, durations in seconds."""
    delay, delay_kind = _seconds(delay, "delay")
    elapsed, elapsed_kind = _seconds(elapsed, "elapsed")
    if delay_kind != elapsed_kind and None not in (delay_kind, elapsed_kind):
        raise ValueError(
            f"delay is {delay_kind}, but elapsed is {elapsed_kind}: pass both as "
            "durations, or both as numbers in one unit."
        )
    # Delays are checked in the rows in which they are read.
    delay = _column("delay", delay, n_samples)
    elapsed = _column("elapsed", elapsed, len(delay))
    assert_all_finite(elapsed, input_name="elapsed")
    return delay, elapsed


def _seconds(values: Column, name: str) -> tuple[Any, str | None]:
    """Return durations as seconds or values as given, and the kind, None if unknown."""
    refuse_unreadable(values, name)
    array: npt.NDArray[Any] = np.asarray(values)
    if array.dtype.kind == "f" and np.isnan(array).all():
        return values, None
    if array.dtype == object:
        is_known = np.array([not is_missing(value) for value in array.flat], dtype=bool)
        if not is_known.any():
            return values, None
        durations = array.flat[is_known]
        if not all(
            isinstance(value, timedelta | np.timedelta64) for value in durations
        ):
            return values, "numbers"
        array = np.full(array.shape, np.timedelta64("NaT", "us"))
        # One by one: those of numpy may have different units.
        array.flat[is_known] = [np.timedelta64(value, "us") for value in durations]
    if array.dtype.kind == "M":
        raise ValueError(
            f"{name} must be durations or numbers, but it contains dates: subtract the "
            "time of the impression."
        )
    if array.dtype.kind != "m":
        return values, "numbers"
    return array / np.timedelta64(1, "s"), "durations"


def _column(name: str, values: Column, n_samples: int | None = None) -> Floats:
    rule = "must contain one number per row."
    column: Floats = read_array(values, name, rule, dtype=np.float64, error=ValueError)
    n_samples = len(column) if n_samples is None else n_samples
    if column.shape != (n_samples,):
        raise ValueError(f"{name} must have shape ({n_samples},); got {column.shape}.")
    return column
