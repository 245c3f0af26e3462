"""The result of a comparison: scores, differences, confidence intervals, verdicts."""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import chain
from typing import Any

import numpy as np
from scipy import stats

from sk_pwiser._columns._frames import result_frame
from sk_pwiser._utils._checks import check_number
from sk_pwiser._utils._extras import import_extra
from sk_pwiser._utils._text_tables import aligned

# Coverage of the intervals.
CONFIDENCE = 0.95
# A row of the table, by its columns.
Row = dict[str, Any]
# Smaller differences, relative to the score, need no more digits.
SMALL_DIFFERENCE = 1e-4
# Metrics are printed without it, and with their own sign.
MINUS = "minus "
# The names of predicted over observed totals begin with it; they are no metrics.
RATIO = "predicted / observed "


@dataclass(repr=False, eq=False)
class ModelComparison:
    r"""Scores of several candidates on the same folds, compared with the first one.

    :func:`compare_models` returns this object; it can also be created from scores that
    were computed elsewhere. Its parameters are attributes of the same names. ``print``
    shows a table and a verdict for each metric.

    Parameters
    ----------
    candidates : list of str
        Names of the candidates, at least two. The first one is the baseline.
    scores : dict of str to array-like
        For each metric, scores of shape (n_candidates, n_splits); larger is better.
        Each column contains the scores on one fold. Undefined scores are NaN. A metric
        with a name such as "minus log loss" is printed as "log loss", with the opposite
        sign.
    test_train_ratio : float
        Number of test rows divided by the number of training rows, for example 1 / 4
        for five folds.
    params : list of dict or None, default=None
        For each candidate, the parameters of the estimator that define it:
        ``estimator.set_params(**params[i])`` creates candidate ``i``. They are None for
        other models.
    seeds : array-like of shape (n_splits,), default=None
        For each fold, the ``random_state`` of the fits.
    fit_times, score_times : array-like of shape (n_candidates, n_splits), default=None
        Durations of each fit, and of its predictions and scores, in seconds.
    ratios : dict of str to array-like, default=None
        For each value, the predicted over the observed total amount, of shape
        (n_candidates, n_splits); 1 is best.

    Raises
    ------
    ValueError
        If there are fewer than two candidates, if two candidates have the same name, if
        the shape of the scores of a metric is wrong, or if ``test_train_ratio`` is
        negative.
    TypeError
        If ``test_train_ratio`` is not a number.

    See Also
    --------
    compare_models : Fits the candidates and returns a comparison.

    Notes
    -----
    The confidence interval is the one of a paired Student t-test. Let :math:`d_j` be
    the difference to the baseline on fold :math:`j` of :math:`J`, and :math:`s^2` the
    sample variance of these differences. Because training sets overlap, the differences
    are not independent, and :math:`s^2 / J` underestimates the variance of their mean.
    The corrected variance of Nadeau and Bengio is used for folds, for repeated folds
    and for random splits:

    .. math:: \left(\frac{1}{J} + \frac{n_{test}}{n_{train}}\right) s^2

    The interval is the mean difference, plus and minus the square root of this variance
    times the 97.5 % quantile of Student's t distribution with :math:`J - 1` degrees of
    freedom. Folds on which the score of either candidate is not finite are left out.

    Each interval is valid on its own. In 20 comparisons of equally good candidates,
    about one interval excludes 0 by chance. With few folds, intervals are long: if a
    candidate is ahead, or behind, on all folds, the verdict says so although the
    interval contains 0. Equally good candidates do so in 50 % of the cases with two
    folds, in 25 % with three, and in 6 % with five.

    References
    ----------
    Nadeau and Bengio (2003). "Inference for the Generalization Error." Machine Learning
    52. :doi:`10.1023/A:1024068626366`

    Bouckaert and Frank (2004). "Evaluating the Replicability of Significance Tests for
    Comparing Learning Algorithms." PAKDD. :doi:`10.1007/978-3-540-24775-3_3`

    Examples
    --------
    >>> from sk_pwiser.model_selection import ModelComparison
    >>> scores = {
    ...     "click AUC": [[0.70, 0.73, 0.71], [0.71, 0.72, 0.71]],
    ...     "conversion AUC": [[0.80, 0.81, 0.79], [0.85, 0.87, 0.84]],
    ... }
    >>> comparison = ModelComparison(["bce", "pwiser"], scores, test_train_ratio=0.5)
    >>> print(comparison)
    Differences to bce over 3 folds, with 95 % intervals; larger scores are better.
    metric          candidate    mean  difference            interval
    click AUC       bce        0.7133
    click AUC       pwiser     0.7133     +0.0000  [-0.0393, +0.0393]
    conversion AUC  bce        0.8000
    conversion AUC  pwiser     0.8533     +0.0533  [+0.0307, +0.0760]
    click AUC: no difference between bce and pwiser that these folds can show.
    conversion AUC: pwiser is ahead of bce by 0.0533 [0.0307, 0.0760].
    """

    candidates: list[str]
    scores: dict[str, Any]  # arrays once the object exists
    _: KW_ONLY
    test_train_ratio: float
    params: list[dict[str, Any] | None] | None = None
    seeds: Any = None
    fit_times: Any = None
    score_times: Any = None
    ratios: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.candidates = [str(name) for name in self.candidates]
        self.scores = {
            metric: np.asarray(scores, dtype=float)
            for metric, scores in self.scores.items()
        }
        if self.ratios is not None:
            self.ratios = {
                name: np.asarray(ratios, dtype=float)
                for name, ratios in self.ratios.items()
            }
        for name in ("seeds", "fit_times", "score_times"):
            if getattr(self, name) is not None:
                setattr(self, name, np.asarray(getattr(self, name)))
        n_distinct = len(set(self.candidates))
        if n_distinct < 2 or n_distinct < len(self.candidates):
            raise ValueError(
                f"candidates must be two or more distinct names, got {self.candidates}."
            )
        shapes = {name: values.shape for name, values in self.scores.items()}
        expected = (len(self.candidates), *next(iter(shapes.values()), ())[1:])
        if len(expected) != 2 or set(shapes.values()) != {expected}:
            raise ValueError(
                "scores must map each metric to an array of shape (n_candidates, "
                f"n_splits) with n_candidates={len(self.candidates)}, got {shapes}."
            )
        check_number("test_train_ratio", self.test_train_ratio, at_least=0)

    @property
    def table(self) -> Any:
        """The comparison as a table, with one row per metric and candidate.

        Returns
        -------
        pandas.DataFrame or dict of str to ndarray
            A DataFrame if pandas is installed, otherwise a dict with the same columns:
            ``metric``, ``candidate``, ``mean`` (mean score), ``difference`` (mean
            difference to the baseline), ``std_error`` (its standard error), ``low`` and
            ``high`` (its 95 % confidence interval), ``n_splits`` (number of folds with
            a finite difference), ``n_ahead`` and ``n_behind`` (number of folds on which
            the candidate is better and worse). Undefined numbers are NaN.
        """
        rows = list(chain.from_iterable(self._rows().values()))
        return result_frame(
            {name: np.array([row[name] for row in rows]) for name in rows[0]}
        )

    @property
    def verdicts(self) -> dict[str, str]:
        """The result in words, a dict of str to str.

        For each metric, whether each candidate is better or worse than the baseline.
        """
        baseline = self.candidates[0]
        return {
            metric: _verdict(rows[1:], baseline)
            for metric, rows in self._rows().items()
        }

    def plot(self, ax: Any = None) -> Any:
        """Plot the differences to the baseline with their confidence intervals.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.

        Returns
        -------
        matplotlib Axes
            The axes, with a group of horizontal intervals per metric, one interval per
            candidate except for the baseline. A vertical line marks 0.
        """
        pyplot = import_extra("matplotlib.pyplot", "ModelComparison.plot")
        if ax is None:
            _, ax = pyplot.subplots()
        baseline = self.candidates[0]
        compared = self.candidates[1:]
        # The candidates of a metric stand side by side, with the tick in their middle.
        steps = np.arange(len(compared)) - (len(compared) - 1) / 2
        offsets = steps * 0.6 / len(compared)
        places = np.arange(len(self.scores))
        rows_of_candidates = list(zip(*self._rows().values(), strict=True))[1:]
        for candidate, offset, rows in zip(
            compared, offsets, rows_of_candidates, strict=True
        ):
            difference = np.array([row["difference"] for row in rows])
            reach = np.array([row["high"] for row in rows]) - difference
            options = {"fmt": "o", "capsize": 3, "label": candidate}
            ax.errorbar(difference, places + offset, xerr=reach, **options)
        ax.axvline(0, color="gray", linewidth=1, zorder=0)
        ax.set_yticks(places, list(self.scores))
        ax.set_ylim(len(places) - 0.5, -0.5)  # the first metric at the top
        ax.set_xlabel(f"Difference to {baseline} (95 % interval)")
        ax.legend()
        return ax

    def __repr__(self) -> str:
        n_splits = next(iter(self.scores.values())).shape[1]
        losses = any(name.startswith(MINUS) for name in self.scores)
        better = "larger scores and smaller losses" if losses else "larger scores"
        title = (
            f"Differences to {self.candidates[0]} over {n_splits} folds, with 95 % "
            f"intervals; {better} are better."
        )
        verdicts = [
            f"{name.removeprefix(MINUS)}: {text}."
            for name, text in self.verdicts.items()
        ]
        cells = [("metric", "candidate", "mean", "difference", "interval")]
        for metric, rows in self._rows().items():
            digits = _digits(rows)
            name, sign = as_printed(metric)
            for row in rows:
                mean = _number(sign * row["mean"], digits)
                difference = ""
                interval = ""
                if row["candidate"] != self.candidates[0]:
                    difference = _number(sign * row["difference"], digits, "+")
                    # The opposite sign of a loss swaps the ends.
                    low, high = sorted([sign * row["low"], sign * row["high"]])
                    interval = _interval(low, high, digits, "+")
                cells.append((name, row["candidate"], mean, difference, interval))
        lines = [title, *aligned(cells, "<<>>>"), *verdicts, *self._ratio_lines()]
        return "\n".join(lines)

    def _ratio_lines(self) -> list[str]:
        """Return a line per value: the mean ratio of totals of each candidate."""
        lines = []
        for value, ratios in (self.ratios or {}).items():
            means = [
                f"{candidate} {_finite_mean(row):.2f}"
                for candidate, row in zip(self.candidates, ratios, strict=True)
            ]
            lines.append(f"{value}, predicted / observed total: {', '.join(means)}.")
        return lines

    @property
    def seconds(self) -> str:
        """Median seconds of fits, and of predictions and scores, per candidate."""
        if self.fit_times is None or self.score_times is None:
            raise ValueError("seconds needs fit_times and score_times; one is None.")
        # The first fit of a process takes longer than the others.
        times = np.median([self.fit_times, self.score_times], axis=2)
        return "\n".join(
            f"{name}: {fit:.2f} s per fit, {score:.2f} s to predict and score"
            for name, fit, score in zip(self.candidates, *times, strict=True)
        )

    def _rows(self) -> dict[str, list[Row]]:
        """Return the rows of the table by metric, that of the baseline first."""
        return {
            metric: [
                {
                    "metric": metric,
                    "candidate": candidate,
                    "mean": _finite_mean(scores),
                    **paired_interval(scores - table[0], self.test_train_ratio),
                }
                for candidate, scores in zip(self.candidates, table, strict=True)
            ]
            for metric, table in self.scores.items()
        }


def as_printed(metric: str) -> tuple[str, int]:
    """Return the name of a metric in print, and its sign there: -1 for losses."""
    return metric.removeprefix(MINUS), -1 if metric.startswith(MINUS) else 1


def paired_interval(
    differences: np.ndarray, test_train_ratio: float
) -> dict[str, float]:
    """Return the mean of finite paired differences and its corrected interval."""
    finite = differences[np.isfinite(differences)]
    n_splits = len(finite)
    mean = _finite_mean(finite)
    error = np.nan
    half_width = np.nan
    if n_splits >= 2:
        # Nadeau and Bengio (2003), section 4.1: training sets overlap.
        error = np.sqrt((1 / n_splits + test_train_ratio) * finite.var(ddof=1))
        half_width = stats.t.ppf((1 + CONFIDENCE) / 2, n_splits - 1) * error
    return {
        "difference": mean,
        "std_error": float(error),
        "low": float(mean - half_width),
        "high": float(mean + half_width),
        "n_splits": n_splits,
        "n_ahead": int((finite > 0).sum()),
        "n_behind": int((finite < 0).sum()),
    }


def _finite_mean(values: np.ndarray) -> float:
    """Return the mean of the finite values, NaN if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


def _digits(rows: Sequence[Row]) -> int:
    """Return the decimals that show two digits of the smallest difference, 4 or more.

    At 0.1 % of conversions a log loss is 0.007, and a large difference is in the fifth
    decimal.
    """
    smallest = min(
        (
            max(abs(row["difference"]), row["high"] - row["difference"])
            for row in rows
            if abs(row["difference"]) > SMALL_DIFFERENCE * abs(row["mean"])
        ),
        default=1.0,
    )
    return 4 if smallest >= 1e-4 else 1 - math.floor(math.log10(smallest))


def _verdict(rows: Sequence[Row], baseline: str) -> str:
    """Return in words whether candidates are ahead of the baseline, or behind it."""
    sentences = []
    similar_candidates = []
    undefined_candidates = []
    digits = _digits(rows)
    for row in rows:
        candidate = row["candidate"]
        low = row["low"]
        high = row["high"]
        n_splits = row["n_splits"]
        amount = _number(abs(row["difference"]), digits)
        is_clear = low > 0 or high < 0
        agrees = n_splits in (row["n_ahead"], row["n_behind"])
        if np.isnan(low):
            undefined_candidates.append(candidate)
        # An interval can exclude 0 by less than the digits show.
        elif amount == _number(0, digits) or not (is_clear or agrees):
            similar_candidates.append(candidate)
        else:
            place = "ahead of" if row["difference"] > 0 else "behind"
            if is_clear:
                smallest, largest = sorted([abs(low), abs(high)])
                interval = _interval(smallest, largest, digits)
                evidence = f"by {amount} {interval}"
            else:
                folds = "both folds" if n_splits == 2 else f"all {n_splits} folds"
                evidence = (
                    f"on {folds}, by {amount} in the mean, but these are too few folds "
                    "to be sure"
                )
            sentences.append(f"{candidate} is {place} {baseline} {evidence}")
    if similar_candidates:
        names = " or ".join(similar_candidates)
        sentences.append(
            f"no difference between {baseline} and {names} that these folds can show"
        )
    if undefined_candidates:
        names = " and ".join(undefined_candidates)
        sentences.append(
            f"no interval for {names}, because fewer than two folds have a score"
        )
    return "; ".join(sentences)


def _interval(low: float, high: float, digits: int, sign: str = "") -> str:
    return f"[{_number(low, digits, sign)}, {_number(high, digits, sign)}]"


def _number(value: float, digits: int, sign: str = "") -> str:
    # Adding 0 turns -0.0 into 0.0.
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"
