"""Rates of the cells of a combination of columns, as a heat map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from sk_pwiser._tasks._labels import check_targets
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._utils._checks import check_choice
from sk_pwiser.inspection import _displays

# Values of a column that a picture shows, the most frequent ones.
MOST_VALUES = 30
# Cells are shrunk to the mean rate as by so many rows.
PRIOR_ROWS = 10


@dataclass(kw_only=True, repr=False, eq=False)
class CombinationDisplay:
    """Rates of a task by the values of two columns that a fit combines.

    `from_estimator` creates the display. Cells without rows are left blank.

    Parameters
    ----------
    rates : ndarray of shape (n_first, n_second)
        Rates of the cells, shrunk to the mean rate as by ten rows; NaN without rows.
    counts : ndarray of shape (n_first, n_second)
        Numbers of rows of the cells.
    values : list of list of str
        The values of both columns.
    column_names : list of (str or int)
        Names of both columns.
    task_name : str
        Name of the task.

    Attributes
    ----------
    image_ : matplotlib AxesImage
        The heat map.
    ax_ : matplotlib Axes
        Its axes.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.inspection import CombinationDisplay
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame(rng.choice(["a", "b", "c"], (2_000, 2)), columns=["x", "y"])
    >>> click = rng.random(2_000) < np.where(X["x"] == X["y"], 0.4, 0.2)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0)
    >>> model.fit(X, click).combinations_
    [('x', 'y')]
    >>> display = CombinationDisplay.from_estimator(model, X, click)
    >>> display.rates.shape
    (3, 3)
    """

    rates: np.ndarray
    counts: np.ndarray
    values: list[list[str]]
    column_names: list[Any]
    task_name: str

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        Y: Any,
        *,
        combination: Sequence[Any] | None = None,
        task: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the rates of the cells of a combination.

        Parameters
        ----------
        estimator : MultiTaskCTRCVRClassifier
            The fitted estimator.
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            Impressions.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Their labels.
        combination : tuple of (str or int), default=None
            One of the `combinations_` of the estimator, by default the first one. Of
            three columns, the first two are shown.
        task : str, default=None
            The task, by default the first one.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        CombinationDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the estimator has no such combination or task.
        """
        names = list(estimator.combinations_)
        if not names:
            raise ValueError("estimator has no combinations_ of columns.")
        combination = names[0] if combination is None else tuple(combination)
        if combination not in names:
            raise ValueError(
                f"combination must be one of {names}; got {combination!r}."
            )
        check_match(X, len(Y), Y=Y)
        targets = check_targets(
            Y,
            estimator.task_names,
            missing_labels="ignore",
            task_parents=estimator.task_parents,
            value_tasks=estimator.value_tasks,
        )
        task_names = list(targets.task_names)
        task = task_names[0] if task is None else task
        check_choice("task", task, task_names)
        labels = targets.values[:, task_names.index(task)]
        is_known = np.ones(len(labels), dtype=bool)
        if targets.missing is not None:
            is_known = ~targets.missing[:, task_names.index(task)]
        columns = estimator._values_of_combination(X, names.index(combination))[:2]
        numbers = []
        texts = []
        for places, all_texts in columns:
            counts = np.bincount(places[places >= 0], minlength=len(all_texts))
            most_frequent = np.argsort(-counts, kind="stable")[:MOST_VALUES]
            shown = np.sort(most_frequent)
            number = np.full(len(all_texts) + 1, -1)
            number[shown] = np.arange(len(shown))
            numbers.append(number[places])
            texts.append([all_texts[place] for place in shown])
        is_shown = is_known & (numbers[0] >= 0) & (numbers[1] >= 0)
        shape = len(texts[0]), len(texts[1])
        cells = numbers[0][is_shown] * shape[1] + numbers[1][is_shown]
        n_cells = shape[0] * shape[1]
        n = np.bincount(cells, minlength=n_cells).astype(float)
        k = np.bincount(cells, labels[is_shown], minlength=n_cells)
        mean = labels[is_known].mean()
        rates = np.where(n > 0, (k + PRIOR_ROWS * mean) / (n + PRIOR_ROWS), np.nan)
        display = cls(
            rates=rates.reshape(shape),
            counts=n.reshape(shape),
            values=texts,
            column_names=list(combination[:2]),
            task_name=str(task),
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the heat map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Passed to matplotlib's `imshow`.

        Returns
        -------
        CombinationDisplay
            The display.
        """
        self.ax_ = _displays.axes_or_new(ax, type(self).__name__)
        self.figure_ = self.ax_.figure
        options = {"aspect": "auto", "cmap": "viridis", **kwargs}
        self.image_ = self.ax_.imshow(self.rates, **options)
        first, second = self.values
        self.ax_.set_yticks(range(len(first)), first)
        self.ax_.set_xticks(range(len(second)), second, rotation=90)
        self.ax_.set_ylabel(str(self.column_names[0]))
        self.ax_.set_xlabel(str(self.column_names[1]))
        self.figure_.colorbar(
            self.image_, ax=self.ax_, label=f"Rate of {self.task_name}"
        )
        return self
