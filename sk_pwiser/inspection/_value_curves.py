"""Displays of predicted amounts: totals by decile, and the gains curve."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from sk_pwiser import _responses
from sk_pwiser._columns._frames import collected
from sk_pwiser._utils._checks import did_you_mean
from sk_pwiser.inspection import _displays
from sk_pwiser.metrics import normalized_gini, predicted_over_observed, value_deciles


class Amounts(NamedTuple):
    """Observed and predicted amounts per impression, of the rows where both are known.

    `weight` is None without weights.
    """

    observed: np.ndarray
    predicted: np.ndarray
    weight: np.ndarray | None
    name: str


def read_amounts(
    estimator: Any, X: Any, Y: Any, value: Any, sample_weight: npt.ArrayLike | None
) -> Amounts:
    """Return the `Amounts` of one value of a fitted estimator."""
    X = collected(X)
    Y = collected(Y)
    predictions = _responses.Predictions(estimator, X, {})
    value_tasks = predictions.value_tasks()
    if not value_tasks or not hasattr(estimator, "predict_value"):
        raise ValueError(
            "estimator must be fitted with value_tasks, and have predict_value; got "
            f"{estimator!r}."
        )
    names = predictions.value_names()
    index = find_value(value, names)
    amounts = predictions.observed_amounts(Y, value_tasks)
    observed = amounts[:, index]
    predicted = np.asarray(estimator.predict_value(X), dtype=np.float64)
    predicted = predicted.reshape(len(observed), -1)[:, index]
    weight = None
    rows = ~np.isnan(observed)
    if sample_weight is not None or not rows.all():
        weights = predictions.amount_weights(Y, value_tasks, amounts, sample_weight)
        weight = weights[rows, index]
    return Amounts(observed[rows], predicted[rows], weight, names[index])


def find_value(value: Any, names: list[str]) -> int:
    """Return the index of a value; by default the only one."""
    if value is None and len(names) == 1:
        return 0
    if value in names:
        return names.index(value)
    raise ValueError(
        f"value must be one of {names}, got {value!r}.{did_you_mean(value, names)}"
    )


@dataclass
class ValueDecileDisplay:
    """Predicted and observed totals of a value, by decile of the predictions.

    Use :meth:`from_estimator` or :meth:`from_predictions` to create a display.

    Parameters
    ----------
    predicted, observed : ndarray of shape (n_bins,)
        Totals of the rows of each bin, from the least to the most valuable ones.
    ratio : float
        Predicted over observed total of all rows.
    name : str, default=None
        Name of the value, for the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        Their figure.
    bars_ : matplotlib BarContainer
        The observed totals.
    line_ : matplotlib Line2D
        The predicted totals.

    See Also
    --------
    ValueGainDisplay : The share of the total in the most valuable rows.
    sk_pwiser.metrics.value_deciles : The totals.

    Examples
    --------
    >>> from sk_pwiser.inspection import ValueDecileDisplay
    >>> display = ValueDecileDisplay.from_predictions(
    ...     [0, 0, 0, 80], [1, 2, 10, 50], n_bins=2, name="spend"
    ... )
    >>> display.ratio
    0.7875
    """

    predicted: np.ndarray
    observed: np.ndarray
    _: KW_ONLY
    ratio: float
    name: str | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        Y: Any,
        *,
        value: str | None = None,
        n_bins: int = 10,
        sample_weight: npt.ArrayLike | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the totals of the predictions of a fitted estimator.

        Parameters
        ----------
        estimator : estimator object
            An estimator that was fitted with `value_tasks`, also in a calibrator.
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        Y : array-like of shape (n_samples, n_columns)
            Labels and amounts, as in ``fit``. Rows whose amount is unknown are left
            out.
        value : str, default=None
            Name of the value; needed if there are several.
        n_bins : int, default=10
            Number of bins, with about equal numbers of rows.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Properties of the line of predicted totals.

        Returns
        -------
        ValueDecileDisplay
            The display.
        """
        amounts = read_amounts(estimator, X, Y, value, sample_weight)
        return cls.from_predictions(
            amounts.observed,
            amounts.predicted,
            n_bins=n_bins,
            sample_weight=amounts.weight,
            name=amounts.name,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        *,
        n_bins: int = 10,
        sample_weight: npt.ArrayLike | None = None,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the totals of predictions.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Amounts >= 0 per impression, 0 without the event.
        y_pred : array-like of shape (n_samples,)
            Predicted amounts >= 0.
        n_bins : int, default=10
            Number of bins, with about equal numbers of rows.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        name : str, default=None
            Name of the value, for the axis.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Properties of the line of predicted totals.

        Returns
        -------
        ValueDecileDisplay
            The display.
        """
        bins = value_deciles(y_true, y_pred, n_bins=n_bins, sample_weight=sample_weight)
        ratio = predicted_over_observed(y_true, y_pred, sample_weight=sample_weight)
        display = cls(bins.predicted, bins.observed, ratio=ratio, name=name)
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the totals.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Properties of the line of predicted totals.

        Returns
        -------
        ValueDecileDisplay
            The display.
        """
        ax = _displays.axes_or_new(ax, type(self).__name__)
        places = np.arange(1, len(self.observed) + 1)
        options = {"color": _displays.PALETTE[5], "label": "observed"}
        self.bars_ = ax.bar(places, self.observed, **options)
        line_style = _displays.style(
            kwargs,
            color=_displays.PALETTE[1],
            marker="o",
            label=f"predicted (total x {self.ratio:.2f})",
        )
        (self.line_,) = ax.plot(places, self.predicted, **line_style)
        ax.set_xticks(places)
        ax.set_xlabel("Bin of rows, by predicted amount")
        ax.set_ylabel("Total" if self.name is None else f"Total {self.name}")
        ax.legend(loc="upper left")
        self.ax_ = ax
        self.figure_ = ax.figure
        return self


@dataclass
class ValueGainDisplay:
    """The share of the total value in the rows of the largest predictions.

    The curve of the best order, by the amounts themselves, and the diagonal of a random
    one are drawn beside it. The normalised Gini coefficient is the area between curve
    and diagonal, divided by that of the best order. Use :meth:`from_estimator` or
    :meth:`from_predictions` to create a display; with `ax`, further models are drawn
    into the same axes.

    Parameters
    ----------
    rows, gain : ndarray of shape (n_points,)
        Shares of the rows, and of the total in them, from 0 to 1.
    gini : float
        Normalised Gini coefficient.
    best_rows, best_gain : ndarray of shape (n_best_points,), default=None
        The curve of the best order; None leaves it out.
    name : str, default=None
        Name of the model, for the legend.
    value_name : str, default=None
        Name of the value, for the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        Their figure.
    line_ : matplotlib Line2D
        The curve.

    See Also
    --------
    ValueDecileDisplay : Totals by decile.
    sk_pwiser.metrics.normalized_gini : The coefficient.

    Examples
    --------
    >>> from sk_pwiser.inspection import ValueGainDisplay
    >>> display = ValueGainDisplay.from_predictions([0, 0, 20, 80], [1, 2, 40, 30])
    >>> display.rows.tolist(), display.gain.tolist()
    ([0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 0.2, 1.0, 1.0, 1.0])
    """

    rows: np.ndarray
    gain: np.ndarray
    _: KW_ONLY
    gini: float
    best_rows: np.ndarray | None = None
    best_gain: np.ndarray | None = None
    name: str | None = None
    value_name: str | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        Y: Any,
        *,
        value: str | None = None,
        sample_weight: npt.ArrayLike | None = None,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curve of the predictions of a fitted estimator.

        Parameters
        ----------
        estimator : estimator object
            An estimator that was fitted with `value_tasks`, also in a calibrator.
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        Y : array-like of shape (n_samples, n_columns)
            Labels and amounts, as in ``fit``. Rows whose amount is unknown are left
            out.
        value : str, default=None
            Name of the value; needed if there are several.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        name : str, default=None
            Name of the model; by default that of its class.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Properties of the line.

        Returns
        -------
        ValueGainDisplay
            The display.
        """
        amounts = read_amounts(estimator, X, Y, value, sample_weight)
        return cls.from_predictions(
            amounts.observed,
            amounts.predicted,
            sample_weight=amounts.weight,
            name=type(estimator).__name__ if name is None else name,
            value_name=amounts.name,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        *,
        sample_weight: npt.ArrayLike | None = None,
        name: str | None = None,
        value_name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curve of predictions.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Amounts >= 0 per impression, 0 without the event.
        y_pred : array-like of shape (n_samples,)
            Predictions, of which only the order matters.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        name : str, default=None
            Name of the model, for the legend.
        value_name : str, default=None
            Name of the value, for the axis.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Properties of the line.

        Returns
        -------
        ValueGainDisplay
            The display.
        """
        gini = normalized_gini(y_true, y_pred, sample_weight=sample_weight)
        amounts = np.asarray(y_true, dtype=np.float64).ravel()
        predicted = np.asarray(y_pred, dtype=np.float64).ravel()
        weight = np.ones(len(amounts))
        if sample_weight is not None:
            weight = np.asarray(sample_weight, dtype=np.float64).ravel()
        rows, gain = gains_curve(amounts, predicted, weight)
        best_rows, best_gain = gains_curve(amounts, amounts, weight)
        display = cls(
            rows,
            gain,
            gini=gini,
            best_rows=best_rows,
            best_gain=best_gain,
            name=name,
            value_name=value_name,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Properties of the line.

        Returns
        -------
        ValueGainDisplay
            The display.
        """
        is_first = ax is None or not ax.lines
        ax = _displays.axes_or_new(ax, type(self).__name__)
        if is_first:
            ax.plot([0, 1], [0, 1], label="random order", **_displays.REFERENCE)
            if self.best_rows is not None and self.best_gain is not None:
                best_style = {"color": _displays.GREY, "label": "best order"}
                ax.plot(self.best_rows, self.best_gain, **best_style)
        label = f"Gini = {self.gini:.3f}"
        if self.name is not None:
            label = f"{self.name} ({label})"
        # The lines of the two orders come first.
        color = _displays.task_color(max(len(ax.lines) - 2, 0))
        line_style = _displays.style(kwargs, color=color, label=label)
        (self.line_,) = ax.plot(self.rows, self.gain, **line_style)
        total = "total" if self.value_name is None else f"total {self.value_name}"
        ax.set_xlabel("Share of rows, by decreasing prediction")
        ax.set_ylabel(f"Share of the {total}")
        ax.legend(loc="lower right")
        self.ax_ = ax
        self.figure_ = ax.figure
        return self


def gains_curve(
    amounts: np.ndarray, predicted: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of rows and of the total, by decreasing predictions.

    Rows of equal predictions are one straight piece of the curve.
    """
    distinct, ranks = np.unique(-predicted, return_inverse=True)
    rows = np.bincount(ranks, weights=weight, minlength=len(distinct))
    totals = np.bincount(ranks, weights=weight * amounts, minlength=len(distinct))
    cumulated_rows = np.r_[0.0, np.cumsum(rows)]
    cumulated_totals = np.r_[0.0, np.cumsum(totals)]
    gain = np.full(len(cumulated_totals), np.nan)
    if cumulated_totals[-1] > 0:
        gain = cumulated_totals / cumulated_totals[-1]
    return cumulated_rows / cumulated_rows[-1], gain
