"""Distributions of the scores of a task by funnel depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from scipy.special import logit
from scipy.stats import gaussian_kde

from sk_pwiser._responses import check_task, find_task
from sk_pwiser._tasks._stratify import funnel_depth
from sk_pwiser._tasks._tree import task_paths
from sk_pwiser.inspection import _displays

LIMITS = np.finfo(np.float32)
# The density is estimated from the counts in bins, so that its cost does not depend on
# the number of rows.
N_BINS = 512
# Number of points at which a density is drawn.
N_POINTS = 256


@dataclass(kw_only=True, repr=False, eq=False)
class FunnelScoreDisplay:
    """Densities of the predicted log-odds of a task, by funnel depth.

    PWiseR ranks the rows at the end of the funnel above all other rows: the more the
    densities differ, the better the ranking. Each density has an area of 1, however few
    rows it represents. That of the rows that reach a task has the colour of the task in
    other displays; that of the rows without the first task is grey.

    `from_estimator` and `from_predictions` create the display.

    Parameters
    ----------
    log_odds : ndarray of shape (n_samples,)
        Predicted log-odds of the task.
    depth : int ndarray of shape (n_samples,)
        :func:`~sk_pwiser.model_selection.funnel_depth` of each row, the number of
        leading tasks that are 1. Rows of unknown depth, -1, are left out.
    task_name : str
        Task whose log-odds are drawn.
    task_names : list of str
        Names of the tasks of the funnel, in order. In a tree, the tasks of a path that
        contains the task.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        The densities of depths with at least two distinct scores, in order of depth.
    ax_, figure_ : matplotlib Axes and Figure
        The axes and their figure.

    Examples
    --------
    >>> from sk_pwiser.inspection import FunnelScoreDisplay
    >>> Y = [[0, 0], [0, 0], [1, 0], [1, 0], [1, 1], [1, 1]]
    >>> P = [[0.2, 0.0], [0.5, 0.1], [0.4, 0.2], [0.6, 0.1], [0.7, 0.3], [0.8, 0.2]]
    >>> display = FunnelScoreDisplay.from_predictions(Y, P, task=-1)
    >>> [line.get_label() for line in display.lines_]
    ['no task 0 (2 rows)', 'task 0, no task 1 (2 rows)', 'task 1 (2 rows)']
    """

    log_odds: np.ndarray
    depth: np.ndarray
    task_name: str
    task_names: list[str]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        Y: Any,
        *,
        task: int | str = -1,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the densities of the predictions of a fitted estimator.

        Parameters
        ----------
        estimator : estimator object
            A fitted estimator of several tasks.
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels, 0 or 1.
        task : int or str, default=-1
            The task whose log-odds are drawn: its index or its name.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        FunnelScoreDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the labels are invalid or do not match the tasks of the estimator, or if
            there is no such task.
        TypeError
            If `task` is neither an int nor a str.
        """
        responses = _displays.read_responses(estimator, X, Y)
        return cls._from_responses(responses, task).plot(ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        Y: Any,
        P: Any,
        *,
        task: int | str = -1,
        task_names: Sequence[str] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the densities of predicted probabilities.

        Parameters
        ----------
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels, 0 or 1. They may be missing.
        P : array-like of shape (n_samples, n_tasks) or (n_samples,), or list
            Probabilities over impressions, as returned by `predict_proba`.
        task : int or str, default=-1
            The task whose log-odds are drawn: its index or its name.
        task_names : list of str, default=None
            Names of the tasks; by default the column names of `Y`.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        FunnelScoreDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If labels, probabilities or names are invalid or do not match, or if there
            is no such task.
        TypeError
            If `task` is neither an int nor a str.
        """
        responses = _displays.read_responses(
            _displays.GivenPredictions(P), None, Y, task_names
        )
        return cls._from_responses(responses, task).plot(ax, **kwargs)

    @classmethod
    def _from_responses(cls, responses: _displays.Responses, task: int | str) -> Self:
        names = responses.names
        task = check_task(task, alternatives="")
        k = find_task(task, len(names), names, alternatives="")
        # Probabilities of exactly 0 and 1 have finite log-odds then.
        p = np.clip(responses.p[:, k], LIMITS.tiny, 1 - LIMITS.epsneg)
        # In a tree, only the tasks of a path have an order, and so a depth.
        paths = task_paths(responses.predictions.task_parents(len(names)))
        path = next(path for path in paths if k in path)
        labels = np.where(responses.is_known, responses.targets, np.nan)[:, path]
        depth = np.full(len(labels), -1)
        has_depth = responses.is_known[:, path[0]]
        depth[has_depth] = funnel_depth(labels[has_depth])
        return cls(
            log_odds=logit(p),
            depth=depth,
            task_name=names[k],
            task_names=[names[column] for column in path],
        )

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the densities.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Properties of all lines, passed to matplotlib's `plot`.

        Returns
        -------
        FunnelScoreDisplay
            The display.
        """
        ax = _displays.axes_or_new(ax, "FunnelScoreDisplay")
        # Displays of two models side by side may share their y axis.
        siblings = ax.get_shared_y_axes().get_siblings(ax)
        has_curves = any(sibling.has_data() for sibling in siblings)
        top = ax.get_ylim()[1] if has_curves else 0.0
        self.lines_ = []
        names = self.task_names
        between = [f"{reached}, no {later}" for reached, later in pairwise(names)]
        for depth, label in enumerate([f"no {names[0]}", *between, names[-1]]):
            values = self.log_odds[self.depth == depth]
            # Without a range beyond rounding, no bins differ: there is no density.
            resolution = 4 * N_BINS * np.spacing(abs(values).max(initial=1.0))
            if len(values) == 0 or np.ptp(values) <= resolution:
                continue
            points, density = _estimate_density(values)
            color = _displays.GREY if depth == 0 else _displays.task_color(depth - 1)
            properties = _displays.style(
                kwargs, color=color, label=f"{label} ({len(values):,} rows)"
            )
            (line,) = ax.plot(points, density, **properties)
            ax.fill_between(points, density, color=line.get_color(), alpha=0.15, lw=0)
            self.lines_.append(line)
        ax.set(xlabel=f"Predicted log-odds of {self.task_name}", ylabel="Density")
        peak = max((line.get_ydata().max() for line in self.lines_), default=1.0)
        # Space for the legend above the densities.
        ax.set_ylim(0, max(top, peak * (1.15 + 0.1 * len(self.lines_))))
        ax.legend(loc="upper right")
        self.ax_ = ax
        self.figure_ = ax.figure
        return self


def _estimate_density(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points and a Gaussian kernel density estimate at them."""
    # Bins in place of rows: the cost of a density grows with the number of its kernels.
    counts, edges = np.histogram(values, N_BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    has_rows = counts > 0
    # Scott's rule for the number of rows; SciPy would apply it to the number of bins.
    bandwidth = len(values) ** -0.2
    kernel = gaussian_kde(
        centres[has_rows], bw_method=bandwidth, weights=counts[has_rows].astype(float)
    )
    reach = 3 * np.sqrt(kernel.covariance[0, 0])  # the density is nearly 0 beyond it
    points = np.linspace(edges[0] - reach, edges[-1] + reach, N_POINTS)
    return points, kernel(points)
